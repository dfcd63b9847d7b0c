"""Messages that are on disk until they have their outcome, whatever becomes of either process.

Each addressee has a *box*: a stream of rows in the journal, of which the link is given a window.
The disk is the queue: when a session ends, the window is void, and what has no outcome is read and
sent again, in order, to whoever bears the name then. The other side knows by its number what it
handled already (`core.handled`), and is told what is forgotten here, so that it may forget too.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines, earliest
from zmesh.errors import AmbiguousPeer, PeerUnknown, ZmeshError
from zmesh.events import Post
from zmesh.message import (
    Failure,
    FailureKind,
    Outcome,
    Record,
    Tag,
    Ticket,
    extra,
)
from zmesh.options import NodeOptions
from zmesh.patterns.boxes import WINDOW_RECORDS, Box, Run
from zmesh.patterns.confirming import Confirming
from zmesh.patterns.dead_letters import DeadLetters
from zmesh.patterns.redelivery import Redelivery
from zmesh.reliable.link_events import Returned, SessionEnd
from zmesh.reliable.ranges import RangeSet
from zmesh.storage import (
    Answer,
    Command,
    CountAttempts,
    DropOldest,
    DropStream,
    Entry,
    EntryKind,
    FailedAttempt,
    Forget,
    Note,
    ReadRows,
    RemoveEntries,
    Row,
    RowsRead,
    SetEntries,
    StoreRun,
    Stream,
    StreamKind,
    StreamState,
)
from zmesh.storage_errors import StorageError

RUN_MAX: Final = 256
"""Messages with one outcome for the journal: they are forgotten together."""

PAGE_ROWS: Final = 1024
PAGE_BYTES: Final = 1024 * 1024

AGAIN_S: Final = 0.05
"""Seconds until another look at a peer whose queue others have filled."""

EXPIRE_AGAIN_S: Final = 1.0
"""Seconds until another look at messages that were with a link when their time was over."""

_FINAL: Final = (FailureKind.REJECTED, FailureKind.EXPIRED, FailureKind.DEAD_LETTERED)


class Outbox:
    """The boxes of one node."""

    def __init__(
        self,
        turn: Turn,
        options: NodeOptions,
        redelivery: Redelivery,
        confirming: Confirming,
        dead_letters: DeadLetters,
    ) -> None:
        self._turn = turn
        self._options = options
        self._redelivery = redelivery
        self._confirming = confirming
        self._dead_letters = dead_letters
        self._boxes: dict[str, Box] = {}
        self._touched: dict[Box, None] = {}
        self._later: Deadlines[Box] = Deadlines(turn.agenda)
        self._expiry: Deadlines[tuple[Box, int, int]] = Deadlines(turn.agenda)
        turn.keeper.on_dropped[StreamKind.WAITING] = self._on_dropped
        self.gathered = (self._touched, turn.stored_done)  # empty: nothing to flush
        self._unsure: dict[object, int] = {}  # lowest numbers of what is being stored or forgotten
        self.relayed: set[bytes] = set()  # rows of an application's outbox that others stored
        self.reread = 0  # rows sent again after a session ended

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return earliest(self._later.next, self._expiry.next)

    @property
    def open(self) -> int:
        """How many messages are stored and have no outcome; gaps in their positions count too."""
        return sum(box.written - box.cursor + box.out for box in self._boxes.values())

    @property
    def most_in_memory(self) -> int:
        """How many messages of one addressee are in memory, of whom they are the most."""
        return max((box.out + len(box.ready) for box in self._boxes.values()), default=0)

    @property
    def floor(self) -> int:
        """The number below which nothing is in any box, for good."""
        busy = [box.low for box in self._boxes.values() if box.runs or box.cursor < box.written]
        return min([*busy, *self._unsure.values()], default=self._turn.keeper.numbers_given)

    def runs_of(self, caller: Ticket) -> list[Run]:
        """Return what is with links of the messages that somebody waits for."""
        return [run for box in self._boxes.values() for run in box.runs if run.told is caller]

    # Storing

    def on_post(self, post: Post) -> None:
        """Store messages, and send them when they are on disk."""
        keeper, ticket = self._turn.keeper, post.ticket
        if not post.records:
            self._turn.stored(ticket, None)
            self._turn.note_accepted((ticket,))
            return
        refusal = self._dead_letters.refusal()
        if refusal is not None:
            self._turn.stored(ticket, refusal)
            return
        keeper.on_wall_clock(post.wall_ms, self._turn.now)
        to = post.to if isinstance(post.to, str) else post.to.hex()
        box = self._box(to)
        count = len(post.records)
        number, first = keeper.numbers(count), box.following
        box.following += count
        expires_ms = 0 if post.ttl is None else post.wall_ms + max(1, round(post.ttl * 1000))
        note = (post.lane,) if post.key is None else (post.lane, post.key)
        run = StoreRun(box.stream, first, post.records, post.wall_ms, expires_ms, 0, number, note)
        commands: list[Command] = [run]
        if post.entries:
            commands.append(SetEntries(post.entries))
        self._unsure[ticket, number] = number
        then = partial(self._on_stored, box, run, post)
        keeper.write(*commands, then=then, stored=ticket)

    def _box(self, to: str) -> Box:
        box = self._boxes.get(to)
        if box is None:
            box = self._boxes[to] = Box(to, 1, 0)
        return box

    def take_back(
        self,
        owner: bytes,
        record: Record,
        note: Note,
        also: Command,
        then: Callable[[StorageError | None], None],
    ) -> None:
        """Store a dead letter anew, as the last for its addressee; nobody waits for its outcome.

        It gets another number: what became of the old one may be known to the receiver still.
        """
        keeper, box = self._turn.keeper, self._box(owner.decode())
        number, position = keeper.numbers(1), box.following
        box.following += 1
        at_ms = keeper.wall_ms(self._turn.now)
        run = StoreRun(box.stream, position, (record,), at_ms, 0, 0, number, note)
        self._unsure[then, number] = number
        on_stored = partial(self._on_taken_back, box, run, then)
        keeper.write(run, also, then=on_stored)

    def _on_taken_back(
        self,
        box: Box,
        run: StoreRun,
        then: Callable[[StorageError | None], None],
        error: StorageError | None,
    ) -> None:
        del self._unsure[then, run.order]
        if error is None:
            self._add(box, run)
        then(error)

    def _on_stored(self, box: Box, run: StoreRun, post: Post, error: StorageError | None) -> None:
        ticket = post.ticket
        del self._unsure[ticket, run.order]
        if error is not None:
            return  # their positions stay unused
        self._add(box, run)
        box.add_caller(run.first, run.last, ticket)

    def _add(self, box: Box, run: StoreRun) -> None:
        """Take note of rows that are on disk now."""
        first, last = run.first, run.last
        if not box.runs and box.cursor == box.written:  # empty until now
            box.low = run.order
            box.cursor = first - 1
        box.written = last
        if run.expires_ms:
            left_ms = run.expires_ms - self._turn.keeper.wall_ms(self._turn.now)
            self._expiry.set((box, first, last), self._turn.now + left_ms / 1000)
        if first == box.following_ready and not box.is_reading:
            box.add_run(run)
        self._touched[box] = None

    # Sending

    def on_peer(self, peer: Peer) -> None:
        """Take note that a peer is there, or no longer, or called something else."""
        for to in (peer.name, peer.id.hex()):
            box = self._boxes.get(to)
            if box is not None:
                self._touched[box] = None

    def flush(self) -> None:
        """Note outcomes, and send what may leave."""
        while self._turn.stored_done or self._touched:
            done = list(self._turn.stored_done)
            self._turn.stored_done.clear()
            for run in done:
                if isinstance(run, Run) and not run.is_void:
                    self._on_done(run)
            if self._touched:
                box, _ = self._touched.popitem()
                self._send(box)

    def on_timer(self) -> None:
        """Look again at peers that had no room, and end what has outlived its time to live."""
        for box in self._later.due(self._turn.now):
            self._touched[box] = None
        for box, first, last in self._expiry.due(self._turn.now):
            self._expire(box, first, last)

    def _expire(self, box: Box, first: int, last: int) -> None:
        """End what waits beyond its time; what is with the link ends there, or comes back."""
        lowest = box.lowest_open()
        if last < lowest:
            return
        if box.cursor >= first:
            again = self._turn.now + EXPIRE_AGAIN_S
            self._expiry.set((box, first, min(last, box.cursor)), again)
            first = box.cursor + 1
        caller = box.caller_of(last)
        if first > last or caller is None:
            return
        box.drop_ready(first, last)
        expired = RangeSet(tuple(box.done.missing(first, last)))  # the others were told already
        told = partial(self._on_expired, box, caller, expired)
        self._turn.keeper.later(Forget(box.stream, expired.as_tuple()), then=told)
        box.end_caller(first)
        box.done.add(first, last)
        self._touched[box] = None

    def _on_expired(
        self, box: Box, caller: Ticket, expired: RangeSet, error: StorageError | None
    ) -> None:
        if error is not None:
            return  # they are there still, for another life
        failure = Failure(FailureKind.EXPIRED, box.to, "nobody took it in time")
        for _ in range(expired.count):
            self._turn.fail(caller, failure)
        is_next = not box.runs and not box.ready
        if is_next and expired and expired.first <= box.cursor + 1:
            box.cursor = max(box.cursor, expired.last)
        self._confirming.on_floor_moved()

    def _peer_of(self, box: Box) -> Peer | None:
        peers = self._turn.peers
        try:
            peer = peers.find(peers.resolve(box.to))
        except (PeerUnknown, AmbiguousPeer):
            return None
        return peer if peer is not None and peer.present and peer.session else None

    def _send(self, box: Box) -> None:
        peer = self._peer_of(box)
        if peer is None or box.holder not in (None, peer.id):
            return  # what an earlier bearer of the name has comes first, once it is lost or done
        while box.ready and box.out < WINDOW_RECORDS:
            room = self._turn.room(peer)
            if room <= 0:
                self._later.set(box, self._turn.now + AGAIN_S)
                return
            self._send_run(box, peer, min(room, RUN_MAX))
        if not box.ready and box.cursor < box.written and box.has_space:
            self._read(box)

    def _read(self, box: Box) -> None:
        if not box.is_reading:
            box.is_reading = True
            question = ReadRows(box.stream, box.cursor, PAGE_ROWS, PAGE_BYTES)
            self._turn.keeper.read(question, partial(self._on_read, box, box.epoch))

    def _on_read(self, box: Box, epoch: int, answer: Answer | ZmeshError) -> None:
        if epoch != box.epoch:
            return
        box.is_reading = False
        if not isinstance(answer, RowsRead):
            return  # the journal broke, and says so; another life may read it
        box.add_ready(answer.rows)
        if not answer.rows:
            box.cursor = box.written  # what was there has its outcome
            self._confirming.on_floor_moved()
        self._touched[box] = None

    def _send_run(self, box: Box, peer: Peer, count_max: int) -> None:
        """Give the link the rows that come next, as far as they are alike."""
        now_ms = self._turn.keeper.wall_ms(self._turn.now)
        rows, records, size = box.take_alike(count_max)
        head = rows[0]
        caller = box.caller_of(head.position)
        run = Run(box, peer.id, rows, caller, size)
        box.runs[run] = None
        box.out += run.count
        box.out_bytes += size
        lane, key = _lane_and_key(head)
        ttl = None
        if head.expires_ms:
            ttl = (head.expires_ms - now_ms) / 1000
            if ttl <= 0:
                for _ in rows:
                    self._turn.fail(run, Failure(FailureKind.EXPIRED, peer.label))
                return
            run.expires = self._turn.now + ttl
        self._turn.submit(peer, lane, records, run, key=key, ttl=ttl)
        if run.failures:  # its bodies are too large to be sent: it is a matter for somebody
            why = run.failures[0].reason
            run.dead = dict.fromkeys(range(run.first, run.last + 1), (why, 0))

    # Outcomes

    def on_returned(self, peer: Peer, returned: Returned, ended: SessionEnd | None) -> None:
        """Decide on a message that was not accepted."""
        run = returned.ticket
        if not isinstance(run, Run) or run.is_void:
            return
        box, position = run.box, run.position_of(returned.record)
        match returned.outcome:
            case Outcome.MODIFIED:
                attempts = _attempts(returned.record)
                place = ((position, position),)
                self._turn.keeper.later(CountAttempts(box.stream, place, attempts))
                self._note_attempt(box, position, returned.reason)
                if attempts >= self._options.attempts_max:
                    run.dead[position] = (returned.reason, attempts)
            case Outcome.REJECTED:
                self._note_attempt(box, position, returned.reason)
                run.dead[position] = (returned.reason, _attempts(returned.record))
            case Outcome.RELEASED if returned.transmitted:
                pass
            case Outcome.EXPIRED:
                pass
            case _:  # its session ended without a verdict
                self._rewind(box)
                return
        self._redelivery.on_returned(peer, returned, ended)

    def _note_attempt(self, box: Box, position: int, reason: str) -> None:
        at_ms = self._turn.keeper.wall_ms(self._turn.now)
        box.failed.setdefault(position, []).append(FailedAttempt(at_ms, reason))

    def on_session_ended(self, peer: Peer) -> None:
        """Take back what a peer did not settle: the next session, or another, gets it."""
        for to in (peer.name, peer.id.hex()):
            box = self._boxes.get(to)
            if box is not None and box.holder == peer.id:
                self._rewind(box)

    def _rewind(self, box: Box) -> None:
        self.reread += box.out
        box.rewind()
        self._touched[box] = None

    def _on_done(self, run: Run) -> None:
        """Forget messages that have their outcome, and tell who waits for it."""
        box = run.box
        if any(failure.kind not in _FINAL for failure in run.failures):
            self._rewind(box)
            return
        del box.runs[run]
        box.done.add(run.first, run.last)
        box.out -= run.count
        box.out_bytes -= run.size
        self._forget(run)
        if not run.failures:  # its receiver says the same to another life; else the disk must
            self._tell(run)
        box.low = next(iter(box.runs)).number if box.runs else run.number + run.count
        box.trim()
        self._touched[box] = None

    def _tell(self, run: Run) -> None:
        """Tell who waits for the outcome of a run."""
        if run.told is not None:
            run.told.accepted += run.accepted
            run.told.failures += run.failures
            self._turn.note_accepted((run.told,))

    def _forget(self, run: Run) -> None:
        box, keeper = run.box, self._turn.keeper
        alive = [(run.first, run.last)]
        for position, (reason, attempts) in sorted(run.dead.items()):
            self._dead_letters.bury(
                box.stream, position, box.to, reason, attempts,
                history=box.failed.get(position, ()), note=run.note, peer=run.node,
                then=partial(self._on_buried, run, position),
            )  # fmt: skip
            first, last = alive.pop()
            alive += [(first, position - 1), (position + 1, last)]
        if box.failed:
            for position in range(run.first, run.last + 1):
                box.failed.pop(position, None)
        ranges = tuple((low, high) for low, high in alive if low <= high)
        self._unsure[run] = run.number
        keeper.later(Forget(box.stream, ranges), then=partial(self._forgotten, run))

    def _on_buried(self, run: Run, position: int) -> None:
        """Tell who waits when the last of the dead is a letter, and the others are forgotten."""
        del run.dead[position]
        if not run.dead and run not in self._unsure:
            self._tell(run)

    def _forgotten(self, run: Run, error: StorageError | None) -> None:
        if error is not None:
            return  # they are there still, for another life
        del self._unsure[run]
        if run.failures and not run.dead:
            self._tell(run)
        self._confirming.add(run.node, run.number, run.number + run.count - 1)
        self._confirming.on_floor_moved()

    # Without room

    def make_room(self, to: str, size: int) -> None:
        """Drop the oldest messages for an addressee."""
        box = self._boxes.get(to)
        if box is not None:
            self._turn.keeper.write(DropOldest(box.stream, size))

    def _on_dropped(self, stream: Stream, first: int, last: int) -> None:
        """Tell who waits for what made room for others; what is under way of it may arrive."""
        box = self._box(stream.owner.decode())
        self._rewind(box)
        failure = Failure(FailureKind.DROPPED, box.to, "newer messages took its room on disk")
        # What is below the lowest that is open was told already, forgotten on disk or not yet.
        for low, high in box.done.missing(max(first, box.lowest_open()), last):
            for position in range(low, high + 1):
                caller = box.caller_of(position)
                if caller is not None:
                    self._turn.fail(caller, failure)
        box.done.add(first, last)

    # An application's own outbox

    def on_relayed(self, entry: Entry) -> None:
        """Learn of a row that an earlier life stored."""
        self.relayed.add(entry.key)

    def on_relayed_gone(self, keys: Sequence[bytes]) -> None:
        """Forget rows that will not be seen again."""
        self._turn.keeper.later(*(RemoveEntries(EntryKind.RELAYED, "", key) for key in keys))

    # Another life

    def restore(
        self, states: Sequence[StreamState], then: Callable[[ZmeshError | None], None]
    ) -> int:
        """Take up the boxes of an earlier life; return how many times `then` will be called."""
        waited = 0
        for state in states:
            if state.stream.kind is not StreamKind.WAITING:
                continue
            if not state.rows:
                self._turn.keeper.write(DropStream(state.stream))
                continue
            to = state.stream.owner.decode()
            box = self._boxes[to] = Box(to, state.next_position, state.last)
            box.cursor = state.first - 1
            question = ReadRows(box.stream, box.cursor, 1)
            self._turn.keeper.read(question, partial(self._on_restored, box, then))
            waited += 1
        return waited

    def _on_restored(
        self, box: Box, then: Callable[[ZmeshError | None], None], answer: Answer | ZmeshError
    ) -> None:
        if isinstance(answer, RowsRead) and answer.rows:
            box.low = answer.rows[0].row.order
        then(answer if isinstance(answer, ZmeshError) else None)
        self._touched[box] = None


def _lane_and_key(row: Row) -> tuple[int, str | None]:
    match row.note:
        case (int(lane), str(key)):
            return lane, key
        case (int(lane), *_):
            return lane, None
        case _:
            return 0, None


def _attempts(record: Record) -> int:
    attempt = extra(record, Tag.ATTEMPT)
    return attempt if isinstance(attempt, int) else 1
