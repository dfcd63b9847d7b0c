from random import Random

import pytest

from zmesh.events import (
    InboundClosed,
    PathCause,
    PathDown,
    PathFull,
    PathUp,
    PathWritable,
    ProbeAnswered,
)
from zmesh.ids import Path
from zmesh.testing.clock import EventQueue
from zmesh.testing.network import Network, NetworkEvent, Weather

A, B = "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"


class Host:
    """Keeps what it is told; reads at once."""

    def __init__(self, index: int, network: Network[str], *, reads: bool = True) -> None:
        self.index = index
        self.network = network
        self.reads = reads
        self.events: list[NetworkEvent] = []
        self.packets: list[str] = []
        self.inbound: Path = b""

    def deliver(self, event: NetworkEvent) -> None:
        self.events.append(event)

    def receive(self, path: Path, packet: str) -> None:
        self.packets.append(packet)
        self.inbound = path
        if self.reads:
            self.network.consumed(self, path)


class Net:
    """Two hosts, the first of which has dialed the second."""

    def __init__(self, *, unread_max: int = 1000, reads: bool = True, seed: int = 1) -> None:
        self.queue = EventQueue()
        self.network: Network[str] = Network(
            self.queue,
            Random(seed),
            corrupt=lambda _source, _target, packet, _random: packet.upper(),
            unread_max=unread_max,
            give_up_after=12.0,
        )
        self.a = Host(0, self.network)
        self.b = Host(1, self.network, reads=reads)
        self.network.listen(self.a, A)
        self.network.listen(self.b, B)
        self.network.dial(self.a, 7, B)
        self.run(0.1)
        assert self.a.events == [PathUp(7)]
        self.a.events.clear()

    def run(self, seconds: float) -> None:
        end = self.queue.now + seconds
        while self.queue.next_at is not None and self.queue.next_at <= end:
            self.queue.step()
        self.queue.now = end

    def send(self, *packets: str) -> None:
        for packet in packets:
            self.network.send(self.a, 7, packet)

    def answer(self, packet: str) -> None:
        self.network.send(self.b, self.b.inbound, packet)


def test_packets_arrive_in_order_and_can_be_answered() -> None:
    net = Net()
    net.send("1", "2", "3")
    net.run(0.1)
    assert net.b.packets == ["1", "2", "3"]
    assert isinstance(net.b.inbound, bytes)
    net.answer("4")
    net.run(0.1)
    assert net.a.packets == ["4"]


def test_a_dead_process_refuses_and_a_dark_host_does_not_answer() -> None:
    net = Net()
    net.network.kill(net.b)
    net.run(0.1)
    assert net.a.events == [PathDown(7, PathCause.CLOSED)]
    net.network.dial(net.a, 8, B)
    net.network.probe(net.a, B, 1.0)
    net.run(0.1)
    assert PathDown(8, PathCause.REFUSED) in net.a.events
    assert ProbeAnswered(B, PathCause.REFUSED) in net.a.events
    net.network.kill(net.b, dark=True)
    net.network.dial(net.a, 9, B)
    net.run(3.0)
    assert net.a.events[-1] == PathDown(9, PathCause.UNREACHABLE)


def test_power_loss_is_noticed_by_silence_and_then_by_keepalive() -> None:
    net = Net()
    net.network.kill(net.b, dark=True)
    net.send("lost")
    net.run(5.0)
    assert net.a.events == []
    net.run(10.0)
    assert net.a.events == [PathDown(7, PathCause.CLOSED)]


def test_a_host_with_power_again_resets_connections_it_does_not_know() -> None:
    net = Net()
    net.network.kill(net.b, dark=True)
    net.run(1.0)
    net.network.power(1)
    net.send("who are you?")
    net.run(0.1)
    assert net.a.events == [PathDown(7, PathCause.CLOSED)]


def test_a_reset_is_told_to_both_ends_and_the_inbound_path_is_unroutable() -> None:
    net = Net()
    net.send("hello")
    net.run(0.1)
    net.network.reset(0, 1)
    net.run(0.1)
    assert net.a.events == [PathDown(7, PathCause.CLOSED)]
    assert net.b.events == [InboundClosed()]
    net.answer("too late")
    assert net.b.events[-1] == PathDown(net.b.inbound, PathCause.UNROUTABLE)


def test_what_is_sent_behind_a_cut_arrives_in_order_when_it_heals() -> None:
    net = Net()
    net.network.cut(0, 1)
    net.send("1", "2")
    net.run(1.0)
    assert net.b.packets == []
    net.network.heal(0, 1)
    net.send("3")
    net.run(0.1)
    assert net.b.packets == ["1", "2", "3"]


