from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reliable.pair import numbered, record, records
from tests.sizes import total_size
from zmesh.batches import Block
from zmesh.errors import ProtocolError
from zmesh.message import Kind, Outcome, Record, Tag, head, size_of, with_extra
from zmesh.options import LinkOptions
from zmesh.reliable.credit import CreditPool
from zmesh.reliable.fragments import split
from zmesh.reliable.link_events import Arrived
from zmesh.reliable.receiver import REASON_CHARACTERS_MAX, ControlInbox, IncomingLane
from zmesh.wire.frames import Control, Drain, Interest, Settle

OPTIONS = LinkOptions(window_messages=20, window_bytes=2000, body_bytes_max=1000)
A, B, C, D, E, F = records(b"a", b"b", b"c", b"d", b"e", b"f")


@dataclass
class Bench:
    """A lane, the pools it draws on, and what the lanes beside it released."""

    options: LinkOptions = OPTIONS
    rooms: CreditPool = field(default_factory=lambda: CreditPool(5000))
    others: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pool = CreditPool(10_000)
        self.lane = IncomingLane(4, self.options, self.pool, self.rooms)

    def is_released(self, lane: int, seq: int) -> bool:
        return self.others.get(lane, 0) >= seq

    def data(self, first: int, *batch: Record, now: float = 0.0) -> list[Arrived]:
        return self.lane.on_data(first, batch, now, self.is_released)

    def bodies(self, first: int, *batch: Record, now: float = 0.0) -> list[bytes]:
        return contents(self.data(first, *batch, now=now))

    def gap(self, first: int, last: int, size: int = 0, now: float = 0.0) -> list[Arrived]:
        self.lane.on_gap(first, last, size)
        return self.lane.release(now, self.is_released)

    def release(self, now: float = 0.0) -> list[bytes]:
        return contents(self.lane.release(now, self.is_released))

    def settlements(self) -> list[tuple[Outcome, int, int]]:
        return [item for settle in self.lane.take_settlements(32) for item in settle.outcomes]

    @property
    def held(self) -> tuple[int, int]:
        return self.lane.held_messages, self.lane.held_bytes


def contents(arrived: list[Arrived]) -> list[bytes]:
    return [bytes(item[2]) for event in arrived for item in event.records]


def mortal(body: bytes, ttl_ms: int) -> Record:
    return with_extra(record(body), Tag.TTL_MS, ttl_ms)


def after(body: bytes, *predecessors: tuple[int, int]) -> Record:
    return with_extra(record(body), Tag.PREDECESSORS, predecessors)


# Control records


def control(*topics: str) -> list[Control]:
    return [Interest((("topic", topic),), ()) for topic in topics]


def test_control_records_are_released_each_once_and_in_order() -> None:
    inbox = ControlInbox(10)
    assert inbox.on_data(2, control("b", "c")) == []
    assert inbox.on_data(1, control("a", "b")) == control("a", "b", "c")
    assert inbox.on_data(1, control("a", "b", "c", "d")) == control("d")
    assert not inbox.early


def test_control_records_too_far_ahead_are_refused() -> None:
    inbox = ControlInbox(10)
    inbox.on_data(1, [Drain()])
    with pytest.raises(ProtocolError, match="too far ahead"):
        inbox.on_data(10, control("a", "b", "c"))
    assert not inbox.early
    assert inbox.on_data(11, control("k")) == []


# Order and duplicates


def test_what_comes_in_order_is_released_at_once() -> None:
    bench = Bench()
    assert bench.data(1, A, B) == [Arrived(4, 1, 2, [A, B])]
    assert bench.data(3, C) == [Arrived(4, 3, 3, [C])]


def test_what_comes_early_waits_for_what_is_before_it() -> None:
    bench = Bench()
    assert bench.data(3, C) == []
    assert bench.data(5, E) == []
    assert bench.data(2, B) == []
    assert bench.data(1, A) == [Arrived(4, 1, 3, [A, B, C])]
    assert bench.data(4, D) == [Arrived(4, 4, 5, [D, E])]


