"""Subscriptions: who here gets which publication, and when it counts as accepted."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from zmesh.actions import Delivery
from zmesh.errors import Closed, UsageError
from zmesh.events import Event, Subscribe, Unsubscribe
from zmesh.face.inbox import BatchReader, DeliveryQueue, Inbox, Reader, Settle
from zmesh.face.lossy import LoggedQueue, LossyQueue
from zmesh.face.received import Message
from zmesh.face.transactions import Transactions
from zmesh.face.verdicts import Settlements, Settler
from zmesh.message import Outcome
from zmesh.terms import PLAIN, Terms

_GRAVITY = {Outcome.ACCEPTED: 0, Outcome.REJECTED: 1, Outcome.RELEASED: 2, Outcome.MODIFIED: 3}
"""Of several verdicts the gravest goes to the publisher: what anybody gave back comes again."""

Verdict = tuple[Outcome, str, float]


class SharedSettler:
    """Collects the verdicts of several subscriptions on the same records of one delivery.

    A record is settled when all of them have spoken or gone.
    """

    is_open = True

    def __init__(self, settlements: Settlements, subscriptions: int) -> None:
        self._settlements = settlements
        self._subscriptions = subscriptions
        self._open: dict[int, tuple[int, Verdict | None]] = {}  # who has yet to speak, and so far

    @property
    def transactions(self) -> Transactions:
        """Makes the transactions of messages."""
        return self._settlements.transactions

    def settle(
        self,
        delivery: Delivery,
        first: int,
        last: int,
        outcome: Outcome,
        reason: str = "",
        delay: float = 0.0,
    ) -> None:
        """Add one subscription's verdict."""
        for index in range(first, last + 1):
            self._add(delivery, index, (outcome, reason, delay))

    def abandon(self, delivery: Delivery, first: int, last: int) -> None:
        """Let one subscription go without a verdict: the others decide."""
        for index in range(first, last + 1):
            self._add(delivery, index, None)

    def _add(self, delivery: Delivery, index: int, verdict: Verdict | None) -> None:
        silent, gravest = self._open.pop(index, (self._subscriptions, None))
        if verdict is not None and (
            gravest is None or _GRAVITY[verdict[0]] > _GRAVITY[gravest[0]]
        ):
            gravest = verdict
        if silent > 1:
            self._open[index] = (silent - 1, gravest)
        elif gravest is None:
            self._settlements.abandon(delivery, index, index)
        else:
            self._settlements.settle(delivery, index, index, *gravest)


