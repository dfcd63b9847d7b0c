"""The storage key: 32 bytes without which what a node keeps on disk cannot be read."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from dataclasses import dataclass, field
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from zmesh.ids import Entropy
from zmesh.security_errors import InvalidKey, check_text

STORAGE_KEY_BYTES: Final = 32

STORAGE_PREFIX: Final = "zms1."
"""What the text of a storage key begins with: it is no mesh key, and must not pass for one."""

_SUM_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class StorageKey:
    """The key of journals. Its text is `zms1.` and 48 characters of base64url (RFC 4648)."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raise InvalidKey unless the secret is 32 bytes."""
        secret: object = self.secret
        if not isinstance(secret, bytes):
            raise InvalidKey(
                "StorageKey",
                f"{STORAGE_KEY_BYTES} bytes are needed, and not {type(secret).__name__}",
            )
        if len(secret) != STORAGE_KEY_BYTES:
            raise InvalidKey(
                "StorageKey", f"it has {len(secret)} bytes, in the place of {STORAGE_KEY_BYTES}"
            )

    @classmethod
    def new(cls, entropy: Entropy) -> "StorageKey":
        """Return a key nobody else has."""
        return cls(entropy.token(STORAGE_KEY_BYTES))

    @classmethod
    def parse(cls, text: str, where: str = "key") -> "StorageKey":
        """Read a key's text.

        Args:
            text: what `text` returned once; space around it does not matter.
            where: it comes from, for the error.

        Raises:
            InvalidKey: it is none, or was mistyped. The error does not repeat it.
        """
        check_text(text, where)
        encoded = text.strip()
        if not encoded.startswith(STORAGE_PREFIX):
            raise InvalidKey(where, f"a storage key begins with {STORAGE_PREFIX!r}")
        try:
            raw = urlsafe_b64decode(encoded.removeprefix(STORAGE_PREFIX).encode("ascii"))
        except (Error, UnicodeEncodeError):
            raw = b""
        secret, check = raw[:STORAGE_KEY_BYTES], raw[STORAGE_KEY_BYTES:]
        if len(secret) != STORAGE_KEY_BYTES or not compare_digest(check, _check(secret)):
            raise InvalidKey(where, "it is cut off or mistyped: its checksum is wrong")
        return cls(secret)

    @property
    def text(self) -> str:
        """The key as text, to be kept as secret as the key."""
        return STORAGE_PREFIX + urlsafe_b64encode(self.secret + _check(self.secret)).decode()

    @property
    def fingerprint(self) -> str:
        """Eight hex digits by which people compare keys; they tell nothing of it."""
        return self.derive(b"fingerprint", b"", 4).hex()

    def derive(self, purpose: bytes, salt: bytes, size: int = STORAGE_KEY_BYTES) -> bytes:
        """Return a key for one purpose in one journal: keyed BLAKE2b (RFC 7693 section 2.9)."""
        data = b"zmesh v1 storage " + purpose + b"\x00" + salt
        return blake2b(data, key=self.secret, digest_size=size).digest()


def _check(secret: bytes) -> bytes:
    return blake2b(b"zmesh v1 storage checksum" + secret, digest_size=_SUM_BYTES).digest()