def test_duplicates_are_dropped_and_counted() -> None:
    bench = Bench()
    bench.data(1, A, B)
    assert bench.data(1, A, B) == []
    assert bench.lane.duplicates == 2
    assert bench.bodies(2, B, C) == [b"c"]
    assert bench.lane.duplicates == 3
    bench.data(6, F)
    bench.data(6, F)
    assert bench.lane.duplicates == 4
    assert bench.lane.received_bytes == total_size([A, B, C, F])


@given(st.lists(st.tuples(st.integers(1, 18), st.integers(1, 3)), max_size=40))
def test_each_record_is_released_once_and_in_order_whatever_comes_when(
    pieces: list[tuple[int, int]],
) -> None:
    bench, released, received = Bench(), list[bytes](), set[int]()
    sent = numbered(20)
    for first, count in pieces:
        arrived = bench.data(first, *sent[first - 1 : first - 1 + count])
        received.update(range(first, first + count))
        for event in arrived:
            assert event.first_seq == len(released) + 1
            assert event.last_seq == event.first_seq + len(event.records) - 1
            released += [bytes(item[2]) for item in event.records]
        missing = min(set(range(1, 30)) - received)
        assert released == [b"%d" % number for number in range(missing - 1)]
        assert bench.held == (len(received), total_size([sent[seq - 1] for seq in received]))


# Credit


def test_a_number_over_credit_is_refused_whole() -> None:
    bench = Bench()
    with pytest.raises(ProtocolError, match="number 21 is over 20"):
        bench.data(20, A, B)
    assert bench.held == (0, 0)
    assert bench.data(20, A) == []


def test_bytes_over_credit_are_refused_whole() -> None:
    bench = Bench()
    large = record(b"x" * 984)
    assert size_of(large) == 1000
    bench.data(1, large)
    with pytest.raises(ProtocolError, match="over 2000"):
        bench.data(2, large, A)
    assert bench.held == (1, 1000)
    assert bench.bodies(2, large) == [large[2]]
    with pytest.raises(ProtocolError):
        bench.data(3, record())


def test_duplicates_cost_no_credit() -> None:
    bench = Bench()
    large = record(b"x" * 984)
    bench.data(1, large, large)
    bench.data(1, large, large)
    assert bench.lane.duplicates == 2


def test_credit_is_held_from_arrival_until_settlement() -> None:
    bench = Bench()
    bench.data(1, A, B)
    bench.data(4, D)
    assert bench.held == (3, total_size([A, B, D]))
    bench.lane.settle(1, 1, Outcome.ACCEPTED)
    assert bench.held == (2, total_size([B, D]))
    assert bench.lane.credit.grant(0.0, None) == (21, 2000 + size_of(A))


def test_a_gap_over_credit_is_refused() -> None:
    bench = Bench()
    with pytest.raises(ProtocolError, match="gap 21 is over 20"):
        bench.gap(21, 21)
    with pytest.raises(ProtocolError, match="over credit"):
        bench.gap(1, 1, 2001)
    assert bench.held == (0, 0)


def test_a_gap_of_what_is_here_costs_nothing() -> None:
    """The sender counted it when it was sent, and does not know that it came."""
    bench = Bench()
    large = record(b"x" * 984)
    bench.data(1, large)
    bench.data(3, large)
    assert bench.gap(3, 3, 1000) == []
    with pytest.raises(ProtocolError, match="over credit"):
        bench.gap(2, 2, 1)


def test_a_gap_of_what_was_sent_names_one_number() -> None:
    bench = Bench()
    with pytest.raises(ProtocolError, match="more than one number"):
        bench.gap(1, 2, 34)
    assert bench.held == (0, 0)


# Settlement


