"""Commands for shared maps: events of `zmesh.events` like any other."""

from dataclasses import dataclass

from zmesh.message import Ticket


@dataclass(frozen=True, slots=True)
class OpenState:
    """Hold a replica of the shared map; `StateReady` tells when it is worth reading.

    This and what follows carry what the wall clock reads, in milliseconds since 1970.
    """

    name: str
    wall_ms: int


@dataclass(frozen=True, slots=True)
class CloseState:
    """Hold the replica no longer; what peers were not told yet is still sent."""

    name: str
    forget: Ticket | None = None  # on disk neither; `TicketsStored` tells when it is gone there


@dataclass(frozen=True, slots=True)
class WriteState:
    """Set a key of a shared map, or delete it. What cannot work was refused before."""

    name: str
    key: str
    encoding: int | None  # None: delete it
    value: bytes
    wall_ms: int
    ticket: Ticket | None = None  # `TicketsStored` tells when it is on disk


@dataclass(frozen=True, slots=True)
class WallClockRead:
    """What the wall clock reads; until the next time the engine counts on by its own clock."""

    wall_ms: int
