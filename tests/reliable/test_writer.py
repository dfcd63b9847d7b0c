from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.discovery.entropy import FixedEntropy
from tests.reliable.pair import LIMITS, numbered, record
from tests.sizes import total_size
from zmesh.errors import InvalidOption
from zmesh.ids import LinkId
from zmesh.message import CONTROL_LANE, LANES, Outcome, Record, Ticket
from zmesh.options import KIB, LinkOptions, WireLimits
from zmesh.reliable.detector import FailureDetector
from zmesh.reliable.recovery import Recovery
from zmesh.reliable.session import Session
from zmesh.reliable.writer import PacketWriter
from zmesh.wire.frames import (
    Ack,
    ControlData,
    Data,
    Drain,
    Frame,
    Gap,
    Interest,
    LaneState,
    Packet,
    Ping,
    Pong,
    Settle,
)

OPTIONS = LinkOptions()
LINK = LinkId(b"the link")
NOW = 50.0


class Bench:
    """A writer, and the session whose packets it writes to a peer that grants plenty."""

    def __init__(self, options: LinkOptions = OPTIONS, limits: WireLimits = LIMITS) -> None:
        self.session = Session(options, limits, None, [])
        self.recovery = Recovery(options, FixedEntropy(0.5))
        detector = FailureDetector(options, self.recovery.round_trip)
        self.writer = PacketWriter(options, limits, self.recovery, detector)
        states = [LaneState(lane, 1, 0, (), 10**6, 10**9) for lane in range(LANES)]
        self.session.resume(states)
        self.recovery.start()
        self.writer.start(NOW)
        detector.restart(NOW)
        self.detector = detector

    def post(self, batch: list[Record], lane: int = 4, ttl: float | None = None) -> Ticket:
        ticket = Ticket(len(batch))
        self.session.submit(lane, batch, ticket, NOW, None, ttl)
        return ticket

    def packets(self, now: float = NOW) -> list[Packet]:
        return self.writer.packets(LINK, self.session, now)

    def frames(self, now: float = NOW) -> list[Frame]:
        return [frame for packet in self.packets(now) for frame in packet.frames]

    def receive(self, *batch: Record, lane: int = 4, number: int = 1, now: float = NOW) -> None:
        """One packet of the peer, with data."""
        self.writer.on_packet(number, now)
        self.session.on_data(lane, 1, batch, now)

    def acknowledge(self, largest: int, now: float, **lanes: int) -> None:
        """The peer has `lane4=n` numbers of lane 4, and all packets up to `largest`."""
        acked = tuple((int(name[4:]), cum, ()) for name, cum in lanes.items())
        self.session.on_ack(acked, ())
        self.recovery.on_ack(largest, 0.0, now)


def data_of(frames: list[Frame]) -> list[Data]:
    return [frame for frame in frames if isinstance(frame, Data)]


def test_where_there_is_nothing_to_say_nothing_is_said() -> None:
    assert Bench().packets() == []


def test_everything_of_a_turn_shares_a_packet_signs_of_life_first() -> None:
    bench = Bench()
    bench.receive(record(b"x"), number=9)
    bench.session.settle(4, 1, 1, Outcome.ACCEPTED, "", 0.0)
    bench.writer.ping_wanted = True
    bench.writer.pong = 77
    bench.post(numbered(3), lane=2)
    bench.post(numbered(2), lane=7)
    (packet,) = bench.packets(NOW + 0.001)
    ack, pong, ping, control, *data = packet.frames
    assert packet.link == LINK
    assert packet.number == 1
    assert ack == Ack(9, 1000, ((4, 1, ()),), ((4, 1025, 256 * KIB + 17),))
    assert pong == Pong(77)
    assert isinstance(ping, Ping)
    assert control == ControlData(1, (Settle(4, ((Outcome.ACCEPTED, 1, 1),)),))
    assert data == [Data(7, 1, tuple(numbered(2))), Data(2, 1, tuple(numbered(3)))]
    assert bench.packets() == []


def test_packets_are_numbered_and_full_but_for_the_last() -> None:
    bench = Bench()
    batch = [record(b"x" * 984)] * 150  # 1000 bytes each
    bench.post(batch)
    packets = bench.packets()
    assert [packet.number for packet in packets] == [1, 2, 3]
    sizes = [total_size(data_of(list(packet.frames))[0].records) for packet in packets]
    assert sizes == [66_000, 66_000, 18_000]