def test_verdicts_are_told_in_ranges_and_once() -> None:
    bench = Bench()
    bench.data(1, A, B, C, D)
    assert bench.lane.settle(1, 1, Outcome.ACCEPTED)
    assert bench.lane.settle(2, 3, Outcome.ACCEPTED)
    assert bench.lane.settle(4, 4, Outcome.MODIFIED)
    assert bench.lane.unsettled
    assert bench.settlements() == [(Outcome.ACCEPTED, 1, 3), (Outcome.MODIFIED, 4, 4)]
    assert bench.settlements() == []


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_second_settlement_has_no_effect(outcome: Outcome) -> None:
    bench = Bench()
    bench.data(1, A, B, C)
    assert bench.lane.settle(1, 2, Outcome.ACCEPTED)
    held = bench.held
    assert not bench.lane.settle(1, 2, outcome, "again", 1.0)
    assert not bench.lane.settle(1, 1, outcome)
    assert bench.held == held
    assert bench.settlements() == [(Outcome.ACCEPTED, 1, 2)]


def test_a_settlement_that_overlaps_settles_what_was_open() -> None:
    bench = Bench()
    bench.data(1, A, B, C)
    bench.lane.settle(2, 2, Outcome.ACCEPTED)
    assert bench.lane.settle(1, 3, Outcome.RELEASED)
    assert bench.held == (0, 0)
    assert bench.settlements() == [
        (Outcome.ACCEPTED, 2, 2),
        (Outcome.RELEASED, 1, 1),
        (Outcome.RELEASED, 3, 3),
    ]


def test_what_was_not_released_cannot_be_settled() -> None:
    bench = Bench()
    bench.data(2, B)
    assert not bench.lane.settle(2, 2, Outcome.ACCEPTED)
    assert not bench.lane.settle(7, 7, Outcome.ACCEPTED)
    assert bench.held == (1, size_of(B))


def test_reasons_and_delays_go_with_their_number() -> None:
    bench = Bench()
    bench.data(1, A, B, C)
    bench.lane.settle(1, 1, Outcome.REJECTED, "x" * 1000)
    bench.lane.settle(2, 3, Outcome.RELEASED, delay=1.5)
    (settle,) = bench.lane.take_settlements(32)
    assert settle == Settle(
        4,
        (
            (Outcome.REJECTED, 1, 1),
            (Outcome.RELEASED, 2, 2),
            (Outcome.RELEASED, 3, 3),
        ),
        ((1, "x" * REASON_CHARACTERS_MAX, 0), (2, "", 1500), (3, "", 1500)),
    )


def test_settlements_are_cut_to_as_many_ranges_as_one_may_hold() -> None:
    bench = Bench()
    bench.data(1, *numbered(10))
    for seq in (1, 3, 5):
        bench.lane.settle(seq, seq, Outcome.ACCEPTED)
    for seq in (2, 4, 6):
        bench.lane.settle(seq, seq, Outcome.REJECTED, "no")
    settlements = bench.lane.take_settlements(2)
    assert [len(settle.outcomes) for settle in settlements] == [2, 1, 2, 1]
    assert [len(settle.details) for settle in settlements] == [0, 0, 2, 1]


# Gaps


def test_a_gap_lets_what_is_behind_it_go_and_holds_no_credit() -> None:
    bench = Bench()
    bench.data(3, C)
    assert contents(bench.gap(1, 2)) == [b"c"]
    assert bench.held == (1, size_of(C))
    assert bench.settlements() == []
    assert bench.lane.credit.grant(0.0, None) == (22, 2000)


def test_a_gap_of_what_had_been_sent_is_answered_by_a_verdict() -> None:
    bench = Bench()
    bench.data(1, A)
    assert bench.gap(2, 2, 17) == []
    assert bench.settlements() == [(Outcome.EXPIRED, 2, 2)]
    assert bench.lane.received_bytes == size_of(A) + 17
    assert bench.held == (1, size_of(A))
    assert bench.bodies(3, C) == [b"c"]


def test_a_gap_of_what_is_here_has_no_effect() -> None:
    bench = Bench()
    bench.data(1, A)
    bench.data(3, C)
    assert bench.gap(1, 1, 17) == []
    assert bench.gap(3, 3, 17) == []
    assert bench.settlements() == []
    assert bench.held == (2, total_size([A, C]))
    assert bench.bodies(2, B) == [b"b", b"c"]


