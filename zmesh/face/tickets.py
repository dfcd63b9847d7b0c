"""Requests whose answer may come later, as the application holds them."""

import asyncio
from collections.abc import Callable
from typing import Any, assert_never

from zmesh.actions import CallFailure, LaterAction, LaterEnded, LaterForgotten, LaterStored
from zmesh.actions import TicketState as State
from zmesh.errors import Closed, DeliveryTimeout, Expired, NoProvider, UsageError, ZmeshError
from zmesh.events import CallLater, Event, ForgetTicket
from zmesh.face.calls import error_of
from zmesh.face.checks import check_timeout
from zmesh.face.storing import Storing, wall_ms
from zmesh.patterns.call_later import CallsLater, Later
from zmesh.storage_errors import JournalFull, TicketUnknown
from zmesh.wire.bodies import body_of

Waiter = asyncio.Future[ZmeshError | None]


class Ticket:
    """A request that is on disk, and its answer once there is one: from `Node.call_later`."""

    def __init__(self, ticket: str, service: str, tickets: Callable[[], "Tickets"]) -> None:
        self._id = ticket
        self._service = service
        self._tickets = tickets

    def __repr__(self) -> str:
        return f"<Ticket {self._id} for {self._service!r}>"

    @property
    def id(self) -> str:
        """What `Node.ticket` finds it by, in any life of the node; to be kept anywhere."""
        return self._id

    @property
    def service(self) -> str:
        """The service that was asked."""
        return self._service

    @property
    def state(self) -> State:
        """How it stands: "waiting", "answered", or "failed", which is for good.

        Raises:
            TicketUnknown: it was forgotten.
        """
        return self._tickets().get(self._id).state

    async def reply(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109  # names it
        """Return what the handler returned, once there is an answer; as often as you like.

        Args:
            timeout: seconds to wait; None waits for ever. The request goes on.

        Raises:
            RemoteError: the handler raised, once more than `retries` allowed.
            Rejected: the handler refused the request.
            Expired: its `ttl` was over.
            DeliveryTimeout: no answer yet.
            TicketUnknown: it was forgotten.
            JournalBroken: there is an answer that cannot be kept; another life asks again.
            Closed: the node was closed; another life goes on with it.
        """
        check_timeout(timeout)
        try:
            async with asyncio.timeout(timeout):
                return await self._tickets().reply(self._id)
        except TimeoutError as error:
            what = f"the request to {self._service!r}"
            raise DeliveryTimeout(what, timeout or 0.0) from error

    async def forget(self) -> None:
        """Remove it from the disk, and its answer; a request without one is made no more.

        One that is forgotten already is no error.

        Raises:
            JournalBroken, Closed: it may be there still.
        """
        await self._tickets().forget(self._id)


class Tickets:
    """All tickets of a node, and who waits for what."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        later: CallsLater,
        command: Callable[[Event], None],
        storing: Storing | None,
    ) -> None:
        self._loop = loop
        self._later = later
        self._command = command
        self._storing = storing
        self._stored: dict[str, Waiter] = {}
        self._ended: dict[str, dict[Waiter, None]] = {}
        self._forgotten: dict[str, dict[Waiter, None]] = {}
        self._closed: str | None = None

    @property
    def storing(self) -> Storing:
        """The journal.

        Raises:
            UsageError: the node has none.
        """
        if self._storing is None:
            raise UsageError("call_later needs a node with storage: Node(..., storage=PATH)")
        return self._storing

    async def store(self, call: CallLater) -> None:
        """Return once a request is on disk; where there is no room do what the node was told to.

        Raises:
            JournalFull, JournalBroken, Closed: it is not.
            UsageError: there are too many.
        """
        storing = self.storing
        while True:
            call.wall_ms, rooms = wall_ms(), storing.rooms
            self._stored[call.ticket] = waiter = self._loop.create_future()
            self._command(call)
            error = await waiter
            if error is None:
                return
            is_full = isinstance(error, JournalFull) and storing.error is None
            if not is_full or storing.storage.when_full != "wait":
                raise error
            await storing.room(rooms)
            if self._closed is not None:
                raise Closed(self._closed)

    def get(self, ticket: str) -> Later:
        """Return a ticket.

        Raises:
            TicketUnknown: there is none that is on disk.
        """
        found = self._later.find(ticket)
        if found is None:
            raise TicketUnknown(ticket)
        return found

    def all(self) -> list[Later]:
        """Return all that are on disk, the oldest first."""
        return self._later.all()

    async def reply(self, ticket: str) -> object:
        """Return the answer, once there is one."""
        found = self.get(ticket)
        if found.answer is None:
            if self.storing.error is not None:
                raise self.storing.error  # no answer can be kept in this life
            error = await self._wait(self._ended, ticket)
            if error is not None:
                raise error
        answer = found.answer
        assert answer is not None, "it is there, or an error was told"  # noqa: S101
        if answer.failure is CallFailure.DEADLINE:
            raise Expired(f"the service {found.service!r}")
        if answer.failure is None and answer.record is not None:
            return body_of(answer.record)
        raise error_of(answer, found.service, 0.0, NoProvider)

    async def forget(self, ticket: str) -> None:
        """Return once a ticket is gone from the disk."""
        error = await self._wait(self._forgotten, ticket, ForgetTicket(ticket))
        if error is not None:
            raise error

    async def _wait(
        self, waiting: dict[str, dict[Waiter, None]], ticket: str, order: Event | None = None
    ) -> ZmeshError | None:
        waiter: Waiter = self._loop.create_future()
        waiters = waiting.setdefault(ticket, {})
        waiters[waiter] = None
        if order is not None:
            self._command(order)  # which may be answered at once
        try:
            return await waiter
        finally:
            waiters.pop(waiter, None)
            if not waiters and waiting.get(ticket) is waiters:
                del waiting[ticket]

    # What the engine tells

    def perform(self, action: LaterAction) -> None:
        """Let those go on who wait for this."""
        match action:
            case LaterStored(ticket, error):
                _tell(self._stored.pop(ticket, None), error)
            case LaterEnded(ticket, error):
                _tell_all(self._ended.pop(ticket, {}), error)
            case LaterForgotten(ticket, error):
                _tell_all(self._forgotten.pop(ticket, {}), error)
                if error is None:
                    _tell_all(self._ended.pop(ticket, {}), TicketUnknown(ticket))
            case _:
                assert_never(action)

    def close(self, why: str) -> None:
        """Let all go: the node closes, and another life goes on."""
        self._closed = why
        error = Closed(why)
        for waiter in self._stored.values():
            _tell(waiter, error)
        for waiters in (*self._ended.values(), *self._forgotten.values()):
            _tell_all(waiters, error)
        self._stored.clear()
        self._ended.clear()
        self._forgotten.clear()


def _tell(waiter: Waiter | None, error: ZmeshError | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(error)


def _tell_all(waiters: dict[Waiter, None], error: ZmeshError | None) -> None:
    for waiter in list(waiters):
        _tell(waiter, error)
