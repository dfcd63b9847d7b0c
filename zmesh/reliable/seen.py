"""Message ids that were handled: duplicates which come by another way than their session.

Within a session the watermark knows every duplicate, for ever. A message that failed over from
one peer to another, or was submitted again by its origin, is known by its id only, and that only
within the bounds of this table.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import repeat
from typing import Final, Literal

from zmesh.ids import JournalId, NodeId
from zmesh.message import Outcome

MessageId = tuple[NodeId, JournalId, int]
"""Origin, its journal, and its counter there: unique for ever."""


class SeenState(Enum):
    """What is known of a message that has no outcome yet."""

    PENDING = "pending"


PENDING: Final = SeenState.PENDING
"""The message is being handled."""

TICKS: Final = 1024
"""Ages are kept to the horizon's 1024th part, so that entries of one tick share one stamp."""

EVICTIONS_MAX: Final = 2
"""Old entries forgotten per call: more than one can add, so the table shrinks, at no cost."""


@dataclass(frozen=True, slots=True)
class SeenStatistics:
    """What is in a table, and what left it unasked. `displaced` above 0 calls for more room."""

    pending: int
    finished: int
    expired: int  # forgotten when their horizon had passed
    displaced: int  # forgotten before it, because the table was full


@dataclass(frozen=True, slots=True, eq=False)
class _Stamp:
    """Outcome and tick of all entries finished alike in that tick. Compared by identity."""

    outcome: Outcome
    tick: int


class SeenTable:
    """Which messages are being handled, and the outcome of those handled in the last horizon.

    It holds at most `capacity` ids, and finished ones for `horizon_s` seconds (up to a 1024th
    more). Where it is full the oldest finished one makes room; one being handled never does. Every
    call takes constant time.
    """

    __slots__ = (
        "_capacity", "_displaced", "_evict_at", "_expired", "_finished", "_horizon_s", "_order",
        "_pending", "_stamps", "_stamps_in_order",
    )  # fmt: skip

    def __init__(self, capacity: int, horizon_s: float) -> None:
        self._capacity = capacity
        self._horizon_s = horizon_s
        self._pending: set[MessageId] = set()
        self._finished: dict[MessageId, _Stamp] = {}
        # Finished ids in order of age, each with its stamp: two deques, as pairs would cost 56
        # bytes an id. Whose stamp differs from that in `_finished` was forgotten meanwhile.
        self._order: deque[MessageId] = deque()
        self._stamps_in_order: deque[_Stamp] = deque()
        self._stamps: dict[Outcome, _Stamp] = {}  # the latest of each outcome
        self._evict_at = 0.0  # not before this is the oldest expired
        self._expired = 0
        self._displaced = 0

    def check(
        self, message_id: MessageId, now: float
    ) -> Outcome | Literal[SeenState.PENDING] | None:
        """Return the message's outcome, PENDING while it is handled, None where it is unknown."""
        if message_id in self._pending:
            return PENDING
        stamp = self._finished.get(message_id)
        if stamp is None or self._is_expired(stamp, now):
            return None
        return stamp.outcome

    def begin(self, message_id: MessageId, now: float) -> bool:
        """Note that the message is being handled; an outcome it had before is forgotten.

        Returns False, and notes nothing, where the table is full of messages being handled: then
        do not handle it now. Call `finish` or `forget` next.
        """
        if message_id in self._pending:
            return True
        if len(self._pending) >= self._capacity:
            return False
        self._finished.pop(message_id, None)
        stamps = self._stamps_in_order
        is_full = len(self._pending) + len(stamps) >= self._capacity
        if stamps and (is_full or now >= self._evict_at):
            self._evict(now)
        self._pending.add(message_id)
        return True

    def begin_all(self, message_ids: Sequence[MessageId], now: float) -> bool:
        """Note that these are being handled; all differ.

        Returns False, and notes nothing, where one of them is known, or the table has no room for
        all: then look at each.
        """
        count = len(message_ids)
        if len(self._pending) + count > self._capacity:
            return False
        if not (
            self._pending.isdisjoint(message_ids) and self._finished.keys().isdisjoint(message_ids)
        ):
            return False
        stamps = self._stamps_in_order
        is_full = len(self._pending) + len(stamps) + count > self._capacity
        if stamps and (is_full or self._is_expired(stamps[0], now)):
            self._evict(now, count)
        self._pending.update(message_ids)
        return True

    def finish_all(self, message_ids: Sequence[MessageId], outcome: Outcome, now: float) -> None:
        """Note one outcome of messages that were begun."""
        self._pending.difference_update(message_ids)
        stamp = self._stamp(outcome, now)
        self._finished.update(zip(message_ids, repeat(stamp)))
        self._order.extend(message_ids)
        self._stamps_in_order.extend(repeat(stamp, len(message_ids)))

    def finish(self, message_id: MessageId, outcome: Outcome, now: float) -> None:
        """Note the outcome of a message that was begun; KeyError where it was not."""
        self._pending.remove(message_id)
        stamp = self._stamp(outcome, now)
        self._finished[message_id] = stamp
        self._order.append(message_id)
        self._stamps_in_order.append(stamp)

    def forget(self, message_id: MessageId) -> None:
        """Note that the message was not handled after all, and may be when it comes again."""
        self._pending.discard(message_id)
        self._finished.pop(message_id, None)

    @property
    def statistics(self) -> SeenStatistics:
        """The numbers of now."""
        return SeenStatistics(
            len(self._pending), len(self._finished), self._expired, self._displaced
        )

    def _stamp(self, outcome: Outcome, now: float) -> _Stamp:
        tick = int(now / self._horizon_s * TICKS)
        stamp = self._stamps.get(outcome)
        if stamp is None or stamp.tick != tick:
            stamp = self._stamps[outcome] = _Stamp(outcome, tick)
        return stamp

    def _is_expired(self, stamp: _Stamp, now: float) -> bool:
        return int(now / self._horizon_s * TICKS) - stamp.tick > TICKS

    def _evict(self, now: float, count: int = 1) -> None:
        """Forget a few entries that are too old, and then as many as make room for some more."""
        stamps = self._stamps_in_order
        for _ in range(EVICTIONS_MAX * count):
            if not stamps or not self._is_expired(stamps[0], now):
                break
            self._forget_oldest(now)
        while stamps and len(self._pending) + len(stamps) + count > self._capacity:
            self._forget_oldest(now)
        # What is finished from now on lasts for the horizon at least.
        oldest = stamps[0].tick * self._horizon_s / TICKS if stamps else now
        self._evict_at = oldest + self._horizon_s

    def _forget_oldest(self, now: float) -> None:
        """Forget the id that was finished first, unless it has been forgotten already."""
        message_id, stamp = self._order.popleft(), self._stamps_in_order.popleft()
        if self._finished.get(message_id) is not stamp:
            return
        del self._finished[message_id]
        if self._is_expired(stamp, now):
            self._expired += 1
        else:
            self._displaced += 1
