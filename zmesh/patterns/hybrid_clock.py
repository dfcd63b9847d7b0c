"""A hybrid logical clock: stamps that order causes before effects, and stay close to wall time.

After Kulkarni, Demirbas, Madeppa, Avva and Leone, "Logical Physical Clocks and Consistent
Snapshots in Globally Distributed Databases" (2014), section 3. Both parts are one integer, so that
stamps compare as numbers: the wall clock's milliseconds above, the logical counter in the low 16
bits. A counter that overflows carries into the milliseconds, which the algorithm allows: the wall
clock catches up.
"""

from typing import Final

LOGICAL_BITS: Final = 16

STAMP_MAX: Final = 2**63 - 1
"""Some time in the year 6429."""


class HybridClock:
    """The clock of one replica. Wall time comes in as milliseconds since 1970.

    Args:
        drift_max: seconds a stamp may be ahead of this wall clock. The algorithm's bound on l - pt
            is the error of the clocks themselves; beyond this one somebody's clock is wrong.
    """

    __slots__ = ("_drift_max", "latest")

    def __init__(self, drift_max: float) -> None:
        self._drift_max = round(drift_max * 1000) << LOGICAL_BITS
        self.latest = 0

    def tick(self, wall_ms: int) -> int:
        """Return the stamp of something that happens here now; it is above all known so far."""
        self.latest = max(self.latest + 1, wall_ms << LOGICAL_BITS)
        return self.latest

    def observe(self, stamp: int) -> None:
        """Learn a stamp that came from elsewhere; what happens here from now on is above it."""
        self.latest = max(self.latest, stamp)

    def ceiling(self, wall_ms: int) -> int:
        """Return the highest stamp that is believed while the wall clock reads `wall_ms`."""
        return (wall_ms << LOGICAL_BITS) + self._drift_max

    def reset(self) -> None:
        """Forget all stamps: this node's own wall clock was wrong and has been put right.

        What is stamped from now on may be below what was before, so it needs a new origin.
        """
        self.latest = 0
