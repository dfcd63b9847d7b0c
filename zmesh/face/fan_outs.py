"""Fan-outs under way: awaited for their report, or iterated to see it grow."""

import asyncio
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Self, assert_never

from zmesh.actions import (
    FanOutAction,
    FanOutChanged,
    FanOutEnded,
    FanOutRestored,
    FanOutStored,
    MemberStanding,
    MemberState,
)
from zmesh.errors import Closed, UsageError, ZmeshError
from zmesh.events import CancelFanOut, Event, StartFanOut
from zmesh.message import FailureKind, Record, size_of
from zmesh.options import NodeOptions
from zmesh.patterns.fan_outs_stored import FIRST_RESTORED


@dataclass(frozen=True, slots=True)
class MemberOutcome:
    """What became of a fan-out at one member of the group."""

    id: str  # hex
    name: str
    state: MemberState
    reason: str  # why it is pending or failed
    failure: FailureKind | None  # of one that failed
    attempts: int


@dataclass(frozen=True, slots=True)
class FanOutReport:
    """What became of a fan-out at all members, as far as it is known."""

    group: str
    accepted: tuple[MemberOutcome, ...]
    failed: tuple[MemberOutcome, ...]  # they refused it, or could not handle it
    pending: tuple[MemberOutcome, ...]  # in the final report: not accepted in time

    @property
    def is_complete(self) -> bool:
        """Whether all members accepted."""
        return not (self.failed or self.pending)


class FanOut:
    """One message on its way to all members of a group.

    `await` it for the final report; `async for outcome in ...` tells each member's outcome as it
    comes, and at the deadline those that are still pending; `report` is what is known now. It
    goes on whether anybody waits or not. A task that is cancelled while it awaits the report
    cancels the fan-out, as `cancel` does; but not a durable one, which goes on.
    """

    def __init__(
        self, registry: "FanOuts", number: int, record: Record, *, is_durable: bool = False
    ) -> None:
        self.number = number
        self._is_durable = is_durable
        self._is_stored = False
        self.size = size_of(record)
        self._group = record[1]
        self._registry = registry
        self._places: dict[int, MemberOutcome] = {}
        self._told: list[MemberOutcome] = []  # those with their outcome, in its order
        self._waiters: list[asyncio.Future[None]] = []
        self._is_over = False
        self._is_cancelled = False
        self._is_heard = False  # somebody looked at it
        self._failure: ZmeshError | None = None

    @property
    def report(self) -> FanOutReport:
        """What is known now."""
        self._is_heard = True
        return self.known()

    @property
    def is_heard(self) -> bool:
        """Whether somebody looked at it."""
        return self._is_heard

    def known(self) -> FanOutReport:
        """Return what is known now, though nobody looks."""
        by_state: dict[MemberState, list[MemberOutcome]] = {state: [] for state in MemberState}
        for outcome in self._places.values():
            by_state[outcome.state].append(outcome)
        return FanOutReport(
            self._group,
            tuple(by_state[MemberState.ACCEPTED]),
            tuple(by_state[MemberState.FAILED]),
            tuple(by_state[MemberState.PENDING]),
        )

    @property
    def done(self) -> bool:
        """Whether the report is final."""
        return self._is_over

    def cancel(self) -> None:
        """Take back what has not arrived; who waits for the report is cancelled."""
        if not self._is_over:
            self._is_cancelled = True
            self._registry.cancel(self)
            self._finish()

    @property
    def group(self) -> str:
        """The group it is for."""
        return self._group

    async def stored(self) -> None:
        """Return once it is on disk: from then on it outlives the process.

        Raises:
            UsageError: it is not durable.
            JournalFull, JournalBroken: it could not be stored, and is sent to nobody.
            Closed: the node was closed before.
        """
        if not self._is_durable:
            raise UsageError("this fan-out is not durable: node.fan_out(..., durable=True)")
        self._is_heard = True
        while not (self._is_stored or self._is_over):
            await self.news()
        if not self._is_stored:
            self.check()

    def __await__(self) -> Generator[object, None, FanOutReport]:
        return self._final_report().__await__()

    async def _final_report(self) -> FanOutReport:
        self._is_heard = True
        try:
            while not self._is_over:
                await self.news()
        except asyncio.CancelledError:
            if not self._is_durable:
                self.cancel()
            raise
        self.check()
        return self.report

    def __aiter__(self) -> "Progress":
        self._is_heard = True
        return Progress(self)

    # Within

    def told(self, index: int) -> MemberOutcome | None:
        """Return the outcome that was told at this place in their order; None where none was."""
        return self._told[index] if index < len(self._told) else None

    def check(self) -> None:
        """Raise why there is no final report, if there is none."""
        if self._is_cancelled:
            raise asyncio.CancelledError("the fan-out was cancelled")
        if self._failure is not None:
            raise self._failure

    async def news(self) -> None:
        """Wait for the next outcome, or the end."""
        self._waiters = [waiter for waiter in self._waiters if not waiter.done()]
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def changed(self, members: list[MemberStanding]) -> None:
        """Take how members stand now."""
        for each in members:
            outcome = self._places[each.place] = MemberOutcome(
                each.node.hex(), each.name, each.state, each.reason, each.failure, each.attempts
            )
            if each.state is not MemberState.PENDING:
                self._told.append(outcome)
        self._wake()

    def on_stored(self) -> None:
        """Take note that it is on disk."""
        self._is_stored = True
        self._wake()

    def ended(self, failure: ZmeshError | None) -> bool:
        """Take the end; return whether somebody looks at what became of it, or need not."""
        self._failure = failure
        pending = [each for each in self._places.values() if each.state is MemberState.PENDING]
        self._told += pending
        goes_on = self._is_stored and isinstance(failure, Closed)  # in another life
        is_heard = self._is_heard or goes_on or (failure is None and self.known().is_complete)
        self._finish()
        return is_heard

    def _finish(self) -> None:
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Progress:
    """`async for outcome in fan_out`: every loop sees all outcomes from the first."""

    __slots__ = ("_fan_out", "_index")

    def __init__(self, fan_out: FanOut) -> None:
        self._fan_out = fan_out
        self._index = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MemberOutcome:
        fan_out = self._fan_out
        while (outcome := fan_out.told(self._index)) is None:
            if fan_out.done:
                fan_out.check()
                raise StopAsyncIteration
            await fan_out.news()
        self._index += 1
        return outcome