def test_what_comes_after_its_gap_is_a_duplicate() -> None:
    bench = Bench()
    bench.gap(1, 1, 17)
    assert bench.data(1, A) == []
    assert bench.lane.duplicates == 1
    assert bench.held == (0, 0)


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=40))
def test_gaps_and_data_in_any_order_leave_nothing_waiting(
    events: list[tuple[int, bool]],
) -> None:
    bench, known, released = Bench(), dict[int, bool](), list[int]()
    sent = numbered(13)
    for seq, is_gap in events:
        arrived = bench.gap(seq, seq) if is_gap else bench.data(seq, sent[seq - 1])
        known.setdefault(seq, is_gap)
        for event in arrived:
            released += range(event.first_seq, event.last_seq + 1)
        missing = min(set(range(1, 20)) - known.keys())
        assert released == [number for number in range(1, missing) if not known[number]]
        assert bench.lane.released == missing - 1


# Time to live


def test_what_outlived_its_time_when_its_turn_comes_is_not_delivered() -> None:
    bench = Bench()
    bench.data(2, mortal(b"late", 500), mortal(b"fresh", 600), now=10.0)
    assert bench.bodies(1, A, now=10.501) == [b"a", b"fresh"]
    assert bench.settlements() == [(Outcome.EXPIRED, 2, 2)]
    assert bench.held == (2, total_size([A, mortal(b"fresh", 0)]))


def test_numbers_stay_with_their_records_around_one_that_expired() -> None:
    bench = Bench()
    bench.data(2, B, mortal(b"late", 500), D, now=10.0)
    arrived = bench.data(1, A, now=11.0)
    assert [(item.first_seq, item.last_seq, item.records) for item in arrived] == [
        (1, 2, [A, B]),
        (4, 4, [D]),
    ]


def test_a_record_in_time_is_delivered_and_the_clock_stops() -> None:
    bench = Bench()
    assert bench.bodies(1, mortal(b"a", 1), now=10.0) == [b"a"]
    assert bench.lane.settle(1, 1, Outcome.ACCEPTED)
    assert bench.settlements() == [(Outcome.ACCEPTED, 1, 1)]


# Predecessors


def test_a_record_waits_for_its_predecessors_in_other_lanes() -> None:
    bench = Bench(others={7: 4, 9: 1})
    assert bench.bodies(1, A, after(b"b", (7, 5), (9, 2)), C) == [b"a"]
    assert bench.release() == []
    bench.others[9] = 2
    assert bench.release() == []
    bench.others[7] = 5
    assert bench.release() == [b"b", b"c"]


def test_a_record_that_expires_while_it_waits_for_its_predecessor_is_not_delivered() -> None:
    bench = Bench()
    waiting = with_extra(after(b"b", (7, 1)), Tag.TTL_MS, 100)
    assert bench.bodies(1, waiting, C, now=1.0) == []
    bench.others[7] = 1
    assert bench.release(now=1.2) == [b"c"]
    assert bench.settlements() == [(Outcome.EXPIRED, 1, 1)]


# Large bodies


def body(size: int) -> bytes:
    return bytes(number % 251 for number in range(size))


def pieces(size: int, each: int = 100, ttl_ms: int | None = None) -> list[Record]:
    whole = record(body(size), "target")
    return split(whole if ttl_ms is None else with_extra(whole, Tag.TTL_MS, ttl_ms), each)


def test_a_large_body_arrives_whole_and_alone_over_the_numbers_it_took() -> None:
    bench = Bench()
    arrived = bench.data(1, A, *pieces(250), B)
    assert arrived == [
        Arrived(4, 1, 1, [A]),
        Arrived(4, 2, 4, [record(body(250), "target")]),
        Arrived(4, 5, 5, [B]),
    ]


