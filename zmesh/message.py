"""Words every floor shares about messages: kinds, lanes, outcomes, records.

A *record* is a message as the link carries it: a plain tuple, because one is made per message.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag, StrEnum
from itertools import chain
from operator import add, itemgetter
from typing import Any, Final, cast

LANES: Final = 10
"""Priorities 0 (lowest) to 9 (highest); each is a lane with its own sequence numbers."""

PRIORITY_DEFAULT: Final = 4
CONTROL_LANE: Final = 10
"""The lane of settlements, gaps, interest and drain: always first, never short of credit."""


class Kind(IntEnum):
    """What a record is for. Patterns give it meaning; the link carries all alike."""

    DIRECT = 0
    REQUEST = 1
    REPLY = 2
    FAILURE = 3
    PUBLICATION = 4
    CANCEL = 5  # nobody waits for the answer to a REQUEST any more
    JOB = 6
    JOB_CONTROL = 7  # offers and grants between producers and consumers of a queue
    GROUP = 8  # for the members of a group; the target is its name
    STREAM = 9  # a part of a stream; the target tells its direction
    STREAM_CONTROL = 10  # opens a stream, grants credit, ends it, stops it
    STATE = 11  # what replicas of a shared map tell each other
    MISSED = 12  # publications that were not sent to a subscriber too slow for them
    DURABILITY = 13  # what nodes with a journal tell each other; see `patterns.durability`
    FRAGMENT = 15  # the second and later pieces of a body above `fragment_bytes`


class InterestKind(StrEnum):
    """What a node tells its peers of itself, beside who and where it is: pairs of kind and text.

    Peers ignore kinds they do not know.
    """

    SERVICE = "service"  # it provides the service
    TOPIC = "topic"  # it wants publications that match the pattern
    SUBSCRIPTION = "subscription"  # the same on terms: see `patterns.wanted`
    QUEUE = "queue"  # it takes jobs of the queue
    GROUP = "group"  # it is a member of the group
    ATTRIBUTE = "attribute"  # "key=value": what the application says of the node
    STATE = "state"  # it holds a replica of the shared map
    LOG = "log"  # it reads the peer's publications from there on: see `patterns.log_readers`


class Encoding(IntEnum):
    """How a body became bytes. The core never decodes a body."""

    RAW = 0
    MSGPACK = 1


class Algorithm(IntEnum):
    """How the bytes of a body were made fewer."""

    ZSTD = 1  # RFC 8878: one frame that says its size
    LZ4 = 2  # one block of the LZ4 block format


COMPRESSED: Final = 0x80
"""In the head of a record: its body is compressed, and `Tag.COMPRESSED` says how."""


class Ways(IntFlag):
    """Which ways of a stream come in parts."""

    BODY = 1  # of the request
    ANSWER = 2  # any number of them; without it there is one


class StreamFault(IntEnum):
    """Why a provider ended a stream before its end."""

    RAISED = 0  # the handler
    REJECTED = 1  # by the handler
    RELEASED = 2  # given back: the provider goes away


class Outcome(IntEnum):
    """What became of a message: the vocabulary of SETTLE, after AMQP 1.0 section 3.4."""

    ACCEPTED = 0
    REJECTED = 1  # will never be accepted; carries a reason
    RELEASED = 2  # not handled, may be delivered again as it is
    MODIFIED = 3  # handling failed; deliver again with `attempt + 1`
    EXPIRED = 4  # its time to live ended before a handler began
    UNKNOWN = 5  # the peer forgot the session: handled or not, nobody can tell


class FailureKind(Enum):
    """How a message can end other than accepted; each has its error in `zmesh.errors`."""

    REJECTED = "rejected"
    EXPIRED = "expired"
    DEAD_LETTERED = "dead_lettered"
    PEER_LOST = "peer_lost"
    PEER_RESTARTED = "peer_restarted"
    PEER_UNKNOWN = "peer_unknown"
    NO_PROVIDER = "no_provider"
    CLOSED = "closed"
    DROPPED = "dropped"


class Tag(IntEnum):
    """Keys of a record's extras, the flat tuple of what differs from the default."""

    HEADERS = 1  # bytes: a msgpack map, opaque to the link
    KEY = 2  # str: messages of one key keep their order
    PREDECESSORS = 3  # ((lane, seq), ...): the last of the same key on each other lane
    TTL_MS = 4  # int: milliseconds left to live when transmitted
    MESSAGE_ID = 5  # int: the origin's counter; with origin node and journal it is unique
    ATTEMPT = 6  # int: 1 at the first delivery, which is not written
    CORRELATION = 7  # int: the call a REQUEST, REPLY or FAILURE belongs to; whose grant a JOB uses
    FRAGMENTS = 8  # (count, total_bytes, digest16): on the first fragment of a large body
    TYPE = 9  # str: what kind of message it is, to the application
    KEPT = 10  # int: kept for late joiners; the latest subscription whose replay came before
    RETAINED = 11  # int: of a replay, for this subscription alone
    MISSED = 12  # (subscription, count, ...): publications that were not sent to it
    STREAM = 13  # (stream, ...): which stream and what of it; see `patterns.stream_records`
    COMPRESSED = 14  # (algorithm, size): of a body that is compressed, and what it was before
    ROUTING_KEY = 15  # str: what it was published to an exchange with
    STORED = 16  # int: its number in the journal of its origin, which sends it until it is settled
    POSITION = 17  # int: of a publication, in the log of its publisher
    PUBLISHED = 18  # int: when it was, by its publisher's wall clock, in milliseconds since 1970
    FOLLOWER = 19  # int: read from the log for this subscription alone; 0: what a node missed
    SIGNATURE = 20  # bytes: who signed it, when, and the proof: see `security.signing`