def test_an_ack_alone_waits_for_its_time_and_is_not_acked_itself() -> None:
    bench = Bench()
    bench.receive(record())
    assert bench.packets(NOW + 0.024) == []
    (packet,) = bench.packets(NOW + 0.026)
    assert packet.frames == (Ack(1, 26_000, ((4, 1, ()),), ((4, 1024, 256 * KIB),)),)
    assert bench.recovery.bytes_in_flight == 0
    assert bench.recovery.loss_at == bench.recovery.probe_at == inf
    assert bench.packets(NOW + 99.0) == []


def test_an_ack_goes_with_data_before_its_time() -> None:
    bench = Bench()
    bench.receive(record())
    bench.post(numbered(1))
    assert [type(frame) for frame in bench.frames()] == [Ack, Data]


def test_an_ack_names_the_largest_packet_and_how_long_it_waited() -> None:
    bench = Bench()
    bench.writer.on_packet(7, NOW)
    bench.writer.on_packet(5, NOW + 0.010)
    bench.writer.ping_wanted = True
    bench.session.tell_all()
    ack = bench.frames(NOW + 0.020)[0]
    assert isinstance(ack, Ack)
    assert (ack.largest, ack.delay_us) == (7, 20_000)


def test_a_ping_is_asked_for_once_and_its_answer_names_every_lane() -> None:
    bench = Bench()
    bench.receive(record(), lane=3)
    bench.receive(record(), lane=8)
    bench.frames(NOW + 1.0)
    bench.writer.pong = 5
    bench.session.tell_all()
    ack, pong = bench.frames(NOW + 2.0)
    assert pong == Pong(5)
    assert isinstance(ack, Ack)
    assert [lane for lane, _, _ in ack.lanes] == [3, 8, CONTROL_LANE]
    assert [lane for lane, _, _ in ack.credit] == [3, 8]
    assert bench.frames(NOW + 3.0) == []


def test_a_ping_is_noted_as_silence_begun() -> None:
    bench = Bench()
    bench.writer.ping_wanted = True
    assert bench.detector.phi(NOW + 60.0) == 0.0
    (packet,) = bench.packets()
    assert packet.frames == (Ping(1),)
    assert bench.recovery.bytes_in_flight > 0
    assert bench.detector.phi(NOW + 60.0) > 0.0


def test_control_goes_before_data_and_is_never_held_back() -> None:
    bench = Bench(replace(OPTIONS, in_flight_bytes_min=1))
    bench.post(numbered(1))
    assert len(bench.packets()) == 1
    bench.post(numbered(1))
    assert bench.packets() == []
    bench.session.send_control(Drain())
    assert bench.frames() == [ControlData(1, (Drain(),))]


def test_many_control_records_take_several_packets() -> None:
    bench = Bench()
    for number in range(3000):
        bench.session.send_control(Interest((("topic", f"{number:0>100}"),), ()))
    packets = bench.packets()
    assert len(packets) > 10
    numbers = [
        frame.first_seq + offset
        for packet in packets
        for frame in packet.frames
        if isinstance(frame, ControlData)
        for offset in range(len(frame.records))
    ]
    assert numbers == list(range(1, 3001))


def test_no_more_is_under_way_than_the_path_holds() -> None:
    bench = Bench()
    bench.post([record(b"x" * 984)] * 1000)
    bench.packets()
    # A packet is begun below the limit and ends at most its own size above it.
    assert OPTIONS.in_flight_bytes_min <= bench.recovery.bytes_in_flight
    assert bench.recovery.bytes_in_flight < OPTIONS.in_flight_bytes_min + 2 * OPTIONS.packet_bytes
    sent = bench.session.outgoing[4].next_transmit - 1
    bench.acknowledge(1, NOW + 0.001, lane4=66)
    bench.packets(NOW + 0.001)
    assert bench.session.outgoing[4].next_transmit - 1 > sent


def test_what_is_sent_again_is_counted_and_goes_first() -> None:
    bench = Bench()
    bench.post(numbered(5))
    bench.packets()
    bench.session.outgoing[4].on_lost(2, 3)
    bench.post(numbered(1, 5))
    assert data_of(bench.frames()) == [
        Data(4, 2, tuple(numbered(2, 1))),
        Data(4, 6, tuple(numbered(1, 5))),
    ]
    assert bench.writer.retransmitted == 2


