"""What arrives, and in which order, when the network does its worst."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import pytest

from tests.reliable.pair import DELAY, OPTIONS, End, Pair, Puppet, numbered, record, storm
from tests.sizes import total_size
from zmesh.message import LANES, Outcome, Record, Ticket
from zmesh.options import MIB
from zmesh.reliable.fragments import split
from zmesh.wire.frames import Ack, ControlData, Data, Gap, Packet, Settle

NOW = 100.0


def clear(_source: End, _packet: Packet) -> Sequence[float]:
    return (0.0,)


def slow_path(pair: Pair, bytes_per_s: float) -> Callable[[End, Packet], Sequence[float]]:
    """A path that carries so much a second, in order, from each side."""
    free_at: dict[int, float] = {}

    def carry(source: End, packet: Packet) -> Sequence[float]:
        size = 50 + sum(
            total_size(frame.records) for frame in packet.frames if isinstance(frame, Data)
        )
        begins = max(pair.now, free_at.get(id(source), 0.0))
        free_at[id(source)] = begins + size / bytes_per_s
        return (free_at[id(source)] - pair.now,)

    return carry


# Storms


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("loss", "duplication", "reordering"),
    [(0.2, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 0.5), (0.15, 0.2, 0.3)],
)
def test_each_message_is_released_once_and_in_order(
    seed: int, loss: float, duplication: float, reordering: float
) -> None:
    options = replace(OPTIONS, window_messages=40, packet_bytes=300)
    pair = Pair(options)
    pair.weather = storm(seed, loss, duplication, reordering)
    pair.connect()
    random, tickets = Random(seed), list[Ticket]()
    for turn in range(30):
        for end in pair.ends:
            tickets += [
                end.post(numbered(4, 4 * turn), pair.now, lane)
                for lane in random.sample((0, 4, 9), 3)
            ]
            pair.turn(end)
        pair.run(0.05)
    pair.run(60.0)
    assert all(ticket.done for ticket in tickets)
    for end in pair.ends:
        for lane in (0, 4, 9):
            bodies = [
                item[2] for event in end.arrived if event.lane == lane for item in event.records
            ]
            assert bodies == [b"%d" % number for number in range(120)]
        assert end.ended == []
        assert end.returned == []
        assert set(end.defects) <= {"gap", "error"}
        assert end.link.queued_messages == end.statistics.held_messages == 0


@pytest.mark.parametrize("seed", range(6))
def test_a_session_outlives_its_connections(seed: int) -> None:
    """Cut again and again while messages flow, a body in fragments among them."""
    pair = Pair(replace(OPTIONS, fragment_bytes=1000, packet_bytes=1500, window_messages=60))
    pair.weather = storm(seed, 0.02, 0.02, 0.1)
    pair.connect()
    random, tickets = Random(seed), list[Ticket]()
    large = record(random.randbytes(30_000))
    for turn in range(40):
        for end in pair.ends:
            tickets.append(end.post([*numbered(3, 3 * turn), large], pair.now))
            pair.turn(end)
        pair.run(random.uniform(0.001, 0.1))
        if turn % 4 == 3:
            pair.cut()
    pair.run(60.0)
    assert all(ticket.done for ticket in tickets)
    expected = [
        body
        for turn in range(40)
        for body in (*[b"%d" % (3 * turn + n) for n in range(3)], large[2])
    ]
    for end in pair.ends:
        assert end.bodies == expected
        assert end.ended == []
        assert end.statistics.links > 5
        assert "credit" not in end.defects


@pytest.mark.parametrize("seed", range(6))
def test_every_record_has_one_outcome_while_some_expire_and_some_are_withdrawn(seed: int) -> None:
    pair = Pair(replace(OPTIONS, window_messages=20, fragment_bytes=500, packet_bytes=800))
    pair.weather = storm(seed, 0.1, 0.1, 0.2)
    pair.connect()
    random, tickets = Random(seed), list[Ticket]()
    for turn in range(60):
        ttl = random.choice([None, 0.02, 0.3])
        body = random.choice([b"small", b"x" * 2000])
        tickets.append(
            pair.a.post(
                [record(b"%d" % turn), record(body)], pair.now, random.randrange(3), ttl=ttl
            )
        )
        if random.random() < 0.2:
            pair.a.link.withdraw(random.choice(tickets))
        pair.turn(pair.a)
        pair.run(random.uniform(0.0, 0.05))
        if random.random() < 0.05:
            pair.cut()
    pair.run(60.0)
    returned = Counter(id(item.ticket) for item in pair.a.returned)
    for ticket in tickets:
        assert ticket.accepted + returned[id(ticket)] == 2
    outcomes = {item.outcome for item in pair.a.returned}
    assert outcomes <= {Outcome.EXPIRED, Outcome.RELEASED}
    assert len(pair.b.bodies) == sum(ticket.accepted for ticket in tickets)
    assert pair.a.link.queued_messages == pair.b.statistics.held_messages == 0
    assert pair.b.statistics.held_bytes == 0
    assert "credit" not in pair.b.defects


def test_a_full_path_loses_nothing_and_costs_no_link() -> None:
    """The transport refuses what is written after it said that it is full."""
    pair = Pair(replace(OPTIONS, window_messages=1000)).opened()
    room, full = 3, False

    def narrow(source: End, _packet: Packet) -> Sequence[float]:
        nonlocal room, full
        if source is not pair.a:
            return (0.0,)
        if room == 0:
            assert pair.a.link.path is not None
            pair.a.link.on_path_full(pair.a.link.path)
            full = True
            return ()
        room -= 1
        return (0.0,)

    pair.weather = narrow
    tickets = []
    for turn in range(200):
        tickets.append(pair.a.post(numbered(5, 5 * turn), pair.now))
        if turn % 20 == 19 and full:
            room, full = 2, False
            assert pair.a.link.path is not None
            pair.a.link.on_path_writable(pair.a.link.path)
        pair.turn(pair.a)
        pair.run(0.01)
    room = 10**6
    assert pair.a.link.path is not None
    pair.a.link.on_path_writable(pair.a.link.path)
    pair.turn(pair.a)
    pair.run(10.0)
    assert pair.b.bodies == [b"%d" % number for number in range(1000)]
    assert all(ticket.done for ticket in tickets)
    assert pair.a.statistics.links == 1


def test_nothing_is_written_to_a_path_that_is_full() -> None:
    puppet = Puppet().open(NOW)
    puppet.link.on_path_full(puppet.path)
    puppet.end.post(numbered(5), NOW)
    puppet.say(NOW, Data(4, 1, tuple(numbered(1))))
    assert puppet.hear(NOW + 0.01) == []
    now, timers = NOW, 0
    while now < NOW + 3.0:
        assert puppet.link.deadline is not None
        now, timers = puppet.link.deadline, timers + 1
        puppet.link.on_timer(now)
        assert puppet.hear(now) == []
    assert timers < 20  # and time does not stand still
    puppet.link.on_path_full(b"another path")
    puppet.link.on_path_writable(b"another path")
    assert puppet.hear(now) == []
    puppet.link.on_path_writable(puppet.path)
    assert {type(frame) for frame in puppet.hear(now)} >= {Ack, Data, ControlData}


# Large bodies


def test_a_large_body_arrives_whole() -> None:
    pair = Pair().opened()
    body = Random(1).randbytes(10 * MIB + 1)
    ticket = pair.a.post([record(body, "target")], pair.now)
    pair.turn(pair.a)
    pair.run(2.0)
    assert ticket.done
    (arrived,) = pair.b.arrived
    assert arrived.records == [record(body, "target")]
    assert (arrived.first_seq, arrived.last_seq) == (1, 161)
    assert pair.b.statistics.duplicates == pair.a.statistics.retransmitted == 0


def test_on_a_fast_path_a_body_travels_whole_once_the_window_has_grown() -> None:
    pair = Pair().opened()
    pair.weather = slow_path(pair, 400 * MIB)
    body = record(bytes(MIB))
    tickets = [pair.a.post([body], pair.now) for _ in range(40)]
    pair.turn(pair.a)
    pair.run(2.0)
    assert all(ticket.done for ticket in tickets)
    frames = [each for packet in pair.a.sent for each in packet.frames]
    sizes = [len(each.records[0][2]) for each in frames if isinstance(each, Data)]
    assert sizes[0] == OPTIONS.fragment_bytes  # nobody knows yet what path it is
    assert sizes[-10:] == [MIB] * 10
    assert [len(arrived.records) for arrived in pair.b.arrived] == [1] * 40
    assert pair.a.link._session.outgoing[4].next_seq == 40 * 16 + 1
    assert pair.b.link._session.incoming[4].received.cum == 40 * 16
    assert pair.b.link._session._rooms.used == 0
    assert pair.b.statistics.held_bytes == pair.b.statistics.held_messages == 0
    # What it did not need of its numbers is told in the packet that carries it.
    last = [packet.frames for packet in pair.a.sent if Data in map(type, packet.frames)][-5:]
    told = [each.records for frames in last for each in frames if isinstance(each, ControlData)]
    assert [list(map(type, records)) for records in told] == [[Gap]] * 5


def test_the_window_of_a_new_link_grows_within_few_round_trips() -> None:
    pair = Pair().opened()
    pair.weather = slow_path(pair, 400 * MIB)
    ticket = pair.a.post([record(bytes(8 * MIB))], pair.now)
    pair.turn(pair.a)
    pair.run(0.1)  # four times as long as an ACK of little is held back
    assert ticket.done
    assert pair.b.link._session.incoming[4].credit.window_bytes == OPTIONS.window_bytes_max


def test_on_a_slow_path_pieces_stay_small_however_large_the_window() -> None:
    pair = Pair(replace(OPTIONS, window_bytes=8 * MIB, window_bytes_max=8 * MIB)).opened()
    pair.weather = slow_path(pair, 4 * MIB)
    for _ in range(3):
        pair.a.post([record(bytes(MIB))], pair.now)
        pair.turn(pair.a)
        pair.run(2.0)
    sizes = [
        len(each[2])
        for packet in pair.a.sent
        for frame in packet.frames
        if isinstance(frame, Data)
        for each in frame.records
    ]
    assert max(sizes) == OPTIONS.fragment_bytes


def test_what_is_cut_for_a_fast_path_fits_the_window_of_whoever_it_goes_to() -> None:
    """A peer that begins anew has shown no window yet: what was queued for it must fit any."""
    pair = Pair(replace(OPTIONS, window_bytes=300_000, window_bytes_max=300_000)).opened()
    pair.weather = slow_path(pair, 400 * MIB)
    tickets = [pair.a.post([record(bytes(MIB))], pair.now) for _ in range(20)]
    pair.turn(pair.a)
    pair.run(10.0)
    assert all(ticket.done for ticket in tickets)
    sizes = {
        len(each[2])
        for packet in pair.a.sent
        for frame in packet.frames
        if isinstance(frame, Data)
        for each in frame.records
    }
    assert max(sizes) == 300_000 // 3


def test_large_bodies_share_a_packet_where_the_path_is_fast() -> None:
    pair = Pair(replace(OPTIONS, window_bytes=4 * MIB)).opened()
    pair.weather = slow_path(pair, 400 * MIB)
    pair.a.post([record(bytes(OPTIONS.fragment_bytes))] * 8, pair.now)
    pair.turn(pair.a)
    pair.run(1.0)
    mark = len(pair.a.sent)
    pair.a.post([record(bytes(OPTIONS.fragment_bytes))] * 16 + [record(b"x")] * 9, pair.now)
    pair.turn(pair.a)
    pair.run(1.0)
    frames = [each for packet in pair.a.sent[mark:] for each in packet.frames]
    counts = [len(each.records) for each in frames if isinstance(each, Data)]
    assert counts[:2] == [8, 8]
    assert sum(counts) == 25
    assert len(pair.b.bodies) == 33


def test_small_messages_of_higher_lanes_overtake_a_large_body() -> None:
    pair = Pair().opened()
    pair.weather = slow_path(pair, 1 * MIB)
    body = record(b"x" * (8 * MIB))
    pair.a.post([body], pair.now, lane=4)
    pair.turn(pair.a)
    worst = 0.0
    for number in range(12):
        pair.run(0.2)
        sent_at, seen = pair.now, len(pair.b.arrived)
        pair.a.post(numbered(1, number), pair.now, lane=8)
        pair.turn(pair.a)
        while len(pair.b.arrived) == seen:
            pair.run(0.01)
        worst = max(worst, pair.now - sent_at)
    assert worst < 1.0  # no more waits in front of it than the path carries in that time
    assert all(event.lane == 8 for event in pair.b.arrived)
    pair.run(10.0)
    assert pair.b.bodies[-1] == body[2]


def test_a_transfer_is_resumed_in_its_middle() -> None:
    pair = Pair().opened()
    pair.weather = slow_path(pair, 1 * MIB)
    body = record(Random(2).randbytes(4 * MIB))
    ticket = pair.a.post([body], pair.now)
    pair.turn(pair.a)
    pair.run(2.0)
    before = pair.b.link._session.incoming[4].received.cum
    assert 20 < before < 50
    mark = len(pair.a.sent)
    pair.cut()
    pair.run(10.0)
    assert ticket.done
    assert pair.b.bodies == [body[2]]
    again = [
        frame.first_seq
        for packet in pair.a.sent[mark:]
        for frame in packet.frames
        if isinstance(frame, Data)
    ]
    assert min(again) == before + 1
    assert pair.b.statistics.duplicates == 0


def test_bodies_beyond_the_room_wait_for_those_before_them() -> None:
    """Room for one body of three: the others hold their credit, and no deadlock comes of it."""
    options = replace(
        OPTIONS, transfer_bytes_max=40_000, fragment_bytes=1000, window_bytes=8000,
        window_bytes_max=8000,
    )  # fmt: skip
    pair = Pair(options)
    pair.b.accepts = False
    pair.opened()
    bodies = [record(bytes([lane]) * 30_000) for lane in range(3)]
    tickets = [pair.a.post([body], pair.now, lane) for lane, body in enumerate(bodies)]
    pair.turn(pair.a)
    pair.run(5.0)
    for done in range(3):
        assert len(pair.b.arrived) == done + 1
        assert pair.b.link._session._rooms.used <= 40_000
        pair.b.settle(pair.b.arrived[done], pair.now)
        pair.turn(pair.b)
        pair.run(5.0)
    assert all(ticket.done for ticket in tickets)
    assert sorted(pair.b.bodies) == [body[2] for body in bodies]
    assert pair.b.link._session._rooms.used == 0
    assert pair.b.statistics.held_bytes == 0


def test_a_transfer_given_up_half_way_leaves_nothing_behind() -> None:
    for how in ("withdrawn", "expired"):
        pair = Pair().opened()
        pair.weather = slow_path(pair, 1 * MIB)
        ttl = 2.0 if how == "expired" else None
        ticket = pair.a.post([record(b"x" * (8 * MIB))], pair.now, ttl=ttl)
        after = pair.a.post([record(b"after")], pair.now)
        pair.turn(pair.a)
        pair.run(2.0)
        if how == "withdrawn":
            pair.a.link.withdraw(ticket)
            pair.turn(pair.a)
        pair.run(3.0)
        assert [item.outcome for item in pair.a.returned] == [Outcome.EXPIRED]
        assert after.done
        assert pair.b.bodies == [b"after"]
        assert pair.b.link._session._rooms.used == 0
        assert pair.b.statistics.held_messages == 0
        assert pair.a.link.queued_bytes == 0


def test_a_lie_about_the_digest_is_rejected_when_the_last_piece_is_there() -> None:
    puppet = Puppet(replace(OPTIONS, fragment_bytes=1000)).open(NOW)
    first, *rest = split(record(b"x" * 2500), 1000)
    second = (rest[0][0], "", b"y" * 1000)
    puppet.say(NOW, Data(4, 1, (first, second, rest[1])))
    (settle,) = [
        item
        for frame in puppet.hear(NOW + 1.0)
        if isinstance(frame, ControlData)
        for item in frame.records
    ]
    assert isinstance(settle, Settle)
    assert settle.outcomes == ((Outcome.REJECTED, 1, 3),)
    assert puppet.end.arrived == []
    assert puppet.end.defects == []


# Keys


@pytest.mark.parametrize("seed", range(10))
def test_a_key_keeps_its_order_over_lanes_losses_and_expiry(seed: int) -> None:
    pair = Pair(replace(OPTIONS, packet_bytes=100))
    pair.weather = storm(seed, 0.1, 0.1, 0.4)
    pair.connect()
    random = Random(seed)
    for number in range(200):
        pair.a.post(
            [record(b"%d" % number, "key of " + str(number % 3))],
            pair.now,
            random.randrange(LANES),
            key=str(number % 3),
            ttl=random.choice([None, None, 0.05]),
        )
        pair.turn(pair.a)
        pair.run(random.uniform(0.0, 0.01))
    pair.run(60.0)
    for key in range(3):
        numbers = [
            int(bytes(item[2]))
            for event in pair.b.arrived
            for item in event.records
            if item[1].endswith(str(key))
        ]
        assert numbers == sorted(set(numbers))
    assert pair.a.link.queued_messages == 0
    assert len(pair.b.bodies) + len(pair.a.returned) == 200
    assert len(pair.b.bodies) > 100


# Priorities


def test_ten_priorities_share_a_slow_path_and_none_starves() -> None:
    pair = Pair().opened()
    pair.weather = slow_path(pair, 20 * MIB)
    for lane in range(LANES):
        pair.a.post([record(b"x" * 4080)] * 6000, pair.now, lane)
    pair.turn(pair.a)
    pair.run(1.0)
    pair.b.events.clear()
    pair.run(4.0)
    counts = Counter[int]()
    for event in pair.b.arrived:
        counts[event.lane] += len(event.records)
    total = sum(counts.values())
    for lane in range(LANES):
        fair = total * (lane + 1) / 55
        assert 0.7 * fair < counts[lane] < 1.4 * fair
    assert [lane for lane, _ in counts.most_common()] == list(range(LANES))[::-1]


def test_the_lowest_priority_moves_at_least_every_few_seconds() -> None:
    pair = Pair().opened()
    pair.weather = slow_path(pair, 300_000)
    for lane in range(LANES):
        pair.a.post([record(b"x" * 4080)] * 4000, pair.now, lane)
    pair.turn(pair.a)
    waits: deque[float] = deque()
    seen, since = 0, pair.now
    while pair.now < 160.0:
        pair.run(0.05)
        lowest = sum(event.lane == 0 for event in pair.b.arrived)
        if lowest > seen:
            waits.append(pair.now - since)
            seen, since = lowest, pair.now
    assert max(waits) < 13.0
    assert len(waits) > 5


def test_a_lane_that_waits_for_credit_blocks_no_other() -> None:
    pair = Pair(replace(OPTIONS, window_messages=10))
    pair.b.accepts = False
    pair.opened()
    pair.a.post(numbered(100), pair.now, lane=9)
    pair.turn(pair.a)
    pair.run(1.0)
    assert len(pair.b.bodies) == 10
    pair.a.post(numbered(5), pair.now, lane=0)
    pair.turn(pair.a)
    pair.run(DELAY * 3)
    assert len(pair.b.bodies) == 15


def test_gaps_of_a_lane_are_told_though_it_has_nothing_else_to_say() -> None:
    """Whoever waits for one of its numbers must not wait for the next heartbeat."""
    puppet = Puppet().open(NOW)
    puppet.end.post(numbered(3), NOW, ttl=1.0)
    puppet.link.on_timer(NOW + 1.0)
    assert puppet.hear(NOW + 1.0) == [ControlData(1, (Gap(4, ((1, 3, 0),)),))]


def test_records_of_any_shape_keep_their_content() -> None:
    records: list[Record] = [
        record(b""),
        record(b"\x00" * 10, "ü" * 100),
        (255, "t", b"kind nobody knows"),
        (17, "t", b"x", (5, 2**60)),
        (17, "t", b"x", (1, b"headers", 7, 9)),
    ]
    pair = Pair().opened()
    pair.a.post(records, pair.now)
    pair.turn(pair.a)
    pair.run(0.1)
    assert [item for event in pair.b.arrived for item in event.records] == records
