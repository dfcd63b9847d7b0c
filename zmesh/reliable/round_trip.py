"""The round trip to one peer, and the time-outs that follow from it (RFC 9002)."""

from zmesh.options import LinkOptions


class RoundTrip:
    """Round-trip statistics of a link after RFC 9002 section 5.3. Times in seconds.

    Every transmission has its own packet number, so a sample is never ambiguous and
    retransmissions may be sampled as well.
    """

    __slots__ = ("_options", "deviation", "latest", "minimum", "smoothed")

    def __init__(self, options: LinkOptions) -> None:
        self._options = options
        self.reset()

    def reset(self) -> None:
        """Forget everything: the peer's path is another one now."""
        self.smoothed: float | None = None
        self.latest: float | None = None
        self.minimum: float | None = None
        self.deviation = 0.0

    def on_sample(self, rtt: float, ack_delay: float) -> None:
        """Take in one round trip: from sending the largest packet of an ACK to the ACK.

        `ack_delay` is how long the peer says it held the ACK back. It is believed up to
        `ack_delay_max`, and only where it does not make the trip shorter than the shortest seen.
        """
        self.latest = rtt
        smoothed = self.smoothed
        if smoothed is None or self.minimum is None:
            self.smoothed = self.minimum = rtt
            self.deviation = rtt / 2
            return
        self.minimum = min(self.minimum, rtt)
        adjusted = rtt - min(ack_delay, self._options.ack_delay_max)
        if adjusted < self.minimum:
            adjusted = rtt
        self.deviation += (abs(smoothed - adjusted) - self.deviation) / 4
        self.smoothed = smoothed + (adjusted - smoothed) / 8

    def probe_timeout(self, backoff_count: int, jitter: float) -> float:
        """Return how long to wait for an ACK before probing (RFC 9002 section 6.2.1).

        `backoff_count` is how many probes went unanswered already; each doubles the wait.
        `jitter` is a factor the caller draws from U(0.8, 1.2), so that links which broke
        together do not probe together. The result is within the floor and the ceiling.
        """
        options = self._options
        if self.smoothed is None:
            base = options.probe_timeout_initial
        else:
            spread = max(4 * self.deviation, options.granularity)
            base = max(self.smoothed + spread + options.ack_delay_max, options.probe_timeout_min)
        if backoff_count:
            base *= 2.0 ** min(backoff_count, 32)  # beyond any ceiling, short of overflow
        return min(max(base * jitter, options.probe_timeout_min), options.probe_timeout_max)

    def loss_delay(self) -> float:
        """Return how long after a packet a later one must be acked to call it lost.

        RFC 9002 section 6.1.2. Before the first sample this is the initial probe timeout.
        """
        if self.smoothed is None or self.latest is None:
            return self._options.probe_timeout_initial
        longest = max(self.smoothed, self.latest)
        return max(self._options.time_threshold * longest, self._options.granularity)

    def shortest_loop(self) -> float | None:
        """Return the least time in which every packet sent can be acknowledged, None if unknown.

        The shortest round trip of the path itself, and the delay the peer may add to an ACK.
        """
        return None if self.minimum is None else self.minimum + self._options.ack_delay_max
