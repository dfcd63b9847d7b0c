"""Bytes as a script: whatever they are, they read as choices, numbers, texts and values.

A fuzzer changes bytes and knows nothing of what they mean. Read this way every string of bytes
means something, so none of its tries is wasted on what would be refused at the door.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

NUMBERS: Final = (
    *(0, 1, 2, 15, 16, 17, 127, 128, 255, 256, 1023, 1024, 1025, 4095, 4096, 65535, 65536),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 2, 2**63 - 1, 2**63, 2**64 - 1),
)
"""Where things tend to go wrong."""

DEPTH_MAX: Final = 6


class Script:
    """Reads bytes from the front; where none are left, everything is 0 and empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        """Whether bytes are left."""
        return self._at < len(self._data)

    def turns(self, most: int) -> Iterator[int]:
        """Yield numbers from 1 on for as long as there is more to read, so many at most."""
        number = 0
        while self.more and number < most:
            number += 1
            yield number

    def byte(self) -> int:
        """Return a number in 0..255."""
        if self._at >= len(self._data):
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def below(self, end: int) -> int:
        """Return a number in 0..end-1, `end` being at most 256."""
        return self.byte() % end

    def choice(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.below(len(items))]

    def flag(self) -> bool:
        """Return one of two."""
        return bool(self.byte() & 1)

    def rarely(self) -> bool:
        """Return True one time in sixteen; a script of zeros is one of usual things."""
        return self.byte() >= 240

    def number(self) -> int:
        """Return a number: mostly a small one, or one at a border, or any of 64 bits."""
        first = self.byte()
        if first < 192:
            return first
        if first < 224:
            return NUMBERS[(first - 192) % len(NUMBERS)]
        size = (first & 7) + 1
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def count(self) -> int:
        """Return a number that a field of the protocol can have."""
        return min(self.number(), 2**63 - 1)

    def take(self, size: int) -> bytes:
        """Return as many bytes, or what is left."""
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def data(self) -> bytes:
        """Return bytes that tell their length: a few, up to 127, or some thousands alike."""
        first = self.byte()
        if first < 224:
            return self.take(first % 12)
        if first < 248:
            return self.take(self.below(128))
        return self.take(1).ljust(1, b"\0") * (1 << self.below(18))

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data))

    def text(self, usual: Sequence[str] = ("",)) -> str:
        """Return a text: mostly a usual one."""
        first = self.byte()
        if first < 224:
            return usual[first % len(usual)]
        return self.data().decode(errors="replace")

    def value(self, texts: Sequence[str] = ("",), depth: int = 0) -> object:
        """Return what msgpack can carry."""
        match self.below(12 if depth < DEPTH_MAX else 9):
            case 0 | 1 | 2:
                return min(self.number(), 2**64 - 1)
            case 3 | 4:
                return self.text(texts)
            case 5 | 6:
                return self.data()
            case 7:
                return -min(self.number(), 2**63)
            case 8:
                return self.choice((None, True, False, 0.5, float("nan"), float("inf")))
            case 9 | 10:
                return [self.value(texts, depth + 1) for _ in range(self.below(8))]
            case _:
                names = [self.text(texts) for _ in range(self.below(4))]
                return {name: self.value(texts, depth + 1) for name in names}