INTEGER_TAGS: Final = frozenset(
    map(
        int,
        (
            Tag.TTL_MS,
            Tag.MESSAGE_ID,
            Tag.ATTEMPT,
            Tag.CORRELATION,
            Tag.KEPT,
            Tag.RETAINED,
            Tag.STORED,
            Tag.POSITION,
            Tag.PUBLISHED,
            Tag.FOLLOWER,
        ),
    )
)
"""Those that an integer follows."""

SIGNATURE_RECORD_BYTES: Final = 139
"""What a signature of version 1 takes in the extras, of a message that is signed alone."""


Fragments = tuple[int, int, bytes]
Predecessors = tuple[tuple[int, int], ...]

ExtraValue = int | str | bytes | Predecessors | Fragments | tuple[int, ...]
Extras = tuple[ExtraValue, ...]
"""Flat: `(tag, value, tag, value, ...)`, tags ascending."""

Record = tuple[int, str, bytes | memoryview] | tuple[int, str, bytes | memoryview, Extras]
"""`(head, target, body)` or `(head, target, body, extras)`.

`head = kind | encoding << 4`, and `COMPRESSED` where the body is.
"""

Keys = str | list[str | None] | None
"""The key of records: the same for all, each its own or none, or none for all."""

RECORD_OVERHEAD_BYTES: Final = 16
"""What a record costs on the wire beside its target and body, for credit accounting."""


_KIND: Final = 0b1111  # where the head of a record has its kind
_WEIGHTLESS: Final = INTEGER_TAGS  # what they say costs no credit
_WEIGHTY: Final = frozenset(
    map(int, (Tag.HEADERS, Tag.KEY, Tag.TYPE, Tag.ROUTING_KEY, Tag.SIGNATURE))
)
"""Those that text or bytes follow."""

_TARGET = itemgetter(1)
_BODY = itemgetter(2)
_EXTRAS = itemgetter(3)
_TAGS = itemgetter(slice(None, None, 2))


def head(kind: Kind, encoding: Encoding = Encoding.RAW) -> int:
    """Return the head of a record: kind in the low four bits, encoding above."""
    return kind | encoding << 4


def encoding_of(record: Record) -> int:
    """Return how the body became bytes, before it was compressed."""
    return record[0] >> 4 & 7


def extra(record: Record, tag: Tag) -> ExtraValue | None:
    """Return the value of `tag` in the record's extras, or None where it has none."""
    if len(record) == 3 or not record[3]:
        return None
    extras = record[3]
    if extras[0] == tag:
        return extras[1]
    tags = extras[::2]
    return extras[2 * tags.index(tag) + 1] if tag in tags else None


def tags_of(records: Sequence[Record]) -> frozenset[ExtraValue]:
    """Return all tags that there are in the extras of these records."""
    return frozenset(chain.from_iterable(tag_rows(records)))


def tag_rows(records: Sequence[Record]) -> set[Extras]:
    """Return which tags the records have, each row once: one or two of them, as a rule."""
    if max(map(len, records)) == 3:
        return {()}
    if min(map(len, records)) > 3:
        return set(map(_TAGS, map(_EXTRAS, records)))
    return {record[3][::2] if len(record) > 3 else () for record in records}


def values_of(records: Sequence[Record], row: Extras, tag: ExtraValue) -> list[ExtraValue]:
    """Return the value of a tag of each record, where all of them have this row of tags."""
    return list(map(itemgetter(2 * row.index(tag) + 1), map(_EXTRAS, records)))


