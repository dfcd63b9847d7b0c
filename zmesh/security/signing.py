"""Messages signed end to end: who wrote a message, and that nobody changed it since.

A signature travels in the extras of its record, through journals and other hands. It covers what
a handler may rely on: where the message goes, its number at its origin, headers, type and keys,
until when it counts, and the bytes of the body as they are before compression. What changes on
the way is not covered: attempts, numbers of links and logs, the time left.

Messages that are sent together are signed together: their digests are the leaves of a tree of
hashes (Merkle's, as in RFC 6962 section 2.1), Ed25519 signs its root, and each message has the
root's signature and the hashes that lead from itself to the root. So each is verified alone, in
any order and wherever it went, but who gets many verifies one. A message alone is a tree of one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from itertools import count
from struct import Struct
from typing import Final, NamedTuple

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
from zmesh.security.node_key import PUBLIC_BYTES, SIGNATURE_BYTES, NodeKey, is_signed, node_id_of

VERSION: Final = 1

TOGETHER_MAX: Final = 32
"""Messages that one signature is made for: Ed25519 is 2 microseconds a message then to verify.

Twice as many would save one of them, and cost 32 bytes a message."""

HASH_BYTES: Final = 32
"""Of all hashes here: less than twice what Ed25519 withstands would be its weaker part."""

PATH_MAX: Final = 8
"""Hashes from a message to its root, from whatever signed it: of a tree of 256."""

COUNTERS_END: Final = (1 << 64) - 256
"""No signature has this counter or a higher one: who remembers blocks of them can tell the end of
each in 8 bytes."""

TIMES_END_MS: Final = 1 << 63
"""Nor is one from then on: what clocks differ by can be added to any time."""

SIGNED_BYTES_MAX: Final = SIGNATURE_RECORD_BYTES + (TOGETHER_MAX - 1).bit_length() * HASH_BYTES
"""What signing adds to a record, at most."""

# Nothing begins with another of these, so no hash of one sort is one of another.
_LEAF: Final = b"zmesh message v1\x00"
_BRANCH: Final = b"zmesh branch v1\x00"
_ROOT: Final = b"zmesh batch v1\x00"

_FACTS: Final = Struct(f">BBB{PUBLIC_BYTES}s16sQQQ")
"""Version, addressing, lane, public key, journal, counter, signed and expires (wall ms)."""

_FACTS_BYTES: Final = _FACTS.size
_REST: Final = Struct(">BB")  # kind and encoding
_LENGTH: Final = Struct(">I")
_ABSENT: Final = _LENGTH.pack(0xFFFFFFFF)
_KIND: Final = 0b1111
_COVERED: Final = (Tag.HEADERS, Tag.TYPE, Tag.ROUTING_KEY)
_PLAIN: Final = _ABSENT * len(_COVERED)

assert _FACTS_BYTES + SIGNATURE_BYTES == SIGNATURE_RECORD_BYTES  # noqa: S101  # what it counts


class Addressing(IntEnum):
    """What the destination of a message names."""

    TARGET = 0  # of its record: a service, topic, queue or group
    NODE = 1  # its receiver, by the id as hex digits
    NAME = 2  # its receiver, by the name it was addressed by


_ADDRESSINGS: Final = tuple(Addressing)


class Roots:
    """Remembers whose roots were verified last, so that what was signed together costs it once.

    Args:
        roots_max: remembered; the oldest goes first.
    """

    def __init__(self, roots_max: int) -> None:
        self.verified = 0  # that took Ed25519
        self._roots_max = roots_max
        self._known: dict[tuple[bytes, bytes, bytes], None] = {}

    def __len__(self) -> int:
        return len(self._known)

    def are_signed(self, public: bytes, root: bytes, proof: bytes) -> bool:
        """Return whether the owner of a public key signed this root; 55 microseconds, or none."""
        known = (public, root, proof)
        if known in self._known:
            return True
        self.verified += 1
        if not is_signed(public, _ROOT + root, proof):
            return False  # not remembered: who sends what does not hold drives nothing out
        if len(self._known) >= self._roots_max:
            del self._known[next(iter(self._known))]
        self._known[known] = None
        return True


class Signature(NamedTuple):
    """What a signed message tells of itself; nothing of it counts before it `holds`."""

    addressing: Addressing
    lane: int
    public: bytes
    journal: JournalId
    counter: int  # never given twice in that journal
    signed_ms: int  # by the signer's wall clock
    expires_ms: int
    data: bytes  # all of it, as it travels

    @property
    def node(self) -> NodeId:
        """The id of the node that signed it."""
        return node_id_of(self.public)

    @classmethod
    def of(cls, data: object) -> "Signature | None":
        """Return what bytes from anywhere say; None where they are none of this version."""
        if not isinstance(data, bytes):
            return None
        hashes, rest = divmod(len(data) - SIGNATURE_RECORD_BYTES, HASH_BYTES)
        if rest or not 0 <= hashes <= PATH_MAX:
            return None
        version, addressing, lane, public, journal, counter, signed_ms, expires_ms = (
            _FACTS.unpack_from(data)
        )
        if version != VERSION or addressing >= len(_ADDRESSINGS):
            return None
        if counter >= COUNTERS_END or max(signed_ms, expires_ms) >= TIMES_END_MS:
            return None
        return cls(
            _ADDRESSINGS[addressing], lane, public, JournalId(journal), counter, signed_ms,
            expires_ms, data,
        )  # fmt: skip

    def holds(
        self, record: Record, destination: str, body: bytes | memoryview, roots: Roots
    ) -> bool:
        """Return whether its key signed this record, for this destination.

        It takes 60 microseconds, or 7 where `roots` knows what was signed together with it.

        Args:
            record: as it came, compressed or not.
            destination: the record's target; or what names its receiver, see `addressing`.
            body: of the record, not compressed.
            roots: that were verified before.
        """
        data = self.data
        key = covered = None
        if len(record) == 4 and len(record[3]) > 2:  # more than the signature
            extras = extras_of(record)
            key = extras.get(Tag.KEY)
            covered = [extras.get(tag) for tag in _COVERED]
        digest = _leaf(data[:_FACTS_BYTES], record, destination, key, covered, body)
        for at in range(SIGNATURE_RECORD_BYTES, len(data), HASH_BYTES):
            digest = _branch(digest, data[at : at + HASH_BYTES])
        return roots.are_signed(self.public, digest, data[_FACTS_BYTES:SIGNATURE_RECORD_BYTES])


def signature_in(record: Record) -> bytes:
    """Return the signature that a record was just given."""
    data = extra(record, Tag.SIGNATURE)
    assert isinstance(data, bytes)  # noqa: S101  # of our own
    return data


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs records that have all this in common.

    Args:
        node: who signs.
        journal: in which counters are given once.
        addressing: what the destination is.
        lane: the priority.
        destination: None for the target of each record.
        key: that orders them.
    """

    node: NodeKey
    journal: JournalId
    addressing: Addressing
    lane: int
    destination: str | None
    key: str | None

    def sign(self, record: Record, counter: int, signed_ms: int, expires_ms: int) -> Record:
        """Return a record with its signature; 25 microseconds.

        Args:
            record: that is not compressed.
            counter: its number.
            signed_ms: when, in milliseconds since 1970.
            expires_ms: when that is over, likewise.
        """
        return self.sign_all((record,), counter, signed_ms, expires_ms)[0]

    def sign_all(
        self, records: Sequence[Record], counter: int, signed_ms: int, expires_ms: int
    ) -> list[Record]:
        """Return records with signatures, made for many together; 4 microseconds each.

        Args:
            records: that are not compressed.
            counter: the number of the first; each has the next one.
            signed_ms: when, in milliseconds since 1970.
            expires_ms: when that is over, likewise.
        """
        told = [
            _FACTS.pack(
                VERSION, self.addressing, self.lane, self.node.public, self.journal, number,
                signed_ms, expires_ms,
            )
            for number, _ in zip(count(counter), records, strict=False)
        ]  # fmt: skip
        leaves = [self._leaf(facts, each) for facts, each in zip(told, records, strict=True)]
        signed: list[Record] = []
        for first in range(0, len(records), TOGETHER_MAX):
            root, paths = _tree(leaves[first : first + TOGETHER_MAX])
            proof = self.node.sign(_ROOT + root)
            signed += [
                with_extra(records[at], Tag.SIGNATURE, told[at] + proof + path)
                for at, path in enumerate(paths, first)
            ]
        return signed

    def _leaf(self, facts: bytes, record: Record) -> bytes:
        to = record[1] if self.destination is None else self.destination
        covered = None
        if len(record) == 4:
            extras = extras_of(record)
            covered = [extras.get(tag) for tag in _COVERED]
        return _leaf(facts, record, to, self.key, covered, record[2])


