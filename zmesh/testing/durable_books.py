"""The books of what is stored: what is on whose disk, held against what nodes do and tell.

Disks tell every command that is on them for good; the engines are asked for nothing. So it is
known at each moment which messages survive their sender, and which outcomes their receiver.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from zmesh.ids import NODE_ID_BYTES
from zmesh.message import FailureKind, Kind, Outcome, Record, Tag, Ticket, extra
from zmesh.storage import (
    POSITION_MAX,
    Command,
    CountAttempts,
    DropStream,
    Forget,
    ForgetOutcomes,
    Move,
    Ranges,
    RemoveEntries,
    Row,
    SetEntries,
    StoreOutcomes,
    StoreRun,
    Stream,
    StreamKind,
)
from zmesh.testing.findings import Rule
from zmesh.testing.ledger import number_in
from zmesh.testing.node_ledger import Handling, NodeMessage, NodeParcel
from zmesh.testing.topic_books import Reader, TopicBooks

EARLY_MS: Final = 250
"""How much too early clocks that differ may end a time to live."""

_ENDS: Final = (FailureKind.REJECTED, FailureKind.EXPIRED, FailureKind.DEAD_LETTERED)


@dataclass(slots=True, eq=False)
class Kept:
    """A stored message, and what disks say of it."""

    message: NodeMessage
    sender: int  # host
    number: int  # in the sender's journal
    stream: Stream
    expires_ms: int
    on_disk: bool = True
    buried: bool = False  # among the sender's dead letters
    attempts: int = 0  # that failed, as the sender's disk has it
    outcomes: dict[int, Outcome] = field(default_factory=dict)  # ever on a receiver's disk
    effects: int = 0  # committed together with an acceptance
    seen: dict[int, int] = field(default_factory=dict)  # life of the sender -> highest attempt

    def __str__(self) -> str:
        return f"{self.message} (number {self.number})"


@dataclass(slots=True, eq=False)
class _Told:
    """What a caller was told of a parcel."""

    parcel: NodeParcel
    stored: bool = False
    done: bool = False


class DurableBooks:
    """Books for all disks of a run.

    Args:
        wrong: takes violations.
        wall_ms: what the wall clock reads now.
        has_disk: whether a host has a disk.
        index_of: the host that carries a node id.
        life_of: which life of a host is the present one.
        attempts_max: after so many failures a message is a dead letter.
        readers: subscriptions with a name.
        log_count: publications that a log keeps; None: all.
    """

    def __init__(
        self,
        wrong: Callable[[Rule, str, str], None],
        wall_ms: Callable[[], int],
        has_disk: Callable[[int], bool],
        index_of: Callable[[bytes], int],
        life_of: Callable[[int], int],
        attempts_max: int,
        readers: Collection[Reader] = (),
        log_count: int | None = None,
    ) -> None:
        self._wrong = wrong
        self._wall_ms = wall_ms
        self._has_disk = has_disk
        self._index_of = index_of
        self._life_of = life_of
        self._attempts_max = attempts_max
        self.topics = TopicBooks(wrong, readers, self._is_over, index_of, attempts_max, log_count)
        self._messages: dict[int, NodeMessage] = {}
        self._refused: set[NodeMessage] = set()
        self._told: dict[Ticket, _Told] = {}
        self._open: dict[Ticket, _Told] = {}  # whose callers live and wait
        self._by_place: dict[tuple[int, Stream, int], Kept] = {}  # on disks
        self._by_number: dict[tuple[int, int], Kept] = {}  # ever
        self._of: dict[NodeMessage, Kept] = {}
        self._remembered: dict[tuple[int, int], dict[int, Kept]] = {}  # receiver, sender -> number
        self._floors: dict[int, int] = {}  # host -> below it nothing is left, it was told

    # What senders do, and are told

    def on_submitted(self, parcel: NodeParcel) -> None:
        """Note messages that are to be stored."""
        if parcel.messages[0].kind is Kind.PUBLICATION:
            self.topics.on_submitted(parcel)
        else:
            self._messages |= {each.number: each for each in parcel.messages}
        self._told[parcel.ticket] = self._open[parcel.ticket] = _Told(parcel)

    def on_death(self, sender: str) -> None:
        """Note that a process died: its callers hear no more, its messages stay."""
        for ticket in [t for t, told in self._open.items() if told.parcel.sender == sender]:
            del self._open[ticket]

    def on_stored(self, sender: str, ticket: Ticket, *, is_stored: bool) -> None:
        """Check what a caller is told of the disk."""
        told = self._open.get(ticket)
        if told is None or told.parcel.sender != sender or told.stored:
            self._wrong(Rule.UNTRUE, sender, "told of what is stored, and is not its own")
            return
        told.stored = is_stored
        for message in told.parcel.messages:
            is_there = message in self._of or self.topics.is_stored(message)
            if is_stored and not is_there:
                self._wrong(Rule.LOST, sender, f"{message} is said to be stored, and is not")
            elif not is_stored and is_there:
                self._wrong(Rule.UNTRUE, sender, f"{message} was refused, and is stored")
            if not is_stored:
                self._refused.add(message)
                self.topics.on_refused(message)
        if not is_stored:
            del self._open[ticket]

    def on_done(self, parcel: NodeParcel) -> None:
        """Hold what a caller is told in the end against what is on disks."""
        told, ticket, first = self._told[parcel.ticket], parcel.ticket, parcel.messages[0]
        if not told.stored or told.done:
            why = "ended twice" if told.done else "ended before it was stored"
            self._wrong(Rule.DUPLICATED, parcel.sender, f"{first}.. {why}")
            return
        told.done = True
        self._open.pop(ticket, None)
        if first.kind is Kind.PUBLICATION:
            self.topics.check_end(parcel)
        else:
            self._check_end(parcel)

    def _check_end(self, parcel: NodeParcel) -> None:
        ticket, first = parcel.ticket, parcel.messages[0]
        if ticket.accepted + len(ticket.failures) != ticket.expected:
            self._wrong(Rule.UNTRUE, parcel.sender, f"{first}.. has more or fewer ends than one")
        kinds = [failure.kind for failure in ticket.failures]
        kept = [self._of[each] for each in parcel.messages if each in self._of]
        checks = (
            ("accepted", ticket.accepted, sum(map(self._is_accepted, kept))),
            ("expired", kinds.count(FailureKind.EXPIRED), sum(map(self._is_expired, kept))),
            (
                "refused for good",
                kinds.count(FailureKind.REJECTED) + kinds.count(FailureKind.DEAD_LETTERED),
                sum(each.buried for each in kept),
            ),
            ("ended otherwise", sum(kind not in _ENDS for kind in kinds), 0),
        )
        for what, said, true in checks:
            if said > true:
                text = f"{first}..: {said} are said to be {what}, {true} are by what is on disk"
                self._wrong(Rule.UNTRUE, parcel.sender, text)

    # What disks say

    def on_command(self, host: int, command: Command) -> None:
        """Take note of what is on a host's disk from now on."""
        self.topics.on_command(host, command)
        if isinstance(command, SetEntries | RemoveEntries):
            return
        stream = command.source if isinstance(command, Move) else command.stream
        if stream.kind is StreamKind.WAITING:
            self._on_box(host, stream, command)
        elif stream.kind is StreamKind.LANE_IN:
            self._on_outcomes(host, command)

    def _on_box(self, host: int, stream: Stream, command: Command) -> None:
        match command:
            case StoreRun():
                self._store(host, stream, command.rows())
            case Forget(_, ranges):
                for kept in self._take(host, stream, ranges):
                    self._check_forgotten(kept)
            case Move(_, ranges):
                for kept in self._take(host, stream, ranges):
                    kept.buried = True
                    self._check_buried(kept)
            case DropStream():
                for kept in self._take(host, stream, ((1, POSITION_MAX),)):
                    self._wrong(Rule.LOST, kept.message.sender, f"{kept} is dropped with its box")
            case CountAttempts(_, ranges, attempts):
                for kept in self._at(host, stream, ranges):
                    kept.attempts = attempts
            case _:
                self._wrong(Rule.UNTRUE, str(host), f"has {command} for a box")

    def _on_outcomes(self, host: int, command: Command) -> None:
        match command:
            case StoreOutcomes(stream, outcomes):
                for each in outcomes:
                    for number in range(each.first, each.last + 1):
                        self._settle(host, stream, number, each.outcome)
            case ForgetOutcomes(stream, ranges):
                self._forget_outcomes(host, self._index_of(stream.owner[:NODE_ID_BYTES]), ranges)
            case _:
                self._wrong(Rule.UNTRUE, str(host), f"has {command} for outcomes")

    def _store(self, host: int, stream: Stream, rows: Iterable[Row]) -> None:
        for row in rows:
            self._store_one(host, stream, row)

    def _store_one(self, host: int, stream: Stream, row: Row) -> None:
        message = self._messages.get(number_in(row.record[2]))
        if message is None or row.record[2] != message.body or message.source != host:
            self._wrong(Rule.DAMAGED, str(host), "stores what nobody sent")
            return
        before = self._by_number.get((host, row.order))
        if before is not None:
            self._wrong(Rule.IDENTITY, message.sender, f"{message} gets the number of {before}")
        if row.order < self._floors.get(host, 0):
            text = f"{message} gets number {row.order}, which peers were told is forgotten"
            self._wrong(Rule.LOST, message.sender, text)
        if message in self._refused:
            self._wrong(Rule.UNTRUE, message.sender, f"{message} was refused, and is stored")
        kept = Kept(message, host, row.order, stream, row.expires_ms)
        self._by_place[host, stream, row.position] = kept
        self._by_number[host, row.order] = self._of[message] = kept

    def _at(self, host: int, stream: Stream, ranges: Ranges) -> list[Kept]:
        found = []
        for low, high in ranges:
            if high - low < len(self._by_place):
                places: Iterable[tuple[int, Stream, int]] = (
                    (host, stream, position) for position in range(low, high + 1)
                )
            else:
                places = self._by_place
            found += [
                self._by_place[place]
                for place in places
                if place[:2] == (host, stream)
                and low <= place[2] <= high
                and place in self._by_place
            ]
        return found

    def _take(self, host: int, stream: Stream, ranges: Ranges) -> list[Kept]:
        taken = self._at(host, stream, ranges)
        gone = set(taken)
        self._by_place = {place: k for place, k in self._by_place.items() if k not in gone}
        for kept in taken:
            kept.on_disk = False
        return taken

    def _is_accepted(self, kept: Kept) -> bool:
        """Whether an application took it, for good where it has a disk."""
        if Outcome.ACCEPTED in kept.outcomes.values():
            return True
        return any(
            each.verdict is not None
            and each.verdict.outcome is Outcome.ACCEPTED
            and not self._has_disk(each.index)
            for each in kept.message.handlings
        )

    def _is_expired(self, kept: Kept) -> bool:
        return self._is_over(kept.expires_ms)

    def _is_over(self, expires_ms: int) -> bool:
        return 0 < expires_ms <= self._wall_ms() + EARLY_MS

    def _check_forgotten(self, kept: Kept) -> None:
        if not self._is_accepted(kept) and not self._is_expired(kept):
            text = f"{kept} is forgotten, and nobody accepted it for good"
            self._wrong(Rule.LOST, kept.message.sender, text)

    def _check_buried(self, kept: Kept) -> None:
        verdicts = [each.verdict.outcome for each in kept.message.handlings if each.verdict]
        failed = verdicts.count(Outcome.MODIFIED)
        if Outcome.REJECTED not in verdicts and failed < self._attempts_max:
            text = f"{kept} is a dead letter after {failed} failures"
            self._wrong(Rule.UNTRUE, kept.message.sender, text)

    # What receivers remember

    def _settle(self, host: int, stream: Stream, number: int, outcome: Outcome) -> None:
        sender = self._index_of(stream.owner[:NODE_ID_BYTES])
        kept = self._by_number.get((sender, number))
        if kept is None:
            self._wrong(Rule.UNTRUE, str(host), f"keeps an outcome of number {number}, of nobody")
            return
        if host in kept.outcomes:
            self._wrong(Rule.DUPLICATED, str(host), f"{kept} has an outcome here already")
        kept.outcomes[host] = outcome
        # What the handler wrote is on the disk in the same commit.
        kept.effects += outcome is Outcome.ACCEPTED
        if kept.effects > 1:
            self._wrong(Rule.DUPLICATED, str(host), f"{kept} has {kept.effects} effects")
        self._remembered.setdefault((host, sender), {})[number] = kept

    def _forget_outcomes(self, host: int, sender: int, ranges: Ranges) -> None:
        remembered = self._remembered.get((host, sender), {})
        for low, high in ranges:
            for number in [each for each in remembered if low <= each <= high]:
                kept = remembered.pop(number)
                if kept.on_disk:
                    text = f"forgets {kept}, which its sender still has"
                    self._wrong(Rule.DUPLICATED, str(host), text)

    def on_known(self, host: int, floor: int, ranges: Ranges) -> None:
        """Check what a node tells a peer of what it has forgotten."""
        self._floors[host] = max(floor, self._floors.get(host, 0))
        for (sender, _, _), kept in self._by_place.items():
            told = kept.number < floor or any(low <= kept.number <= high for low, high in ranges)
            if sender == host and told:
                text = f"tells that {kept} is forgotten, which is on its disk"
                self._wrong(Rule.LOST, kept.message.sender, text)

    def outcomes_under_way(self, host: int, receiver: str) -> int:
        """Return how many outcomes one life of a host may know of, on disk or on their way there.

        Args:
            host: with a disk.
            receiver: the life.
        """
        known = sum(len(each) for (by, _), each in self._remembered.items() if by == host)
        return known + sum(
            host not in kept.outcomes
            and any(
                each.receiver == receiver
                and each.verdict is not None
                and each.verdict.outcome in (Outcome.ACCEPTED, Outcome.REJECTED)
                for each in kept.message.handlings
            )
            for kept in self._of.values()
        )

    def outcomes_remembered(self, host: int, sender: int) -> int:
        """Return how many outcomes of a sender's messages are on a host's disk."""
        return len(self._remembered.get((host, sender), ()))

    # What handlers see

    def on_delivered(self, message: NodeMessage, handling: Handling, record: Record) -> None:
        """Check that a message is the one with its number, and was not handled before."""
        receiver = handling.receiver
        number = extra(record, Tag.STORED)
        kept = self._of.get(message)
        if kept is None or kept.number != number:
            self._wrong(Rule.LOST, receiver, f"{message} is here before it was stored")
            return
        if message in self._refused:
            self._wrong(Rule.UNTRUE, receiver, f"{kept} was refused, and is here")
        if handling.index in kept.outcomes:
            outcome = kept.outcomes[handling.index].name
            self._wrong(Rule.DUPLICATED, receiver, f"{kept} was {outcome} here, on disk")
        for earlier in message.handlings:
            if earlier.receiver == receiver and (
                earlier.verdict is None
                or earlier.verdict.outcome in (Outcome.ACCEPTED, Outcome.REJECTED)
            ):
                self._wrong(Rule.DUPLICATED, receiver, f"{kept} is with the application already")
        self._check_attempt(kept, handling)

    def _check_attempt(self, kept: Kept, handling: Handling) -> None:
        failed = sum(
            each.verdict is not None and each.verdict.outcome is Outcome.MODIFIED
            for each in kept.message.handlings
        )
        if not kept.attempts < handling.attempt <= failed + 1:
            text = (
                f"{kept} comes as attempt {handling.attempt} after {failed} failures, "
                f"{kept.attempts} of which are on disk"
            )
            self._wrong(Rule.UNTRUE, handling.receiver, text)
        life = self._life_of(kept.sender)
        highest = kept.seen.get(life, 1)
        if handling.attempt < highest:
            text = f"{kept} comes as attempt {handling.attempt} after attempt {highest}"
            self._wrong(Rule.UNTRUE, handling.receiver, text)
        kept.seen[life] = max(highest, handling.attempt)

    # In the end

    def waiting(self, host: int) -> list[Kept]:
        """Return what is on a host's disk and without an outcome."""
        return [kept for (sender, _, _), kept in self._by_place.items() if sender == host]

    def untold(self) -> list[NodeMessage]:
        """Return what callers wait for though it is in no box any more, or never was."""
        return [
            told.parcel.messages[0]
            for told in self._open.values()
            if not any(
                each in self._of and self._of[each].on_disk for each in told.parcel.messages
            )
        ]

    def finish(self) -> None:
        """Find messages without an end, and effects that are missing."""
        for message in self.untold():
            self._wrong(Rule.LOST, message.sender, f"{message}.. has no end that was told")
        for told in self._told.values():
            if not told.done or told.parcel.ticket.failures:
                continue
            for message in told.parcel.messages:
                self._check_effects(message)

    def _check_effects(self, message: NodeMessage) -> None:
        kept, target = self._of.get(message), message.target
        if kept is None or target is None or not self._has_disk(target):
            return
        if kept.effects != 1:
            text = f"{kept} was accepted, and has {kept.effects} effects"
            self._wrong(Rule.LOST, message.sender, text)
