"""The queues of subscriptions that may miss some, and tell how many."""

import asyncio
from dataclasses import dataclass

from zmesh.actions import Delivery
from zmesh.errors import SlowSubscriber
from zmesh.face.inbox import DeliveryQueue, Waiting
from zmesh.face.received import Chunk
from zmesh.face.verdicts import Settlements, Settler
from zmesh.face.verifying import Guard
from zmesh.message import Outcome
from zmesh.terms import Terms, WhenFull


@dataclass(slots=True)
class _Single(Waiting):
    """One record, or a run, and how many were dropped between the one before and this."""

    gap: int = 0


class LoggedQueue(DeliveryQueue):
    """The queue of a subscription that follows logs: it tells what was gone when it came to it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settlements: Settlements,
        name: str | None,
        guard: Guard | None = None,
    ) -> None:
        super().__init__(loop, settlements, guard)
        self.dropped = 0
        self._name = name  # of the subscription
        self._after = 0  # after the last that waits

    def missed(self, count: int) -> None:
        """Note what a log no longer has."""
        self.dropped += count
        self._after += count

    def put(self, settler: Settler, delivery: Delivery, start: int, stop: int) -> None:
        """Add the records `start` to `stop` (exclusive) of a delivery."""
        if self._after and not self._is_closed:
            gap, self._after = self._after, 0
            since = self._loop.time()
            self._items.append(_Single(settler, delivery, start, start + 1, since, gap=gap))
            start += 1
        if start < stop:
            super().put(settler, delivery, start, stop)
        else:
            self._wake_one()

    def _chunk_of(self, waiting: Waiting, count_max: int) -> Chunk | None:
        chunk = super()._chunk_of(waiting, count_max)
        if chunk is not None:
            chunk.gap, chunk.scope = _gap_of(waiting), self._name
        return chunk

    def _again(self, chunk: Chunk, start: int) -> Waiting:
        return _again(chunk, start)


class LossyQueue(DeliveryQueue):
    """Holds at most `limit` publications; of what is over, `when_full` decides.

    What is dropped here is accepted, so that its publisher neither waits nor sends it again. It is
    counted, with what publishers say they dropped, and told with the next message.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settlements: Settlements,
        pattern: str,
        when_full: WhenFull,
        limit: int,
        guard: Guard | None = None,
    ) -> None:
        super().__init__(loop, settlements, guard)
        self.dropped = 0
        self.is_overrun = False  # ended, because it was read too slowly
        self._pattern = pattern
        self._when_full = when_full
        self._limit = limit
        self._before = 0  # dropped before the next that is taken
        self._after = 0  # dropped after the last that waits
        self._latest: dict[str, _Single] = {}  # by topic; some may be gone since

    def put(self, settler: Settler, delivery: Delivery, start: int, stop: int) -> None:
        """Add the records `start` to `stop` (exclusive), or drop others, or them."""
        for index in range(start, stop):
            if self._is_closed:
                settler.abandon(delivery, index, stop - 1)
                return
            # Before it takes the place of another: what is refused must not have others dropped.
            refusal = self._refusal(delivery, index)
            if refusal is not None:
                settler.settle(delivery, index, index, *refusal)
                continue
            since = self._loop.time() if len(delivery.records[index]) > 3 else None
            self._add(_Single(settler, delivery, index, index + 1, since))
        self._wake_one()

    def missed(self, count: int) -> None:
        """Note what a publisher did not send."""
        self.dropped += count
        self._after += count
        if self._when_full is WhenFull.DISCONNECT:
            self._overrun()

    def _add(self, new: _Single) -> None:
        topic = new.delivery.records[new.start][1]
        if self._when_full is WhenFull.LATEST and self._replace(topic, new):
            return
        if len(self._items) >= self._limit:
            match self._when_full:
                case WhenFull.DISCONNECT:
                    self._drop(new)
                    self._overrun()
                    return
                case WhenFull.DROP_NEWEST:
                    self._drop(new)
                    self._after += 1
                    return
                case _:
                    oldest = self._items.popleft()
                    self._before += 1 + _gap_of(oldest)
                    self._drop(oldest)
        new.gap, self._after = self._after, 0
        self._items.append(new)
        if self._when_full is WhenFull.LATEST:
            self._remember(topic, new)

    def _replace(self, topic: str, new: _Single) -> bool:
        """Put a value in the place of an older one of its topic, if such a one waits."""
        old = self._latest.get(topic)
        if old is None or old.start == old.stop:
            return False
        self._drop(old)
        old.settler, old.delivery = new.settler, new.delivery
        old.start, old.stop, old.since = new.start, new.stop, new.since
        old.gap += 1 + self._after
        self._after = 0
        return True

    def _remember(self, topic: str, new: _Single) -> None:
        if len(self._latest) >= 2 * self._limit:
            waiting = self._latest.items()
            self._latest = {each: one for each, one in waiting if one.start < one.stop}
        self._latest[topic] = new

    def _drop(self, waiting: Waiting) -> None:
        waiting.settler.settle(waiting.delivery, waiting.start, waiting.start, Outcome.ACCEPTED)
        waiting.start = waiting.stop  # nothing is left of it
        self.dropped += 1

    def _overrun(self) -> None:
        self.is_overrun = True
        self.dropped += len(self._items)
        self.close()

    def _take(self, *, count_max: int) -> Chunk | None:
        if self.is_overrun:
            raise SlowSubscriber(self._pattern, self._limit)
        return super()._take(count_max=count_max)

    def _chunk_of(self, waiting: Waiting, count_max: int) -> Chunk | None:  # noqa: ARG002  # one
        chunk = super()._chunk_of(waiting, 1)
        self._before += _gap_of(waiting)
        if chunk is not None:
            chunk.gap, self._before = self._before, 0
        return chunk

    def _again(self, chunk: Chunk, start: int) -> Waiting:
        return _again(chunk, start)


def _again(chunk: Chunk, start: int) -> Waiting:
    return _Single(chunk.settler, chunk.delivery, start, chunk.stop, None, gap=chunk.gap)


def _gap_of(waiting: Waiting) -> int:
    return waiting.gap if isinstance(waiting, _Single) else 0


def queue_of(
    loop: asyncio.AbstractEventLoop,
    settlements: Settlements,
    pattern: str,
    terms: Terms,
    guard: Guard | None = None,
) -> DeliveryQueue:
    """Return the queue of a subscription on these terms, behind a guard of signatures."""
    if terms.follows:
        return LoggedQueue(loop, settlements, terms.name, guard)
    if terms.when_full is WhenFull.BLOCK:
        return DeliveryQueue(loop, settlements, guard)
    return LossyQueue(loop, settlements, pattern, terms.when_full, terms.limit, guard)
