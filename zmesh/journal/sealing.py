"""What is encrypted of a journal, and how: XChaCha20-Poly1305, a random nonce for each value.

A file has a salt of its own, which a rescue and a copy carry over; with the storage key it gives
the keys of this file. A value is bound to its place: in another it does not open. Checksums of
rows are over what is stored, so all that does not look into values works without the key.
(draft-irtf-cfrg-xchacha-03 section 2; RFC 8439 section 2.8 for the construction.)
"""

import os
from collections.abc import Callable
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, cast

from msgpack import packb, unpackb
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_ABYTES,
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
)
from nacl.exceptions import CryptoError

from zmesh.security.storage_key import StorageKey
from zmesh.storage_errors import StorageKeyMissing, StorageKeyWrong, StorageNotEncrypted

SEALED: Final = 0xC1
"""The first byte of what is sealed: the one that no value of MessagePack begins with."""

SALT_BYTES: Final = 16
BLIND_BYTES: Final = 16
_CHECK_BYTES: Final = 16
_NONCE_BYTES: Final = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
OVERHEAD_BYTES: Final = 1 + _NONCE_BYTES + crypto_aead_xchacha20poly1305_ietf_ABYTES
"""How much longer a value is where it is sealed."""

_FORM: Final = 1
_FIRST: Final = bytes([SEALED])
_seal = crypto_aead_xchacha20poly1305_ietf_encrypt
_open = crypto_aead_xchacha20poly1305_ietf_decrypt


class Forged(Exception):
    """A value is not what was sealed at its place."""


class Seal:
    """The keys of one file; or, without the storage key, only that it has some.

    Args:
        path: of the journal, for errors.
        salt: of the file.
        key: None where nobody gave it: then nothing can be sealed or opened.
        told: the check value and the fingerprint that the file has.
    """

    def __init__(
        self, path: str, salt: bytes, key: StorageKey | None, told: tuple[bytes, str]
    ) -> None:
        self.path = path
        self.fingerprint = told[1]
        self.is_open = key is not None
        self._salt = salt
        self._check = told[0]
        self._key = b"" if key is None else key.derive(b"values", salt)
        self._blind_key = b"" if key is None else key.derive(b"names", salt)

    @classmethod
    def new(cls, path: str, key: StorageKey) -> "Seal":
        """Return the seal of a file that is new."""
        salt = os.urandom(SALT_BYTES)
        return cls(path, salt, key, (_check_of(key, salt), key.fingerprint))

    @property
    def value(self) -> bytes:
        """What the file says of it; no secret."""
        return cast("bytes", packb((_FORM, self._salt, self._check, self.fingerprint)))

    def seal(self, data: bytes, place: bytes) -> bytes:
        """Return what opens at this place only.

        Raises:
            StorageKeyMissing: there is no key.
        """
        if not self._key:
            raise StorageKeyMissing(self.path, self.fingerprint)
        nonce = os.urandom(_NONCE_BYTES)
        return _FIRST + nonce + _seal(data, place, nonce, self._key)

    def open(self, data: bytes, place: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            Forged: something else was, or nothing.
            StorageKeyMissing: there is no key.
        """
        if not self._key:
            raise StorageKeyMissing(self.path, self.fingerprint)
        if len(data) < OVERHEAD_BYTES or data[0] != SEALED:
            raise Forged
        end = 1 + _NONCE_BYTES
        try:
            return _open(data[end:], place, data[1:end], self._key)
        except CryptoError:
            raise Forged from None

    def blind(self, *parts: bytes) -> bytes:
        """Return what stands for a name in an index: the same for the same, and else nothing."""
        if not self._blind_key:
            raise StorageKeyMissing(self.path, self.fingerprint)
        data = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return blake2b(data, key=self._blind_key, digest_size=BLIND_BYTES).digest()


Keyhole = Callable[[bytes | None], Seal | None]
"""From what a file says of its seal, None where it has none, to the seal."""


def with_key(path: str, key: StorageKey | None) -> Keyhole:
    """Return the keyhole of who is to write: the right key, or none where none is wanted."""

    def seal_of(value: bytes | None) -> Seal | None:
        if value is None:
            if key is not None:
                raise StorageNotEncrypted(path)
            return None
        seal = _read(path, value, key)
        if not seal.is_open:
            raise StorageKeyMissing(path, seal.fingerprint)
        return seal

    return seal_of


def looking(path: str, key: StorageKey | None = None) -> Keyhole:
    """Return the keyhole of who looks: without a key it is known what is sealed, and no more."""

    def seal_of(value: bytes | None) -> Seal | None:
        return None if value is None else _read(path, value, key)

    return seal_of


def _read(path: str, value: bytes, key: StorageKey | None) -> Seal:
    _, salt, check, fingerprint = unpackb(value, use_list=False)
    if key is not None and not compare_digest(check, _check_of(key, salt)):
        raise StorageKeyWrong(path, fingerprint, key.fingerprint)
    return Seal(path, salt, key, (check, fingerprint))


def _check_of(key: StorageKey, salt: bytes) -> bytes:
    return key.derive(b"check", salt, _CHECK_BYTES)
