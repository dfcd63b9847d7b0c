"""Changed inputs without a fuzzer's help: what a mutation is, and by which seed it repeats."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

CHANGES_MAX: Final = 6
BYTES_MAX: Final = 4096

_BORDERS: Final = (0, 1, 0x7F, 0x80, 0x90, 0xC0, 0xC4, 0xCF, 0xD9, 0xDC, 0xDD, 0xDF, 0xFF)
"""Ends of ranges, and where msgpack begins to mean something else."""


def mutations(inputs: Sequence[bytes], count: int, seed: str) -> Iterator[bytes]:
    """Return so many inputs, each one of the given with some changes, or made of two."""
    random = Random(seed)
    for _ in range(count):
        data = bytearray(random.choice(inputs))
        if random.random() < 0.2:
            other = random.choice(inputs)
            data[random.randint(0, len(data)) :] = other[random.randint(0, len(other)) :]
        for _ in range(random.randint(1, CHANGES_MAX)):
            _change(data, random)
        yield bytes(data[:BYTES_MAX])


def _change(data: bytearray, random: Random) -> None:
    at = random.randint(0, len(data))
    size = random.choice((1, 1, 2, 4, 8, 32))
    match random.randrange(6):
        case 0:
            data[at:at] = random.randbytes(size)
        case 1:
            del data[at : at + size]
        case 2:
            data[at:at] = data[random.randint(0, len(data)) :][:size]
        case 3 if at < len(data):
            data[at] = random.choice(_BORDERS)
        case 4 if at < len(data):
            data[at] ^= 1 << random.randrange(8)
        case _ if at < len(data):
            data[at : at + size] = random.randbytes(len(data[at : at + size]))
