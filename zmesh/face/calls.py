"""Calls that wait for their answer."""

import asyncio
from collections.abc import Callable
from itertools import repeat
from typing import Final, Protocol, assert_never

from zmesh.actions import CallAnswered, CallFailure, CallsAnswered
from zmesh.errors import (
    Closed,
    DeadLettered,
    DeliveryTimeout,
    NoProvider,
    PeerLost,
    RemoteError,
    StreamBroken,
    UsageError,
    ZmeshError,
)
from zmesh.events import Call, CallEach, CancelCall, Event
from zmesh.face.outgoing import RemoteFailure, failure_of
from zmesh.face.waiting import Waiting, Waking
from zmesh.ids import NodeId
from zmesh.message import Record
from zmesh.security import refusal
from zmesh.wire.bodies import body_of

RUN_MAX: Final = 512
"""Calls, or answers, in one command: as many as commands that are gathered."""


class Commands(Protocol):
    """Takes commands: `Runner`."""

    def command(self, event: Event) -> None:
        """Take a command."""
        ...

    @property
    def last(self) -> Event | None:
        """The latest command that still waits: more may join it."""
        ...

    def hold(self) -> None:
        """Let commands wait until `let_go`, within one call of the loop."""
        ...

    def let_go(self) -> None:
        """Give the engine what was gathered."""
        ...


class Calls:
    """All open calls of a node. Those of one turn that ask for nothing special are one command."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, commands: Commands, calls_max: int
    ) -> None:
        self._loop = loop
        self._commands = commands
        self._calls_max = calls_max
        self._open: dict[int, Waiting[CallAnswered | Record]] = {}
        self._waking = Waking(loop, commands.hold, commands.let_go)
        self._last = 0
        self._patience: float | None = None  # seconds, of those in the latest run

    def __len__(self) -> int:
        return len(self._open)

    async def call(
        self,
        record: Record,
        lane: int,
        timeout: float | None,  # noqa: ASYNC109  # the engine keeps the deadline, no timer here
        now: float,
        missing: Callable[[str], NoProvider],
        *,
        key: str | None = None,
        prefer: NodeId | None = None,
        hedge_after: float | None = None,
        retries: int = 0,
    ) -> object:
        """Ask, and return what the answer carries; `missing` tells why nobody provides it.

        Raises:
            NoProvider, RemoteError, Rejected, PeerLost, DeadLettered, DeliveryTimeout, Closed:
                why there is no answer.
        """
        if len(self._open) >= self._calls_max:
            raise UsageError(f"{self._calls_max} calls are open already: await some of them first")
        self._last = call = self._last + 1
        waiting: Waiting[CallAnswered | Record] = Waiting(self._loop)
        self._open[call] = waiting
        deadline = None if timeout is None else now + timeout
        if key is None and prefer is None and hedge_after is None and not retries:
            self._ask(call, record, lane, deadline, timeout)
        else:
            self._commands.command(
                Call(call, record, lane, deadline, key, prefer, hedge_after, retries)
            )
        try:
            answer = await waiting
        except asyncio.CancelledError:
            if self._open.pop(call, None) is not None:
                self._commands.command(CancelCall(call))
            raise
        if type(answer) is tuple:
            return body_of(answer)
        assert isinstance(answer, CallAnswered)  # noqa: S101  # there is nothing else
        if answer.failure is None and answer.record is not None:
            return body_of(answer.record)
        raise error_of(answer, record[1], timeout or 0.0, missing)

    def _ask(
        self,
        call: int,
        record: Record,
        lane: int,
        deadline: float | None,
        patience: float | None,
    ) -> None:
        """Ask with the calls made just before, if these still wait and are for the same service.

        All of them get the deadline of the last, which is later by less than a turn of the loop.
        """
        last = self._commands.last  # kept nowhere here: with its requests, for how long
        if (
            isinstance(last, CallEach)
            and last.records[0][1] == record[1]
            and last.lane == lane
            and self._patience == patience
            and len(last.records) < RUN_MAX
        ):
            last.records.append(record)
            last.deadline = deadline
            return
        self._patience = patience
        self._commands.command(CallEach(call, [record], lane, deadline))

    def perform(self, action: CallAnswered | CallsAnswered) -> None:
        """Take what the engine tells."""
        if isinstance(action, CallsAnswered):
            self._answered_each(action)
        else:
            self.answered(action)

    def answered(self, answer: CallAnswered) -> None:
        """Give a call its answer."""
        waiting = self._open.pop(answer.call, None)
        if waiting is not None and not waiting.is_over:
            waiting.answer = answer
            self._waking.add((waiting,))

    def _answered_each(self, answers: CallsAnswered) -> None:
        """Give calls their replies."""
        ready = []
        found = map(self._open.pop, answers.calls, repeat(None))
        for waiting, record in zip(found, answers.records, strict=False):
            if waiting is not None and not waiting.is_over:
                waiting.answer = record
                ready.append(waiting)
        self._waking.add(ready)

    def close(self, failure: str) -> None:
        """End all calls with `Closed`."""
        for call in list(self._open):
            self.answered(CallAnswered(call, None, CallFailure.CLOSED, reason=failure))


def error_of(
    answer: CallAnswered, service: str, timeout: float, missing: Callable[[str], NoProvider]
) -> ZmeshError:
    """Return the error that tells why a call, or a stream, has no good answer."""
    match answer.failure:
        case CallFailure.NO_PROVIDER:
            return missing(service)
        case CallFailure.REMOTE_ERROR:
            told = (
                RemoteFailure("an exception", answer.reason)
                if answer.record is None
                else failure_of(answer.record)
            )
            return RemoteError(service, *told)
        case CallFailure.REJECTED:
            return refusal.error_of(answer.peer, answer.reason)
        case CallFailure.PEER_LOST:
            return PeerLost(answer.peer, answer.reason)
        case CallFailure.EXHAUSTED:
            return DeadLettered(answer.peer, 0, answer.reason)
        case CallFailure.DEADLINE:
            return DeliveryTimeout(f"the call to {service!r}", timeout)
        case CallFailure.BROKEN:
            return StreamBroken(answer.peer, answer.reason)
        case CallFailure.CLOSED | None:
            return Closed(answer.reason or "node")
        case _:
            assert_never(answer.failure)
