"""The storage key: 32 bytes without which what a node keeps on disk cannot be read."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from zmesh.ids import Entropy
from zmesh.security.key_text import KEY_BYTES, KeyText, check_secret

STORAGE_PREFIX: Final = "zms1."
"""What the text of a storage key begins with: it is no mesh key, and must not pass for one."""

_TEXT: Final = KeyText(STORAGE_PREFIX, "a storage key", b"zmesh v1 storage checksum")


@dataclass(frozen=True, slots=True)
class StorageKey:
    """The key of journals. Its text is `zms1.` and 48 characters of base64url (RFC 4648)."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raise InvalidKey unless the secret is 32 bytes."""
        check_secret("StorageKey", self.secret)

    @classmethod
    def new(cls, entropy: Entropy) -> "StorageKey":
        """Return a key nobody else has."""
        return cls(entropy.token(KEY_BYTES))

    @classmethod
    def parse(cls, text: str, where: str = "key") -> "StorageKey":
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
        return self.derive(b"fingerprint", b"", 4).hex()

    def derive(self, purpose: bytes, salt: bytes, size: int = KEY_BYTES) -> bytes:
        """Return a key for one purpose in one journal: keyed BLAKE2b (RFC 7693 section 2.9)."""
        data = b"zmesh v1 storage " + purpose + b"\x00" + salt
        return blake2b(data, key=self.secret, digest_size=size).digest()