def test_a_large_body_is_settled_by_all_its_numbers_at_once() -> None:
    bench = Bench()
    bench.data(1, *pieces(250))
    assert bench.lane.settle(1, 3, Outcome.ACCEPTED)
    assert not bench.lane.settle(1, 3, Outcome.ACCEPTED)
    assert bench.settlements() == [(Outcome.ACCEPTED, 1, 3)]
    assert (bench.held, bench.rooms.used) == ((0, 0), 0)


def test_fragments_cost_no_credit_once_room_is_reserved_for_the_body() -> None:
    bench = Bench()
    first, *rest = pieces(250)
    bench.data(1, first)
    assert (bench.held, bench.rooms.used) == ((0, 0), 250)
    bench.data(2, *rest)
    assert (bench.held, bench.rooms.used) == ((0, 0), 250)


def test_without_room_fragments_hold_credit_until_there_is_some() -> None:
    bench = Bench(rooms=CreditPool(300))
    assert bench.rooms.draw(100)
    parts = pieces(250)
    bench.data(1, *parts[:2])
    assert bench.held == (2, total_size(parts[:2]))
    assert not bench.lane.find_room()
    bench.rooms.put_back(100)
    assert bench.lane.find_room()
    assert not bench.lane.find_room()
    assert (bench.held, bench.rooms.used) == ((0, 0), 250)
    assert len(bench.data(3, parts[2])) == 1


def test_a_body_that_never_found_room_holds_its_credit_until_it_is_settled() -> None:
    bench = Bench(rooms=CreditPool(100))
    parts = pieces(250)
    assert len(bench.data(1, *parts)) == 1
    assert not bench.lane.find_room()
    assert bench.held == (3, total_size(parts))
    bench.lane.settle(1, 3, Outcome.ACCEPTED)
    assert (bench.held, bench.rooms.used) == ((0, 0), 0)


ROOMY = LinkOptions(window_messages=20, window_bytes=2000, fragment_bytes=100)


def test_a_large_body_that_came_whole_takes_room_and_no_credit() -> None:
    bench = Bench(ROOMY)
    large = record(body(250), "target")
    assert bench.data(1, large) == [Arrived(4, 1, 1, [large])]
    assert bench.data(2, A, large, B) == [Arrived(4, 2, 4, [A, large, B])]
    room = size_of(large)
    assert (bench.held, bench.rooms.used) == ((2, total_size([A, B])), 2 * room)
    assert bench.lane.settle(1, 3, Outcome.ACCEPTED)
    assert (bench.held, bench.rooms.used) == ((1, size_of(B)), 0)
    assert not bench.lane.settle(3, 3, Outcome.REJECTED)
    assert bench.lane.settle(4, 4, Outcome.ACCEPTED)
    assert bench.settlements() == [(Outcome.ACCEPTED, 1, 4)]
    assert bench.held == (0, 0)


def test_a_large_body_that_came_whole_and_finds_no_room_holds_credit() -> None:
    bench = Bench(ROOMY, rooms=CreditPool(300))
    large = record(body(250), "target")
    bench.data(2, large)
    assert bench.rooms.used == 0  # not before its turn comes
    bench.data(1, large)
    assert (bench.held, bench.rooms.used) == ((1, size_of(large)), size_of(large))
    bench.lane.settle(1, 2, Outcome.ACCEPTED)
    assert (bench.held, bench.rooms.used) == ((0, 0), 0)


def test_a_body_other_than_announced_is_rejected_with_the_reason() -> None:
    bench = Bench()
    parts = pieces(250)
    parts[1] = (parts[1][0], "", b"x" * 100)
    assert bench.data(1, *parts, A) == [Arrived(4, 4, 4, [A])]
    (settle,) = bench.lane.take_settlements(32)
    assert settle.outcomes == ((Outcome.REJECTED, 1, 3),)
    assert settle.details == ((1, "the pieces are not what was announced", 0),)
    assert (bench.held, bench.rooms.used) == ((1, size_of(A)), 0)


