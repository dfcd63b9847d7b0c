"""Calls that wait for their answer."""

import asyncio
from collections.abc import Callable
from typing import assert_never

from zmesh.actions import CallAnswered, CallFailure
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
from zmesh.events import Call, CancelCall, Event
from zmesh.face.outgoing import RemoteFailure, failure_of
from zmesh.ids import NodeId
from zmesh.message import Record
from zmesh.security import refusal
from zmesh.wire.bodies import body_of


class Calls:
    """All open calls of a node: one future each."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        command: Callable[[Event], None],
        calls_max: int,
    ) -> None:
        self._loop = loop
        self._command = command
        self._calls_max = calls_max
        self._open: dict[int, asyncio.Future[CallAnswered]] = {}
        self._last = 0

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
        future: asyncio.Future[CallAnswered] = self._loop.create_future()
        self._open[call] = future
        deadline = None if timeout is None else now + timeout
        self._command(Call(call, record, lane, deadline, key, prefer, hedge_after, retries))
        try:
            answer = await future
        except asyncio.CancelledError:
            if self._open.pop(call, None) is not None:
                self._command(CancelCall(call))
            raise
        if answer.failure is None and answer.record is not None:
            return body_of(answer.record)
        raise error_of(answer, record[1], timeout or 0.0, missing)

    def answered(self, answer: CallAnswered) -> None:
        """Give a call its answer."""
        future = self._open.pop(answer.call, None)
        if future is not None and not future.done():
            future.set_result(answer)

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
