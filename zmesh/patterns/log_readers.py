"""Who reads this node's log, and how far each is: on from where it was, then live.

A reader that has come to the end gets what is published in the turn it is written. One that has no
room is read to from disk, as it gets some, and nobody waits for it. All of one subscription goes
by one lane, in the order of the log.
"""

import json
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from zmesh.core.peers import InternalTicket, LogTicket, Peer
from zmesh.core.positions import RESUMED
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines, earliest
from zmesh.errors import ZmeshError
from zmesh.message import (
    PRIORITY_DEFAULT,
    FailureKind,
    Kind,
    Outcome,
    Record,
    Tag,
    Ticket,
    extra,
    head,
    size_of,
    with_extra,
)
from zmesh.options import NodeOptions
from zmesh.patterns.filters import Allowance, Sieve, Sight
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.routing import TopicTable, matches
from zmesh.patterns.topic_log import LOG, Logged, TopicLog
from zmesh.patterns.wanted import Wanted, from_text
from zmesh.reliable.link_events import Returned
from zmesh.reliable.ranges import RangeSet
from zmesh.storage import Answer, ReadRows, RowsRead
from zmesh.wire.bodies import encode_body

PAGE_ROWS: Final = 512
PAGE_BYTES: Final = 512 * 1024
RUN_BYTES: Final = 128 * 1024

PEER_MESSAGES_MAX: Final = 1024
"""On their way to all readers of a peer: the first window of their lane has room for as many."""

AGAIN_S: Final = 0.1
"""Seconds until another look at a peer whose queue others have filled."""

PASSED_S: Final = 5.0
PASSED_MIN: Final = 256
"""Positions that were nothing for a reader before it is told how far it is, and how often."""

Audience = Callable[[Record, Peer], bool]
"""Whether a publication is for a peer that follows nothing."""

Passes = Callable[[Sieve, Sight, float, Allowance | None], bool | None]


class Reader:
    """One reader of the log: a subscription, or all others of a peer that missed something."""

    def __init__(self, peer: Peer, text: str, number: int, cursor: int) -> None:
        self.peer = peer
        self.text = text
        self.number = number
        self.wanted: Wanted | None = None
        self.cursor = cursor  # everything up to here is sent, or not for it
        self.told = -1  # it knows that it is here, or will by what is on its way
        self.not_before_ms = 0
        self.handled = RangeSet()  # above the cursor it began with
        self.lanes: dict[int, int] = {}  # where lanes are, of who missed something
        self.end = 0  # what is above was published after it was back
        self.out = 0
        self.out_bytes = 0
        self.ready: deque[Logged] = deque()
        self.is_reading = False
        self.is_live = False  # it is at the end, and the cursor is not kept up
        self.is_waiting = number == RESUMED  # to hear what else the peer wants
        self.ended = False

    @property
    def is_resuming(self) -> bool:
        """Whether it is for what a peer missed, and ends there."""
        return self.number == RESUMED


class Sent(LogTicket):
    """Publications that a reader was sent; `told` waits for their outcome as well."""

    __slots__ = ("count", "reader", "size", "told")

    def __init__(self, reader: Reader, count: int, size: int, told: Ticket | None) -> None:
        super().__init__(count)
        self.reader = reader
        self.count = count
        self.size = size
        self.told = told


