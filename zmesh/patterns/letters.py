"""A dead letter: what it is, and how the attempts that led to it are remembered."""

from dataclasses import dataclass
from typing import Final

from zmesh.core.peers import InternalTicket
from zmesh.ids import NodeId
from zmesh.message import (
    PRIORITY_DEFAULT,
    Kind,
    Record,
    Tag,
    Ticket,
    extra,
    without_extra,
)
from zmesh.storage import Burial, FailedAttempt, StoredRow
from zmesh.wire.bodies import HeaderValue, body_of, decode_headers

_FOR: Final[dict[int, str]] = {
    Kind.DIRECT: "peer",
    Kind.JOB: "queue",
    Kind.PUBLICATION: "topic",
    Kind.GROUP: "group",
}


@dataclass(frozen=True, slots=True, repr=False)
class DeadLetter:
    """A message that could not be handled, kept for the operator to look at."""

    record: Record
    peer: NodeId  # that had it last; empty where that is not known any more
    reason: str
    attempts: int
    at: float  # when it died, on the node's clock
    id: int = 0  # its own, for as long as it is kept
    destination: str = ""  # name or id of the peer; or the queue, topic or group
    history: tuple[FailedAttempt, ...] = ()  # of the attempts, as far as this life knows of them
    died_ms: int = 0  # the same as `at`, by the wall clock
    stored_ms: int = 0  # when the message was accepted and stored; 0 where it was not
    lane: int = PRIORITY_DEFAULT
    burial: Burial | None = None  # where it is on disk

    def __repr__(self) -> str:
        return (
            f"<DeadLetter {self.id} for {self.destination_kind} {self.destination!r} after "
            f"{self.attempts} attempts: {self.reason}>"
        )

    @property
    def topic(self) -> str:
        """Its topic, queue or group; empty for a direct message."""
        return self.record[1]

    @property
    def destination_kind(self) -> str:
        """What `destination` names: "peer", "queue", "topic" or "group"."""
        return _FOR.get(self.record[0] & 15, "peer")

    @property
    def is_stored(self) -> bool:
        """Whether it is on disk, and outlives the process."""
        return self.burial is not None

    @property
    def body(self) -> object:
        """What was sent; decoded anew each time."""
        return body_of(self.record)

    @property
    def headers(self) -> dict[str, HeaderValue]:
        """Small values beside the body; decoded anew each time."""
        data = extra(self.record, Tag.HEADERS)
        return decode_headers(data) if isinstance(data, bytes) else {}

    @property
    def key(self) -> str | None:
        """Its key, where it has one."""
        if self.burial is not None:
            match self.burial.note:
                case (int(), str(noted), *_):
                    return noted
                case _:
                    pass
        key = extra(self.record, Tag.KEY)
        return key if isinstance(key, str) else None

    def as_new(self) -> Record:
        """Return the record without what its attempts left in it."""
        return without_extra(without_extra(self.record, Tag.ATTEMPT), Tag.PREDECESSORS)


def letter_of(stored: StoredRow, at: float = 0.0, now_ms: int = 0) -> DeadLetter:
    """Return a row of the dead letters as one.

    Args:
        stored: as it was read.
        at: the node's clock now.
        now_ms: the wall clock now.
    """
    row = stored.row
    try:
        burial = Burial.of(row.note)
    except ValueError:  # it was rescued, or written by hand: better a poor letter than none
        burial = Burial(row.record[1], "nothing is known of it any more")
    history = tuple(FailedAttempt(*each) for each in burial.history)
    return DeadLetter(
        row.record,
        NodeId(burial.peer),
        burial.reason,
        max(burial.attempts, len(history)),
        at - (now_ms - burial.at_ms) / 1000,
        row.position,
        burial.destination,
        history,
        burial.at_ms,
        row.stored_ms,
        burial=burial,
    )


class RequeuedTicket(InternalTicket):
    """The ticket of a dead letter that is tried anew: where that fails too it is one again."""

    __slots__ = ()


# Attempts of messages that are not stored are remembered with their ticket: nothing is noted
# where none fails. Messages of one ticket that are alike share what is noted of them.

History = dict[tuple[int, int], list[FailedAttempt]]
"""By what a message is, and the number of the attempt."""


def note_attempt(ticket: Ticket, record: Record, attempt: int, failed: FailedAttempt) -> None:
    """Remember a failed attempt until the last."""
    history: History | None = getattr(ticket, "history", None)
    if history is None:
        history = ticket.history = {}
    history.setdefault((_likeness(record), attempt), []).append(failed)


def take_history(ticket: Ticket, record: Record, attempts: int) -> tuple[FailedAttempt, ...]:
    """Return the attempts at a message, and forget them."""
    history: History = getattr(ticket, "history", {})
    noted = (history.get((_likeness(record), each)) for each in range(1, attempts + 1))
    return tuple(failed.pop(0) for failed in noted if failed)


def _likeness(record: Record) -> int:
    return hash((record[1], bytes(record[2])))
