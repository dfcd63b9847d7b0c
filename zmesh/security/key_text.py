"""Keys as text: a prefix that says which kind it is, and base64url (RFC 4648) with a checksum."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from zmesh.security_errors import InvalidKey, check_text

KEY_BYTES: Final = 32

_SUM_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class KeyText:
    """One kind of key: the prefix of its texts, what people call it, and its checksum's domain."""

    prefix: str
    called: str
    domain: bytes

    def write(self, key: bytes) -> str:
        """Return the text of a key."""
        return self.prefix + urlsafe_b64encode(key + self._check(key)).decode()

    def read(self, text: str, where: str) -> bytes:
        """Return the 32 bytes of a key's text; space around it does not matter.

        Raises:
            InvalidKey: it is none, or was mistyped. The error names `where`, and not the text.
        """
        check_text(text, where)
        encoded = text.strip()
        if not encoded.startswith(self.prefix):
            raise InvalidKey(where, f"{self.called} begins with {self.prefix!r}")
        try:
            raw = urlsafe_b64decode(encoded.removeprefix(self.prefix).encode("ascii"))
        except (Error, UnicodeEncodeError):
            raw = b""
        key, check = raw[:KEY_BYTES], raw[KEY_BYTES:]
        if len(key) != KEY_BYTES or not compare_digest(check, self._check(key)):
            raise InvalidKey(where, "it is cut off or mistyped: its checksum is wrong")
        return key

    def _check(self, key: bytes) -> bytes:
        return blake2b(self.domain + key, digest_size=_SUM_BYTES).digest()


def check_secret(kind: str, secret: object) -> None:
    """Raise InvalidKey, naming the kind of key, unless a secret is 32 bytes."""
    if not isinstance(secret, bytes):
        raise InvalidKey(kind, f"{KEY_BYTES} bytes are needed, and not {type(secret).__name__}")
    if len(secret) != KEY_BYTES:
        raise InvalidKey(kind, f"it has {len(secret)} bytes, in the place of {KEY_BYTES}")
