"""Parts of a ZeroMQ message, from anybody: what decodes encodes again, and to the same."""

from typing import Final

import msgpack

from tests.fuzz import bounded
from tests.fuzz.script import Script
from zmesh.errors import ProtocolError
from zmesh.options import WireLimits
from zmesh.wire.codec import decode, encode
from zmesh.wire.frames import VERSION

LIMITS: Final = WireLimits()
INLINE_BYTES_MAX: Final = 16
LINK: Final = b"linklink"

MEMORY_FACTOR: Final = 80
"""What a byte may become: an empty array is one, and a tuple of them has 8 bytes for each."""
MEMORY_BASE: Final = 96 * 1024


def run(data: bytes) -> None:
    """Decode what the bytes tell, and go round once more where it is a packet."""
    script = Script(data)
    parts = _packed(script) if script.flag() else _raw(script)
    size = sum(map(len, parts))
    with bounded.memory(MEMORY_FACTOR * size + MEMORY_BASE, f"decoding {size} bytes"):
        try:
            packet = decode(parts, LIMITS)
        except ProtocolError:
            return
    again = [bytes(part) for part in encode(packet, LIMITS, INLINE_BYTES_MAX)]
    assert decode(again, LIMITS) == packet, "a packet changed on its way"
    once_more = [bytes(part) for part in encode(packet, LIMITS, INLINE_BYTES_MAX)]
    assert once_more == again, "a packet is not always written alike"


def of_parts(parts: list[bytes]) -> bytes:
    """Return the bytes that are read as these parts."""
    told = b"".join(len(part).to_bytes(3, "big") + part for part in parts[1:])
    return bytes([0, len(parts) - 1]) + told + parts[0]


def _raw(script: Script) -> list[bytes]:
    bodies = [script.take(int.from_bytes(script.take(3), "big")) for _ in range(script.below(128))]
    return [script.rest(), *bodies]


def _packed(script: Script) -> list[bytes]:
    """Return a packet that is in order but for what is in its frames."""
    frames = []
    for _ in range(script.below(4) + 1):
        fields = [script.value() for _ in range(script.below(13))]
        frames.append([script.below(16), *fields])
    bodies = [script.data() for _ in range(script.below(4))]
    return [msgpack.packb([VERSION, LINK, script.count(), *frames]), *bodies]
