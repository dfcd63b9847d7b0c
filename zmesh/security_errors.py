"""Errors of keys, trust and signatures. Never with a secret in them."""

from typing import Final

from zmesh.errors import DeliveryError, Rejected, ZmeshError

SIGNATURE_REFUSED: Final = "signature refused: "
"""Reasons that begin so are about signatures."""


class SecurityError(ZmeshError):
    """The operator must mend keys, trust or what guards them."""


class InvalidKey(SecurityError):
    """What should be a key is none."""

    def __init__(self, where: str, why: str) -> None:
        self.where = where
        self.why = why
        super().__init__(f"{where} is no valid key: {why}")


class NotAllowed(DeliveryError):
    """Somebody's rules do not allow what was tried; whoever makes the rules must change them."""

    def __init__(self, action: str, name: str, by: str, rule: str) -> None:
        self.action = action  # "call", "publish", ...
        self.name = name  # of the service, topic, queue or group
        self.by = by  # whose rules they are
        self.rule = rule
        super().__init__(f"{by} does not allow this node to {action} {name!r}: {rule}")


class SignatureRefused(Rejected):
    """The receiver refused the message for its signature, or for want of one."""

    def __init__(self, peer: str, why: str) -> None:
        self.why = why
        super().__init__(peer, SIGNATURE_REFUSED + why)


def rejected(peer: str, reason: str) -> Rejected:
    """Return the error that tells why a receiver refused a message."""
    if reason.startswith(SIGNATURE_REFUSED):
        return SignatureRefused(peer, reason.removeprefix(SIGNATURE_REFUSED))
    return Rejected(peer, reason)
