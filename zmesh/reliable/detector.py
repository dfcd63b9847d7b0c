"""How likely it is that a silent peer is gone: phi-accrual, blind to our own lateness.

Hayashibara et al., "The phi accrual failure detector", SRDS 2004, with the logistic approximation
of the normal distribution that Akka uses; local health after Dadgar et al., "Lifeguard", 2017.
"""

from array import array
from math import asinh, exp, expm1, inf, log, log1p, sinh, sqrt
from typing import Final

from zmesh.options import LinkOptions
from zmesh.patience import Patience
from zmesh.reliable.round_trip import RoundTrip

# P(X > mean + y * sigma) = 1 / (1 + e^g) with g = y (A + B y^2), for a normal X
_A: Final = 1.5976
_B: Final = 0.070566
_LN_10: Final = log(10)

SIGMA_MIN_S: Final = 0.1
"""A few quick answers must not make us believe that the next one cannot be later."""

TRAFFIC_FRAMES: Final = 4
TRAFFIC_GAP_S: Final = 1.0
"""So many frames we did not ask for, each this soon after the one before, are no heartbeats."""

IDLE_GROWTH: Final = 1.5

IDLE_SHARE_FIRST: Final = 0.8
"""So much sooner asks, on an idle link, the end that goes first; the other is heard meanwhile."""

_WAIT_US_MAX: Final = 2**32 - 1
"""An hour and more: what an item of the window holds."""

_ROUNDING_S: Final = 1e-6
"""Added to deadlines: rounding must not let a timer fire before phi is there."""


