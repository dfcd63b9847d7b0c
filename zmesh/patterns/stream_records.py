"""The records of streams: what each says in `Tag.STREAM`, written and read.

See docs/protocol.md, section 17.2. Records from the caller have the service as their target, those
from the provider none.
"""

from enum import IntEnum
from typing import cast

from zmesh.message import Kind, Record, StreamFault, Tag, Ways, extra, head, with_extra

_CONTROL = head(Kind.STREAM_CONTROL)
_TAG = int(Tag.STREAM)


class Verb(IntEnum):
    """What a STREAM_CONTROL record does."""

    OPEN = 0
    GRANT = 1
    END = 2
    FAIL = 3
    STOP = 4


_WIDTHS = {Verb.OPEN: 5, Verb.GRANT: 4, Verb.END: 3, Verb.FAIL: 3, Verb.STOP: 2}
"""How many items the tag has, stream and verb included."""


def fields_of(record: Record) -> tuple[int, ...]:
    """Return what a record says in its tag, the number of the stream first; empty without."""
    fields = extra(record, Tag.STREAM)
    return cast("tuple[int, ...]", fields) if isinstance(fields, tuple) else ()


def verb_of(fields: tuple[int, ...]) -> Verb | None:
    """Return what a control record with these fields does; None where that makes no sense."""
    for verb, width in _WIDTHS.items():
        if len(fields) == width and fields[1] == verb:
            return verb
    return None


def part(record: Record, stream: int, number: int) -> Record:
    """Return a part as it travels."""
    if len(record) == 4:
        return with_extra(record, Tag.STREAM, (stream, number))
    return (record[0], record[1], record[2], (_TAG, (stream, number)))


def opening(record: Record, stream: int, ways: Ways, parts: int, size: int) -> Record:
    """Return the request that opens a stream."""
    return with_extra(record, Tag.STREAM, (stream, int(Verb.OPEN), int(ways), parts, size))


def grant(target: str, stream: int, parts: int, size: int) -> Record:
    """Return the record that raises the writer's limits."""
    return (_CONTROL, target, b"", (_TAG, (stream, int(Verb.GRANT), parts, size)))


def end(target: str, stream: int, parts: int) -> Record:
    """Return the record that says how many parts there were."""
    return (_CONTROL, target, b"", (_TAG, (stream, int(Verb.END), parts)))


def fault(record: Record | None, stream: int, why: StreamFault) -> Record:
    """Return the record that ends a stream before its end; `record` tells of the fault."""
    encoding, body = (0, b"") if record is None else (record[0] & 0xF0, record[2])
    return (_CONTROL | encoding, "", body, (_TAG, (stream, int(Verb.FAIL), int(why))))


def stop(target: str, stream: int) -> Record:
    """Return the record that says that nobody waits for the stream."""
    return (_CONTROL, target, b"", (_TAG, (stream, int(Verb.STOP))))
