"""What tests of tickets share: lives of a node on a disk, and calls that the test answers."""

from tests.scribe import Scribe, entries_of
from zmesh.actions import (
    CallAnswered,
    CallFailure,
    LaterAction,
    LaterEnded,
    LaterForgotten,
    LaterStored,
    TicketState,
)
from zmesh.core.loopback import Loopback
from zmesh.core.peers import Peer, Peers
from zmesh.core.turn import Turn
from zmesh.events import Call, CallLater, ForgetTicket
from zmesh.ids import NodeId, SessionId
from zmesh.message import Kind, Record, head
from zmesh.options import NodeOptions
from zmesh.patterns.call_later import CallsLater, Later
from zmesh.storage import EntryKind
from zmesh.storage_errors import JournalBroken, JournalFull, StorageError
from zmesh.testing.clock import SeededEntropy
from zmesh.testing.journal import Disk

ME = NodeId(b"caller".ljust(16))
PROVIDER = NodeId(b"provider".ljust(16))
NOON_MS = 1_800_000_000_000
FULL = JournalFull("journal", 1, 1)
BROKEN = JournalBroken("journal", "write", "EIO")


def request(text: str = "?") -> Record:
    return (head(Kind.REQUEST), "render", text.encode())


def reply(text: str) -> Record:
    return (head(Kind.REPLY), "", text.encode())


class Life:
    """One life of the pattern. Nothing is on the disk before `write`."""

    def __init__(
        self, disk: Disk, options: NodeOptions | None = None, wall_ms: int = NOON_MS
    ) -> None:
        now = 100.0
        self.disk = disk
        self.scribe = Scribe(disk, ME)
        self.options = options or NodeOptions()
        session = SessionId(b"session".ljust(16))
        local = Peer(ME, "caller", Loopback(session, self.options.link))
        opened = self.scribe.opened
        self.turn = Turn(Peers(local, self.options), self.options.link, now, opened)
        self.turn.keeper.on_wall_clock(wall_ms, now)
        self.calls: dict[int, Call] = {}
        self.cancelled: list[int] = []
        self.known: list[int] = []
        self.provided = True
        self.told: list[LaterAction] = []
        self.later = CallsLater(
            self.turn, self, self.options, SeededEntropy("later"), self._on_known
        )
        for entry in entries_of(disk, EntryKind.COUNTER):
            self.turn.keeper.on_counter(entry)
        for entry in entries_of(disk, EntryKind.TICKET):
            self.later.on_entry(entry)

    # What the pattern asks

    def on_call(self, call: Call) -> None:
        if self.provided:
            self.calls[call.call] = call
        else:
            self.later.on_answered(
                CallAnswered(call.call, None, CallFailure.NO_PROVIDER, "", "render"), None
            )

    def on_cancel(self, number: int) -> None:
        self.cancelled.append(number)
        del self.calls[number]

    def _on_known(self, node: NodeId, first: int, last: int) -> None:
        assert node == PROVIDER
        self.known += range(first, last + 1)

    # What the test does

    def ask(self, name: str, text: str = "?", *, ttl: float | None = None, **how: int) -> None:
        self.later.on_call_later(
            CallLater(name, request(text), 4, self.wall_ms, ttl=ttl, retries=how.get("retries", 0))
        )
        self.write()

    @property
    def wall_ms(self) -> int:
        return self.turn.keeper.wall_ms(self.turn.now)

    def gather(self) -> None:
        """End the turn: what it ordered waits for the disk."""
        actions = self.turn.end()
        self.scribe.take(actions)
        told = LaterStored | LaterEnded | LaterForgotten
        self.told += [action for action in actions if isinstance(action, told)]

    def write(self, error: StorageError | None = None) -> None:
        """Let all that was ordered be on disk, or be refused."""
        self.gather()
        self.scribe.error = error
        while self.scribe.waiting:
            for event in self.scribe.work():
                self.turn.keeper.on_told(event)
            self.gather()

    def tickets(self) -> list[tuple[str, bytes]]:
        """Return names and keys of what is on the disk."""
        return [(entry.name, entry.key) for entry in entries_of(self.disk, EntryKind.TICKET)]

    def answer(self, text: str = "!") -> None:
        self._answer(reply(text), None)

    def fail(self, failure: CallFailure) -> None:
        self._answer(None, failure)

    def _answer(self, record: Record | None, failure: CallFailure | None) -> None:
        number = next(iter(self.calls))
        del self.calls[number]
        self.later.on_answered(CallAnswered(number, record, failure, "provider", "why"), PROVIDER)

    def forget(self, name: str) -> None:
        self.later.on_forget(ForgetTicket(name))

    def wait(self, seconds: float) -> None:
        """Let time pass, and the pattern do all that is due on the way."""
        until = self.turn.now + seconds
        while (due := self.later.deadline) is not None and due <= until:
            self.turn.begin(max(due, self.turn.now))
            self.later.on_timer()
            self.write()
        self.turn.begin(until)

    def next_life(self, *, after: float = 0.0) -> "Life":
        """End this one, with all that is not on the disk."""
        return Life(self.disk, self.options, self.wall_ms + round(after * 1000))

    def find(self, name: str) -> Later:
        found = self.later.find(name)
        assert found is not None
        return found

    def state(self, name: str) -> TicketState:
        return self.find(name).state

    def answered(self, name: str) -> str:
        answer = self.find(name).answer
        assert answer is not None
        assert answer.record is not None
        return bytes(answer.record[2]).decode()
