"""Arbitrary packets in any order: no exception, no growth without bound, no harm to others."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.reliable.pair import LIMITS, OPTIONS, Pair, Puppet, numbered, record
from tests.wire import strategies as wire
from zmesh.ids import LinkId
from zmesh.message import LANES, Kind, Outcome, Record, Tag, head, with_extra
from zmesh.reliable.credit import CreditPool
from zmesh.reliable.link import Link
from zmesh.reliable.link_states import LinkState
from zmesh.wire.frames import (
    Ack,
    ByeCode,
    ControlData,
    Data,
    Frame,
    Gap,
    Hello,
    Interest,
    LaneState,
    Packet,
    Settle,
)

NOW = 100.0
SMALL = replace(
    OPTIONS, window_messages=16, window_messages_max=32, window_bytes=2000, window_bytes_max=4000,
    peer_bytes_max=8000, transfer_bytes_max=4000, fragment_bytes=100, body_bytes_max=1000,
    control_window=16, control_queued_max=64, ranges_max=17, refusal=0.5, session_linger=5.0,
)  # fmt: skip

# Frames that are nearly right do more than random ones: small numbers, and records of all kinds.

seqs = st.integers(1, 40)
lanes = st.integers(0, LANES - 1)
ranges = st.lists(st.tuples(seqs, st.integers(0, 3)), max_size=3).map(
    lambda pairs: tuple((first, first + more) for first, more in sorted(dict(pairs).items()))
)
FRAGMENTED = with_extra(record(b"x" * 100, "t"), Tag.FRAGMENTS, (3, 250, bytes(16)))
shapes: SearchStrategy[Record] = st.sampled_from(
    [
        record(b"body"),
        record(b"x" * 300),
        FRAGMENTED,
        with_extra(FRAGMENTED, Tag.TTL_MS, 5),
        (head(Kind.FRAGMENT), "", b"x" * 100),
        with_extra((head(Kind.FRAGMENT), "", b"x"), Tag.TTL_MS, 10**12),
        with_extra(record(b"k"), Tag.PREDECESSORS, ((3, 2), (4, 9))),
        with_extra(record(b"m"), Tag.TTL_MS, 0),
    ]
)
near_data = st.builds(
    Data, lanes, seqs, st.lists(shapes | wire.records, min_size=1, max_size=5).map(tuple)
)
near_acks = st.builds(
    Ack,
    st.integers(0, 20),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, LANES), st.integers(0, 20), st.just(())), max_size=3).map(
        tuple
    ),
    st.lists(st.tuples(lanes, st.integers(0, 60), st.integers(0, 6000)), max_size=3).map(tuple),
)
near_controls = st.one_of(
    st.builds(
        Settle,
        lanes,
        st.lists(st.tuples(st.sampled_from(Outcome), seqs, seqs), max_size=3).map(
            lambda rows: tuple((o, min(a, b), max(a, b)) for o, a, b in rows)
        ),
    ),
    st.builds(
        Gap, lanes, ranges.map(lambda pairs: tuple((a, b, 17 * (a == b)) for a, b in pairs))
    ),
    st.builds(Interest, st.just((("topic", "t"),)), st.just(())),
)
near_control_data = st.builds(
    ControlData, seqs, st.lists(near_controls, min_size=1, max_size=4).map(tuple)
)
frames: SearchStrategy[Frame] = st.one_of(near_data, near_acks, near_control_data, wire.frames)


class Intruder:
    """A puppet that opens links as an honest peer does, and then says anything at all."""

    def __init__(self, pool: CreditPool | None = None) -> None:
        self.puppet = Puppet(SMALL, pool=pool, name="c")
        self.now = NOW
        self.links = 0

    def reopen(self) -> None:
        """Say a proper HELLO on a new link; where it is refused, nothing happens."""
        self.links += 1
        self.puppet.link_id = LinkId(b"link%04d" % self.links)
        lanes = tuple(LaneState(lane, 1, 0, (), 16, 2000) for lane in range(LANES))
        self.give(self.puppet.hello(lanes, resume=None))

    def give(self, *said: Frame, link: LinkId | None = None, number: int = 1) -> None:
        self.puppet.give(Packet(link or self.puppet.link_id, number, said), self.now)

    def turn(self) -> None:
        """Let time pass, with all timers, and the link say what it wants."""
        link = self.puppet.link
        until, fired = self.now + 0.3, 0
        self.puppet.hear(self.now)
        while (due := link.deadline) is not None and due <= until:
            fired += 1
            assert fired < 200, "time stands still"
            self.now = max(self.now, due)
            link.on_timer(self.now)
            self.puppet.hear(self.now)
        self.now = until


def assert_bounded(link: Link) -> None:
    """Every table is within what the options allow, whatever came."""
    statistics = link.statistics()
    assert 0 <= statistics.held_messages <= LANES * SMALL.window_messages_max
    assert 0 <= statistics.held_bytes <= LANES * SMALL.window_bytes + SMALL.peer_bytes_max
    assert statistics.bytes_in_flight >= 0
    session = link._session
    assert 0 <= session._rooms.used <= SMALL.transfer_bytes_max
    assert 0 <= session._pool.used <= SMALL.peer_bytes_max
    assert len(session.incoming) <= LANES
    assert len(session.outgoing) <= LANES
    for incoming in session.incoming.values():
        window = SMALL.window_messages_max
        assert len(incoming.early) <= window
        assert len(incoming._held) <= window
        assert len(incoming._deadlines) <= window
        assert len(incoming._voided) <= window
        assert len(incoming._transfers) <= window
        assert len(incoming.received.above) <= SMALL.ranges_max
    assert len(session.control_in.early) <= SMALL.control_window
    assert len(session.control_out.items) <= SMALL.control_queued_max + LIMITS.ranges_max
    assert not link.events
    assert not link._outbox


steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.lists(frames, min_size=1, max_size=3)),
        st.tuples(st.just("say elsewhere"), st.lists(frames, min_size=1, max_size=2)),
        st.tuples(st.just("post"), st.just([])),
        st.tuples(st.just("open"), st.just([])),
        st.tuples(st.just("pass"), st.just([])),
    ),
    min_size=1,
    max_size=25,
)


def play(intruder: Intruder, what: str, said: list[Frame]) -> None:
    match what:
        case "say":
            intruder.give(*said)
        case "say elsewhere":
            intruder.give(*said, link=LinkId(b"no link."), number=0)
        case "post":
            intruder.puppet.end.post(numbered(3), intruder.now, key="k", ttl=1.0)
        case "open":
            intruder.reopen()
        case _:
            intruder.turn()
    intruder.puppet.hear(intruder.now)
    intruder.give(Ack(0, 0, (), ()))  # confirms a link that waits for it
    intruder.puppet.hear(intruder.now)


@settings(max_examples=200, deadline=None)
@given(script=steps, accepts=st.booleans())
def test_no_sequence_of_packets_raises_or_grows_a_link(
    script: list[tuple[str, list[Frame]]], accepts: bool
) -> None:
    intruder = Intruder()
    intruder.puppet.end.accepts = accepts
    intruder.reopen()
    for what, said in script:
        play(intruder, what, said)
        assert_bounded(intruder.puppet.link)
    intruder.puppet.link.close(ByeCode.CLOSED, "")
    intruder.puppet.hear(intruder.now)
    assert intruder.puppet.link.state is LinkState.CLOSED
    assert intruder.puppet.link.deadline is None


@settings(max_examples=60, deadline=None)
@given(script=steps)
def test_the_other_links_of_the_node_do_not_notice(
    script: list[tuple[str, list[Frame]]],
) -> None:
    pool = CreditPool(50_000)
    pair = Pair(pool=pool).opened()
    intruder = Intruder(pool)
    intruder.reopen()
    tickets = []
    for turn, (what, said) in enumerate(script):
        play(intruder, what, said)
        for end in pair.ends:
            tickets.append(end.post(numbered(5, 5 * turn), pair.now))
            pair.turn(end)
        pair.run(0.01)
    pair.run(1.0)
    assert all(ticket.done for ticket in tickets)
    for end in pair.ends:
        assert end.bodies == [b"%d" % number for number in range(5 * len(script))]
        assert end.statistics.retransmitted == end.statistics.duplicates == 0
        assert end.defects == []
        assert end.statistics.links == 1
    intruder.puppet.link.close(ByeCode.CLOSED, "")
    pair.a.link.close(ByeCode.CLOSED, "")
    assert pool.used == 0


def test_a_flood_of_hellos_costs_one_session() -> None:
    intruder = Intruder()
    for number in range(2000):
        hello: Hello = intruder.puppet.hello()
        link = LinkId(b"%08d" % number)
        intruder.give(hello, link=link, number=0)
        assert len(intruder.puppet.hear(intruder.now)) == 1
    assert_bounded(intruder.puppet.link)
    assert intruder.puppet.link.state is LinkState.ANSWERED


def test_a_flood_of_strange_packets_is_answered_once_a_second() -> None:
    intruder = Intruder()
    intruder.reopen()
    intruder.give(Ack(0, 0, (), ()))
    intruder.puppet.hear(intruder.now)
    answers = 0
    for number in range(3000):
        intruder.now = NOW + number / 1000
        intruder.give(Data(4, 1, (record(),)), link=LinkId(b"%08d" % number))
        answers += len(intruder.puppet.hear(intruder.now))
    assert answers <= 5  # three complaints, and a PING
    assert intruder.puppet.end.statistics.packets_stale == 3000
