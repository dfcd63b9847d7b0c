"""When a caller says HELLO again, and when either side stops waiting for the other."""

from math import inf

from zmesh.ids import Entropy
from zmesh.options import LinkOptions
from zmesh.patience import Patience

HELLO_TRIES_MAX = 4
"""HELLOs on one path without an answer; then another path is asked for."""


class HelloTimer:
    """When to say HELLO again, or to stop waiting for what should follow a handshake packet."""

    def __init__(self, options: LinkOptions, entropy: Entropy, patience: Patience) -> None:
        self._patience = patience
        self._options = options
        self._entropy = entropy
        self._tries = 0
        self.at = inf

    def begin(self) -> None:
        """Start to call on a path."""
        self._tries = 0

    def on_hello(self, now: float) -> None:
        """Note that HELLO was said; each waits twice as long for its answer as the one before."""
        options = self._options
        wait = min(options.hello_timeout * 2**self._tries, options.hello_timeout_max)
        wait *= self._patience.factor(now)
        self.at = now + wait * self._entropy.uniform(0.8, 1.2)
        self._tries += 1

    def on_welcome_sent(self, now: float) -> None:
        """Wait for the first packet of the link."""
        self.at = now + self._options.confirm_timeout * self._patience.factor(now)

    def on_loop_late(self, lag: float) -> None:
        """Wait longer: the time that this node's own loop was late is nobody else's silence."""
        self.at += lag

    def stop(self) -> None:
        """Wait for nothing any more."""
        self.at = inf

    @property
    def may_retry(self) -> bool:
        """Whether HELLO may be said again on this path."""
        return self._tries < HELLO_TRIES_MAX
