"""The application of a simulated process: handlers that take time, and decide."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Generic, Protocol, TypeVar

from zmesh.message import Outcome
from zmesh.testing.clock import EventQueue
from zmesh.testing.scenario import Consumer


class Job(Protocol):
    """A delivery that waits for a handler, or is with one."""

    @property
    def number(self) -> int:
        """The number of its message."""
        ...


J = TypeVar("J", bound=Job)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a handler decided."""

    outcome: Outcome
    reason: str = ""
    delay: float = 0.0


ACCEPTED = Verdict(Outcome.ACCEPTED)


class Application(Generic[J]):
    """Runs handlers, at most `concurrency` at once, in the order of arrival.

    `done` is called with each job and its verdict: at once where handlers take no time, else in a
    later event of the queue.
    """

    def __init__(
        self,
        queue: EventQueue,
        random: Random,
        consumer: Consumer,
        done: Callable[[J, Verdict], None],
    ) -> None:
        self._queue = queue
        self._random = random
        self._consumer = consumer
        self._done = done
        self._waiting: deque[J] = deque()
        self._running = 0
        self._slow_until = 0.0
        self._slow_seconds = 0.0

    def slow_down(self, until: float, seconds: float) -> None:
        """Let handlers that begin before `until` take `seconds`."""
        self._slow_until = until
        self._slow_seconds = seconds

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self._running and not self._waiting

    def take(self, job: J) -> None:
        """Give a delivery to a handler, now or when one is free."""
        self._waiting.append(job)
        self._start()

    def drop(self, unwanted: Callable[[J], bool]) -> list[J]:
        """Take deliveries back that no handler has begun with; return them."""
        dropped = [job for job in self._waiting if unwanted(job)]
        self._waiting = deque(job for job in self._waiting if not unwanted(job))
        return dropped

    def _start(self) -> None:
        while self._waiting and self._running < self._consumer.concurrency:
            job = self._waiting.popleft()
            seconds = self._seconds()
            if seconds == 0.0:
                self._done(job, self._decide(job))
            else:
                self._running += 1
                self._queue.after(seconds, self._finish, job)

    def _finish(self, job: J) -> None:
        self._running -= 1
        self._done(job, self._decide(job))
        self._start()

    def _seconds(self) -> float:
        if self._queue.now < self._slow_until:
            return self._slow_seconds
        consumer = self._consumer
        if consumer.long_share and self._random.random() < consumer.long_share:
            return consumer.long_seconds
        return consumer.seconds * self._random.uniform(0.5, 1.5) if consumer.seconds else 0.0

    def _decide(self, job: J) -> Verdict:
        drawn = self._random.random() if self._consumer.outcomes else 1.0
        for outcome, share in self._consumer.outcomes:
            if drawn < share:
                reason = f"because of {job.number}"
                delay = 0.0 if outcome is Outcome.REJECTED else job.number % 7 / 100
                return Verdict(outcome, reason, delay)
            drawn -= share
        return ACCEPTED
