"""The mesh key: 32 bytes that let in who has them. Everything shared is derived from it."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from nacl.bindings import crypto_scalarmult_base

from zmesh.ids import MESH_TAG_BYTES, Entropy, MeshTag
from zmesh.security.key_text import KEY_BYTES, KeyText, check_secret

CURVE_KEY_BYTES: Final = 32

PREFIX: Final = "zmk1."
"""What the text of a key begins with, so that people and scanners of secrets know one."""

_TEXT: Final = KeyText(PREFIX, "a mesh key", b"zmesh v1 checksum")


@dataclass(frozen=True, slots=True)
class CurvePair:
    """A key pair of CURVE (ZeroMQ RFC 26): X25519, 32 bytes each."""

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> "CurvePair":
        """Return the pair with this secret half."""
        return cls(crypto_scalarmult_base(secret), secret)

    @classmethod
    def new(cls, entropy: Entropy) -> "CurvePair":
        """Return a pair nobody else has."""
        return cls.of(entropy.token(CURVE_KEY_BYTES))


@dataclass(frozen=True, slots=True)
class MeshKey:
    """The key of a mesh. Its text is `zmk1.` and 48 characters of base64url (RFC 4648)."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raise InvalidKey unless the secret is 32 bytes."""
        check_secret("MeshKey", self.secret)

    @classmethod
    def new(cls, entropy: Entropy) -> "MeshKey":
        """Return a key nobody else has."""
        return cls(entropy.token(KEY_BYTES))

    @classmethod
    def parse(cls, text: str, where: str = "key") -> "MeshKey":
        """Read a key's text.

        Args:
            text: what `text` returned once; space around it does not matter.
            where: it comes from, for the error.

        Raises:
            InvalidKey: it is none, or was mistyped. The error does not repeat it.
        """
        return cls(_TEXT.read(text, where))

    @property
    def text(self) -> str:
        """The key as text, to be kept as secret as the key."""
        return _TEXT.write(self.secret)

    @property
    def fingerprint(self) -> str:
        """Eight hex digits by which people compare keys; they tell nothing of it."""
        return _derive(self.secret, b"fingerprint", 4).hex()

    def server_pair(self) -> CurvePair:
        """Return the pair that the listening sockets of all members share.

        So without the key not even the transport's handshake succeeds, and an address needs no
        key beside it.
        """
        return CurvePair.of(_derive(self.secret, b"curve server", CURVE_KEY_BYTES))

    def tag(self, mesh_name: str) -> MeshTag:
        """Return what tells members apart from others in mDNS; nobody else can compute it."""
        return MeshTag(_derive(self.secret, b"mesh tag " + mesh_name.encode(), MESH_TAG_BYTES))


def _derive(secret: bytes, purpose: bytes, size: int) -> bytes:
    """Return bytes for one purpose: keyed BLAKE2b (RFC 7693 section 2.9)."""
    return blake2b(b"zmesh v1 " + purpose, key=secret, digest_size=size).digest()
