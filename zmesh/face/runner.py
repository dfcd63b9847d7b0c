"""The only loop: feeds the engine what happened, performs what it orders, keeps one timer.

It decides nothing. What happens in one turn of the event loop goes to the engine together; a lone
command goes at once, because somebody waits for its effect.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol, assert_never

from zmesh.actions import (
    Action,
    Audited,
    CallAnswered,
    CallsAnswered,
    CancelRequest,
    DeliverGroup,
    DeliverInbox,
    DeliverJobs,
    DeliverPublications,
    DeliverRequests,
    Dial,
    Drained,
    FanOutAction,
    GiveBackJobs,
    HangUp,
    IdentityClash,
    LaterAction,
    PeerChanged,
    Probe,
    PublicationsMissed,
    QueueRoomChanged,
    ReadJournal,
    Restored,
    RoomChanged,
    SenderForgot,
    SendPackets,
    ShutOut,
    StateChanged,
    StateReady,
    StreamAction,
    SurveyAnswered,
    SurveyEnded,
    TicketsDone,
    TicketsStored,
    Trace,
    WriteJournal,
)
from zmesh.events import Event, LoopLate, TimerFired
from zmesh.face.verdicts import Settlements
from zmesh.ports import Transport

logger = logging.getLogger(__name__)

COMMANDS_MAX: Final = 512
"""Commands gathered before the engine gets them, even within one turn of the loop."""

TICK: Final = 0.5
"""Seconds between looks at the clock with nothing to do: how exactly a stalled loop is noticed."""

LATE: Final = 0.1
"""Seconds of lateness that are worth telling the engine."""

SETTLE_WITHIN: Final = 0.002
"""Seconds that what a busy reader accepted may wait for a turn that has other work as well."""

ApplicationAction = (
    DeliverInbox | DeliverRequests | DeliverPublications | PublicationsMissed | TicketsDone
    | TicketsStored | Restored | SenderForgot
    | RoomChanged
    | DeliverJobs | GiveBackJobs | QueueRoomChanged
    | StateChanged | StateReady
    | DeliverGroup | FanOutAction | SurveyAnswered | SurveyEnded
    | StreamAction
    | CallAnswered | CallsAnswered | LaterAction | CancelRequest | PeerChanged | IdentityClash
    | Audited | Drained | Trace
)  # fmt: skip


class Core(Protocol):
    """What the runner runs: `engine.Engine`."""

    @property
    def deadline(self) -> float | None:
        """When it wants `TimerFired`, on the clock of `now`."""
        ...

    def handle(self, events: Sequence[Event], now: float) -> list[Action]:
        """Take in what happened, and return what is to be done, in order."""
        ...


class Application(Protocol):
    """What takes the engine's news for the application. It runs no application code."""

    def perform(self, action: ApplicationAction) -> None:
        """Hand the news to whoever waits for it."""
        ...

    def broken(self, error: Exception) -> None:
        """Take note that nothing will be performed any more."""
        ...


class Storage(Protocol):
    """Performs the engine's orders to the journal."""

    def perform(self, order: WriteJournal | ReadJournal) -> None:
        """Hand an order over; `JournalTold` answers."""
        ...


