"""Streams through loss, partition, resets and deaths, by seed: bytes equal, in order, bounded.

What a reader got is a prefix of what its writer wrote, and all of it where the stream ended well.
It ends well where the session lived, and always ends. What a reader has not taken stays within its
window and one part.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest

from tests.engines import Host, World
from tests.patterns.streaming import Application, Stream
from tests.simulation.schedule import Schedule
from zmesh.actions import CallFailure
from zmesh.message import size_of
from zmesh.options import NodeOptions
from zmesh.testing.network import Weather

SEEDS = range(80)
OPTIONS = NodeOptions(stream_parts=16, stream_bytes=20_000)
PART_MAX = 90_000  # above a fragment
HORIZON = 60.0  # seconds in which faults strike
REST = 200.0  # seconds after which all must have ended


@dataclass(eq=False)
class Plan:
    """One stream of a run."""

    name: str
    down: int  # parts of the answer
    up: int | None  # parts of the body
    stream: Stream | None = None


def text_of(name: str, number: int) -> str:
    """Return a part, which its name and number determine."""
    random = Random(f"{name} {number}")
    size = random.choice((20, 20, 200, 3000, PART_MAX)) if number % 7 == 0 else 30
    return f"{name} {number} ".ljust(size, ".")


def texts(name: str, count: int) -> Iterator[str]:
    return (text_of(name, number) for number in range(count))


class Run:
    """A reader and two providers, streams between them, and what befalls the network."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World(OPTIONS)
        self.faults = Schedule(self.world, self.random)
        self.hosts: list[Host] = self.world.mesh("reader", "one", "two")
        self.reader = Application(self.hosts[0], takes=False)
        self.providers = [Application(host, takes=False) for host in self.hosts[1:]]
        self.plans = [self._plan(number) for number in range(self.random.randint(1, 5))]
        self.killed = self.parted = False
        for provider in self.providers:
            provider.serve("work", self._answer)
        self.world.run(1.0)

    def _plan(self, number: int) -> Plan:
        random = self.random
        up = random.choice((None, 0, random.randint(1, 300)))
        return Plan(f"s{number}", random.choice((0, 3, random.randint(1, 400))), up)

    def _answer(self, name: str) -> Iterator[str]:
        [plan] = [plan for plan in self.plans if plan.name == name]
        return texts(f"{name} down", plan.down)

    # What happens

    def schedule(self) -> None:
        queue, random = self.world.queue, self.random
        for plan in self.plans:
            queue.after(random.uniform(0, 5.0), self._open, plan)
        for app in (self.reader, *self.providers):
            queue.after(0.1, self._read, app)
        for _ in range(random.randint(0, 4)):
            queue.after(random.uniform(0, HORIZON / 2), self._strike)

    def _open(self, plan: Plan) -> None:
        out = None if plan.up is None else texts(f"{plan.name} up", plan.up)
        plan.stream = self.reader.open("work", plan.name, out=out)

    def _read(self, app: Application) -> None:
        """Take some of what came, and look at how much is held."""
        for stream in app.streams.values():
            held = stream.waiting
            assert len(held) <= OPTIONS.stream_parts
            if held:
                assert sum(map(size_of, held[:-1])) < OPTIONS.stream_bytes
                app.take(stream, self.random.randint(1, len(held)))
        if app.host.alive:
            self.world.queue.after(self.random.uniform(0.005, 0.2), self._read, app)

    def _strike(self) -> None:
        random = self.random
        one, other = random.sample(range(3), 2)
        network = self.world.network
        match random.randrange(7):
            case 0:
                network.set_weather(one, other, Weather(loss=0.2, duplication=0.1))
            case 1:
                network.set_weather(one, other, Weather(reordering=0.3, jitter=0.05))
            case 2 | 6:
                self.faults.strike(30.0)
            case 3:
                self._cut(one, other, random.uniform(1.0, 40.0))
            case 4:
                self.parted = True
                self._cut(one, other, random.uniform(100.0, 150.0))
            case 5:
                self.killed = True
                self.hosts[random.choice((1, 2))].kill()

    def _cut(self, one: int, other: int, seconds: float) -> None:
        network = self.world.network
        for pair in ((one, other), (other, one)):
            network.cut(*pair)
            self.world.queue.after(seconds, network.heal, *pair)

    # What must hold

    def check(self) -> None:
        for plan in self.plans:
            stream = plan.stream
            assert stream is not None
            assert stream.end is not None, f"{plan.name} never ends"
            self._check_parts(plan, stream, stream.end.failure)
        for app in (self.reader, *self.providers):
            if app.host.alive:
                statistics = app.host.engine.statistics()
                assert statistics.streams == 0, app.host.name
                assert "stream" not in statistics.defects

    def _check_parts(self, plan: Plan, stream: Stream, failure: CallFailure | None) -> None:
        wrote = list(texts(f"{plan.name} down", plan.down))
        assert stream.parts == wrote[: len(stream.parts)], "not a prefix"
        served = [each for app in self.providers for each in app.served if each.text == plan.name]
        body = list(texts(f"{plan.name} up", plan.up or 0))
        for each in served:
            assert each.parts == body[: len(each.parts)], "not a prefix of the body"
        if failure is None:
            assert stream.parts == wrote
            assert any(each.parts == body for each in served)
        else:
            allowed = {CallFailure.PEER_LOST, CallFailure.NO_PROVIDER, CallFailure.BROKEN}
            assert failure in allowed
            assert self.killed or self.parted, failure


@pytest.mark.parametrize("chunk", range(3))
def test_parts_are_equal_in_order_and_bounded(chunk: int) -> None:
    for seed in SEEDS[chunk::3]:
        run = Run(seed)
        run.schedule()
        run.world.run(HORIZON)
        run.world.run_until(
            lambda run=run: all(plan.stream and plan.stream.end for plan in run.plans),  # type: ignore[misc]
            REST,
        )
        run.world.run(130.0 if run.parted else 5.0)
        try:
            run.check()
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise


def test_the_runs_meet_every_end() -> None:
    ends: set[CallFailure | None] = set()
    for seed in range(100, 140):
        run = Run(seed)
        run.schedule()
        run.world.run(HORIZON)
        ends |= {plan.stream.end.failure for plan in run.plans if plan.stream and plan.stream.end}
        if {None, CallFailure.PEER_LOST} <= ends:
            return
    pytest.fail(f"only {ends}")
