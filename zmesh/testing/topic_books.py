"""The books of logs: durable publications on disks, and how far subscriptions with a name are.

Every one of them is for each named subscription on its topic, whenever that is read, and in the
order of the log. Disks tell what was published and what was handled; the engines nothing.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from msgpack import unpackb

from zmesh.message import FailureKind, Outcome, Record, Tag, extra
from zmesh.patterns.routing import matches
from zmesh.reliable.ranges import RangeSet
from zmesh.storage import (
    Command,
    DropOldest,
    DropStream,
    Entry,
    EntryKind,
    Forget,
    Row,
    SetEntries,
    Store,
    StreamKind,
)
from zmesh.testing.findings import Rule
from zmesh.testing.ledger import number_in
from zmesh.testing.node_ledger import Handling, NodeMessage, NodeParcel

_FINAL = (Outcome.ACCEPTED, Outcome.REJECTED)


class Reader(NamedTuple):
    """A subscription with a name, of all lives of a host."""

    host: int
    name: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.name} of host {self.host}"

    def wants(self, topic: str) -> bool:
        """Return whether a topic is one of its own."""
        return matches(self.pattern.split("."), topic)


@dataclass(slots=True, eq=False)
class Logged:
    """A publication that is in the log of its publisher."""

    message: NodeMessage
    publisher: int  # host
    position: int
    expires_ms: int
    rank: int  # how many the log had before
    handlings: dict[Reader, list[Handling]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.message} (position {self.position})"


class TopicBooks:
    """Books for all logs of a run.

    Args:
        wrong: takes violations.
        readers: all named subscriptions.
        is_over: whether a time to live has ended, by the wall clock and about.
        index_of: the host that carries a node id.
        attempts_max: after so many failures a publication does not come again.
        count: so many of the newest a log keeps; None: all.
    """

    def __init__(
        self,
        wrong: Callable[[Rule, str, str], None],
        readers: Collection[Reader],
        is_over: Callable[[int], bool],
        index_of: Callable[[bytes], int],
        attempts_max: int,
        count: int | None,
    ) -> None:
        self._wrong = wrong
        self._readers = {(reader.host, reader.name): reader for reader in readers}
        self._is_over = is_over
        self._index_of = index_of
        self._attempts_max = attempts_max
        self._count = count
        self._messages: dict[int, NodeMessage] = {}
        self._refused: set[NodeMessage] = set()
        self._logs: dict[int, dict[int, Logged]] = {}  # by host and position
        self._of: dict[NodeMessage, Logged] = {}
        self._handled: dict[tuple[Reader, int], RangeSet] = {}  # on disk, by publisher
        self._last: dict[tuple[str, Reader, int], int] = {}  # first handed over to a life

    # What publishers do, and are told

    def on_submitted(self, parcel: NodeParcel) -> None:
        """Note publications that are to be stored."""
        self._messages |= {each.number: each for each in parcel.messages}

    def is_stored(self, message: NodeMessage) -> bool:
        """Return whether a publication ever was on disk."""
        return message in self._of

    def on_refused(self, message: NodeMessage) -> None:
        """Note that a caller was told that there is no room."""
        self._refused.add(message)

    def check_end(self, parcel: NodeParcel) -> None:
        """Hold what a publisher is told in the end against what handlers said."""
        [message], ticket = parcel.messages, parcel.ticket
        followed = self._of[message].handlings.values() if message in self._of else ()
        handlings = [*message.handlings, *(each for one in followed for each in one)]
        verdicts = [each.verdict.outcome for each in handlings if each.verdict is not None]
        rejected = sum(each.kind is FailureKind.REJECTED for each in ticket.failures)
        for what, said, outcome in (
            ("accepted", ticket.accepted, Outcome.ACCEPTED),
            ("rejected", rejected, Outcome.REJECTED),
        ):
            if said > verdicts.count(outcome):
                text = (
                    f"{message}: {said} are said to have {what} it, not {verdicts.count(outcome)}"
                )
                self._wrong(Rule.UNTRUE, parcel.sender, text)

    # What disks say

    def on_command(self, host: int, command: Command) -> None:
        """Take note of what is on a host's disk from now on."""
        match command:
            case SetEntries(entries):
                for entry in entries:
                    if entry.kind is EntryKind.SUBSCRIPTION and entry.key:
                        self._on_position(host, entry)
            case Store(stream, rows) if stream.kind is StreamKind.TOPIC:
                for row in rows:
                    self._store(host, row)
            case Forget(stream, ranges) if stream.kind is StreamKind.TOPIC:
                for position, logged in self._logs.get(host, {}).items():
                    is_forgotten = any(low <= position <= high for low, high in ranges)
                    if is_forgotten and self._is_kept(logged):
                        text = f"{logged} is forgotten, and is to be kept"
                        self._wrong(Rule.LOST, logged.message.sender, text)
            case DropOldest(stream) | DropStream(stream) if stream.kind is StreamKind.TOPIC:
                self._wrong(Rule.LOST, str(host), f"has {command} for its log")
            case _:
                pass

    def _store(self, host: int, row: Row) -> None:
        message = self._messages.get(number_in(row.record[2]))
        if message is None or row.record[2] != message.body or message.source != host:
            self._wrong(Rule.DAMAGED, str(host), "logs what nobody published")
            return
        log = self._logs.setdefault(host, {})
        if log and row.position <= max(log):
            text = f"{message} gets position {row.position}, and {max(log)} was given"
            self._wrong(Rule.IDENTITY, message.sender, text)
        if message in self._refused:
            self._wrong(Rule.UNTRUE, message.sender, f"{message} was refused, and is in the log")
        logged = Logged(message, host, row.position, row.expires_ms, len(log))
        log[row.position] = self._of[message] = logged

    def _on_position(self, host: int, entry: Entry) -> None:
        """Nothing may be passed over that was not handled."""
        reader = self._readers.get((host, entry.name))
        if reader is None:
            self._wrong(Rule.UNTRUE, str(host), f"keeps a position of {entry.name}, of nobody")
            return
        publisher = self._index_of(entry.key)
        fields: list[Any] = unpackb(entry.value)
        _, done, *flat = fields
        handled = RangeSet(((0, done), *zip(flat[::2], flat[1::2], strict=True)))
        before = self._handled.get((reader, publisher), RangeSet())
        self._handled[reader, publisher] = handled
        for position, logged in self._logs.get(publisher, {}).items():
            if position in before and position not in handled:
                text = f"{reader} forgets that {logged} was handled"
                self._wrong(Rule.DUPLICATED, str(host), text)
            elif position in handled and position not in before and self._waits(reader, logged):
                text = f"{reader} passes over {logged}, which it has not handled"
                self._wrong(Rule.LOST, str(host), text)

    def _is_kept(self, logged: Logged) -> bool:
        """Whether a publication is among those that its log is to keep."""
        newer = len(self._logs[logged.publisher]) - 1 - logged.rank
        return self._count is None or newer < self._count

    def _waits(self, reader: Reader, logged: Logged) -> bool:
        """Whether a subscription is still to get a publication, or to decide on it."""
        if not reader.wants(logged.message.submission.name):
            return False
        if not self._is_kept(logged) or self._is_over(logged.expires_ms):
            return False
        return not any(
            each.verdict is not None
            and (
                each.verdict.outcome in _FINAL
                or (
                    each.verdict.outcome is Outcome.MODIFIED and each.attempt >= self._attempts_max
                )
            )
            for each in logged.handlings.get(reader, ())
        )

    # What handlers see

    def on_delivered(
        self, receiver: str, host: int, name: str, source: int, record: Record
    ) -> tuple[NodeMessage, Handling] | None:
        """Check what a named subscription is given from a log; None where it is nobody's."""
        reader = self._readers[host, name]
        message = self._messages.get(number_in(record[2]))
        if message is None or record[2] != message.body:
            self._wrong(Rule.DAMAGED, receiver, "a publication with a body that nobody sent")
            return None
        attempt = extra(record, Tag.ATTEMPT)
        handling = Handling(receiver, host, attempt if isinstance(attempt, int) else 1)
        logged = self._of.get(message)
        position = extra(record, Tag.POSITION)
        if logged is None or (logged.publisher, logged.position) != (source, position):
            self._wrong(Rule.LOST, receiver, f"{message} is here before it was stored")
            return message, handling
        if not reader.wants(record[1]) or record[1] != message.submission.name:
            self._wrong(Rule.DAMAGED, receiver, f"{logged} is not for {reader}")
        handlings = logged.handlings.setdefault(reader, [])
        self._check_again(reader, logged, receiver)
        if handling.attempt == 1 and all(each.receiver != receiver for each in handlings):
            self._check_order(reader, logged, receiver)
        handlings.append(handling)
        return message, handling

    def _check_again(self, reader: Reader, logged: Logged, receiver: str) -> None:
        if logged.position in self._handled.get((reader, logged.publisher), ()):
            self._wrong(Rule.DUPLICATED, receiver, f"{logged} was handled by {reader}, on disk")
        for earlier in logged.handlings[reader]:
            if earlier.receiver == receiver and (
                earlier.verdict is None or earlier.verdict.outcome in _FINAL
            ):
                self._wrong(Rule.DUPLICATED, receiver, f"{logged} is with {reader} already")

    def _check_order(self, reader: Reader, logged: Logged, receiver: str) -> None:
        key = (receiver, reader, logged.publisher)
        last = self._last.get(key, 0)
        if last > logged.position:
            text = f"{logged} comes to {reader} after position {last}"
            self._wrong(Rule.MISORDERED, receiver, text)
        self._last[key] = max(last, logged.position)

    # In the end

    def behind(self, living: Collection[int]) -> list[tuple[Reader, Logged]]:
        """Return what named subscriptions have not handled, where both sides live."""
        return [
            (reader, logged)
            for reader in self._readers.values()
            if reader.host in living
            for publisher, log in self._logs.items()
            if publisher in living
            for logged in log.values()
            if self._waits(reader, logged)
        ]