class Runner:
    """Runs one engine on one event loop; to be used from that loop's thread only.

    Nothing happens before `start`, or with a journal `restore`; `stop` ends it for good.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, engine: Core, application: Application
    ) -> None:
        self.settlements = Settlements(self._soon, self._settle_later, self.flush)
        self._loop = loop
        self._engine = engine
        self._application = application
        self._events: list[Event] = []
        self._joined = 0  # commands that joined another of them
        self._timer: asyncio.TimerHandle | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._wake_at = 0.0  # when the timer should fire
        self._now = 0.0  # the last time the engine was told
        self._is_running = False
        self._is_in_turn = False
        self._is_gathering = False  # commands, until somebody's work is done
        self._is_turn_planned = False  # a turn comes with the loop's next iteration
        self._has_flushed = False  # commands wait for that one, until there are news

    def start(self, transport: Transport) -> None:
        """Begin to take events; `transport` performs the orders to the network."""
        self._transport = transport
        self._begin()

    def restore(self, storage: Storage) -> None:
        """Let the engine read what the journal keeps, which `Restored` tells the end of."""
        self._storage = storage
        self._begin()
        self._events.append(TimerFired())
        self._turn()

    def _begin(self) -> None:
        if self._is_running:
            return
        self._is_running = True
        self._now = self._loop.time()
        self._wake_at = self._now + TICK
        self._timer = self._loop.call_at(self._wake_at, self._on_timer)

    def stop(self) -> None:
        """End for good: what comes later is ignored."""
        self._is_running = False
        self._events.clear()
        for timer in (self._timer, self._settling):
            if timer is not None:
                timer.cancel()
        self._timer = self._settling = None

    @property
    def now(self) -> float:
        """The engine's clock, in seconds."""
        return max(self._now, self._loop.time())

    @property
    def backlog(self) -> int:
        """How many events wait for the next turn."""
        return len(self._events) + self._joined

    @property
    def last(self) -> Event | None:
        """The latest that waits for the next turn: more may join a command."""
        return self._events[-1] if self._events else None

    def joined(self) -> None:
        """Note that one more has joined the last command."""
        self._joined += 1
        if self.backlog >= COMMANDS_MAX:
            self.flush()

    def news(self, events: Sequence[Event]) -> None:
        """Take what adapters have to tell, at once unless a turn is under way."""
        if not self._is_running:
            return
        self._events += events
        if self._is_in_turn:
            self._soon()
        else:
            self._has_flushed = False  # what is done about the news is not to wait
            self._turn()

    def gather(self, events: Sequence[Event]) -> None:
        """Take news that nobody waits for: with whatever comes first, or the next iteration."""
        if self._is_running:
            self._events += events
            self._has_flushed = False  # what is done about the news is not to wait
            self._soon()

    def catch_up(self) -> None:
        """Let the engine know what was gathered, before it is asked something."""
        if self._events and not self._is_in_turn:
            self._turn()

    def command(self, event: Event) -> None:
        """Take a command: the first after news goes at once, further ones together."""
        if not self._is_running:
            return
        self._events.append(event)
        if self._is_gathering and self.backlog < COMMANDS_MAX:
            return
        if not self._has_flushed or self.backlog >= COMMANDS_MAX:
            self.flush()
        else:
            self._soon()

    def hold(self) -> None:
        """Let commands wait until `let_go`: many are to come within this call of the loop."""
        self._is_gathering = True

    def let_go(self) -> None:
        """Give the engine what was gathered."""
        self._is_gathering = False
        if self._events:
            self.flush()

    def flush(self) -> None:
        """Let the engine have what was gathered, now rather than with the next iteration."""
        if self._is_in_turn or not self._is_running:
            self._soon()
            return
        self._has_flushed = True
        self._turn()

    def _soon(self) -> None:
        if not self._is_turn_planned and self._is_running:
            self._is_turn_planned = True
            self._loop.call_soon(self._on_next_iteration)

    def _settle_later(self) -> None:
        if self._settling is None and self._is_running:
            self._settling = self._loop.call_later(SETTLE_WITHIN, self._on_settling)

    def _on_settling(self) -> None:
        self._settling = None
        if self.settlements.pending:
            self._turn()

    def _on_next_iteration(self) -> None:
        self._is_turn_planned = False
        if self._events or self.settlements.pending:
            self._has_flushed = True
            self._soon()
            self._turn()
        else:
            self._has_flushed = False

    def _on_timer(self) -> None:
        self._timer = None
        deadline = self._engine.deadline
        # Loop timers may wake early; the engine must never see a time before its own deadline.
        if deadline is not None and deadline <= max(self._wake_at, self._loop.time()):
            self._now = max(self._now, deadline)
            self._events.append(TimerFired())
        self._turn()

    def _turn(self) -> None:
        if not self._is_running:
            return
        now = self._now = max(self._now, self._loop.time())
        lag = now - self._wake_at
        if lag > LATE:
            self._events.insert(0, LoopLate(lag))
            self._wake_at = now  # told once
        events, self._events = self._events, []
        self._joined = 0
        try:
            if self.settlements.pending:
                verdicts = self.settlements.take()
                events += self.settlements.take_changes()
                events += verdicts
            if events:
                self._is_in_turn = True
                self._perform(self._engine.handle(events, now))
        except Exception as error:  # noqa: BLE001  # a bug of ours: told to all who wait
            self._broke(error, events)
            return
        finally:
            self._is_in_turn = False
        self._plan_timer(now)

    def _broke(self, error: Exception, events: list[Event]) -> None:
        kinds = sorted({type(event).__name__ for event in events})
        logger.critical(
            "internal error while handling %s: the node stops", ", ".join(kinds), exc_info=error
        )
        self.stop()
        self._application.broken(error)

    def _plan_timer(self, now: float) -> None:
        """Leave the timer where it comes early enough: a spare wake-up is the cheaper way."""
        deadline = self._engine.deadline
        if self._timer is not None and (deadline is None or self._wake_at <= deadline):
            return  # it never comes later than a tick from now
        wake_at = now + TICK if deadline is None else max(now, min(deadline, now + TICK))
        if self._timer is not None:
            if self._wake_at <= wake_at:
                return
            self._timer.cancel()
        self._wake_at = wake_at
        self._timer = self._loop.call_at(wake_at, self._on_timer)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, SendPackets):
                self._transport.send(action.path, action.packets)
            elif isinstance(action, Dial | HangUp | ShutOut | Probe):
                self._order(action)
            elif isinstance(action, WriteJournal | ReadJournal):
                self._storage.perform(action)
            else:
                self._application.perform(action)

    def _order(self, order: Dial | HangUp | ShutOut | Probe) -> None:
        match order:
            case Dial(path, endpoint):
                self._transport.dial(path, endpoint)
            case HangUp(path):
                self._transport.hang_up(path)
            case ShutOut(path, seconds):
                self._transport.shut_out(path, seconds)
            case Probe(endpoint, timeout):
                self._transport.probe(endpoint, timeout)
            case _:
                assert_never(order)
