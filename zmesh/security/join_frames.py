"""The messages of joining, byte for byte. Each kind has one length, so nothing needs a bound.

A message is one byte that says its kind, and a body of that kind's length. Nothing in a length
tells of the mesh: names and keys are padded to the most there may be.
"""

from enum import IntEnum
from typing import Final

from zmesh.security.key_text import KEY_BYTES
from zmesh.security.mesh_key import MeshKey

MAGIC: Final = b"zmesh-join"
VERSION: Final = 1
EXCHANGE_BYTES: Final = 33
"""A message of SPAKE2: a byte that says whose it is, and a point of Curve25519 in Ed25519 form."""

PROOF_BYTES: Final = 32
SEAL_BYTES: Final = 16  # what XChaCha20-Poly1305 adds
MESH_BYTES_MAX: Final = 255
KEYS_MAX: Final = 8  # in a mesh's file: the first and those of rotations that are not over


class Kind(IntEnum):
    """What a message is. Odd ones are the joiner's, even ones the inviter's."""

    HELLO = 1
    ANSWER = 2
    PROOF = 3
    WELCOME = 4
    READY = 5
    KEYS = 6
    SAVED = 7
    REFUSED = 8


class Refusal(IntEnum):
    """Why the inviter hangs up."""

    WRONG_CODE = 1
    EXPIRED = 2
    USED = 3
    DEAD = 4
    BUSY = 5


SIZES: Final = {
    Kind.HELLO: 1 + len(MAGIC) + 1 + EXCHANGE_BYTES,
    Kind.ANSWER: 1 + EXCHANGE_BYTES,
    Kind.PROOF: 1 + PROOF_BYTES,
    Kind.WELCOME: 1 + PROOF_BYTES + SEAL_BYTES + 1 + MESH_BYTES_MAX,
    Kind.READY: 1 + PROOF_BYTES,
    Kind.KEYS: 1 + SEAL_BYTES + 1 + KEYS_MAX * KEY_BYTES,
    Kind.SAVED: 1 + PROOF_BYTES,
    Kind.REFUSED: 2,
}
"""Bytes of a whole message of each kind."""


class Garbage(Exception):  # never leaves this package
    """What came is not the protocol."""


class Incoming:
    """Puts one message together, of kinds that are expected, from whatever pieces came."""

    def __init__(self) -> None:
        self._held = b""

    def add(self, data: bytes, *expected: Kind) -> bytes | None:
        """Return the whole message, or None while it is not there.

        The other side waits for an answer to each message, so nothing comes behind one.

        Raises:
            Garbage: it is of another kind, or too long.
        """
        held = self._held + data
        if not held:
            return None
        if held[0] not in expected:
            raise Garbage("a message of another kind was expected")
        size = SIZES[Kind(held[0])]
        if len(held) > size:
            raise Garbage("something came behind a message")
        if len(held) < size:
            self._held = held
            return None
        self._held = b""
        return held


def hello(exchange: bytes) -> bytes:
    """Return the joiner's first message."""
    return bytes([Kind.HELLO]) + MAGIC + bytes([VERSION]) + exchange


def exchange_of_hello(message: bytes) -> bytes:
    """Return the SPAKE2 message in a HELLO; raises Garbage where it is of something else."""
    begin = 1 + len(MAGIC)
    if message[1:begin] != MAGIC or message[begin] != VERSION:
        raise Garbage("another protocol, or another version of this one")
    return message[begin + 1 :]


def refused(why: Refusal) -> bytes:
    """Return the message before the inviter hangs up."""
    return bytes([Kind.REFUSED, why])


def pack_mesh(name: str) -> bytes:
    """Return a mesh's name at the length all have."""
    encoded = name.encode()
    return bytes([len(encoded)]) + encoded.ljust(MESH_BYTES_MAX, b"\x00")


def unpack_mesh(packed: bytes) -> str:
    """Return the name of a mesh; raises Garbage where it is none."""
    try:
        name = packed[1 : 1 + packed[0]].decode()
    except UnicodeDecodeError:
        raise Garbage("the name of the mesh is no UTF-8") from None
    if not name or not name.isprintable():
        raise Garbage("the name of the mesh is not printable")
    return name


def pack_keys(keys: tuple[MeshKey, ...]) -> bytes:
    """Return 1 to `KEYS_MAX` keys at the length all sets have, the first being the one to use."""
    joined = b"".join(key.secret for key in keys)
    return bytes([len(keys)]) + joined.ljust(KEYS_MAX * KEY_BYTES, b"\x00")


def unpack_keys(packed: bytes) -> tuple[MeshKey, ...]:
    """Return the keys; raises Garbage where their number is none."""
    count = packed[0]
    if not 0 < count <= KEYS_MAX:
        raise Garbage("a number of keys that cannot be")
    begins = range(1, 1 + count * KEY_BYTES, KEY_BYTES)
    return tuple(MeshKey(packed[begin : begin + KEY_BYTES]) for begin in begins)
