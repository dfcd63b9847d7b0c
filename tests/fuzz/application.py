"""What the application of a fuzzed node does: what the face lets through, and nothing else."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tests.fuzz.script import Script
from tests.fuzz.victim import WALL_MS, Victim
from zmesh.errors import BodyTooLarge, MapFull, PeerUnknown, UsageError
from zmesh.events import (
    Call,
    CallLater,
    CancelCall,
    Describe,
    EndpointsChanged,
    Event,
    JoinGroup,
    LeaveGroup,
    OpenInbox,
    OpenStream,
    Post,
    Publish,
    Pull,
    Push,
    Serve,
    StartFanOut,
    StartSurvey,
    Subscribe,
    Unpull,
    Unsubscribe,
    Withdraw,
)
from zmesh.map_events import CloseState, OpenState, WallClockRead, WriteState
from zmesh.message import Kind, Record, Ticket, Ways, head
from zmesh.terms import Filter, Terms, WhenFull

TERMS: Final = (
    Terms(),
    Terms(replay=True),
    Terms(when_full=WhenFull.LATEST, limit=2),
    Terms(Filter(where=(("unit", "C"),))),
    Terms(Filter(content="body")),
    Terms(since="first"),
    Terms(name="reader"),
)


class Application:
    """Gives the node commands that the script chooses."""

    def __init__(self, victim: Victim, script: Script) -> None:
        self._victim = victim
        self._script = script
        self._counted = 100
        self._subscriptions = 1
        self._pulls = 1

    def settle_in(self) -> None:
        """Do what an application does at its start."""
        self._victim.maps.add("map")
        self._victim.handle(
            EndpointsChanged(("tcp://192.168.1.1:5000",)),
            *(OpenInbox(), Serve("svc"), Serve("tail"), JoinGroup("group"), Pull(1, "queue", 8)),
            *(Subscribe(1, "topic.>"), OpenState("map", WALL_MS), Describe({"a": "a=1"})),
        )

    def command(self) -> None:
        """Give one command; that one is refused at once is no defect."""
        with suppress(PeerUnknown, BodyTooLarge, UsageError, MapFull):
            event = self._script.choice(_COMMANDS)(self)
            if event is not None:
                self._victim.handle(event)

    def _post(self) -> Event | None:
        script, engine = self._script, self._victim.engine
        to = script.choice([*(peer.id for peer in engine.peers()), self._victim.id])
        if engine.room(to) < 2:
            return None
        records = [self._record(Kind.DIRECT, "") for _ in range(script.below(2) + 1)]
        ttl = script.choice((None, 0.0, 1.0))
        ticket, durable = Ticket(len(records)), self._durable()
        return Post(to, self._lane(), records, ticket, self._key(), ttl, durable, WALL_MS)

    def _publish(self) -> Event:
        script = self._script
        record = self._record(Kind.PUBLICATION, script.choice(("topic.a", "topic.b", "other")))
        keep, once = script.choice((None, None, 1, 2, 0)), script.flag()
        if self._durable():
            ticket, lane = Ticket(), self._lane()
            return Publish(record, lane, ticket, durable=True, wall_ms=WALL_MS)
        return Publish(record, self._lane(), Ticket(), self._key(), None, keep, at_most_once=once)

    def _call(self) -> Event:
        script, deadline = self._script, self._victim.now + 5.0
        record = self._record(Kind.REQUEST, script.choice(("svc", "other")))
        hedge = script.choice((None, 0.1))
        until = script.choice((None, deadline))
        return Call(self._next(), record, self._lane(), until, self._key(), None, hedge, 2)

    def _cancel_call(self) -> Event:
        return CancelCall(self._counted)

    def _call_later(self) -> Event | None:
        if not self._victim.is_durable:
            return None
        record = self._record(Kind.REQUEST, "svc")
        return CallLater(f"ticket {self._next()}", record, self._lane(), WALL_MS)

    def _push(self) -> Event:
        script, count = self._script, self._script.below(3) + 1
        records = [self._record(Kind.JOB, "queue") for _ in range(count)]
        delay, attempts_max = float(script.below(2)), script.below(3) + 1
        ticket = Ticket(count)
        terms = (self._lane(), ticket, self._key(), None, delay, attempts_max)
        return Push(records, *terms, self._durable(), WALL_MS)

    def _open_stream(self) -> Event:
        target = self._script.choice(("tail", "other"))
        record = self._record(Kind.STREAM_CONTROL, target)
        self._counted += 2
        return OpenStream(self._counted | 1, record, self._lane(), Ways(self._script.below(4)))

    def _fan_out(self) -> Event:
        record, late = self._record(Kind.GROUP, "group"), self._script.flag()
        number, until, durable = self._next(), self._victim.now + 5.0, self._durable()
        return StartFanOut(number, record, self._lane(), until, late, None, durable, WALL_MS)

    def _survey(self) -> Event:
        record = self._record(Kind.REQUEST, self._script.choice(("svc", "other")))
        return StartSurvey(self._next(), record, self._lane(), self._victim.now + 1.0)

    def _subscribe(self) -> Event:
        self._subscriptions += 1
        pattern = self._script.choice(("topic.a", "topic.*", ">"))
        return Subscribe(self._subscriptions, pattern, self._script.choice(TERMS))

    def _unsubscribe(self) -> Event | None:
        if self._subscriptions == 1:
            return None
        self._subscriptions -= 1
        return Unsubscribe(self._subscriptions + 1)

    def _serve(self) -> Event:
        service = self._script.choice(("svc", "other"))
        return Serve(service) if self._script.flag() else Withdraw(service)

    def _join(self) -> Event:
        return JoinGroup("group") if self._script.flag() else LeaveGroup("group")

    def _pull(self) -> Event | None:
        if self._script.flag():
            self._pulls += 1
            return Pull(self._pulls, "queue", 4)
        if self._pulls == 1:
            return None
        self._pulls -= 1
        return Unpull(self._pulls + 1)

    def _read_clock(self) -> Event:
        return WallClockRead(WALL_MS + self._script.choice((0, -10_000_000, 10_000_000)))

    def _on_map(self) -> Event | None:
        script, maps = self._script, self._victim.maps
        held = "map" in maps
        if script.below(8) == 0:
            maps ^= {"map"}
            return CloseState("map") if held else OpenState("map", WALL_MS)
        if not held:
            return None
        key, encoding = script.choice(("a", "b")), script.choice((None, 0))
        self._victim.engine.shared_state.check_write("map", key, 5)
        return WriteState("map", key, encoding, b"" if encoding is None else b"value", WALL_MS)

    def _next(self) -> int:
        self._counted += 1
        return self._counted

    def _durable(self) -> bool:
        return self._victim.is_durable and self._script.flag()

    def _lane(self) -> int:
        return self._script.choice((4, 5, 9))

    def _key(self) -> str | None:
        return self._script.choice((None, "k"))

    def _record(self, kind: Kind, target: str) -> Record:
        return (head(kind), target, b"b" * self._script.choice((0, 1, 100, 100, 2000, 100_000)))


_COMMANDS: Final[tuple[Callable[[Application], Event | None], ...]] = (
    *(Application._post, Application._post, Application._publish, Application._publish),
    *(Application._call, Application._call, Application._cancel_call, Application._call_later),
    *(Application._push, Application._push, Application._open_stream, Application._fan_out),
    *(Application._survey, Application._subscribe, Application._unsubscribe, Application._serve),
    *(Application._join, Application._pull, Application._read_clock, Application._on_map),
)
