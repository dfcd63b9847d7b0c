"""Hearing monitors: over inproc, as in `test_pump`."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from tests.transport.peer import options, until
from tests.transport.test_pump import Interrupted
from zmesh.options import WireLimits
from zmesh.transport.ear import Ear
from zmesh.transport.pump import Packets


class Clock:
    """A loop that notes for how long an ear wants to rest."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rests: list[float]) -> None:
        self._loop, self._rests = loop, rests

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        self._rests.append(when - self._loop.time())
        return self._loop.call_at(when, callback)


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
        self.busy = 0.0  # seconds it took
        self.rests: list[float] = []

    def tell(self, count: int) -> None:
        for number in range(count):
            self.monitor.send_multipart([b"event", b"%d" % number])

    def hear(self, *, seconds: float = 0.0, **changes: float) -> Ear:
        def deliver(packets: Packets) -> None:
            self.batches.append(packets)
            began = time.monotonic()
            while time.monotonic() < began + seconds:
                pass
            self.busy += time.monotonic() - began

        loop = asyncio.get_running_loop()
        ear = Ear(loop, self.ear, options(**changes), WireLimits(), deliver=deliver)
        ear._loop = Clock(loop, self.rests)  # type: ignore[assignment]
        return ear

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


async def time_of_others(scene: Scene, ear: Ear, events: int) -> float:
    """Return how much of the time, until all was heard, was not taken by it."""
    scene.tell(events)
    began = time.monotonic()
    await scene.heard(events)
    ear.close()
    return 1.0 - scene.busy / (time.monotonic() - began)


async def test_while_more_comes_than_a_turn_takes_others_have_most_of_the_time(
    scene: Scene,
) -> None:
    ear = scene.hear(seconds=0.001, connections_turn_max=0.0005, connections_share_max=0.25)
    assert await time_of_others(scene, ear, 50) > 0.6


async def test_it_rests_no_more_while_descriptors_are_scarce(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zmesh.transport.ear.are_scarce", lambda: True)
    ear = scene.hear(seconds=0.002, connections_turn_max=0.0005, connections_share_max=0.01)
    scene.tell(50)
    await scene.heard(50)
    assert len(scene.rests) == 0
    ear.close()


async def test_it_rests_no_more_once_it_is_a_second_behind(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zmesh.transport.ear._PATIENCE_S", 0.0)
    ear = scene.hear(seconds=0.002, connections_turn_max=0.0005, connections_share_max=0.01)
    scene.tell(50)
    await scene.heard(50)
    assert len(scene.rests) == 0
    ear.close()


async def test_it_rests_no_longer_than_that_second_whatever_a_turn_took(scene: Scene) -> None:
    ear = scene.hear(seconds=0.05, connections_share_max=0.001)  # its process had to wait, maybe
    scene.tell(50)
    await scene.heard(17)
    ear.close()
    assert 0.5 < scene.rests[0] < 1.0


async def test_in_a_forked_child_it_does_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear = scene.hear()
    scene.tell(1)
    monkeypatch.setattr(ear, "_pid", ear._pid + 1)
    ear._on_wake()
    assert scene.batches == []
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
