"""Which lane sends next: deficit round robin over the priorities, with ageing."""

from collections.abc import Sequence
from math import inf

from zmesh.message import LANES
from zmesh.options import LinkOptions


class LaneScheduler:
    """Shares one link among its lanes.

    In a round a lane may send its quantum, `quantum_bytes` times `priority + 1`: so lanes that
    always have something to send share the link as 1 : 2 : ... : 10. What a lane sends beyond its
    quantum is taken from its next one (Shreedhar and Varghese, "Efficient fair queueing using
    deficit round robin", 1996, with the deficit below zero instead of above). Two rules are added:

    - Within a round the highest lane with something left goes first, not the next in turn. A
      message of a high lane that is within its share waits for one chunk of the others.
    - A lane that waited for `aged_after` seconds since it was last served goes next, at most every
      other time, the longest wait first. So on a slow link the lowest lane still moves, and a
      high one within its share waits for two chunks.

    The link asks `next_lane` before each chunk (a DATA frame), and says what it sent by `spent`.
    """

    __slots__ = ("_aged_after", "_aged_turn", "_left", "_quanta", "_served_at")

    def __init__(self, options: LinkOptions) -> None:
        self._quanta = [options.quantum_bytes * (lane + 1) for lane in range(LANES)]
        self._left = list(self._quanta)  # of this round; a lane at or below 0 waits for the next
        self._served_at = [-inf] * LANES
        self._aged_after = options.aged_after
        self._aged_turn = False

    def next_lane(self, ready: Sequence[tuple[int, float]], now: float) -> int:
        """Return the lane to take the next chunk from.

        `ready` are `(lane, waiting_since)` of the lanes that could send now, at least one:
        `waiting_since` is when what they would send was queued (the time a lane was last served
        counts where it is later). Call `spent` next.
        """
        if len(ready) == 1:
            lane = ready[0][0]
            self.serve_alone(lane, now)
            return lane
        lane = self._choose(ready, now)
        self._served_at[lane] = now
        return lane

    def serve_alone(self, lane: int, now: float) -> None:
        """Note that the only lane that could send is served. Call `spent` next."""
        if self._left[lane] <= 0:
            self._begin_round((lane,))
        self._served_at[lane] = now

    def spent(self, lane: int, size: int) -> None:
        """Note that the lane sent `size` bytes."""
        self._left[lane] -= size

    def _choose(self, ready: Sequence[tuple[int, float]], now: float) -> int:
        self._aged_turn = not self._aged_turn
        if self._aged_turn:
            since, lane = min(
                (max(waiting_since, self._served_at[lane]), lane) for lane, waiting_since in ready
            )
            if now - since >= self._aged_after:
                return lane
            self._aged_turn = False
        best = max((lane for lane, _ in ready if self._left[lane] > 0), default=None)
        if best is None:
            self._begin_round([lane for lane, _ in ready])
            best = max(lane for lane, _ in ready if self._left[lane] > 0)
        return best

    def _begin_round(self, ready: Sequence[int]) -> None:
        """Give every lane its quantum, as often as it takes until one that is ready may send.

        No lane saves up more than one quantum: one that was idle gets no burst for it.
        """
        rounds = min(-self._left[lane] // self._quanta[lane] for lane in ready) + 1
        self._left = [
            min(left + rounds * quantum, quantum)
            for left, quantum in zip(self._left, self._quanta, strict=True)
        ]
