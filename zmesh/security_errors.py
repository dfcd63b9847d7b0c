"""Errors of keys, trust and signatures. Never with a secret in them."""

from shlex import quote
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


def check_text(text: object, where: str) -> None:
    """Raise InvalidKey unless what should be the text of a key is a text."""
    if not isinstance(text, str):
        raise InvalidKey(where, f"a text is needed, and not {type(text).__name__}")


class KeyFileError(SecurityError):
    """A key file cannot be used."""

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"the key file {path} {why}")


class NoKeyFile(KeyFileError):
    """There is no such key file."""

    def __init__(self, path: str, command: str = "zmesh keys new --file") -> None:
        super().__init__(path, f"is not there: make one with `{command}`, or copy it")


class KeyFileExposed(KeyFileError):
    """Others than its owner may get at a key file, so what is in it may be known already."""

    def __init__(self, path: str, mode: int) -> None:
        self.mode = mode
        super().__init__(
            path,
            f"is open to others (mode {mode:04o}): run `chmod 600 {quote(path)}`, and rotate the "
            "key if somebody else was on this machine",
        )


class NodeKeyMissing(SecurityError):
    """A journal is from before node keys, so its node cannot prove who it is."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"the journal {path} has no node key, which a mesh with a key asks every node for: "
            "open it without a key (key=()) to let it finish what it holds, then give the node a "
            "new storage"
        )


class InvalidTrust(SecurityError):
    """What `trust=` names cannot be used: a key, a list of revoked ones, or the rules."""

    def __init__(self, where: str, why: str) -> None:
        self.where = where  # the file, with the line or the rule where one is known
        self.why = why
        super().__init__(f"{where}: {why}")


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