class FailureDetector:
    """The suspicion that the peer of one link is gone. Times in seconds.

    Most silence means nothing, because nothing was to be said: between heartbeats the gap is as
    long as we choose to let it grow. So silence is counted from when an answer is owed, which is
    the first PING since the last sign of life, and the samples of the distribution are the waits
    from there until any frame came. `phi` is then -log10 of the probability that a wait lasts
    this long and the peer lives; `acceptable_pause` is added to the mean.

    While an answer is owed the PING is repeated, sooner than suspicion can rise: one that is lost
    changes nothing. Waits count as `acceptable_pause` at most and sigma as 100 ms at least, so a
    peer that falls silent is suspected (phi 8) within 14 s, and surely lost (phi 12) within 16 s,
    of the PING, which itself comes at most `ping_idle_max` after the last sign of life. Where
    answers take less than 100 ms, as on any LAN, it is both times within 4 s.

    How late our own loop was is taken off the wait, and multiplies our patience by up to 8, less
    by half every 5 s while PINGs go out.
    """

    __slots__ = (
        "_asked_at", "_calm", "_close_frames", "_heard_at", "_idle_after", "_idle_share",
        "_oldest", "_options", "_patience", "_pinged_at", "_retry_after", "_round_trip",
        "_square_sum", "_sum", "_waits", "calm_until", "multiplier",
    )  # fmt: skip

    def __init__(
        self, options: LinkOptions, round_trip: RoundTrip, *, goes_first: bool = False
    ) -> None:
        """Know nothing: neither phi nor a PING are due before `restart` or `heard`.

        Of the two ends of an idle link one is to go first: else both ask at the same time, each
        time, and twice as much is said as either needs.
        """
        self._idle_share = IDLE_SHARE_FIRST if goes_first else 1.0
        self._options = options
        self._round_trip = round_trip
        self._patience = Patience()
        self.multiplier = 1.0  # as of the last PING or late turn
        self.restart(inf)

    def restart(self, now: float) -> None:
        """Begin anew with a link that has just been opened: another path has other waits."""
        options = self._options
        # Until there are samples enough, those that are not yet there count as this guess.
        guess_us = min(round(options.ping_after_min * 1e6), _WAIT_US_MAX)
        # Four bytes each: of a thousand peers there are a million, once all have been idle long.
        self._waits = array("I", [guess_us] * options.samples_min)
        self._oldest = 0  # where the next one goes, once there are as many as are kept
        # Microseconds as integers: the sums stay exact however long the window slides.
        self._sum = guess_us * options.samples_min
        self._square_sum = guess_us**2 * options.samples_min
        self._calm = min(options.ping_after_min, options.ping_after_max)
        self._heard_at = now
        self.calm_until = now + self._calm  # no PING is due before, nor suspicion
        self._asked_at: float | None = None
        self._pinged_at = now
        self._retry_after = options.ping_after_max
        self._idle_after = options.ping_after_max
        self._close_frames = 0

    def heard(self, now: float) -> None:
        """Note a frame of the peer, any frame."""
        if self._asked_at is not None:
            self._sample(now - self._asked_at)
            self._asked_at = None
        elif now - self._heard_at < TRAFFIC_GAP_S:
            self._close_frames += 1
            if self._close_frames >= TRAFFIC_FRAMES:
                self._idle_after = self._options.ping_after_max
        self._heard_at = now
        self.calm_until = now + self._calm

    def on_ping_sent(self, now: float) -> None:
        """Note a PING; one that is due and cannot be sent, the path being full, is noted as well.

        Ask for `deadline` and `ping_deadline` again.
        """
        self.multiplier = self._patience.factor(now)
        if self._asked_at is not None:
            self._retry_after = min(2 * self._retry_after, self._options.ping_idle_max)
        else:
            if now >= self._heard_at + self._idle_share * self._idle_after:
                grown = self._idle_after * IDLE_GROWTH
                self._idle_after = min(grown, self._options.ping_idle_max)
            self._asked_at = now
            self.calm_until = -inf
            self._retry_after = self._quick_after()
            self._close_frames = 0
        self._pinged_at = now

    def on_loop_late(self, lag: float, now: float) -> None:
        """Note that our own loop ran `lag` seconds late, before `phi` is asked for again."""
        self._patience.on_loop_late(lag, now)
        self.multiplier = self._patience.factor(now)
        if self._asked_at is not None:
            self._asked_at = min(self._asked_at + lag, now)

    def phi(self, now: float) -> float:
        """Return the suspicion now: 0.0 while no answer is owed."""
        if self._asked_at is None:
            return 0.0
        mean, sigma = self._distribution()
        y = ((now - self._asked_at) / self.multiplier - mean) / sigma
        g = y * (_A + _B * y * y)
        return g / _LN_10 if g > 36 else log1p(exp(g)) / _LN_10  # beyond 36 the 1 is lost anyway

    def deadline(self, threshold: float) -> float:
        """Return when `phi` reaches the threshold (above 0) if the silence goes on.

        Infinity while no answer is owed: first comes the PING at `ping_deadline`.
        """
        if self._asked_at is None:
            return inf
        mean, sigma = self._distribution()
        wait = self.multiplier * (mean + _normal_score(threshold) * sigma)
        return self._asked_at + wait + _ROUNDING_S

    def ping_deadline(self, data_pending: bool) -> float:
        """Return when the next PING is due.

        With data pending it is after four round trips of silence, else after 2 s, rising to 10 s
        while nothing happens. An owed answer is asked for again as if data were pending, at
        doubling intervals.
        """
        if self._asked_at is not None:
            return self._pinged_at + self._retry_after
        if data_pending:
            return self._heard_at + self._quick_after()
        return self._heard_at + self._idle_share * self._idle_after

    def ping_due(self, now: float, data_pending: bool) -> bool:
        """Return whether a PING is due; send it and call `on_ping_sent`."""
        return now >= self.ping_deadline(data_pending)

    def _quick_after(self) -> float:
        options, smoothed = self._options, self._round_trip.smoothed
        if smoothed is None:
            return options.ping_after_max
        return min(max(4 * smoothed, options.ping_after_min), options.ping_after_max)

    def _sample(self, wait: float) -> None:
        wait_us = round(min(max(wait, 0.0), self._options.acceptable_pause) * 1e6)
        wait_us = min(wait_us, _WAIT_US_MAX)
        waits = self._waits
        if len(waits) < self._options.samples_max:
            waits.append(wait_us)
        else:
            oldest = waits[self._oldest]
            self._sum -= oldest
            self._square_sum -= oldest**2
            waits[self._oldest] = wait_us
            self._oldest = (self._oldest + 1) % len(waits)
        self._sum += wait_us
        self._square_sum += wait_us**2

    def _distribution(self) -> tuple[float, float]:
        """Return the mean, the acceptable pause included, and sigma of the waits."""
        count = len(self._waits)
        mean = self._sum / count * 1e-6
        variance_us2 = (self._square_sum * count - self._sum**2) / count**2
        sigma = max(sqrt(variance_us2) * 1e-6, SIGMA_MIN_S, mean / 4)
        return mean + self._options.acceptable_pause, sigma


def _normal_score(phi: float) -> float:
    """Return the y of which a phi is made: the real root of B y^3 + A y = g (by sinh)."""
    exponent = phi * _LN_10
    g = exponent if exponent > 36 else log(expm1(exponent))
    scale = sqrt(_A / (3 * _B))
    return 2 * scale * sinh(asinh(g / (2 * _B * scale**3)) / 3)
