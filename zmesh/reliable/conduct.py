"""How a peer behaves: rules it broke, and what it is told of it how often."""

from zmesh.options import LinkOptions

COMPLAINT_INTERVAL_S = 1.0
"""A peer that uses a link we gave up is told so at most this often."""


class Conduct:
    """Counts violations; after a few in a short time the peer is refused for a while."""

    def __init__(self, options: LinkOptions, now: float) -> None:
        self._options = options
        self._violations: list[float] = []  # when; no deque, which takes 760 bytes when empty
        self.refused_until = now
        self._complained_at = now - COMPLAINT_INTERVAL_S

    def refused(self, now: float) -> bool:
        """Whether the peer was cut off and is not listened to."""
        return now < self.refused_until

    def on_violation(self, now: float) -> bool:
        """Count a broken rule; True where it was one too many: cut the peer off."""
        violations, options = self._violations, self._options
        violations.append(now)
        most = max(1, options.violations_max)
        del violations[:-most]
        if len(violations) != most or now - violations[0] > options.violations_within:
            return False
        violations.clear()
        self.refused_until = now + options.refusal
        return True

    def may_complain(self, now: float) -> bool:
        """Whether the peer may be told again; True counts as having told it."""
        if now < self._complained_at + COMPLAINT_INTERVAL_S:
            return False
        self._complained_at = now
        return True
