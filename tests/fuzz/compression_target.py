"""Bodies that say they are compressed: nothing larger comes of them than they say and may."""

from contextlib import suppress
from typing import Final, cast

from tests.fuzz import bounded
from tests.fuzz.script import Script
from zmesh.errors import ProtocolError
from zmesh.message import COMPRESSED, Algorithm, Encoding, Kind, Record, Tag, extra, head
from zmesh.options import WireLimits
from zmesh.wire.bodies import body_of
from zmesh.wire.compression import Compressor, decompressed

LIMITS: Final = WireLimits(decompressed_bytes_max=256 * 1024, decompressed_ratio_max=64)
MEMORY_BASE: Final = 64 * 1024

_COMPRESSORS: Final = {each: Compressor(each, 1, LIMITS) for each in Algorithm}

for _algorithm in Algorithm:  # imports what is imported with the first use: that takes memory, too
    decompressed(_COMPRESSORS[_algorithm].compress((head(Kind.DIRECT), "", b"a" * 64)))


def run(data: bytes) -> None:
    """Decompress what the bytes tell; and compress them, which must be undone."""
    script = Script(data)
    encoding = script.choice(tuple(Encoding))
    algorithm = script.choice((*Algorithm, 3, 127))
    size = script.number() | script.byte() << 8
    body = script.rest()
    record: Record = (
        head(Kind.DIRECT, encoding) | COMPRESSED, "", body,
        (int(Tag.COMPRESSED), (int(algorithm), min(max(size, 1), 2**63 - 1))),
    )  # fmt: skip
    _decompress(record)
    _there_and_back(Algorithm.ZSTD if algorithm == Algorithm.ZSTD else Algorithm.LZ4, body)


def of_body(algorithm: Algorithm, size: int, body: bytes) -> bytes:
    """Return the bytes that are read as a body of that size, compressed."""
    return bytes([1, algorithm - 1, 0xE7]) + size.to_bytes(8, "big") + b"\0" + body


def _decompress(record: Record) -> None:
    _, size = cast("tuple[int, int]", extra(record, Tag.COMPRESSED))
    may = min(size, LIMITS.decompressed_bytes_max, 64 * len(record[2]))
    with bounded.memory(2 * may + MEMORY_BASE, f"{len(record[2])} bytes that say {size}"):
        try:
            body = decompressed(record, LIMITS)
        except ProtocolError:
            return
    assert len(body) == size <= LIMITS.decompressed_bytes_max
    assert size <= LIMITS.decompressed_ratio_max * len(record[2])
    with suppress(ProtocolError):
        body_of(record, LIMITS)


def _there_and_back(algorithm: Algorithm, body: bytes) -> None:
    packed = _COMPRESSORS[algorithm].compress((head(Kind.DIRECT), "", body))
    if packed[0] >= COMPRESSED:
        assert decompressed(packed, LIMITS) == body, "a body changed on its way"
