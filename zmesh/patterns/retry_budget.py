"""How many requests may be sent beside the first of each call, so that load makes no more load.

When every provider is slow or failing, retries and hedges multiply the requests that made them
so. A token bucket keeps them to a share of the calls, as Finagle's `RetryBudget` and gRPC's retry
throttling (proposal A6) do. A request that no handler began with costs no token, as in A6.
"""

from zmesh.options import NodeOptions


class RetryBudget:
    """Tokens: each call brings a part of one, time brings some, each retry or hedge takes one."""

    def __init__(self, options: NodeOptions, now: float) -> None:
        self._options = options
        self._tokens = options.retries_saved_max
        self._at = now

    def on_calls(self, count: int = 1) -> None:
        """Count calls."""
        self._add(count * self._options.retries_per_call)

    def take(self, now: float) -> bool:
        """Return whether one more request may be sent now; then it is counted."""
        self._add((now - self._at) * self._options.retries_per_second)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _add(self, tokens: float) -> None:
        self._tokens = min(self._options.retries_saved_max, self._tokens + tokens)