class Subscription(Inbox):
    """Publications on matching topics, for as long as the `async with` block runs.

    They are read as an inbox is. What was not read when the block ends is given back.
    """

    def __init__(
        self,
        registry: "Subscriptions",
        queue: DeliveryQueue,
        pattern: str,
        settle: Settle,
        terms: Terms = PLAIN,
    ) -> None:
        super().__init__(queue, settle)
        self.pattern = pattern
        self._terms = terms
        self._registry = registry
        self._token = 0  # none yet

    @property
    def dropped(self) -> int:
        """How many publications it has missed, as far as it was told.

        With `"block"` 0, but for one with a name or `since`: how many were gone from logs.
        """
        queue = self._queue
        return queue.dropped if isinstance(queue, LossyQueue | LoggedQueue) else 0

    def __aiter__(self) -> Reader:
        self._check_entered()
        return super().__aiter__()

    async def __anext__(self) -> Message:
        self._check_entered()
        return await super().__anext__()

    def batches(self, max_count: int = 1000, max_wait: float = 0.0) -> BatchReader:
        """Read many messages at once, in a loop; see `Inbox.batches`."""
        self._check_entered()
        return super().batches(max_count, max_wait)

    def _check_entered(self) -> None:
        if not self._token:
            raise UsageError("a subscription begins with `async with`: read it inside the block")

    async def __aenter__(self) -> Self:
        """Subscribe. Peers hear of it at once, and publish to it from then on.

        Raises:
            UsageError: it was entered before, or there are too many.
            Closed: the node was closed.
        """
        if self._token:
            raise UsageError("this subscription was used before: call node.subscribe(...) again")
        self._token = self._registry.add(self.pattern, self._queue, self._terms)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unsubscribe; what was not read is given back."""
        self._registry.remove(self._token)


class Subscriptions:
    """All subscriptions of a node, by the token the engine knows them by."""

    def __init__(
        self,
        command: Callable[[Event], None],
        settlements: Settlements,
        subscriptions_max: int,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is told when one begins."""
        self._changed = changed
        self._command = command
        self._settlements = settlements
        self._subscriptions_max = subscriptions_max
        self._queues: dict[int, DeliveryQueue] = {}
        self._names: dict[int, str] = {}  # of those that have one
        self._last_token = 0
        self._closed: str | None = None

    def __len__(self) -> int:
        return len(self._queues)

    def add(self, pattern: str, queue: DeliveryQueue, terms: Terms = PLAIN) -> int:
        """Ask for publications on topics matching the pattern; return the token."""
        if self._closed is not None:
            raise Closed(self._closed)
        if len(self._queues) >= self._subscriptions_max:
            limit = self._subscriptions_max
            raise UsageError(f"this node has {limit} subscriptions already: end some first")
        if terms.name is not None and terms.name in self._names.values():
            raise UsageError(f"this node has a subscription {terms.name!r} already: end it first")
        self._last_token += 1
        if terms.name is not None:
            self._names[self._last_token] = terms.name
        self._queues[self._last_token] = queue
        self._command(Subscribe(self._last_token, pattern, terms))
        self._changed()
        return self._last_token

    def remove(self, token: int) -> None:
        """End a subscription."""
        queue = self._queues.pop(token, None)
        self._names.pop(token, None)
        if queue is not None:
            self._command(Unsubscribe(token))
            queue.close()
            if queue.guard is not None:
                queue.guard.close()

    def drain(self) -> None:
        """End all subscriptions: nothing more is wanted."""
        for token in list(self._queues):
            self.remove(token)

    def close(self, failure: str | None = None) -> None:
        """End all loops over all subscriptions, and take no more."""
        self._closed = failure or "node"
        while self._queues:
            self._queues.popitem()[1].close(failure)

    def deliver(self, deliveries: list[tuple[Delivery, list[tuple[int, ...]]]]) -> None:
        """Hand out publications: every record to the subscriptions of its tokens."""
        for delivery, tokens in deliveries:
            count = len(tokens)
            start = 0
            while start < count:
                stop = _run_end(tokens, start)
                self._deliver_run(delivery, start, stop, tokens[start])
                start = stop

    def _deliver_run(
        self, delivery: Delivery, start: int, stop: int, tokens: tuple[int, ...]
    ) -> None:
        here = [token for token in tokens if token in self._queues]
        queues = [self._queues[token] for token in here]
        if not queues:
            self._settlements.abandon(delivery, start, stop - 1)
            return
        settler: Settler = self._settlements
        if len(queues) > 1:
            settler = SharedSettler(self._settlements, len(queues))
        for token, queue in zip(here, queues, strict=True):
            queue.put(settler, delivery, start, stop)
            self._end_if_overrun(token, queue)

    def missed(self, counts: list[tuple[int, int]]) -> None:
        """Tell subscriptions how many publications they were not sent."""
        for token, count in counts:
            queue = self._queues.get(token)
            if isinstance(queue, LossyQueue | LoggedQueue):
                queue.missed(count)
                self._end_if_overrun(token, queue)

    def _end_if_overrun(self, token: int, queue: DeliveryQueue) -> None:
        if isinstance(queue, LossyQueue) and queue.is_overrun:
            self.remove(token)


def _run_end(tokens: list[tuple[int, ...]], start: int) -> int:
    """Return where the run of equal tokens that begins at `start` ends."""
    first = tokens[start]
    if start == 0 and tokens.count(first) == len(tokens):
        return len(tokens)
    stop = start + 1
    while stop < len(tokens) and tokens[stop] == first:
        stop += 1
    return stop
