"""Requests whose answer may come in another life: on disk, and asked for until they have it.

The idea is that of Titanic (ZeroMQ RFC 9), without its broker: the caller's own journal holds the
request, called a *ticket*, and then its answer. In between it is a call as `request_reply` makes
it, of which nobody but this pattern hears: begun when a provider appears, and again after a pause
where it came to nothing. The answer is on disk before anybody is told.

A ticket has two entries: the request, which goes when there is an answer, and how it stands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from zmesh.actions import (
    CallAnswered,
    CallFailure,
    LaterEnded,
    LaterForgotten,
    LaterStored,
    TicketState,
)
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines
from zmesh.errors import ProtocolError, UsageError
from zmesh.events import Call, CallLater, ForgetTicket
from zmesh.ids import Entropy, NodeId
from zmesh.message import Record, Tag, size_of, with_extra
from zmesh.options import NodeOptions
from zmesh.patterns.kept import flat, packed, record_of, unpacked
from zmesh.storage import Entry, EntryKind, RemoveEntries, SetEntries
from zmesh.storage_errors import JournalFull, StorageError

FIRST_LATER: Final = 1 << 41
"""Numbers of calls count from 1, those of surveys from 2**40: those of tickets never meet them."""

_VERSION: Final = 1
_REQUEST: Final = b"request"
_STANDING: Final = b"standing"  # after the request, in the order that entries are read


class Asks(Protocol):
    """What makes the calls: `request_reply.RequestReply`."""

    def on_call(self, call: Call) -> None:
        """Ask a provider; the answer comes to `CallsLater.on_answered`."""
        ...

    def on_cancel(self, number: int) -> None:
        """Forget a call."""
        ...


@dataclass(slots=True, eq=False)
class Later:
    """A ticket: a request, and its answer once that is on disk."""

    id: str
    service: str
    made_ms: int
    record: Record | None = None  # None: it is answered
    lane: int = 0
    key: str | None = None
    retries: int = 0
    expires_ms: int = 0  # by the wall clock; 0: never
    number: int = 0  # in the journal: who handles it in a transaction knows copies by it
    raised: int = 0  # how often a handler did
    troubles: int = 0  # in a row, that were nobody's fault
    call: int = 0  # under way
    is_pausing: bool = False  # a handler raised: a provider that appears changes nothing
    is_leaving: bool = False  # it is being forgotten
    pending: CallAnswered | None = None  # the answer on its way to the disk
    by: NodeId | None = None  # whose that is
    answer: CallAnswered | None = None
    answered_ms: int = 0

    @property
    def state(self) -> TicketState:
        """How it stands."""
        if self.answer is None:
            return TicketState.WAITING
        return TicketState.FAILED if self.answer.failure else TicketState.ANSWERED

    @property
    def size(self) -> int:
        """How many bytes it takes, about."""
        answered = None if self.answer is None else self.answer.record
        return sum(size_of(record) for record in (self.record, answered) if record is not None)


class CallsLater:
    """The tickets of one node.

    Args:
        turn: of the engine.
        calls: makes the calls; it is to bring their answers to `on_answered`.
        options: bounds and times.
        entropy: for jitter.
        known: told of a request that will not be made again: by whom it was answered, its number.
    """

    def __init__(
        self,
        turn: Turn,
        calls: Asks,
        options: NodeOptions,
        entropy: Entropy,
        known: Callable[[NodeId, int, int], None],
    ) -> None:
        self._turn = turn
        self._calls = calls
        self._options = options
        self._entropy = entropy
        self._known = known
        self._tickets: dict[str, Later] = {}
        self._storing: dict[str, Later] = {}
        self._under_way: dict[int, Later] = {}  # by the number of the call
        self._idle: dict[str, dict[str, None]] = {}  # tickets without call, by service
        self._due: Deadlines[str] = Deadlines(turn.agenda)  # of each: the next thing to do
        self._made = 0  # calls
        self._bytes = 0  # of all tickets

    def __len__(self) -> int:
        """Count the tickets."""
        return len(self._tickets)

    @property
    def waiting(self) -> int:
        """How many have no answer yet."""
        return sum(ticket.answer is None for ticket in self._tickets.values())

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._due.next

    @property
    def floor(self) -> int:
        """The number below which no request is left."""
        open_ = [*self._storing.values(), *self._tickets.values()]
        numbers = (ticket.number for ticket in open_ if ticket.record is not None)
        return min(numbers, default=self._turn.keeper.next_number)

    def find(self, ticket: str) -> Later | None:
        """Return a ticket; None where there is none that is on disk."""
        return self._tickets.get(ticket)

    def all(self) -> list[Later]:
        """Return all tickets, the oldest first."""
        return sorted(self._tickets.values(), key=lambda ticket: (ticket.made_ms, ticket.id))

    # Commands

    def on_call_later(self, command: CallLater) -> None:
        """Store a request; `LaterStored` tells when it is on disk, and then it is made."""
        refusal = self._refusal(size_of(command.record))
        if refusal is not None:
            self._turn.actions.append(LaterStored(command.ticket, refusal))
            return
        keeper = self._turn.keeper
        keeper.on_wall_clock(command.wall_ms, self._turn.now)
        ttl, made_ms = command.ttl, command.wall_ms
        ticket = Later(
            command.ticket,
            command.record[1],
            made_ms,
            lane=command.lane,
            key=command.key,
            retries=command.retries,
            expires_ms=0 if ttl is None else made_ms + max(1, round(ttl * 1000)),
            number=keeper.numbers(1),
        )
        ticket.record = with_extra(command.record, Tag.STORED, ticket.number)
        self._storing[ticket.id] = ticket
        self._bytes += ticket.size

        def stored(error: StorageError | None) -> None:
            del self._storing[ticket.id]
            self._turn.actions.append(LaterStored(ticket.id, error))
            if error is None:
                self._tickets[ticket.id] = ticket
                self._begin(ticket)
            else:
                self._bytes -= ticket.size

        keeper.write(SetEntries((_request_entry(ticket),)), then=stored)

    def _refusal(self, size: int) -> UsageError | None:
        options = self._options
        count = len(self._tickets) + len(self._storing)
        if count >= options.tickets_max:
            return UsageError(f"this node has {count} tickets already: forget some first")
        if self._bytes + size > options.tickets_bytes_max:
            return UsageError(f"tickets take {self._bytes} bytes already: forget some first")
        return None

    def on_forget(self, command: ForgetTicket) -> None:
        """Forget a ticket, whatever it waits for; `LaterForgotten` tells when it is gone."""
        ticket = self._tickets.get(command.ticket)
        if ticket is None:
            self._turn.actions.append(LaterForgotten(command.ticket))
        else:
            self._forget(ticket)

    def _forget(self, ticket: Later) -> None:
        ticket.is_leaving = True
        self._rest(ticket, None)
        if ticket.call:
            del self._under_way[ticket.call]
            self._calls.on_cancel(ticket.call)
            ticket.call = 0

        def forgotten(error: StorageError | None) -> None:
            if error is None and self._tickets.pop(ticket.id, None) is not None:
                self._bytes -= ticket.size
            self._turn.actions.append(LaterForgotten(ticket.id, error))

        self._turn.keeper.write(RemoveEntries(EntryKind.TICKET, ticket.id), then=forgotten)

    # Asking

    def _begin(self, ticket: Later) -> None:
        """Make a call of it, or end it where its time is over."""
        self._rest(ticket, None)
        ticket.is_pausing = False
        now, record = self._turn.now, ticket.record
        left = self._left(ticket)
        if left is not None and left <= 0:
            why = "nobody answered it in time"
            self._end(ticket, CallAnswered(0, None, CallFailure.DEADLINE, "", why))
        elif record is not None:
            self._made += 1
            ticket.call = FIRST_LATER + self._made
            self._under_way[ticket.call] = ticket
            deadline = None if left is None else now + left
            self._calls.on_call(Call(ticket.call, record, ticket.lane, deadline, ticket.key))

    def _left(self, ticket: Later) -> float | None:
        """Return for how many seconds it is worth an answer; None where that has no end."""
        if not ticket.expires_ms:
            return None
        return (ticket.expires_ms - self._turn.keeper.wall_ms(self._turn.now)) / 1000

    def on_provider(self, service: str) -> None:
        """Make the calls that wait for a provider of a service; one just appeared."""
        for each in list(self._idle.get(service, ())):
            ticket = self._tickets[each]
            if not ticket.is_pausing:
                self._begin(ticket)

    def on_timer(self) -> None:
        """Do for each ticket what is due: call again, write again, or forget it for its age."""
        for each in self._due.due(self._turn.now):
            ticket = self._tickets[each]
            if ticket.answer is not None:
                self._forget(ticket)
            elif ticket.pending is not None:
                self._end(ticket, ticket.pending)
            else:
                self._begin(ticket)

    def _rest(self, ticket: Later, seconds: float | None, *, is_idle: bool = False) -> None:
        """Leave a ticket alone for so long, or until a provider appears; None: its call is on."""
        tickets = self._idle.setdefault(ticket.service, {})
        if is_idle:
            tickets[ticket.id] = None
        else:
            tickets.pop(ticket.id, None)
        if not tickets:
            del self._idle[ticket.service]
        left = self._left(ticket)
        if seconds is not None and left is not None and ticket.answer is None:
            seconds = max(0.0, min(seconds, left))
        self._due.set(ticket.id, None if seconds is None else self._turn.now + seconds)

    def _pause(self, count: int) -> float:
        options = self._options
        ceiling = min(options.redeliver_max, options.redeliver_min * 2.0 ** min(count, 32))
        return ceiling * self._entropy.uniform(0.5, 1.0)

    # Answers

    def on_answered(self, answer: CallAnswered, by: NodeId | None) -> None:
        """Take the answer to a call of ours, or why it has none, from who gave it."""
        ticket = self._under_way.pop(answer.call, None)
        if ticket is None:
            return
        ticket.call, ticket.by = 0, by
        match answer.failure:
            case None | CallFailure.REJECTED | CallFailure.DEADLINE:
                self._end(ticket, answer)
            case CallFailure.REMOTE_ERROR:
                self._on_raised(ticket, answer)
            case CallFailure.NO_PROVIDER:
                self._rest(ticket, self._options.redeliver_max, is_idle=True)
            case CallFailure.CLOSED:
                pass  # it goes on in another life
            case _:
                ticket.troubles += 1
                self._rest(ticket, self._pause(ticket.troubles), is_idle=True)

    def _on_raised(self, ticket: Later, answer: CallAnswered) -> None:
        """Count that a handler raised, on disk, before it is asked again."""
        ticket.raised += 1
        ticket.troubles = 0
        if ticket.raised > ticket.retries:
            self._end(ticket, answer)
            return

        def counted(error: StorageError | None) -> None:
            if (error is None or isinstance(error, JournalFull)) and not ticket.is_leaving:
                ticket.is_pausing = True
                self._rest(ticket, self._pause(ticket.raised), is_idle=True)

        self._turn.keeper.write(SetEntries((_standing_entry(ticket),)), then=counted)

    def _end(self, ticket: Later, answer: CallAnswered) -> None:
        """Store the answer in the place of the request; then it is told."""
        ticket.pending = answer
        ticket.answered_ms = self._turn.keeper.wall_ms(self._turn.now)
        self._turn.keeper.write(
            SetEntries((_standing_entry(ticket),)),
            RemoveEntries(EntryKind.TICKET, ticket.id, _REQUEST),
            then=lambda error: self._ended(ticket, error),
        )

    def _ended(self, ticket: Later, error: StorageError | None) -> None:
        if ticket.is_leaving:
            return
        if isinstance(error, JournalFull):
            self._rest(ticket, self._pause(32))  # and the answer is written then
            return
        if error is None:
            self._bytes -= ticket.size
            ticket.answer, ticket.pending, ticket.record = ticket.pending, None, None
            self._bytes += ticket.size
            self._rest(ticket, self._options.tickets_kept_for)
            if ticket.by is not None:
                self._known(ticket.by, ticket.number, ticket.number)
        self._turn.actions.append(LaterEnded(ticket.id, error))

    # Another life

    def on_entry(self, entry: Entry) -> None:
        """Take up what an earlier life kept of a ticket: the request comes first, if it is there.

        It is made when a provider appears: nobody is met before all is read.
        """
        try:
            kept = unpacked(entry.value)
            if entry.key == _REQUEST:
                ticket = _request_of(entry.name, kept)
                self._turn.keeper.on_number(ticket.number)
                self._tickets[ticket.id] = ticket
                self._bytes += ticket.size
                self._rest(ticket, self._options.redeliver_max, is_idle=True)
            else:
                self._on_standing(entry.name, kept)
        except (ProtocolError, ValueError) as error:
            self._turn.trace("ticket_unreadable", 40, ticket=entry.name, why=str(error))

    def _on_standing(self, name: str, kept: object) -> None:
        found = _standing_of(name, kept)
        request = self._tickets.get(name)
        if found.answer is not None:
            if request is not None:  # it came back with a rescue
                self._bytes -= request.size
            self._tickets[name] = found
            self._bytes += found.size
            at_s = (found.answered_ms - self._turn.keeper.wall_ms(self._turn.now)) / 1000
            self._rest(found, max(0.0, at_s + self._options.tickets_kept_for))
        elif request is not None:  # else it was lost with a damaged journal
            request.raised = found.raised


def _request_entry(ticket: Later) -> Entry:
    assert ticket.record is not None, "it is stored before it is answered"  # noqa: S101
    kept = [
        _VERSION, flat(ticket.record), ticket.made_ms, ticket.lane, ticket.key, ticket.retries,
        ticket.expires_ms, ticket.number,
    ]  # fmt: skip
    return Entry(EntryKind.TICKET, ticket.id, _REQUEST, packed(kept))


def _standing_entry(ticket: Later) -> Entry:
    kept: list[object] = [_VERSION, ticket.service, ticket.made_ms, ticket.raised]
    answer = ticket.pending
    if answer is not None:
        failure = None if answer.failure is None else answer.failure.value
        record = None if answer.record is None else flat(answer.record)
        kept += [ticket.answered_ms, record, failure, answer.peer, answer.reason]
    return Entry(EntryKind.TICKET, ticket.id, _STANDING, packed(kept))


def _request_of(name: str, kept: object) -> Later:
    match kept:
        case [
            1, record, int(made_ms), int(lane), str() | None as key, int(retries),
            int(expires_ms), int(number),
        ]:  # fmt: skip
            whole = record_of(record)
            return Later(
                name, whole[1], made_ms, whole, lane, key, retries, expires_ms, number
            )  # fmt: skip
        case _:
            raise ValueError("it is not what this version writes")


def _standing_of(name: str, kept: object) -> Later:
    match kept:
        case [1, str(service), int(made_ms), int(raised)]:
            return Later(name, service, made_ms, raised=raised)
        case [
            1, str(service), int(made_ms), int(raised), int(answered_ms), record,
            str() | None as failure, str(peer), str(reason),
        ]:  # fmt: skip
            answer = CallAnswered(
                0,
                None if record is None else record_of(record),
                None if failure is None else CallFailure(failure),
                peer,
                reason,
            )
            return Later(
                name, service, made_ms, raised=raised, answer=answer, answered_ms=answered_ms
            )
        case _:
            raise ValueError("it is not what this version writes")
