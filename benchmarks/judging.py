"""What comparisons with stored figures come to, whatever was measured."""

from collections.abc import Sequence
from typing import Final, Protocol

NOTHING_STORED: Final = 2
"""The exit status where there is nothing to compare with."""


class Judged(Protocol):
    """A figure that was compared, if one is stored."""

    @property
    def stored(self) -> float | None:
        """The figure of before."""
        ...

    @property
    def is_worse(self) -> bool:
        """Whether that of now is worse, beyond noise."""
        ...


def exit_status(found: Sequence[Judged]) -> int:
    """Return 0 where all is well, 1 where something is worse, 2 where nothing is stored."""
    if any(each.is_worse for each in found):
        return 1
    return 0 if any(each.stored is not None for each in found) else NOTHING_STORED
