"""How much is read from a socket in a turn: little at first, more while that is quickly done.

What a packet costs nobody knows before it was handled, and who sends dear ones on purpose does so
when all is quiet. So a turn begins small, as TCP does with what it sends, and a socket that has
more each time takes larger ones, for which others wait no longer than `turn_max`, about. Large
turns save work where there is much to do: acknowledgements and wake-ups are shared.
"""

from typing import Final

from zmesh.options import TransportOptions

_FIRST: Final = 16
"""The largest turn in first ones: 16 packets, 16 KiB."""
_LEAST: Final = 256
"""The same in the smallest ones: a packet."""


class Share:
    """The part of the largest turn that a socket takes."""

    __slots__ = ("_options", "_parts", "bytes_max", "packets_max")

    def __init__(self, options: TransportOptions) -> None:
        self._options = options
        self._set(_FIRST)

    def on_turn(self, seconds: float, *, is_empty: bool) -> None:
        """Take in how long a turn took that is over, and whether nothing was left to read."""
        parts = self._parts
        if is_empty:
            if parts != _FIRST:
                self._set(parts * 2 if parts < _FIRST else parts // 2)
        elif seconds > self._options.turn_max:
            if parts < _LEAST:
                self._set(parts * 2)
        elif parts > 1 and seconds < self._options.turn_max / 2:
            self._set(parts // 2)

    def _set(self, parts: int) -> None:
        self._parts = parts
        self.packets_max = max(1, self._options.turn_packets_max // parts)
        self.bytes_max = max(1, self._options.turn_bytes_max // parts)