def _leaf(
    facts: bytes,
    record: Record,
    destination: str,
    key: ExtraValue | None,
    covered: list[ExtraValue | None] | None,
    body: bytes | memoryview,
) -> bytes:
    # Every field has one length or tells its own, so no two messages are the same bytes; the
    # body is the rest.
    told = (
        _LEAF,
        facts,
        _REST.pack(record[0] & _KIND, encoding_of(record)),
        _field(destination),
        _field(key),
        _PLAIN if covered is None else b"".join(map(_field, covered)),
    )
    leaf = blake2b(b"".join(told), digest_size=HASH_BYTES)
    leaf.update(body)
    return leaf.digest()


def _field(value: ExtraValue | None) -> bytes:
    if value is None:
        return _ABSENT
    data = value.encode() if isinstance(value, str) else value
    if not isinstance(data, bytes):
        return _ABSENT  # the codec takes only texts and bytes for these
    return _LENGTH.pack(len(data)) + data


def _branch(one: bytes, other: bytes) -> bytes:
    # In their order as numbers: where in the tree a message is says nothing, so nobody tells it.
    both = _BRANCH + one + other if one < other else _BRANCH + other + one
    return blake2b(both, digest_size=HASH_BYTES).digest()


def _tree(leaves: list[bytes]) -> tuple[bytes, list[bytes]]:
    """Return the root of at least one leaf, and for each the hashes that lead there."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        levels.append(list(_above(levels[-1])))
    paths = [b""]
    for level in reversed(levels[:-1]):
        beside = [*level, b""] if len(level) % 2 else level  # the odd one goes up as it is
        paths = [beside[at ^ 1] + paths[at >> 1] for at in range(len(level))]
    return levels[-1][0], paths


def _above(level: list[bytes]) -> Iterator[bytes]:
    for at in range(0, len(level) - 1, 2):
        yield _branch(level[at], level[at + 1])
    if len(level) % 2:
        yield level[-1]