@pytest.mark.parametrize("size", [1001, 2**62])
def test_a_body_over_the_limit_is_rejected_at_its_first_fragment_and_skipped(size: int) -> None:
    bench = Bench()
    parts = pieces(250)
    parts[0] = with_extra(parts[0], Tag.FRAGMENTS, (3, size, bytes(16)))
    assert bench.data(1, *parts, A) == [Arrived(4, 4, 4, [A])]
    outcomes = bench.settlements()
    assert [outcome for outcome, _, _ in outcomes] == [Outcome.REJECTED] * 3
    assert (bench.held, bench.rooms.used) == ((1, size_of(A)), 0)


def test_a_piece_of_the_wrong_size_ends_the_transfer() -> None:
    bench = Bench()
    parts = pieces(350)
    parts[1] = (parts[1][0], "", b"x" * 99)
    assert bench.data(1, *parts, A) == [Arrived(4, 5, 5, [A])]
    outcomes = bench.settlements()
    assert outcomes[0] == (Outcome.REJECTED, 1, 2)
    assert [last for _, _, last in outcomes] == [2, 3, 4]
    assert (bench.held, bench.rooms.used) == ((1, size_of(A)), 0)


def test_a_transfer_that_another_record_interrupts_is_rejected() -> None:
    bench = Bench()
    parts = pieces(250)
    assert bench.bodies(1, *parts[:2], A) == [b"a"]
    (settle,) = bench.lane.take_settlements(32)
    assert settle.outcomes == ((Outcome.REJECTED, 1, 2),)
    assert bench.rooms.used == 0


def test_a_fragment_of_no_transfer_is_rejected() -> None:
    bench = Bench()
    assert bench.bodies(1, (head(Kind.FRAGMENT), "", b"x"), A) == [b"a"]
    (settle,) = bench.lane.take_settlements(32)
    assert settle.outcomes == ((Outcome.REJECTED, 1, 1),)
    assert settle.details[0][1] == "a fragment of no transfer"


def test_a_transfer_the_sender_aborts_ends_as_expired() -> None:
    bench = Bench()
    parts = pieces(450)
    bench.data(1, *parts[:2])
    assert bench.gap(3, 5) == []
    assert bench.settlements() == [(Outcome.EXPIRED, 1, 2)]
    assert (bench.held, bench.rooms.used) == ((0, 0), 0)
    assert bench.bodies(6, A) == [b"a"]


def test_fragments_behind_a_gap_in_their_transfer_end_with_it() -> None:
    bench = Bench()
    parts = pieces(450)
    bench.data(1, *parts[:2])
    bench.data(4, *parts[3:], A)
    assert contents(bench.gap(3, 3, size_of(parts[2]))) == [b"a"]
    numbers = {seq for _, first, last in bench.settlements() for seq in range(first, last + 1)}
    assert numbers == {1, 2, 3, 4, 5}
    assert (bench.held, bench.rooms.used) == ((1, size_of(A)), 0)


def test_fragments_of_an_expired_body_end_as_expired() -> None:
    bench = Bench()
    parts = pieces(250, ttl_ms=500)
    bench.data(2, *parts, now=1.0)
    assert bench.bodies(1, A, now=2.0) == [b"a"]
    assert bench.settlements() == [(Outcome.EXPIRED, 2, 4)]
    assert bench.held == (1, size_of(A))


def test_a_body_whose_time_ends_before_its_last_fragment_is_not_delivered() -> None:
    bench = Bench()
    parts = pieces(250, ttl_ms=500)
    bench.data(1, *parts[:2], now=1.0)
    assert bench.data(3, parts[2], A, now=1.6) == [Arrived(4, 4, 4, [A])]
    assert bench.settlements() == [(Outcome.EXPIRED, 1, 3)]
    assert (bench.held, bench.rooms.used) == ((1, size_of(A)), 0)


def test_time_to_live_on_a_fragment_leaves_nothing_behind() -> None:
    bench = Bench()
    stray = with_extra((head(Kind.FRAGMENT), "", b""), Tag.TTL_MS, 10**9)
    for seq in range(1, 200):
        bench.data(seq, stray)
        bench.lane.credit.grant(0.0, None)
    assert len(bench.lane._deadlines) == 0


