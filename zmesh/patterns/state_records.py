"""What replicas of a shared map tell each other: the bodies of STATE records, as values.

Each is one msgpack array whose first item tells which; `docs/protocol.md` specifies them. Entries
are rows of key, stamp, origin, encoding and value.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

from msgpack import packb, unpackb

from zmesh.errors import ProtocolError
from zmesh.patterns.hybrid_clock import STAMP_MAX
from zmesh.patterns.shared_map import BUCKETS, DELETED, ORIGIN_BYTES, Entry
from zmesh.wire.fields import COUNT_MAX, array, integer, malformed, oversized, row, text, token
from zmesh.wire.scan import scan

DELTA: Final = 0
ASK: Final = 1
DIGEST: Final = 2
FETCH: Final = 3
PIECE: Final = 4

DIGEST_BYTES: Final = 8

Keyed = tuple[str, Entry]


@dataclass(frozen=True, slots=True)
class Delta:
    """What the sender wrote above the stamp `since` and up to `until`, and still stands."""

    origin: bytes
    since: int
    until: int
    entries: list[Keyed]


@dataclass(frozen=True, slots=True)
class Ask:
    """Compare with mine: begins pull `number`, one that the asker counts."""

    number: int
    root: bytes
    wall_ms: int  # of the sender's clock


@dataclass(frozen=True, slots=True)
class Digest:
    """The answer to `Ask`: what was seen so far, and sums of buckets; none where roots agree."""

    number: int
    is_whole: bool  # had a snapshot itself, or was the first
    wall_ms: int
    seen: Mapping[bytes, int]
    sums: bytes


@dataclass(frozen=True, slots=True)
class Fetch:
    """Send what these buckets hold beside these digests."""

    number: int
    buckets: tuple[int, ...]
    known: frozenset[int]


@dataclass(frozen=True, slots=True)
class Piece:
    """The answer to `Fetch`; with `more` it is to be repeated, with what came known as well."""

    number: int
    more: bool
    entries: list[Keyed] = field(default_factory=list)
    absent: frozenset[int] = frozenset()  # of the known ones, those not there


StateRecord = Delta | Ask | Digest | Fetch | Piece


def encode_delta(delta: Delta) -> bytes:
    """Return the body of a delta; the origin of its entries is told once."""
    rows = [(key, entry.stamp, entry.encoding, entry.value) for key, entry in delta.entries]
    return _pack((DELTA, delta.origin, delta.since, delta.until, rows))


def encode_ask(ask: Ask) -> bytes:
    """Return the body of a question."""
    return _pack((ASK, ask.number, ask.root, ask.wall_ms))


def encode_digest(digest: Digest) -> bytes:
    """Return the body of an answer to `Ask`."""
    seen = list(digest.seen.items())
    return _pack((DIGEST, digest.number, digest.is_whole, digest.wall_ms, seen, digest.sums))


def encode_fetch(fetch: Fetch) -> bytes:
    """Return the body of a request for entries."""
    return _pack((FETCH, fetch.number, bytes(fetch.buckets), _join(fetch.known)))


def encode_piece(piece: Piece) -> bytes:
    """Return the body of an answer to `Fetch`."""
    rows = [(key, *entry) for key, entry in piece.entries]
    return _pack((PIECE, piece.number, piece.more, rows, _join(piece.absent)))


def _pack(fields: tuple[object, ...]) -> bytes:
    return cast("bytes", packb(fields))


def _join(digests: Iterable[int]) -> bytes:
    return b"".join(digest.to_bytes(DIGEST_BYTES, "big") for digest in sorted(digests))


def decode(body: bytes | memoryview, bytes_max: int) -> StateRecord:
    """Return what a body says.

    Raises:
        ProtocolError: nothing, or it is above `bytes_max`.
    """
    if len(body) > bytes_max:
        raise oversized("a STATE record", len(body), bytes_max)
    scan(body)
    try:
        value = unpackb(body, use_list=False, strict_map_key=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise malformed(f"{type(error).__name__}: {error}") from error
    if type(value) is not tuple or not value or type(value[0]) is not int:
        raise malformed("a STATE record is no array that begins with its type")
    reader = _READERS.get(value[0])
    if reader is None:
        raise ProtocolError("unknown", f"a STATE record of type {value[0]}")
    return reader(value)


def _read_delta(value: object) -> Delta:
    _, told, low, high, rows = row(value, "a delta", 5)
    origin = token(told, "an origin", ORIGIN_BYTES)
    since = integer(low, "the beginning of a delta", 0, STAMP_MAX)
    until = integer(high, "the end of a delta", since, STAMP_MAX)
    entries: list[Keyed] = []
    previous = since
    for each in array(rows, "entries", COUNT_MAX):
        key, at, encoding, data = row(each, "an entry", 4)
        previous = integer(at, "a stamp", previous + 1, until)
        entries.append((_key(key), _entry(previous, origin, encoding, data)))
    return Delta(origin, since, until, entries)


def _read_ask(value: object) -> Ask:
    _, number, root, wall = row(value, "a question", 4)
    return Ask(
        integer(number, "a number"), token(root, "a root", DIGEST_BYTES), integer(wall, "a time")
    )


def _read_digest(value: object) -> Digest:
    _, number, is_whole, wall, told, sums = row(value, "a digest", 6)
    seen: dict[bytes, int] = {}
    for each in array(told, "origins", COUNT_MAX):
        origin, stamp = row(each, "what was seen", 2)
        seen[token(origin, "an origin", ORIGIN_BYTES)] = integer(stamp, "a stamp", 0, STAMP_MAX)
    if sums != b"":
        token(sums, "sums of buckets", BUCKETS * DIGEST_BYTES)
    return Digest(
        integer(number, "a number"),
        _flag(is_whole),
        integer(wall, "a time"),
        seen,
        _octets(sums, "sums"),
    )


def _read_fetch(value: object) -> Fetch:
    _, number, buckets, known = row(value, "a request", 4)
    numbers = tuple(_octets(buckets, "buckets"))
    if len(set(numbers)) < len(numbers):
        raise malformed("a bucket is asked for twice")
    return Fetch(integer(number, "a number"), numbers, _digests(known))


def _read_piece(value: object) -> Piece:
    _, number, more, rows, absent = row(value, "a piece", 5)
    entries: list[Keyed] = []
    for each in array(rows, "entries", COUNT_MAX):
        key, at, told, encoding, data = row(each, "an entry", 5)
        origin = token(told, "an origin", ORIGIN_BYTES)
        stamp = integer(at, "a stamp", 1, STAMP_MAX)
        entries.append((_key(key), _entry(stamp, origin, encoding, data)))
    return Piece(integer(number, "a number"), _flag(more), entries, _digests(absent))


_READERS: Final[dict[int, Callable[[object], StateRecord]]] = {
    DELTA: _read_delta,
    ASK: _read_ask,
    DIGEST: _read_digest,
    FETCH: _read_fetch,
    PIECE: _read_piece,
}


def _entry(stamp: int, origin: bytes, encoding: object, data: object) -> Entry:
    kind = integer(encoding, "an encoding", 0, DELETED)
    value = _octets(data, "a value")
    if kind == DELETED and value:
        raise malformed("a deleted key has a value")
    return Entry(stamp, origin, kind, value)


def _key(value: object) -> str:
    key = text(value, "a key")
    if not key:
        raise malformed("a key is empty")
    return key


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise malformed("a flag is no boolean")
    return value


def _octets(value: object, what: str) -> bytes:
    if type(value) is not bytes:
        raise malformed(f"{what} are no bytes")
    return value


def _digests(value: object) -> frozenset[int]:
    data = _octets(value, "digests")
    if len(data) % DIGEST_BYTES:
        raise malformed("digests are not 8 bytes each")
    return frozenset(
        int.from_bytes(data[at : at + DIGEST_BYTES], "big")
        for at in range(0, len(data), DIGEST_BYTES)
    )
