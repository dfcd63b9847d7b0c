"""The node key: an Ed25519 key pair (RFC 8032), whose public half names the node for life."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from nacl.bindings import (
    crypto_sign_BYTES,
    crypto_sign_PUBLICKEYBYTES,
    crypto_sign_seed_keypair,
    crypto_sign_SEEDBYTES,
)
from nacl.bindings.crypto_sign import crypto_sign, crypto_sign_open
from nacl.exceptions import BadSignatureError

from zmesh.ids import NODE_ID_BYTES, Entropy, NodeId
from zmesh.security.key_text import KeyText
from zmesh.security_errors import InvalidKey, check_text

SEED_BYTES: Final = crypto_sign_SEEDBYTES
PUBLIC_BYTES: Final = crypto_sign_PUBLICKEYBYTES
SIGNATURE_BYTES: Final = crypto_sign_BYTES

PREFIX: Final = "zmn1."
"""What the text of a node's public key begins with, beside `zmk1.` of mesh keys."""

_TEXT: Final = KeyText(PREFIX, "the public key of a node", b"zmesh v1 node checksum")

_DOMAIN: Final = b"zmesh node id v1"
"""Hashed before the key, so that an id equals no other hash zmesh makes of the same bytes."""


@dataclass(frozen=True, slots=True)
class NodeKey:
    """A node's own key. Signing is deterministic, so a pure core may do it."""

    seed: bytes = field(repr=False)  # 32 bytes: all there is to keep
    public: bytes
    id: NodeId
    _secret: bytes = field(repr=False)

    @classmethod
    def of(cls, seed: bytes) -> "NodeKey":
        """Return the key that 32 bytes stand for."""
        public, secret = crypto_sign_seed_keypair(seed)
        return cls(seed, public, node_id_of(public), secret)

    @classmethod
    def new(cls, entropy: Entropy) -> "NodeKey":
        """Return a key nobody else has."""
        return cls.of(entropy.token(SEED_BYTES))

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes that prove who signed this; 20 microseconds."""
        return crypto_sign(data, self._secret)[:SIGNATURE_BYTES]


def node_id_of(public: bytes) -> NodeId:
    """Return the id of the node with this public key: 16 bytes of BLAKE2b (RFC 7693)."""
    return NodeId(blake2b(_DOMAIN + b"\x00" + public, digest_size=NODE_ID_BYTES).digest())


def is_signed(public: bytes, data: bytes, signature: bytes) -> bool:
    """Return whether the owner of a public key signed this; 55 microseconds."""
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + data, public)
    except BadSignatureError:
        return False
    return True


def to_text(public: bytes) -> str:
    """Return a public key as text: `zmn1.` and 48 characters of base64url (RFC 4648)."""
    return _TEXT.write(public)


def from_text(text: str, where: str = "key") -> bytes:
    """Read the text of a public key.

    Args:
        text: what `to_text` returned once; space around it does not matter.
        where: it comes from, for the error.

    Returns:
        32 bytes.

    Raises:
        InvalidKey: it is none, or was mistyped.
    """
    check_text(text, where)
    if text.strip().startswith("zmk1."):
        raise InvalidKey(where, "it is a mesh key, which is secret: take it out of there")
    return _TEXT.read(text, where)