def test_a_cut_is_one_way_and_counted() -> None:
    net = Net()
    net.send("1")
    net.run(0.1)
    net.network.cut(0, 1)
    net.network.cut(0, 1)
    net.answer("2")
    net.network.heal(0, 1)
    net.send("3")
    net.run(0.1)
    assert net.a.packets == ["2"]
    assert net.b.packets == ["1"]
    assert net.network.is_cut(0, 1)


def test_tcp_gives_up_behind_a_long_cut_and_the_other_end_hears_when_it_speaks() -> None:
    net = Net()
    net.send("1")
    net.run(0.1)
    net.network.cut(0, 1)
    net.send("2")
    net.run(13.0)
    assert net.a.events == [PathDown(7, PathCause.CLOSED)]
    net.network.heal(0, 1)
    net.answer("still there?")
    net.run(0.1)
    assert net.b.events == [InboundClosed()]
    assert net.a.packets == []


def test_a_black_hole_tells_nobody_until_keepalive_does_and_new_connections_work() -> None:
    net = Net()
    net.network.black_hole(0, 1)
    net.send("swallowed")
    net.run(5.0)
    assert net.network.black_holes
    assert net.a.events == []
    net.network.dial(net.a, 8, B)
    net.run(0.1)
    assert net.a.events == [PathUp(8)]
    net.network.send(net.a, 8, "seen")
    net.run(10.0)
    assert net.b.packets == ["seen"]
    assert net.a.events[1:] == [PathDown(7, PathCause.CLOSED)]
    assert not net.network.black_holes


def test_a_path_is_full_while_the_other_end_does_not_read() -> None:
    net = Net(unread_max=4, reads=False)
    net.send("1", "2", "3", "4", "5")
    net.run(0.1)
    assert net.a.events == [PathFull(7)]
    assert net.b.packets == ["1", "2", "3", "4"]
    net.network.consumed(net.b, net.b.inbound)
    assert net.a.events == [PathFull(7)]
    net.network.consumed(net.b, net.b.inbound)
    assert net.a.events == [PathFull(7), PathWritable(7)]


@pytest.mark.parametrize(
    ("weather", "expected"),
    [
        (Weather(loss=1.0), []),
        (Weather(duplication=1.0), ["x", "x"]),
        (Weather(corruption=1.0), ["X"]),
        (Weather(reordering=1.0), ["x"]),
    ],
)
def test_weather_strikes_packets(weather: Weather, expected: list[str]) -> None:
    net = Net()
    net.network.set_weather(0, 1, weather)
    net.send("x")
    net.run(1.0)
    assert net.b.packets == expected
    assert net.network.struck == 1
    net.network.set_weather(0, 1, None)
    net.send("y")
    net.run(1.0)
    assert net.b.packets == [*expected, "y"]


def test_reordering_lets_packets_overtake() -> None:
    net = Net()
    net.network.set_weather(0, 1, Weather(reordering=0.5))
    sent = [str(number) for number in range(20)]
    net.send(*sent)
    net.run(1.0)
    assert sorted(net.b.packets, key=int) == sent
    assert net.b.packets != sent


def test_a_shielded_host_can_dial_and_not_be_dialed() -> None:
    net = Net()
    net.network.shield(0)
    net.network.dial(net.b, 1, A)
    net.run(3.0)
    assert net.b.events == [PathDown(1, PathCause.UNREACHABLE)]


def test_a_copy_can_be_injected_on_an_open_connection() -> None:
    net = Net()
    net.network.inject(0, 1, "again")
    net.run(0.1)
    assert net.b.packets == ["again"]


def test_hanging_up_is_heard_after_what_was_sent() -> None:
    net = Net()
    net.send("last words")
    net.network.hang_up(net.a, 7)
    net.run(0.1)
    assert net.b.packets == ["last words"]
    assert net.b.events == [InboundClosed()]
    assert net.network.other_end(net.a, 7) is None


def test_the_same_seed_gives_the_same_fate() -> None:
    fates = []
    for _ in range(2):
        net = Net(seed=5)
        net.network.set_weather(0, 1, Weather(loss=0.3, duplication=0.3, reordering=0.3))
        net.send(*map(str, range(50)))
        net.run(1.0)
        fates.append((net.b.packets, net.network.struck))
    assert fates[0] == fates[1]