def test_a_hole_in_front_of_data_is_told_in_the_same_turn() -> None:
    bench = Bench()
    bench.post(numbered(1), ttl=1.0)
    bench.post(numbered(1, 1))
    bench.session.expire(NOW + 1.0)
    frames = bench.frames(NOW + 1.0)
    assert data_of(frames) == [Data(4, 2, tuple(numbered(1, 1)))]
    assert ControlData(1, (Gap(4, ((1, 1, 0),)),)) in frames


def test_a_hole_is_told_at_once_though_there_is_nothing_else_to_say() -> None:
    bench = Bench()
    bench.post(numbered(3), ttl=1.0)
    bench.session.expire(NOW + 1.0)
    assert bench.frames(NOW + 1.0) == [ControlData(1, (Gap(4, ((1, 3, 0),)),))]
    assert bench.packets(NOW + 1.0) == []


def test_what_was_queued_to_be_resent_and_ended_meanwhile_says_nothing() -> None:
    bench = Bench()
    bench.post(numbered(3))
    bench.packets()
    lane = bench.session.outgoing[4]
    lane.on_lost(1, 3)
    lane.on_settled(Outcome.ACCEPTED, 1, 3, {})
    assert bench.packets() == []
    assert not lane.ready


def test_frames_of_a_packet_are_within_the_limit() -> None:
    bench = Bench()
    for lane in range(LANES):
        bench.post(numbered(40), lane=lane)
    bench.packets()
    for lane in range(LANES):
        for seq in range(1, 40, 2):
            bench.session.outgoing[lane].on_lost(seq, seq)  # each in a frame of its own
    packets = bench.packets()
    assert len(packets) > 3
    assert max(len(packet.frames) for packet in packets) < LIMITS.frames_max
    assert bench.writer.retransmitted == LANES * 20


def test_all_that_can_be_said_is_said_within_the_least_limit_of_frames() -> None:
    limits = WireLimits(frames_max=6)
    bench = Bench(limits=limits)
    for lane in range(LANES):
        bench.post(numbered(1), lane=lane)
    bench.session.send_control(Drain())
    bench.session.tell_all()
    bench.writer.ping_wanted, bench.writer.pong = True, 7
    packets = bench.packets()
    assert max(len(packet.frames) for packet in packets) <= limits.frames_max
    told = [type(frame) for packet in packets for frame in packet.frames]
    assert told.count(Data) == LANES
    assert {Ack, Ping, Pong, ControlData} < set(told)
    with pytest.raises(InvalidOption):
        WireLimits(frames_max=5)


def test_records_of_a_frame_are_within_the_limit() -> None:
    bench = Bench(replace(OPTIONS, packet_bytes=10**6, in_flight_bytes_min=10**6))
    bench.post([record()] * 5000)
    sizes = [len(frame.records) for frame in data_of(bench.frames())]
    assert sizes == [LIMITS.records_max, 5000 - LIMITS.records_max]


@given(st.lists(st.integers(0, LANES - 1), min_size=1, max_size=5, unique=True))
def test_lanes_share_a_slow_path_by_priority_and_none_starves(lanes: list[int]) -> None:
    bench = Bench()
    for lane in lanes:
        bench.post([record(b"x" * 984)] * 3000, lane=lane)
    carried = dict.fromkeys(lanes, 0)
    acked, now = 0, NOW
    for _ in range(100):
        now += 0.01
        for packet in bench.packets(now):
            acked = packet.number
            for frame in data_of(list(packet.frames)):
                carried[frame.lane] += len(frame.records)
        cums = {f"lane{lane}": bench.session.outgoing[lane].next_transmit - 1 for lane in lanes}
        bench.acknowledge(acked, now, **cums)
        if min(3000 - carried[lane] for lane in lanes) < 300:
            break
    assert min(carried.values()) > 0
    for lane in lanes:
        share = carried[lane] / sum(carried.values())
        fair = (lane + 1) / sum(other + 1 for other in lanes)
        assert 0.5 * fair < share + 0.05
        assert share < 2 * fair + 0.05


def test_a_new_link_forgets_what_the_old_one_wanted_to_say() -> None:
    bench = Bench()
    bench.writer.ping_wanted = True
    bench.writer.pong = 1
    bench.writer.on_packet(9, NOW)
    bench.writer.start(NOW)
    assert bench.packets() == []
    bench.writer.ping_wanted = True
    bench.session.tell_all()
    ack = bench.frames()[0]
    assert isinstance(ack, Ack)
    assert ack.largest == 0
