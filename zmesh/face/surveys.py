"""Surveys under way: their replies, read as they come."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from zmesh.actions import CallAnswered, CallFailure, Delivery, SurveyAnswered, SurveyEnded
from zmesh.errors import Closed, NoProvider, UsageError, ZmeshError
from zmesh.events import CancelSurvey, Event, Source, StartSurvey
from zmesh.face.calls import error_of
from zmesh.face.received import Chunk, Message
from zmesh.face.transactions import Transactions
from zmesh.options import NodeOptions

_UNSETTLED: Final = "a reply is not settled: its sender has done with it"


class ReplySettler:
    """Refuses verdicts: replies are not settled by who reads them."""

    is_open = False

    @property
    def transactions(self) -> Transactions:
        """Refuse.

        Raises:
            UsageError: always.
        """
        raise UsageError(_UNSETTLED)

    def settle(self, *_: Any, **__: Any) -> None:
        """Refuse.

        Raises:
            UsageError: always.
        """
        raise UsageError(_UNSETTLED)

    def abandon(self, *_: Any, **__: Any) -> None:
        """Do nothing: who asked needs no reply any more."""


@dataclass(frozen=True, slots=True)
class SurveyFailure:
    """A provider without a reply, and the error that a call to it would have raised."""

    id: str  # hex
    name: str
    error: ZmeshError


class _Collected:
    """What came of a survey so far: shared by its handle, its loop, and those who bring it."""

    def __init__(self, service: str, timeout: float) -> None:
        self.service = service
        self.timeout = timeout
        self.replies: deque[Message] = deque()
        self.failures: list[SurveyFailure] = []
        self.is_over = False
        self.error: ZmeshError | None = None
        self.waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Survey:
    """A question to all providers of a service: `async for reply in node.survey(...)`.

    It is asked when the loop begins. Leaving the loop ends it, and stops those who are at work on
    a reply. Each reply is a message with its sender and its body.
    """

    def __init__(self, registry: "Surveys", start: StartSurvey, timeout: float) -> None:
        self._registry = registry
        self._start: StartSurvey | None = start
        self._collected = _Collected(start.record[1], timeout)

    @property
    def failures(self) -> tuple[SurveyFailure, ...]:
        """The providers that were asked and gave no reply, as far as it is known."""
        return tuple(self._collected.failures)

    def __aiter__(self) -> "Replies":
        if self._start is None:
            raise UsageError("this survey was asked already: call node.survey(...) again")
        start, self._start = self._start, None
        return self._registry.ask(start, self._collected)


class Replies:
    """The loop over the replies of one survey. Dropping it ends the survey."""

    def __init__(self, registry: "Surveys", number: int, collected: _Collected) -> None:
        self._registry = registry
        self._number = number
        self._collected = collected

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        collected = self._collected
        while not collected.replies:
            if collected.error is not None:
                raise collected.error
            if collected.is_over:
                raise StopAsyncIteration
            if collected.waiter is not None and not collected.waiter.done():
                raise UsageError("another task waits in this loop: begin a survey of its own")
            collected.waiter = asyncio.get_running_loop().create_future()
            await collected.waiter
        return collected.replies.popleft()

    def __del__(self) -> None:
        self._registry.left(self._number)


class Surveys:
    """All surveys of a node that are under way."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        command: Callable[[Event], None],
        options: NodeOptions,
        no_provider: Callable[[str], NoProvider],
        missing: Callable[[StartSurvey], ZmeshError],
    ) -> None:
        """Begin with none.

        Args:
            loop: that all calls come from.
            command: takes commands to the engine.
            options: bound how many there are.
            no_provider: tells why nobody provides a service.
            missing: returns the error where there is nobody to ask.
        """
        self._loop = loop
        self._thread = threading.get_ident()
        self._command = command
        self._options = options
        self._no_provider = no_provider
        self._missing = missing
        self._settler = ReplySettler()
        self._open: dict[int, tuple[StartSurvey, _Collected]] = {}
        self._last = 0
        self._closed: str | None = None

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, start: StartSurvey, collected: _Collected) -> Replies:
        """Ask, and return the loop over the replies; the time begins now.

        Raises:
            UsageError: too many are under way.
            Closed: the node was closed.
        """
        if self._closed is not None:
            raise Closed(self._closed)
        limit = self._options.surveys_max
        if len(self._open) >= limit:
            raise UsageError(f"{limit} surveys are under way already: end some of them first")
        self._last += 1
        deadline = self._loop.time() + collected.timeout
        start = replace(start, survey=self._last, deadline=deadline)
        self._open[self._last] = (start, collected)
        self._command(start)
        return Replies(self, self._last, collected)

    def answered(self, answer: SurveyAnswered) -> None:
        """Take a reply, or why there is none."""
        start, collected = self._open.get(answer.survey, (None, None))
        if start is None or collected is None:
            return
        if answer.failure is None and answer.record is not None:
            source = Source(answer.node, b"", start.lane)
            delivery = Delivery(source, answer.name, 0, 0, [answer.record])
            collected.replies.append(next(Chunk(self._settler, delivery, 0, 1).messages))
        else:
            failed = CallAnswered(
                answer.survey, answer.record, answer.failure, answer.name, answer.reason
            )
            error = error_of(failed, collected.service, collected.timeout, self._no_provider)
            collected.failures.append(SurveyFailure(answer.node.hex(), answer.name, error))
        collected.wake()

    def ended(self, news: SurveyEnded) -> None:
        """Take the end."""
        start, collected = self._open.pop(news.survey, (None, None))
        if start is None or collected is None:
            return
        collected.is_over = True
        if news.failure is CallFailure.NO_PROVIDER:
            collected.error = self._missing(start)
        elif news.failure is not None:
            collected.error = Closed()
        collected.wake()

    def left(self, number: int) -> None:
        """End a survey whose loop was left. It may come from any thread: see `Replies`."""
        if number not in self._open or self._loop.is_closed():
            return
        if threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self.left, number)
            return
        del self._open[number]
        self._command(CancelSurvey(number))

    def close(self, why: str) -> None:
        """End all with `Closed`, and begin no more."""
        self._closed = why
        while self._open:
            _, (_, collected) = self._open.popitem()
            collected.is_over = True
            collected.error = Closed(why)
            collected.wake()
