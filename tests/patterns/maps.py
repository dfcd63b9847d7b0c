"""Shared maps as values, for tests: small ones, and what two replicas do to become equal."""

from dataclasses import replace

from zmesh.message import Encoding
from zmesh.options import NodeOptions
from zmesh.patterns.shared_map import DELETED, LIFE_BYTES, Entry, ReplicaMap
from zmesh.patterns.state_pull import Pull, answer
from zmesh.patterns.state_records import (
    Digest,
    Fetch,
    Piece,
    decode,
    encode_digest,
    encode_fetch,
    encode_piece,
)

OPTIONS = NodeOptions()
BODY_MAX = 1 << 20


def origin(letter: str) -> bytes:
    return letter.encode() * 16 + bytes(LIFE_BYTES)


def entry(stamp: int, who: str = "a", value: bytes = b"v") -> Entry:
    return Entry(stamp, origin(who), int(Encoding.RAW), value)


def tombstone(stamp: int, who: str = "a") -> Entry:
    return Entry(stamp, origin(who), DELETED, b"")


def limited(**limits: int) -> ReplicaMap:
    return ReplicaMap(replace(OPTIONS, **limits))  # type: ignore[arg-type]


def shown(own: ReplicaMap) -> dict[str, bytes]:
    """What an application sees."""
    return {key: found.value for key in own if (found := own.get(key)) is not None}


def held(own: ReplicaMap) -> dict[str, Entry]:
    return dict(own.entries())


def state(own: ReplicaMap) -> tuple[dict[str, Entry], dict[bytes, int]]:
    return held(own), dict(own.seen)


def pull(own: ReplicaMap, other: ReplicaMap, piece_bytes: int = 300) -> list[Piece]:
    """Let `own` get from `other` what it lacks, over the wire; return the pieces."""
    process = Pull(1, origin("z")[:16], own)  # type: ignore[arg-type]
    pieces: list[Piece] = []
    sums = b"" if own.root == other.root else other.sums
    told = decode(encode_digest(Digest(1, True, 0, other.seen, sums)), BODY_MAX)
    assert isinstance(told, Digest)
    question = process.on_digest(told)
    while question is not None:
        asked = decode(encode_fetch(question), BODY_MAX)
        assert isinstance(asked, Fetch)
        assert asked == replace(question)
        piece = decode(encode_piece(answer(other, asked, piece_bytes)), BODY_MAX)
        assert isinstance(piece, Piece)
        pieces.append(piece)
        for key, each in piece.entries:
            own.offer(key, each, 0.0)
        outdated, question = process.on_piece(piece)
        for key in outdated:
            own.remove(key)
    own.absorb(told.seen)
    return pieces
