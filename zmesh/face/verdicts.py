"""Verdicts on what came: gathered in one turn, and passed on to whoever sent it."""

from collections.abc import Callable
from typing import Final, Protocol

from zmesh.actions import Delivery
from zmesh.events import KeepReplays, SettleDeliveries, Source
from zmesh.face.transactions import Transactions
from zmesh.face.verifying import Verifying
from zmesh.message import Outcome

ACCEPTED_TOGETHER: Final = 512
"""So many acceptances are told with the end of a turn; fewer wait for more, for milliseconds."""


class Settler(Protocol):
    """Takes verdicts on the records `first..last` (indexes) of a delivery.

    `is_open` tells whether the application gives them; else its handler's end does.
    """

    is_open: bool

    @property
    def transactions(self) -> Transactions:
        """Makes the transactions of messages."""
        ...

    def settle(
        self,
        delivery: Delivery,
        first: int,
        last: int,
        outcome: Outcome,
        reason: str = "",
        delay: float = 0.0,
    ) -> None:
        """Pass the verdict on."""
        ...

    def abandon(self, delivery: Delivery, first: int, last: int) -> None:
        """Say that the consumer is gone and gives no verdict on these."""
        ...


def numbers(delivery: Delivery, first: int, last: int) -> tuple[int, int]:
    """Return the sequence numbers of the records `first..last` (indexes)."""
    # A record put together from fragments is alone in its delivery and spans several numbers.
    is_end = last == len(delivery.records) - 1
    return delivery.first_seq + first, delivery.last_seq if is_end else delivery.first_seq + last


class Reading(Protocol):
    """A run of messages that is being read: reading on accepts what was read before."""

    noted: bool

    def accept_read(self) -> None:
        """Accept what was read before the current message."""


class Settlements:
    """Verdicts gathered in one turn, consecutive ones merged into ranges."""

    is_open = True
    transactions: Transactions  # set by who has the database
    verifying: Verifying | None = None  # set by who verifies signatures

    def __init__(
        self, soon: Callable[[], None], later: Callable[[], None], now: Callable[[], None]
    ) -> None:
        """Begin with nothing gathered.

        Args:
            soon: has what is pending taken when the loop's turn ends.
            later: has it taken within milliseconds.
            now: has it taken at once.
        """
        self._soon = soon
        self._later = later
        self._now = now
        self._verdicts: list[SettleDeliveries] = []
        self._accepted = 0
        self._read_on: list[Reading] = []
        self.pending = False  # whether there is something to take

    def note(self, chunk: Reading) -> None:
        """Remember that the chunk is being read: what was read is accepted with the next turn."""
        chunk.noted = True
        self.pending = True
        self._read_on.append(chunk)
        self._later()

    def hurry(self) -> None:
        """Have verdicts sent at once: their reader goes idle, and the sender may wait for them."""
        if self._verdicts:
            self._now()

    def settle(
        self,
        delivery: Delivery,
        first: int,
        last: int,
        outcome: Outcome,
        reason: str = "",
        delay: float = 0.0,
    ) -> None:
        """Add a verdict on the records `first..last` (indexes) of the delivery.

        A reader that is busy has many to accept, so those wait a little for each other: what
        tells of them costs as much for one as for hundreds.
        """
        if delivery.signed is not None and self.verifying is not None:
            self.verifying.settled(delivery, first, last, outcome)
        first_seq, last_seq = numbers(delivery, first, last)
        is_accepted = outcome is Outcome.ACCEPTED
        previous = self._verdicts[-1] if is_accepted and self._verdicts else None
        if (
            previous is not None
            and previous.outcome is Outcome.ACCEPTED
            and previous.last_seq + 1 == first_seq
            and _same(previous.source, delivery.source)
        ):
            previous.last_seq = last_seq
        else:
            self._verdicts.append(
                SettleDeliveries(delivery.source, first_seq, last_seq, outcome, reason, delay)
            )
        self.pending = True
        self._accepted += last - first + 1
        if is_accepted and self._accepted < ACCEPTED_TOGETHER:
            self._later()
        else:
            self._soon()

    def abandon(self, delivery: Delivery, first: int, last: int) -> None:
        """Give back what nobody here reads any more."""
        self.settle(delivery, first, last, Outcome.RELEASED)

    def take_changes(self) -> list[KeepReplays]:
        """Return what is to be on disk before what was taken is told: of signed messages."""
        changes = None if self.verifying is None else self.verifying.take_changes()
        return [] if changes is None else [changes]

    def take(self) -> list[SettleDeliveries]:
        """Return what was gathered, and begin anew."""
        chunks, self._read_on = self._read_on, []
        for chunk in chunks:
            chunk.accept_read()
        verdicts, self._verdicts = self._verdicts, []
        self._accepted = 0
        self.pending = False
        return verdicts


class ClosableSettler:
    """Passes verdicts on until it is closed: then what had none has gone back."""

    def __init__(self, settlements: Settlements) -> None:
        self._settlements = settlements
        self.is_open = True

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
        """Pass a verdict on, while it counts."""
        if self.is_open:
            self._settlements.settle(delivery, first, last, outcome, reason, delay)

    def abandon(self, delivery: Delivery, first: int, last: int) -> None:
        """Give back what was not read."""
        self.settle(delivery, first, last, Outcome.RELEASED)


def _same(left: Source, right: Source) -> bool:
    return left is right or left == right
