"""The faults of `zmesh.testing`, struck at random at worlds of whole engines.

Those of the network: what becomes of a host that dies depends on the pattern that is tested.
"""

from random import Random
from typing import Any, Final, cast

from tests.engines import World
from zmesh.testing.faults import strike
from zmesh.testing.scenario import Fault, FaultKind
from zmesh.testing.world import World as TestingWorld

_SHARES: Final = {
    FaultKind.WEATHER: 4, FaultKind.LAG: 2, FaultKind.ONE_WAY: 2, FaultKind.PARTITION: 2,
    FaultKind.ISOLATION: 1, FaultKind.BLACK_HOLE: 3, FaultKind.RESET: 3,
}  # fmt: skip


class Schedule:
    """What strikes needs of a world, and what it has struck."""

    def __init__(self, world: World, random: Random) -> None:
        self.network = world.network
        self.queue = world.queue
        self.struck: list[FaultKind] = []
        self._world = world
        self._random = random

    @property
    def lives(self) -> range:
        """As many as there are hosts."""
        return range(len(self._world.hosts))

    def sever(self, one: int, other: int) -> None:
        """Need no note of who was parted from whom: each pattern knows what may come of it."""

    def strike(self, seconds_max: float, *but: FaultKind) -> None:
        """Let something happen to two hosts, or between them, and end after a while."""
        random = self._random
        kinds = [kind for kind in _SHARES if kind not in but]
        [kind] = random.choices(kinds, [_SHARES[kind] for kind in kinds])
        host, other = random.sample(self.lives, 2)
        seconds = random.uniform(0.05, seconds_max)
        self.struck.append(kind)
        fault = Fault(self.queue.now, kind, host, other, seconds, random.random())
        strike(cast("TestingWorld[Any]", self), fault)
