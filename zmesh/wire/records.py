"""Records of the data lanes: checked in bulk, so that the tuples msgpack made are the records.

Where there are many, checks run over whole columns of a DATA frame at C speed.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, combinations
from operator import itemgetter
from typing import Any, Final, cast

from zmesh.batches import Block
from zmesh.message import INTEGER_TAGS, LANES, Record, Tag
from zmesh.options import WireLimits
from zmesh.wire.fields import (
    ALGORITHM_MAX,
    COUNT_MAX,
    Fields,
    array,
    integer,
    malformed,
    oversized,
    row,
    text,
    token,
)

HEAD_MAX: Final = 255
TAG_MAX: Final = 127
DIGEST_BYTES: Final = 16
UNKNOWN_ITEMS_MAX: Final = 8
"""In the value of a tag this version does not know."""

SIGNATURE_BYTES_MAX: Final = 1024
"""Of any version: what does not hold is refused with its message, and not with its link."""

STREAM_ITEMS_MIN: Final = 2
STREAM_ITEMS_MAX: Final = 5

BULK_MIN: Final = 8
"""From this many records on it is cheaper to look at columns than at each."""

Column = tuple[object, ...]
"""The same field of many records."""

_HEADS: Final = frozenset(range(HEAD_MAX + 1))
_INTEGER_TAGS_TOGETHER: Final = frozenset(
    tags
    for count in range(1, len(INTEGER_TAGS) + 1)
    for tags in combinations(sorted(INTEGER_TAGS), count)
)
"""All ascending tags that an integer follows each."""

_WHOLE: Final = frozenset(((int, str, bytes), (int, str, bytes, tuple)))
"""The types of a record that has its body in it."""
_INTEGERS: Final = {int}
_BYTES: Final = {bytes}
_TEXTS: Final = {str}
_TUPLES: Final = {tuple}
_TEXT_TAGS: Final = frozenset(map(int, (Tag.KEY, Tag.TYPE, Tag.ROUTING_KEY)))
_BODY = itemgetter(2)
_TAGS = itemgetter(slice(None, None, 2))
_ODD: Final = (1).__and__


# Bodies in parts of their own


def split_bodies(
    records: tuple[Record, ...], inline_bytes_max: int, parts: list[bytes | memoryview]
) -> Sequence[object]:
    """Append bodies over `inline_bytes_max` to `parts`, and put their index in their place."""
    largest = len(records[0][2])
    if len(records) > 1:
        largest = max(map(len, map(_BODY, records)))
    if largest <= inline_bytes_max:
        return records
    wire: list[object] = []
    for record in records:
        body = record[2]
        if len(body) <= inline_bytes_max:
            wire.append(record)
        else:
            wire.append((*record[:2], len(parts), *record[3:]))
            parts.append(body)
    return wire


def _join_bodies(records: Fields, parts: Sequence[bytes], taken: list[int]) -> tuple[Record, ...]:
    joined: list[Record] = []
    for record in cast("tuple[Record, ...]", records):
        body = cast("object", record[2])
        if type(body) is bytes:
            joined.append(record)
            continue
        index = integer(body, "the index of a part", 1, len(parts) - 1)
        taken.append(index)
        bare = (record[0], record[1], parts[index])
        joined.append(bare if len(record) == 3 else (*bare, record[3]))
    return tuple(joined)


# Checks


def check_records(
    value: object, parts: Sequence[bytes], taken: list[int], limits: WireLimits
) -> tuple[Record, ...]:
    """Return the records of a DATA frame, with bodies from `parts` where they have their own.

    The indexes of those parts are appended to `taken`.

    Raises:
        ProtocolError: "malformed" or "oversized".
    """
    records = array(value, "records", limits.records_max)
    if len(records) >= BULK_MIN:
        return _check_all(records, parts, taken, limits)
    if len(records) == 1 and type(records[0]) is tuple:  # to or of a call
        record: Any = records[0]
        if tuple(map(type, record)) in _WHOLE and 0 <= record[0] <= HEAD_MAX:
            if len(record) == 4:
                _check_extras(record[3], limits)
            return cast("tuple[Record, ...]", records)
    return _joined(records, _check_each(records, limits), parts, taken)


def _joined(
    records: Fields, bodies: Sequence[object], parts: Sequence[bytes], taken: list[int]
) -> tuple[Record, ...]:
    """Return records with bodies from `parts` where they have their own."""
    types = set(map(type, bodies))
    if types == _BYTES:
        return cast("tuple[Record, ...]", records)
    if not types:
        raise malformed("a DATA frame without records")
    if not types <= {bytes, int}:
        raise malformed("the body of a record is neither bytes nor the index of a part")
    return _join_bodies(records, parts, taken)


def _check_each(records: Fields, limits: WireLimits) -> Sequence[object]:
    """Check everything but the bodies, which are returned."""
    bodies = []
    for record in records:
        if type(record) is not tuple or not 3 <= len(record) <= 4:
            raise malformed("a record is not an array of 3 or 4")
        head, target, body, *extras = record
        if type(head) is not int or not 0 <= head <= HEAD_MAX:
            raise malformed("the head of a record is not an integer in 0..255")
        if type(target) is not str:
            raise malformed("the target of a record is not a text")
        if extras:
            _check_extras(extras[0], limits)
        bodies.append(body)
    return bodies


def _check_all(
    records: Fields, parts: Sequence[bytes], taken: list[int], limits: WireLimits
) -> tuple[Record, ...]:
    """Do what `_check_each` does column by column, at a tenth of its cost for many records."""
    heads, targets, bodies, extras = _columns(records)
    # A text or bytes in the place of a record was taken apart like one, and shows here: the
    # first item of a text is no integer, the second of bytes no text.
    known = set(heads)
    if set(map(type, heads)) != _INTEGERS or not _HEADS.issuperset(known):
        raise malformed("the head of a record is not an integer in 0..255")
    names = set(targets)
    if set(map(type, names)) != _TEXTS:
        raise malformed("the target of a record is not a text")
    is_plain = not extras or _are_integers(extras, limits) or _are_alike(extras, limits)
    if not is_plain:
        for extra in extras:
            _check_extras(extra, limits)
    if set(map(type, bodies)) != _BYTES:
        return _joined(records, bodies, parts, taken)
    checked = cast("tuple[Record, ...]", records)
    return Block.of_columns(
        checked, cast("set[int]", known), cast("set[str]", names),
        cast("tuple[bytes, ...]", bodies), is_bare=not extras,
    )  # fmt: skip


def _are_integers(column: Column, limits: WireLimits) -> bool:
    """Return whether all extras hold integers alone, and all is right with them.

    That is so in requests and replies. Where it is not, each is to be looked at.
    """
    if set(map(type, column)) != _TUPLES:
        return False
    extras = cast("tuple[Fields, ...]", column)
    if max(map(len, extras)) > limits.extras_max or any(map(_ODD, map(len, extras))):
        return False
    values: list[Any] = list(chain.from_iterable(extras))
    return (
        set(map(type, values)) == _INTEGERS
        and _INTEGER_TAGS_TOGETHER.issuperset(map(_TAGS, extras))
        and min(values) >= 0
        and max(values) <= COUNT_MAX
    )


def _are_alike(extras: Column, limits: WireLimits) -> bool:
    """Return whether all extras have the same few tags, and what follows these is right.

    Where it is not so they are looked at one by one.
    """
    if set(map(type, extras)) != _TUPLES:
        return False
    rows = cast("tuple[Fields, ...]", extras)
    length = len(rows[0])
    if set(map(len, rows)) != {length} or length % 2 or not 0 < length <= limits.extras_max:
        return False
    columns = list(zip(*rows, strict=True))
    previous = 0
    for tags, values in zip(columns[::2], columns[1::2], strict=True):
        tag: Any = tags[0]
        if set(map(type, tags)) != _INTEGERS or set(tags) != {tag} or tag <= previous:
            return False
        previous = tag
        types = set(map(type, values))
        if tag in INTEGER_TAGS:
            if types != _INTEGERS or min(values) < 0 or max(values) > COUNT_MAX:
                return False
        elif tag not in _TEXT_TAGS or types != _TEXTS:
            return False
    return True


def _columns(records: Fields) -> tuple[Column, Column, Column, Column]:
    """Return heads, targets, bodies and extras; the last are fewer where not all have some."""
    try:
        columns = tuple(zip(*cast("Iterable[Fields]", records), strict=True))
    except TypeError:
        raise malformed("a record is not an array of 3 or 4") from None
    except ValueError:
        return _uneven_columns(records)
    if len(columns) == 3:
        return (*columns, ())
    if len(columns) == 4:
        return columns
    raise malformed("a record is not an array of 3 or 4")


def _uneven_columns(records: Fields) -> tuple[Column, Column, Column, Column]:
    rows = cast("tuple[Fields, ...]", records)
    if set(map(type, rows)) != {tuple} or set(map(len, rows)) != {3, 4}:
        raise malformed("a record is not an array of 3 or 4")
    heads, targets, bodies = zip(*rows, strict=False)
    return heads, targets, bodies, tuple([row[3] for row in rows if len(row) == 4])


def _check_extras(extras: object, limits: WireLimits) -> None:
    # Where all of it is integers, as in requests and replies, it is looked at as a whole.
    if type(extras) is tuple and _is_of_integers(extras, limits):
        return
    fields = array(extras, "extras", limits.extras_max)
    if not fields or len(fields) % 2:
        raise malformed("extras are not pairs of tag and value")
    previous = 0
    for index in range(0, len(fields), 2):
        tag, value = fields[index], fields[index + 1]
        if type(tag) is not int or not previous < tag <= TAG_MAX:
            raise malformed(f"tags are not ascending integers in 1..{TAG_MAX}")
        previous = tag
        if tag in INTEGER_TAGS:
            if type(value) is not int or not 0 <= value <= COUNT_MAX:
                raise malformed(f"an extra is not an integer in 0..{COUNT_MAX}")
        else:
            _check_value(tag, value, limits)


def _is_of_integers(fields: tuple[Any, ...], limits: WireLimits) -> bool:
    if set(map(type, fields)) != _INTEGERS or fields[::2] not in _INTEGER_TAGS_TOGETHER:
        return False
    for value in fields[1::2]:  # three or so: `min` and `max` take longer
        if not 0 <= value <= COUNT_MAX:
            return False
    return len(fields) % 2 == 0 and len(fields) <= limits.extras_max


def _check_value(tag: int, value: object, limits: WireLimits) -> None:
    match tag:
        case Tag.KEY | Tag.TYPE | Tag.ROUTING_KEY:
            text(value, "a key or type")
        case Tag.HEADERS:
            if type(value) is not bytes:
                raise malformed("headers are not bytes")
            if len(value) > limits.headers_bytes_max:
                raise oversized("headers", len(value), limits.headers_bytes_max)
        case Tag.SIGNATURE:
            if type(value) is not bytes or len(value) > SIGNATURE_BYTES_MAX:
                raise malformed(f"a signature is not at most {SIGNATURE_BYTES_MAX} bytes")
        case _ if tag in _ARRAY_CHECKS:
            _ARRAY_CHECKS[tag](value)
        case _:
            items = (
                array(value, "an extra", UNKNOWN_ITEMS_MAX) if type(value) is tuple else [value]
            )
            if not set(map(type, items)) <= {int, str, bytes}:
                raise malformed("an extra is neither a scalar nor an array of scalars")


def _check_predecessors(value: object) -> None:
    previous = -1
    for pair in array(value, "predecessors", LANES - 1):
        lane, seq = row(pair, "a predecessor", 2)
        previous = integer(lane, "the lane of a predecessor", previous + 1, LANES - 1)
        integer(seq, "the number of a predecessor", 1)


def _check_fragments(value: object) -> None:
    pieces, size, digest = row(value, "fragments", 3)
    integer(pieces, "the count of fragments", 1)
    integer(size, "the size of a fragmented body", 1)
    token(digest, "the digest of a fragmented body", DIGEST_BYTES)


def _check_missed(value: object) -> None:
    counts = array(value, "what was missed", UNKNOWN_ITEMS_MAX)
    if not counts or len(counts) % 2:
        raise malformed("what was missed is not pairs of subscription and count")
    for count in counts:
        integer(count, "a subscription or count", 1)


def _check_stream(value: object) -> None:
    fields = array(value, "what is said of a stream", STREAM_ITEMS_MAX)
    if len(fields) < STREAM_ITEMS_MIN:
        raise malformed("what is said of a stream is too short")
    for field in fields:
        integer(field, "what is said of a stream")


def _check_compressed(value: object) -> None:
    algorithm, size = row(value, "how a body was compressed", 2)
    integer(algorithm, "an algorithm", 1, ALGORITHM_MAX)
    integer(size, "the size of a body before it was compressed", 1)


_ARRAY_CHECKS: Final[dict[int, Callable[[object], None]]] = {
    Tag.PREDECESSORS: _check_predecessors,
    Tag.FRAGMENTS: _check_fragments,
    Tag.MISSED: _check_missed,
    Tag.STREAM: _check_stream,
    Tag.COMPRESSED: _check_compressed,
}
"""What checks the value of each tag that is an array."""