class LogReaders:
    """The readers of one node's log."""

    def __init__(
        self,
        turn: Turn,
        log: TopicLog,
        interest: InterestTable,
        options: NodeOptions,
        audience: Audience,
        passes: Passes,
    ) -> None:
        self._turn = turn
        self._log = log
        self._interest = interest
        self._options = options
        self._audience = audience
        self._passes = passes
        self._allowances: dict[Peer, Allowance] = {}
        self._readers: dict[tuple[Peer, str], Reader] = {}
        self._counts: dict[Peer, int] = {}
        self._out: dict[Peer, int] = {}
        self._live: TopicTable[Reader] = TopicTable(options.topics_cached_max)
        self._resuming: dict[Peer, Reader] = {}
        self._touched: dict[Reader, None] = {}
        self._later: Deadlines[Reader] = Deadlines(turn.agenda)
        self._passed: Deadlines[None] = Deadlines(turn.agenda)
        self.gathered = (interest.log_news, self._touched, turn.log_done)
        self.refused = 0  # readers that peers may not have
        self.missed = 0  # publications that were gone before they were read

    def __len__(self) -> int:
        return len(self._readers)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return earliest(self._later.next, self._passed.next)

    def is_resuming(self, peer: Peer) -> bool:
        """Return whether a peer gets what is published by way of the log, for now."""
        return peer in self._resuming

    # Who reads

    def flush(self) -> None:
        """Note who came and went, and send what there is room for."""
        news, turn = self._interest.log_news[:], self._turn
        self._interest.log_news.clear()
        for peer, text, is_new in news:
            if is_new:
                self._begin(peer, text)
            else:
                self._on_removed(peer, text)
        while turn.log_done or self._touched:
            done = list(turn.log_done)
            turn.log_done.clear()
            for ticket in done:
                if isinstance(ticket, Sent):
                    self._on_done(ticket)
            if self._touched:
                reader, _ = self._touched.popitem()
                self._advance(reader)

    def _begin(self, peer: Peer, text: str) -> None:
        if not self._turn.keeper.is_there:
            return
        reader = None
        if self._counts.get(peer, 0) < self._options.log_readers_max:
            reader = self._reader_of(peer, text)
        if reader is None:
            self.refused += 1
            self._turn.trace("log_reader_refused", 30, peer=peer.label)
            return
        self._readers[peer, text] = reader
        self._counts[peer] = self._counts.get(peer, 0) + 1
        if peer not in self._allowances and peer is not self._turn.peers.local:
            steps = self._options.filter_steps_per_second
            self._allowances[peer] = Allowance(steps, self._turn.now)
        if reader.is_resuming:
            self._resuming[peer] = reader
        self._touched[reader] = None

    def _on_removed(self, peer: Peer, text: str) -> None:
        """End a reader; one for what was missed begins only now, while there is a session."""
        reader = self._readers.get((peer, text))
        if reader is not None and reader.is_waiting and peer.session is not None:
            reader.is_waiting = False
            self._touched[reader] = None
        else:
            self._end(self._readers.pop((peer, text), None))

    def _end(self, reader: Reader | None) -> None:
        if reader is None or reader.ended:
            return
        reader.ended = True
        peer = reader.peer
        self._counts[peer] -= 1
        if not self._counts[peer]:
            del self._counts[peer]
            self._allowances.pop(peer, None)
        if self._resuming.get(peer) is reader:
            del self._resuming[peer]
        if reader.is_live:
            self._not_live(reader)
        self._later.discard(reader)
        reader.ready.clear()

    def _reader_of(self, peer: Peer, text: str) -> Reader | None:
        """Return the reader that a peer asks for; None where that is not valid."""
        try:
            number, _, members = json.loads(text)
        except (TypeError, ValueError, RecursionError):
            return None
        if not isinstance(members, dict):
            return None
        if number == RESUMED:
            return self._resuming_reader(peer, text, members)
        wanted = from_text(peer, text, self._options.wire)
        cursor = self._cursor_of(members.get("since"))
        if wanted is None or cursor is None:
            return None
        reader = Reader(peer, text, wanted.number, cursor)
        reader.wanted = wanted
        since = members["since"]
        if isinstance(since, dict):
            if "after" not in since:
                reader.not_before_ms = since["ms"]
            else:
                reader.told = cursor
                for low, high in since.get("but", ()):
                    reader.handled.add(low, high)
        return reader

    def _cursor_of(self, since: Any) -> int | None:
        """Return where a reader begins."""
        log = self._log
        match since:
            case "now":
                return log.written
            case "first":
                return log.first - 1
            case {"after": int(after)} if after >= 0:
                ranges = since.get("but", ())
                return min(after, log.written) if _are_ranges(ranges) else None
            case {"ms": int(ms)} if ms >= 0 and "after" not in since:
                return log.first - 1
            case _:
                return None

    def _resuming_reader(self, peer: Peer, text: str, members: dict[str, Any]) -> Reader | None:
        lanes = members.get("lanes", ())
        if not _are_ranges(lanes) or not lanes or peer in self._resuming:
            return None
        cursor = min(self._log.written, *(at for _, at in lanes))
        reader = Reader(peer, text, RESUMED, cursor)
        reader.lanes = dict(lanes)
        reader.end = self._log.written
        return reader

    # Live

    def on_logged(self, logged: Logged, ticket: Ticket) -> None:
        """Send what was just written to those at the end, or leave it to the disk."""
        if self._live and not self._passed:
            self._passed.set(None, self._turn.now + PASSED_S)
        for reader in self._live.match(logged.record[1]):
            if not self._has_room(reader):
                self._not_live(reader)
                reader.cursor = logged.position - 1
                self._later.set(reader, self._turn.now + AGAIN_S)
            elif self._wants(reader, logged):
                ticket.expected += 1
                self._send(reader, [logged], ticket)

    def _go_live(self, reader: Reader) -> None:
        """Take note that a reader is at the end."""
        if reader.wanted is None:
            self._end(self._readers.pop((reader.peer, reader.text)))
            return
        if reader.told < reader.cursor and (reader.told < 0 or self._is_far(reader)):
            self._tell_passed(reader, reader.cursor)
        reader.is_live = True
        self._live.add(reader.wanted.pattern, reader)

    def _not_live(self, reader: Reader) -> None:
        assert reader.wanted is not None, "who only resumes is never live"  # noqa: S101
        reader.is_live = False
        self._live.remove(reader.wanted.pattern, reader)

    def _is_far(self, reader: Reader) -> bool:
        return reader.cursor - reader.told >= PASSED_MIN

    def on_timer(self) -> None:
        """Look again at peers that had no room, and tell how far those are who got nothing."""
        for reader in self._later.due(self._turn.now):
            self._touched[reader] = None
        if self._passed.due(self._turn.now):
            for reader in self._readers.values():
                if reader.is_live:
                    reader.cursor = self._log.written
                    if self._is_far(reader):
                        self._tell_passed(reader, reader.cursor)

    # From disk

    def _advance(self, reader: Reader) -> None:
        """Send what comes next, as far as there is room."""
        if reader.ended or reader.is_live or reader.is_reading or reader.is_waiting:
            return
        log = self._log
        while self._has_room(reader):
            if reader.ready:
                self._send_ready(reader)
            elif reader.cursor >= log.written:
                self._go_live(reader)
                return
            else:
                self._tell_gap(reader)
                reader.is_reading = True
                question = ReadRows(LOG, reader.cursor, PAGE_ROWS, PAGE_BYTES)
                self._turn.keeper.read(question, partial(self._on_read, reader, log.written))
                return
        if not reader.out:  # nothing of it will tell when there is room
            self._later.set(reader, self._turn.now + AGAIN_S)

    def _tell_gap(self, reader: Reader) -> None:
        """Tell a subscription how many are gone that it did not read."""
        count = self._log.first - 1 - reader.cursor
        if count <= 0:
            return
        reader.cursor += count
        self.missed += count
        if not reader.is_resuming:
            record: Record = (
                head(Kind.MISSED),
                "",
                b"",
                (int(Tag.MISSED), (reader.number, count)),
            )
            self._turn.submit(reader.peer, PRIORITY_DEFAULT, [record], InternalTicket())
            self._tell_passed(reader, reader.cursor)

    def _on_read(self, reader: Reader, written: int, answer: Answer | ZmeshError) -> None:
        reader.is_reading = False
        if reader.ended or not isinstance(answer, RowsRead):
            return  # the journal broke, and says so; another life may read it
        reader.ready.extend(Logged.of(each.row) for each in answer.rows)
        if not answer.rows:
            reader.cursor = max(reader.cursor, written)  # the rest was trimmed meanwhile
        self._touched[reader] = None

    def _send_ready(self, reader: Reader) -> None:
        """Send some of what was read, as far as it is alike."""
        run: list[Logged] = []
        room, size = self._room(reader), 0
        while reader.ready and len(run) < room:
            logged = reader.ready[0]
            if not self._wants(reader, logged):
                reader.ready.popleft()
                reader.cursor = logged.position
                continue
            if run and (logged[2:5] != run[0][2:5] or size > RUN_BYTES):
                break
            size += size_of(logged.record)
            reader.ready.popleft()
            reader.cursor = logged.position
            run.append(logged)
        if run:
            self._send(reader, run, None)

    def _wants(self, reader: Reader, logged: Logged) -> bool:
        position, wanted = logged.position, reader.wanted
        now_ms = self._turn.keeper.wall_ms(self._turn.now)
        if logged.expires_ms and logged.expires_ms <= now_ms:
            return False
        if wanted is None:
            floor = reader.lanes.get(logged.lane, min(reader.lanes.values()))
            return position > floor and self._audience(logged.record, reader.peer)
        return (
            logged.published_ms >= reader.not_before_ms
            and position not in reader.handled
            and matches(wanted.pattern.split("."), logged.record[1])
            and self._passes_filter(wanted, logged.record)
        )

    def _passes_filter(self, wanted: Wanted, record: Record) -> bool:
        if wanted.sieve is None:
            return True
        # What cannot be found out here is for the peer to find out.
        allowance = self._allowances.get(wanted.peer)
        found = self._passes(wanted.sieve, Sight(record), self._turn.now, allowance)
        return found is not False

    # Sending

    def _room(self, reader: Reader) -> int:
        options = self._options
        if reader.out and reader.out_bytes >= options.log_reader_bytes:
            return 0
        return min(
            options.log_reader_messages - reader.out,
            PEER_MESSAGES_MAX - self._out.get(reader.peer, 0),
            self._turn.room(reader.peer),
        )

    def _has_room(self, reader: Reader) -> bool:
        return self._room(reader) > 0

    def _send(self, reader: Reader, run: list[Logged], told: Ticket | None) -> None:
        """Give the link publications that are alike; `told` counts their outcomes."""
        turn, first = self._turn, run[0]
        records = [each.record for each in run]
        lane = first.lane
        if reader.wanted is not None:
            records = [with_extra(each, Tag.FOLLOWER, reader.number) for each in records]
            lane = PRIORITY_DEFAULT
        elif run[0].position <= reader.end:
            records = [
                with_extra(each.record, Tag.FOLLOWER, RESUMED) if each.position <= reader.end
                else each.record
                for each in run
            ]  # fmt: skip
        size = sum(map(size_of, records))
        ticket = Sent(reader, len(run), size, told)
        reader.out += ticket.count
        reader.out_bytes += size
        reader.told = max(reader.told, run[-1].position)
        peer = reader.peer
        self._out[peer] = self._out.get(peer, 0) + ticket.count
        ttl = None
        if first.expires_ms:
            ttl = max(0.001, (first.expires_ms - turn.keeper.wall_ms(turn.now)) / 1000)
            ticket.expires = turn.now + ttl
        turn.submit(peer, lane, records, ticket, key=first.key, ttl=ttl)

    def _on_done(self, ticket: Sent) -> None:
        """Make room for what comes next, and tell who waits for the outcome."""
        reader, told = ticket.reader, ticket.told
        reader.out -= ticket.count
        reader.out_bytes -= ticket.size
        out = self._out[reader.peer] = self._out[reader.peer] - ticket.count
        if not out:
            del self._out[reader.peer]
        self._touched[reader] = None
        if told is None:
            return
        lost = [each for each in ticket.failures if each.kind not in _FINAL]
        told.accepted += ticket.accepted
        told.failures += [each for each in ticket.failures if each.kind in _FINAL]
        told.expected -= len(lost)  # it comes to it later, and nobody waits for that
        self._turn.note_accepted((told,))

    def on_returned(self, returned: Returned, attempts_max: int) -> None:
        """Tell a subscription that something it gave back does not come again."""
        ticket, attempt = returned.ticket, extra(returned.record, Tag.ATTEMPT)
        attempts = attempt if isinstance(attempt, int) else 1
        if not isinstance(ticket, Sent) or ticket.reader.wanted is None or ticket.reader.ended:
            return
        if returned.outcome is Outcome.MODIFIED and attempts >= attempts_max:
            position = extra(returned.record, Tag.POSITION)
            self._tell(ticket.reader, "ended", int(str(position)))

    def _tell_passed(self, reader: Reader, position: int) -> None:
        reader.told = position
        self._tell(reader, "passed", position)

    def _tell(self, reader: Reader, what: str, position: int) -> None:
        if reader.wanted is None:
            return
        encoding, body = encode_body([reader.number, position])
        record = (head(Kind.DURABILITY, encoding), what, body)
        self._turn.submit(reader.peer, PRIORITY_DEFAULT, [record], InternalTicket())


_FINAL: Final = (FailureKind.REJECTED, FailureKind.EXPIRED, FailureKind.DEAD_LETTERED)


def _are_ranges(value: object) -> bool:
    """Return whether a value is pairs of whole numbers."""
    return isinstance(value, list | tuple) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(number) is int and number >= 0 for number in pair)
        for pair in value
    )
