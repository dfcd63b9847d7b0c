"""Bodies made smaller, and made whole again within bounds that are checked before anything is.

A record with a compressed body says so in its head, and in its extras how it was compressed and
how large the body was. That size is checked, and then nothing larger can come of it. The libraries
are imported where they are there, and when they are needed.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

from zmesh.errors import InvalidOption, MissingPackage, ProtocolError
from zmesh.message import (
    COMPRESSED,
    Algorithm,
    Record,
    Tag,
    extra,
    with_extra,
    without_extra,
)
from zmesh.options import WireLimits

PACKAGES: Final = {Algorithm.ZSTD: "zstandard", Algorithm.LZ4: "lz4"}

AVAILABLE: Final = tuple(each for each, name in PACKAGES.items() if find_spec(name) is not None)
"""What can be compressed and decompressed in this process."""

ZSTD_LEVEL: Final = 1
"""The next ones take longer, and make messages hardly smaller."""

_WORTH: Final = 8
"""A body has to shrink by one part in so many: who receives it pays for decompression."""

_LIMITS: Final = WireLimits()


def algorithm_of(compression: str | None) -> Algorithm | None:
    """Return what an application asked for; None for no compression.

    Raises:
        InvalidOption: it is none of what there is.
        MissingPackage: its library is not installed.
    """
    if compression is None or compression == "none":
        return None
    found = {each.name.lower(): each for each in Algorithm}.get(compression)
    if found is None:
        choices = ", ".join(f'"{each.name.lower()}"' for each in Algorithm)
        raise InvalidOption("compression", compression, f'{choices}, "none", or None')
    if found not in AVAILABLE:
        what = f"compression={compression!r}"
        raise MissingPackage(what, PACKAGES[found], compression)
    return found


# Towards the wire


@dataclass(frozen=True, slots=True)
class Compressor:
    """Makes the bodies of records smaller, from any thread."""

    algorithm: Algorithm
    bytes_min: int
    limits: WireLimits = _LIMITS

    def compress(self, record: Record) -> Record:
        """Return the record with its body compressed, or as it is where that gains little.

        A body that would shrink further than receivers allow travels as it is as well.
        """
        body, limits = record[2], self.limits
        size = len(body)
        if not self.bytes_min <= size <= limits.decompressed_bytes_max:
            return record
        packed = _PACK[self.algorithm](body)
        if (
            len(packed) > size - size // _WORTH
            or size > len(packed) * limits.decompressed_ratio_max
        ):
            return record
        told = with_extra(record, Tag.COMPRESSED, (int(self.algorithm), size))
        return _remade(told, told[0] | COMPRESSED, packed)


def unpacked(record: Record) -> bytes:
    """Return the body of a compressed record before it was compressed, whatever its size.

    Raises:
        ProtocolError: of kind "compression"; never where this node compressed it.
    """
    algorithm, size = _told(record)
    try:
        body = _UNPACK[algorithm](record[2], size)
    except Exception as error:  # each library has its own, and none that they share
        detail = f"the body cannot be decompressed: {error}"
        raise ProtocolError("compression", detail) from error
    if len(body) != size:
        detail = f"the body becomes {len(body)} bytes when decompressed, and not {size}"
        raise ProtocolError("compression", detail)
    return body


def with_plain(record: Record, body: bytes) -> Record:
    """Return a compressed record with the body that was compressed."""
    return _remade(without_extra(record, Tag.COMPRESSED), record[0] & ~COMPRESSED, body)


def _remade(record: Record, head: int, body: bytes) -> Record:
    if len(record) == 3:
        return (head, record[1], body)
    return (head, record[1], body, record[3])


# From the wire


def algorithm_in(record: Record) -> int:
    """Return what a record says that its body was compressed with; 0 for nothing."""
    return _told(record)[0]


def plain_size(record: Record) -> int:
    """Return how large the body is, or says that it was before it was compressed."""
    return _told(record)[1] if record[0] >= COMPRESSED else len(record[2])


def flaw_of(record: Record, limits: WireLimits) -> str:
    """Return why a compressed body is not to be decompressed; "" where it may be tried."""
    algorithm, size = _told(record)
    if not algorithm:
        return "the body is compressed, and how is not told or not taken"
    if algorithm not in AVAILABLE:
        return f"the body is compressed in a way ({algorithm}) that is not known here"
    if size > limits.decompressed_bytes_max:
        largest = limits.decompressed_bytes_max
        return f"the body becomes {size} bytes when decompressed, at most {largest} are taken"
    packed, ratio = len(record[2]), limits.decompressed_ratio_max
    if size > packed * ratio:
        return f"{packed} bytes of body become {size}: more than {ratio} times as many"
    return ""


def decompressed(record: Record, limits: WireLimits = _LIMITS) -> bytes:
    """Return the body of a record whose head says that it is compressed.

    Never more bytes are made than the record says, and no more than the limits allow.

    Raises:
        ProtocolError: of kind "compression": it says what is not allowed, or what is not so.
    """
    flaw = flaw_of(record, limits)
    if flaw:
        raise ProtocolError("compression", flaw)
    return unpacked(record)


def _told(record: Record) -> tuple[int, int]:
    """Return algorithm and size that a record tells; (0, 0) where it does not."""
    told: Any = extra(record, Tag.COMPRESSED) if record[0] >= COMPRESSED else None
    return told or (0, 0)


# The libraries. Contexts of zstd are not for two threads at once, and cost more than a small body:
# those that are not in use wait in a list, from which a thread takes one at a time.

_packers: Final[list[Any]] = []
_unpackers: Final[list[Any]] = []


def _zstd_pack(body: bytes | memoryview) -> bytes:
    import zstandard  # noqa: PLC0415  # an extra

    try:
        packer = _packers.pop()
    except IndexError:
        packer = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    packed: bytes = packer.compress(body)
    _packers.append(packer)
    return packed


def _zstd_unpack(packed: bytes | memoryview, size: int) -> bytes:
    import zstandard  # noqa: PLC0415  # an extra

    told = zstandard.frame_content_size(packed)  # what the library makes room for
    if told != size:
        raise ValueError(f"its frame says {told} bytes, and its record {size}")
    try:
        unpacker = _unpackers.pop()
    except IndexError:
        unpacker = zstandard.ZstdDecompressor()
    try:
        body: bytes = unpacker.decompress(packed, allow_extra_data=False)
    finally:
        _unpackers.append(unpacker)
    return body


def _lz4_pack(body: bytes | memoryview) -> bytes:
    import lz4.block  # noqa: PLC0415  # an extra

    packed: bytes = lz4.block.compress(body, store_size=False)
    return packed


def _lz4_unpack(packed: bytes | memoryview, size: int) -> bytes:
    import lz4.block  # noqa: PLC0415  # an extra

    body: bytes = lz4.block.decompress(packed, uncompressed_size=size)
    return body


_PACK: Final = {Algorithm.ZSTD: _zstd_pack, Algorithm.LZ4: _lz4_pack}
_UNPACK: Final = {int(Algorithm.ZSTD): _zstd_unpack, int(Algorithm.LZ4): _lz4_unpack}
