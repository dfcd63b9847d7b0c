"""Messages signed end to end: who wrote a message, and that nobody changed it since.

A signature travels in the extras of its record, through journals and other hands. It covers what
a handler may rely on: where the message goes, its number at its origin, headers, type and keys,
until when it counts, and the bytes of the body as they are before compression. What changes on
the way is not covered: attempts, numbers of links and logs, the time left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from struct import Struct
from typing import Final

from zmesh.ids import JournalId, NodeId
from zmesh.message import (
    SIGNATURE_RECORD_BYTES,
    ExtraValue,
    Record,
    Tag,
    encoding_of,
    extra,
    extras_of,
    with_extra,
)
from zmesh.security.node_key import PUBLIC_BYTES, NodeKey, is_signed, node_id_of

VERSION: Final = 1

_DOMAIN: Final = b"zmesh message v1\x00"
_FACTS: Final = Struct(f">BBB{PUBLIC_BYTES}s16sQQQ")
"""Version, addressing, lane, public key, journal, counter, signed and expires (wall ms)."""

_REST: Final = Struct(">BB")  # kind and encoding
_LENGTH: Final = Struct(">I")
_ABSENT: Final = _LENGTH.pack(0xFFFFFFFF)
_KIND: Final = 0b1111
_COVERED: Final = (Tag.HEADERS, Tag.TYPE, Tag.ROUTING_KEY)
_PLAIN: Final = _ABSENT * len(_COVERED)

assert _FACTS.size + 64 == SIGNATURE_RECORD_BYTES  # noqa: S101  # what the codec takes


class Addressing(IntEnum):
    """What the destination of a message names."""

    TARGET = 0  # of its record: a service, topic, queue or group
    NODE = 1  # its receiver, by the id as hex digits
    NAME = 2  # its receiver, by the name it was addressed by


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signed message tells of itself; nothing of it counts before it `holds`."""

    addressing: Addressing
    lane: int
    public: bytes
    journal: JournalId
    counter: int  # never given twice in that journal
    signed_ms: int  # by the signer's wall clock
    expires_ms: int
    proof: bytes  # the signature itself
    facts: bytes  # all before it, as they travel

    @property
    def node(self) -> NodeId:
        """The id of the node that signed it."""
        return node_id_of(self.public)

    @classmethod
    def of(cls, data: object) -> "Signature | None":
        """Return what bytes from anywhere say; None where they are none of this version."""
        if not isinstance(data, bytes) or len(data) != SIGNATURE_RECORD_BYTES:
            return None
        facts, proof = data[: _FACTS.size], data[_FACTS.size :]
        version, addressing, lane, public, journal, counter, signed_ms, expires_ms = _FACTS.unpack(
            facts
        )
        if version != VERSION or addressing not in _ADDRESSINGS:
            return None
        return cls(
            Addressing(addressing), lane, public, JournalId(journal), counter, signed_ms,
            expires_ms, proof, facts,
        )  # fmt: skip

    def holds(self, record: Record, destination: str, body: bytes | memoryview) -> bool:
        """Return whether its key signed this record, for this destination; 60 microseconds.

        Args:
            record: as it came, compressed or not.
            destination: the record's target; or what names its receiver, see `addressing`.
            body: of the record, not compressed.
        """
        extras = extras_of(record)
        key = extras.get(Tag.KEY)
        told = _transcript(
            self.facts, record, destination, key, [extras.get(tag) for tag in _COVERED], body
        )
        return is_signed(self.public, told, self.proof)


_ADDRESSINGS: Final = frozenset(map(int, Addressing))


def signature_in(record: Record) -> bytes:
    """Return the signature that a record was just given."""
    data = extra(record, Tag.SIGNATURE)
    assert isinstance(data, bytes)  # noqa: S101  # of our own
    return data


def signer(
    node: NodeKey,
    journal: JournalId,
    addressing: Addressing,
    lane: int,
    destination: str | None,
    key: str | None,
) -> Callable[[Record, int, int, int], Record]:
    """Return what signs records that have all this in common.

    It takes a record that is not compressed, its counter, when it is signed and when that
    expires, in milliseconds since 1970, and returns the record with its signature.

    Args:
        node: who signs.
        journal: in which counters are given once.
        addressing: what the destination is.
        lane: the priority.
        destination: None for the target of each record.
        key: that orders them.
    """

    def sign(record: Record, counter: int, signed_ms: int, expires_ms: int) -> Record:
        facts = _FACTS.pack(
            VERSION, addressing, lane, node.public, journal, counter, signed_ms, expires_ms
        )
        to = record[1] if destination is None else destination
        extras = None if len(record) == 3 else extras_of(record)
        covered = None if extras is None else [extras.get(tag) for tag in _COVERED]
        told = _transcript(facts, record, to, key, covered, record[2])
        return with_extra(record, Tag.SIGNATURE, facts + node.sign(told))

    return sign


def _transcript(
    facts: bytes,
    record: Record,
    destination: str,
    key: ExtraValue | None,
    covered: list[ExtraValue | None] | None,
    body: bytes | memoryview,
) -> bytes:
    # Every field has one length or tells its own, so no two messages are the same bytes.
    return b"".join(
        (
            _DOMAIN,
            facts,
            _REST.pack(record[0] & _KIND, encoding_of(record)),
            _field(destination),
            _field(key),
            _PLAIN if covered is None else b"".join(map(_field, covered)),
            blake2b(body, digest_size=32).digest(),
        )
    )


def _field(value: ExtraValue | None) -> bytes:
    if value is None:
        return _ABSENT
    data = value.encode() if isinstance(value, str) else value
    if not isinstance(data, bytes):
        return _ABSENT  # the codec takes only texts and bytes for these
    return _LENGTH.pack(len(data)) + data
