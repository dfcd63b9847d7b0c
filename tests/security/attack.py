"""What an attack is."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tests.security.member import Target

KIB = 1 << 10
MIB = 1 << 20

GROWTH_MAX = 32 * MIB
"""Bytes that a victim's memory may grow by.

What one peer may cost is far less where it sends no large bodies: 4,096 entries of interest, parts
of 1 MiB, 256 KiB a lane. The rest is Python's.
"""


@dataclass(frozen=True)
class Attack:
    """One of them, and what the victim must have counted when it is over.

    `noticed` are the counters that name it, `where.name`, and how much they must have grown: of
    the audit log (`audited`), defects, the transport, the engine, bodies that could not be read,
    or what `happened` to peers. Empty where it is somebody else who notices, as `run` checks.
    """

    run: Callable[[Target], Awaitable[None]]
    noticed: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called."""
        if not isinstance(self.run, partial):
            return self.run.__name__
        return "_".join([self.run.func.__name__, *map(str, self.run.args)])
