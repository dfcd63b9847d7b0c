"""SPAKE2, and what is derived from it: how two sides with one code come to a secret.

SPAKE2 is as in RFC 9382, in the group of Ed25519, by the package `spake2`; that is older than the
RFC and chooses the points M and N in its own way, so it talks with itself alone. Every proof and
every seal is over all messages so far, the nameplate before them.
"""

from hashlib import blake2b
from hmac import compare_digest
from typing import Any, Final, Literal

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
)
from nacl.exceptions import CryptoError

from zmesh.errors import MissingPackage
from zmesh.ids import Entropy
from zmesh.security.join_code import JoinCode
from zmesh.security.join_frames import PROOF_BYTES, Garbage

Side = Literal["inviter", "joiner"]

_DOMAIN: Final = b"zmesh join v1 "
_NONCE: Final = bytes(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES)
"""A key that seals is used for one message, so the nonce need not differ."""


def check_installed() -> None:
    """Raise MissingPackage where there is no SPAKE2."""
    _spake2()


class Exchange:
    """One side of one exchange, good for one attempt.

    Args:
        side: whose it is.
        code: as this side knows it.
        entropy: where its secret number comes from.

    Raises:
        MissingPackage: `spake2` is not installed.
    """

    def __init__(self, side: Side, code: JoinCode, entropy: Entropy) -> None:
        library = _spake2()
        nameplate = code.nameplate.encode()
        kind = library.SPAKE2_A if side == "joiner" else library.SPAKE2_B
        self._half = kind(
            code.password.encode(),
            idA=_DOMAIN + b"joiner " + nameplate,
            idB=_DOMAIN + b"inviter " + nameplate,
            entropy_f=entropy.token,
        )
        self.message: bytes = self._half.start()
        """What to send of SPAKE2; tells nothing of the code."""
        self._key = b""
        self._transcript = blake2b(_DOMAIN + nameplate + b"\x00", digest_size=64)

    def finish(self, message: bytes) -> None:
        """Take the other side's SPAKE2 message. The secrets are equal if the codes are.

        Raises:
            Garbage: it is none.
        """
        library = _spake2()
        bad = (library.SPAKEError, library.ed25519_basic.NotOnCurve, ValueError)
        try:
            self._key = self._half.finish(message)
        except bad as error:
            raise Garbage("that is no SPAKE2 message") from error

    def note(self, message: bytes) -> bytes:
        """Put a message that was sent or received into the transcript; return it."""
        self._transcript.update(message)
        return message

    def prove(self, purpose: str, more: bytes = b"") -> bytes:
        """Return what only a side with the same secret and transcript can compute.

        It is a hash, and not the tag of a cipher: one tag can be made to fit many keys, which
        would let an impostor try many codes at once (Len, Grubbs, Ristenpart: Partitioning Oracle
        Attacks, USENIX Security 2021).
        """
        return self._derive(b"prove " + purpose.encode(), more)

    def check(self, purpose: str, proof: bytes, more: bytes = b"") -> bool:
        """Return whether the other side proves it."""
        return compare_digest(proof, self.prove(purpose, more))

    def seal(self, purpose: str, content: bytes) -> bytes:
        """Encrypt: XChaCha20-Poly1305 under a key for this place in the transcript alone."""
        key = self._derive(b"seal " + purpose.encode())
        return crypto_aead_xchacha20poly1305_ietf_encrypt(content, b"", _NONCE, key)

    def unseal(self, purpose: str, sealed: bytes) -> bytes:
        """Decrypt; raises Garbage where the other side did not seal it."""
        key = self._derive(b"seal " + purpose.encode())
        try:
            return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, b"", _NONCE, key)
        except CryptoError as error:
            raise Garbage("a sealed message was tampered with") from error

    def _derive(self, purpose: bytes, more: bytes = b"") -> bytes:
        # Nobody may prove or seal anything before there is a secret: an empty key is no key.
        assert self._key, "finish() comes first"  # noqa: S101
        transcript = self._transcript.copy()
        transcript.update(more)
        text = _DOMAIN + purpose + b"\x00" + transcript.digest()
        return blake2b(text, key=self._key, digest_size=PROOF_BYTES).digest()


def _spake2() -> Any:  # it has no types
    try:
        # It takes a tenth of a second, which programs that join by no code need not spend.
        import spake2  # noqa: PLC0415
        import spake2.ed25519_basic  # noqa: PLC0415
        import spake2.spake2  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingPackage("joining by a code", "spake2", "join") from error
    return spake2