def columns_of(records: Sequence[Record], *tags: Tag) -> list[Sequence[ExtraValue | None]]:
    """Return the values of some tags, for each of them those of all records; None for none."""
    if len(records) == 1:
        extras = extras_of(records[0])
        return [(extras.get(tag),) for tag in tags]
    rows = tag_rows(records)
    if len(rows) > 1:
        return [[extra(record, tag) for record in records] for tag in tags]
    row = next(iter(rows))
    nothing = (None,) * len(records)
    return [values_of(records, row, tag) if tag in row else nothing for tag in tags]


def extras_of(record: Record) -> dict[ExtraValue, ExtraValue]:
    """Return the values in the record's extras by their tags, for who wants several."""
    if len(record) == 3:
        return {}
    return dict(zip(record[3][::2], record[3][1::2], strict=True))


def with_extra(record: Record, tag: Tag, value: ExtraValue) -> Record:
    """Return the record with `tag` set to `value`, tags kept ascending."""
    if len(record) == 3:
        return (*record, (int(tag), value))
    extras = record[3]
    if extras and cast("int", extras[0]) > tag:
        return (record[0], record[1], record[2], (int(tag), value, *extras))
    tags = cast("tuple[int, ...]", extras[::2])
    index = bisect_left(tags, tag)
    after = 2 * index + 2 if tag in tags else 2 * index
    changed = (*extras[: 2 * index], int(tag), value, *extras[after:])
    return (record[0], record[1], record[2], changed)


def with_target(record: Record, kind: Kind, target: str) -> Record:
    """Return the record as one of another kind, for another target; its body is not copied."""
    told = record[0] & ~_KIND | kind
    if len(record) == 3:
        return (told, target, record[2])
    return (told, target, record[2], record[3])


def with_body(record: Record, body: bytes | memoryview) -> Record:
    """Return the record with another body."""
    if len(record) == 3:
        return (record[0], record[1], body)
    return (record[0], record[1], body, record[3])


def without_extra(record: Record, tag: Tag) -> Record:
    """Return the record without `tag` in its extras."""
    if len(record) == 3:
        return record
    extras: list[ExtraValue] = []
    for index in range(0, len(record[3]), 2):
        if record[3][index] != tag:
            extras += record[3][index : index + 2]
    plain = (record[0], record[1], record[2])
    return (*plain, tuple(extras)) if extras else plain


def size_of(record: Record) -> int:
    """Return what the record counts against byte credit: body, target, bytes and text of extras.

    Both ends compute it from the record alone, so their sums agree.
    """
    size = len(record[2]) + len(record[1]) + RECORD_OVERHEAD_BYTES
    if len(record) == 3 or _WEIGHTLESS.issuperset(record[3][::2]):  # as nearly all are
        return size
    return size + sum(len(value) for value in record[3][1::2] if isinstance(value, str | bytes))


def sizes_of(records: Sequence[Record]) -> list[int]:
    """Return `size_of` of each record."""
    if len(records) == 1:
        return [size_of(records[0])]
    if not records:
        return []
    rows = tag_rows(records)
    weighty = set(chain.from_iterable(rows)) - _WEIGHTLESS
    if weighty and not (len(rows) == 1 and weighty <= _WEIGHTY):
        return [size_of(record) for record in records]
    sizes: Iterable[int] = map(len, map(_BODY, records))  # nothing a record but C
    targets = set(map(_TARGET, records))
    if len(targets) > 1:
        sizes = map(add, sizes, map(len, map(_TARGET, records)))
        targets = {""}
    for tag in weighty:
        values = cast("list[str | bytes]", values_of(records, next(iter(rows)), tag))
        sizes = map(add, sizes, map(len, values))
    overhead = len(targets.pop()) + RECORD_OVERHEAD_BYTES
    return list(map(overhead.__add__, sizes))


@dataclass(frozen=True, slots=True)
class Failure:
    """The final outcome of one record that was not accepted: which error to raise, for whom."""

    kind: FailureKind
    peer: str
    reason: str = ""
    attempts: int = 1
    queue: str = ""  # of a job


class Ticket:
    """Counts the outcomes of the records submitted with it: the pure half of a receipt.

    The link counts acceptances; every record that ends otherwise goes back to the pattern that
    submitted it, which tries again (the ticket stays open) or calls `fail`.
    """

    __slots__ = ("accepted", "expected", "expires", "failures", "history", "order")

    history: dict[tuple[int, int], list[Any]]  # of failed attempts; not there where none failed

    def __init__(self, expected: int = 1) -> None:
        self.expected = expected
        self.accepted = 0
        self.failures: list[Failure] = []
        self.expires: float | None = None  # when its records do; set by the pattern
        self.order = 0  # of its first submission, among all of them; set by the pattern

    @property
    def done(self) -> bool:
        """Whether every record has its final outcome."""
        return self.accepted + len(self.failures) >= self.expected

    def fail(self, failure: Failure) -> None:
        """Give one record its final outcome other than accepted."""
        self.failures.append(failure)