class FanOuts:
    """All fan-outs of a node that are under way.

    `unheard` is told of one that ended with members who did not accept, and nobody looking.
    """

    def __init__(
        self,
        command: Callable[[Event], None],
        options: NodeOptions,
        unheard: Callable[[FanOutReport], None],
    ) -> None:
        self._command = command
        self._options = options
        self._unheard = unheard
        self._open: dict[int, FanOut] = {}
        self._unseen: list[FanOut] = []  # of earlier lives, and over
        self._bytes = 0
        self._last = 0

    def __len__(self) -> int:
        return len(self._open)

    def start(
        self,
        record: Record,
        lane: int,
        deadline: float,
        *,
        include_late: bool,
        ttl: float | None,
        wall_ms: int | None = None,
    ) -> FanOut:
        """Begin; one that is to be stored first needs to know what the wall clock reads.

        Raises:
            UsageError: too many are under way, or too large ones.
        """
        options, size = self._options, size_of(record)
        limit, bytes_max = options.fan_outs_max, options.fan_outs_bytes_max
        if len(self._open) >= limit or (self._open and self._bytes + size > bytes_max):
            raise UsageError(
                f"{len(self._open)} fan-outs ({self._bytes} bytes) are under way, of {limit} and "
                f"{bytes_max} bytes at most: await some of them first"
            )
        self._last += 1
        is_durable = wall_ms is not None
        fan_out = FanOut(self, self._last, record, is_durable=is_durable)
        self._open[self._last] = fan_out
        self._bytes += size
        self._command(
            StartFanOut(
                self._last, record, lane, deadline, include_late, ttl, is_durable, wall_ms or 0
            )
        )
        return fan_out

    def all(self) -> list[FanOut]:
        """Return those that are under way, of earlier lives first.

        Among these are those that ended in this one before anybody looked at them.
        """
        self._unseen = [each for each in self._unseen if not each.is_heard]
        return sorted((*self._open.values(), *self._unseen), key=_order)

    def cancel(self, fan_out: FanOut) -> None:
        """Forget a fan-out, and take back what has not arrived."""
        if self._take(fan_out.number) is not None:
            self._command(CancelFanOut(fan_out.number))

    def perform(self, news: FanOutAction) -> None:
        """Pass on what the engine tells."""
        fan_out = self._open.get(news.fan_out)
        match news:
            case FanOutRestored(number, record):
                fan_out = FanOut(self, number, record, is_durable=True)
                fan_out.on_stored()
                self._open[number] = fan_out
                self._bytes += fan_out.size
            case FanOutStored(number, error) if error is not None:
                self._end(number, error)
            case FanOutStored():
                if fan_out is not None:
                    fan_out.on_stored()
            case FanOutChanged(_, members):
                if fan_out is not None:
                    fan_out.changed(members)
            case FanOutEnded(number, is_closed):
                self._end(number, Closed() if is_closed else None)
            case _:
                assert_never(news)

    def close(self, why: str) -> None:
        """End all with `Closed`."""
        for number in list(self._open):
            self._end(number, Closed(why))

    def _end(self, number: int, failure: ZmeshError | None) -> None:
        fan_out = self._take(number)
        if fan_out is None:
            return
        if number >= FIRST_RESTORED and failure is None and not fan_out.is_heard:
            self._unseen.append(fan_out)
        if not fan_out.ended(failure):
            self._unheard(fan_out.known())

    def _take(self, number: int) -> FanOut | None:
        fan_out = self._open.pop(number, None)
        if fan_out is not None:
            self._bytes -= fan_out.size
        return fan_out


def _order(fan_out: FanOut) -> tuple[bool, int]:
    return fan_out.number < FIRST_RESTORED, fan_out.number
