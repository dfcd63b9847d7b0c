"""Receipts: what a sender holds until its messages have their outcome."""

import asyncio
from collections.abc import Callable, Generator
from typing import Final

from zmesh.errors import (
    Closed,
    DeadLettered,
    Dropped,
    Expired,
    NoProvider,
    PeerLost,
    PeerRestarted,
    PeerUnknown,
    ZmeshError,
)
from zmesh.message import Failure, FailureKind, Ticket
from zmesh.security import refusal

_BY_PEER: Final[dict[FailureKind, Callable[[str], ZmeshError]]] = {
    FailureKind.EXPIRED: Expired,
    FailureKind.PEER_RESTARTED: PeerRestarted,
    FailureKind.PEER_UNKNOWN: PeerUnknown,
    FailureKind.NO_PROVIDER: NoProvider,
}
_BY_REASON: Final[dict[FailureKind, Callable[[str, str], ZmeshError]]] = {
    FailureKind.REJECTED: refusal.error_of,
    FailureKind.PEER_LOST: PeerLost,
    FailureKind.DROPPED: Dropped,
}


def error_of(failure: Failure) -> ZmeshError:
    """Return the error that tells of this failure."""
    kind, peer, reason = failure.kind, failure.peer, failure.reason
    if failure.queue and not peer:
        peer = f"queue {failure.queue!r}"
    if kind in _BY_PEER:
        return _BY_PEER[kind](peer)
    if kind in _BY_REASON:
        return _BY_REASON[kind](peer, reason)
    if kind is FailureKind.DEAD_LETTERED:
        return DeadLettered(peer, failure.attempts, reason)
    return Closed(reason or "node")


class Receipt(Ticket):
    """The outcome of what was posted or published, once there is one.

    `await receipt` waits until every message has its outcome, and returns how many were accepted.
    It raises the error of the first that was not; `receipt.failures` has them all. A receipt that
    nobody awaits costs nothing.
    """

    __slots__ = ("_waiters", "is_stored")

    def __init__(self, expected: int = 1, *, is_stored: bool = False) -> None:
        super().__init__(expected)
        self.is_stored = is_stored  # another life of the node goes on with what has no outcome
        self._waiters: list[asyncio.Future[None]] | None = None

    def __await__(self) -> Generator[object, None, int]:
        if not self.done:
            yield from self.outcome()
        return self.result()

    def outcome(self) -> "asyncio.Future[None]":
        """Return a future that is done when every message has its outcome, whatever it is."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.done:
            future.set_result(None)
        else:
            # Those who gave up waiting are forgotten here.
            self._waiters = [waiter for waiter in self._waiters or () if not waiter.done()]
            self._waiters.append(future)
        return future

    def result(self) -> int:
        """Return how many messages were accepted, when all have their outcome.

        Raises:
            NotAllowed, Rejected, Expired, DeadLettered, PeerLost, PeerRestarted, PeerUnknown,
                Closed: what became of the first message that was not accepted.
        """
        if self.failures:
            error = error_of(self.failures[0])
            if self.expected > 1:
                error.add_note(
                    f"{len(self.failures)} of {self.expected} messages were not accepted: "
                    "see the receipt's failures"
                )
            raise error
        return self.accepted

    def finish(self) -> bool:
        """Wake those who wait: every message has its outcome. Return whether anybody does."""
        waiters, self._waiters = self._waiters, None
        if waiters is None:
            return False
        is_awaited = False
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
                is_awaited = True
        return is_awaited

    def __repr__(self) -> str:
        return (
            f"<Receipt: {self.accepted} accepted, {len(self.failures)} failed of {self.expected}>"
        )
