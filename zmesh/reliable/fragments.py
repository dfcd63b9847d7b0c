"""Large bodies in pieces: taken apart without a copy, put together with one.

The first piece keeps the head, target and extras of the record, and says in `Tag.FRAGMENTS` how
many pieces there are, how many bytes they make and what their digest is. The others are bare
records of kind FRAGMENT. All but the last have the same size.
"""

from hashlib import blake2b
from io import BytesIO
from typing import Final, cast

from zmesh.errors import ProtocolError
from zmesh.message import (
    Fragments,
    Kind,
    Record,
    Tag,
    extra,
    head,
    with_body,
    with_extra,
    without_extra,
)
from zmesh.options import LinkOptions, WireLimits

DIGEST_BYTES: Final = 16
_FRAGMENT: Final = head(Kind.FRAGMENT)


class Cutter:
    """Says how much of a body travels at once: little, unless the path is fast.

    `burst_bytes` is what the path carries within `burst_time`, as far as is known.
    """

    __slots__ = ("_least", "_most", "burst_bytes")

    def __init__(self, options: LinkOptions, limits: WireLimits) -> None:
        self._least = options.fragment_bytes
        self._most = min(options.fragment_bytes_max, limits.part_bytes_max)
        self.burst_bytes = 0

    def count_max(self, record: Record) -> int:
        """Return how many pieces of a record there may be."""
        return -(-len(record[2]) // self._least)

    def cut(self, record: Record, window_bytes: int) -> list[Record]:
        """Return the record in pieces, or as it is.

        Three pieces are within the window that the peer has shown: what is larger than its window
        would never go.
        """
        most = min(self._most, window_bytes // 3, self.burst_bytes)
        return split(record, max(self._least, most))


def split(record: Record, fragment_bytes: int) -> list[Record]:
    """Return the record in pieces of `fragment_bytes`, or as it is where one piece is enough.

    The bodies of the pieces are views of the record's body.
    """
    body = memoryview(record[2])
    total = len(body)
    if total <= fragment_bytes:
        return [record]
    count = -(-total // fragment_bytes)
    digest = blake2b(body, digest_size=DIGEST_BYTES).digest()
    announced = with_extra(record, Tag.FRAGMENTS, (count, total, digest))
    pieces: list[Record] = [
        (_FRAGMENT, "", body[start : start + fragment_bytes])
        for start in range(0, total, fragment_bytes)
    ]
    pieces[0] = with_body(announced, body[:fragment_bytes])
    return pieces


class Assembly:
    """Puts the pieces of one record together, which come in order and each once.

    What it holds is what came: the size the peer announced is a limit, and never allocated.
    """

    __slots__ = (
        "_body", "_digest", "_first", "_hash", "_missing", "_piece_bytes", "count", "total_bytes",
    )  # fmt: skip

    def __init__(self, first: Record, options: LinkOptions) -> None:
        """Begin with the piece that carries `Tag.FRAGMENTS`.

        Raises ProtocolError where what it announces is above `body_bytes_max` or contradicts
        itself.
        """
        announced = extra(first, Tag.FRAGMENTS)
        if not (isinstance(announced, tuple) and len(announced) == 3):
            raise ProtocolError("fragments", "the first piece announces no others")
        count, total, digest = cast("Fragments", announced)
        piece = len(first[2])
        if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
            raise ProtocolError("fragments", f"the digest is not {DIGEST_BYTES} bytes")
        if total > options.body_bytes_max:
            raise ProtocolError("fragments", f"{total} bytes are over {options.body_bytes_max}")
        if not (count > 1 and (count - 1) * piece < total <= count * piece):
            raise ProtocolError("fragments", f"{count} x {piece} bytes do not make {total}")
        self.count = count
        self.total_bytes = total
        self._piece_bytes = piece
        self._digest = digest
        self._first = without_extra(with_body(first, b""), Tag.FRAGMENTS)
        self._missing = count
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self._body = BytesIO()
        self._take(first[2])

    @property
    def received_bytes(self) -> int:
        """How much of the body is here, and held in memory."""
        return self._body.tell()

    def add(self, piece: Record) -> Record | None:
        """Take the next piece; return the whole record with the last, before that None.

        Raises ProtocolError where the piece is none, has another size than its place asks for, or
        the whole has another digest than was announced. The assembly is of no use then.
        """
        if piece[0] != _FRAGMENT or piece[1]:
            raise ProtocolError("fragments", f"{self._missing} pieces are missing")
        expected = self._piece_bytes
        if self._missing == 1:
            expected = self.total_bytes - self.received_bytes
        if len(piece[2]) != expected:
            raise ProtocolError(
                "fragments", f"a piece has {len(piece[2])} bytes instead of {expected}"
            )
        self._take(piece[2])
        if self._missing:
            return None
        if self._hash.digest() != self._digest:
            raise ProtocolError("fragments", "the pieces are not what was announced")
        # `getvalue` hands over BytesIO's own buffer: the body has been copied once in all.
        return with_body(self._first, self._body.getvalue())

    def _take(self, body: bytes | memoryview) -> None:
        self._hash.update(body)
        self._body.write(body)
        self._missing -= 1