def test_a_closed_lane_gives_back_what_it_drew() -> None:
    bench = Bench()
    bench.data(1, *pieces(250))
    bench.data(4, *pieces(450)[:2])
    assert bench.rooms.used == 700
    bench.lane.close()
    assert (bench.rooms.used, bench.pool.used) == (0, 0)
    roomy = Bench(ROOMY)
    roomy.data(1, record(body(250)))
    assert roomy.rooms.used == 266
    roomy.lane.close()
    assert roomy.rooms.used == 0


KINDS: dict[str, list[Record]] = {
    "plain": [A],
    "mortal": [mortal(b"m", 100)],
    "whole": pieces(250),
    "lying": [pieces(250)[0], *pieces(250)[:0:-1]],
    "stray": pieces(250)[1:2],
    "short": pieces(250)[:2],
}


@given(
    st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=8),
    st.permutations(range(1, 20)),
    st.sets(st.integers(1, 19), max_size=3),
)
def test_whatever_is_sent_all_credit_and_room_comes_back(
    kinds: list[str], order: list[int], gaps: set[int]
) -> None:
    """Records of all kinds, in any order, some of them given up."""
    bench = Bench(LinkOptions(window_messages=20, window_bytes=4000), CreditPool(300))
    sequence = [item for kind in kinds for item in KINDS[kind]][:19]
    now, arrived = 0.0, list[Arrived]()
    for seq in order:
        now += 0.03
        if seq > len(sequence) or seq in gaps:
            arrived += bench.gap(seq, seq, 50 if seq <= len(sequence) else 0, now=now)
        else:
            arrived += bench.data(seq, sequence[seq - 1], now=now)
    arrived += bench.data(20, A)  # ends the last transfer, should it be a short one
    for event in arrived:
        assert bench.lane.settle(event.first_seq, event.last_seq, Outcome.ACCEPTED)
    assert (bench.held, bench.rooms.used) == ((0, 0), 0)
    settled = [seq for _, first, last in bench.settlements() for seq in range(first, last + 1)]
    assert sorted(settled) == [*range(1, len(sequence) + 1), 20]


def test_one_verdict_may_span_records_and_whole_bodies() -> None:
    bench = Bench()
    pieces = split(record(b"x" * 20), 8)
    bench.data(1, A, B, *pieces, C)
    assert bench.lane.settle(1, 6, Outcome.ACCEPTED)
    assert bench.settlements() == [(Outcome.ACCEPTED, 1, 6)]
    assert bench.held == (0, 0)


# Blocks


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=6),
    st.lists(
        st.tuples(st.integers(1, 20), st.integers(0, 12), st.sampled_from(["", "", "why"])),
        max_size=12,
    ),
)
def test_a_block_is_settled_as_its_records_would_be(
    sizes: list[int], verdicts: list[tuple[int, int, str]]
) -> None:
    options = LinkOptions(window_messages=100, window_bytes=10_000, body_bytes_max=1000)
    plain, blocky = Bench(options), Bench(options)
    first = 1
    for index, size in enumerate(sizes):
        batch = numbered(size)
        plain.data(first, *batch)
        some = batch if index % 3 == 2 else Block(batch)
        blocky.lane.on_data(first, some, 0.0, blocky.is_released)
        first += size
    for low, more, reason in verdicts:
        told = []
        for bench in (plain, blocky):
            high = min(low + more, first - 1)
            if low > high:
                continue
            was_open = bench.lane.settle(low, high, Outcome.REJECTED, reason)
            told.append((was_open, bench.held, bench.lane.credit.consumed_messages))
        assert told == told[:1] * len(told)
    assert plain.settlements() == blocky.settlements()


def test_a_block_with_a_fragment_is_looked_at_record_by_record() -> None:
    bench = Bench()
    whole = record(b"x" * 30)
    pieces = split(whole, 10)
    arrived = bench.lane.on_data(1, Block([A, B, *pieces]), 0.0, bench.is_released)
    assert contents(arrived) == [b"a", b"b", b"x" * 30]
