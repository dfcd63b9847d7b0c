"""Hearing monitors: over inproc, as in `test_pump`."""

import asyncio
import time
from collections.abc import Iterator

import pytest
import zmq

from tests.transport.peer import options, until
from tests.transport.test_pump import Interrupted
from zmesh.options import WireLimits
from zmesh.transport.ear import Ear
from zmesh.transport.pump import Packets


class Scene:
    """An ear, and a monitor that tells it of events."""

    count = 0

    def __init__(self) -> None:
        Scene.count += 1
        address = f"inproc://ear-{Scene.count}"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.context.set(zmq.BLOCKY, 0)
        self.ear = self.context.socket(zmq.ROUTER, socket_class=Interrupted)
        self.ear.set(zmq.RCVHWM, 0)
        self.monitor = self.context.socket(zmq.PAIR)
        self.monitor.set(zmq.SNDHWM, 0)
        self.monitor.bind(address)
        self.ear.set(zmq.CONNECT_ROUTING_ID, b"key")
        self.ear.connect(address)
        self.batches: list[Packets] = []

    def tell(self, count: int) -> None:
        for number in range(count):
            self.monitor.send_multipart([b"event", b"%d" % number])

    def hear(self, *, seconds: float = 0.0, **changes: float) -> Ear:
        def deliver(packets: Packets) -> None:
            self.batches.append(packets)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                pass

        return Ear(
            asyncio.get_running_loop(), self.ear, options(**changes), WireLimits(), deliver=deliver
        )

    async def heard(self, count: int) -> list[bytes]:
        await until(lambda: sum(map(len, self.batches)) >= count)
        return [parts[1] for batch in self.batches for _, parts in batch]


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.context.destroy()


async def test_events_are_heard_in_order_with_the_key_of_their_monitor(scene: Scene) -> None:
    scene.tell(100)
    ear = scene.hear()
    assert await scene.heard(100) == [b"%d" % number for number in range(100)]
    assert {key for batch in scene.batches for key, _ in batch} == {b"key"}
    assert all(parts[0] == b"event" for batch in scene.batches for _, parts in batch)
    ear.close()


async def test_an_event_that_comes_alone_is_heard_at_once(scene: Scene) -> None:
    ear = scene.hear()
    for number in range(3):
        scene.tell(1)
        await scene.heard(number + 1)
    assert [len(batch) for batch in scene.batches] == [1, 1, 1]
    ear.close()


async def test_a_flood_takes_shorter_turns_than_those_of_packets(scene: Scene) -> None:
    scene.tell(300)
    # Far below the half of the one, and above the other.
    ear = scene.hear(seconds=0.002, turn_max=60.0, connections_turn_max=0.001)
    await scene.heard(300)
    assert [len(batch) for batch in scene.batches[:6]] == [16, 8, 4, 2, 1, 1]
    ear.close()


async def test_its_turns_are_never_longer_than_those_of_packets(scene: Scene) -> None:
    scene.tell(100)
    ear = scene.hear(seconds=0.002, turn_max=0.001, connections_turn_max=60.0)
    await scene.heard(100)
    assert [len(batch) for batch in scene.batches[:3]] == [16, 8, 4]
    ear.close()


@pytest.mark.parametrize("left", range(3))
async def test_an_interrupted_event_is_skipped_and_the_next_is_heard_whole(
    scene: Scene, left: int
) -> None:
    ear = scene.hear()
    object.__setattr__(scene.ear, "left", left)
    scene.tell(1)
    with pytest.raises(KeyboardInterrupt):
        ear.drain()
    scene.monitor.send_multipart([b"event", b"next"])
    assert [parts for _, parts in ear.drain()] == [[b"event", b"next"]]
    ear.close()
