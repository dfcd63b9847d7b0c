"""Why a device did not get the mesh key by a code. Never with the code or a key in them."""

from collections.abc import Sequence

from zmesh.errors import UsageError
from zmesh.security_errors import SecurityError


class InvalidCode(UsageError):
    """What was typed is no code; nothing was sent."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"that is no code ({why}): type it as `zmesh invite` shows it")


class NothingToShare(UsageError):
    """This device has no key of the mesh that it should invite to."""

    def __init__(self, mesh: str) -> None:
        self.mesh = mesh
        super().__init__(
            f"there is no key of mesh {mesh!r} here: make one with `zmesh keys new`, or say where "
            "it is with key= (`--key-file`), ZMESH_KEY or ZMESH_KEY_FILE"
        )


class JoinFailed(SecurityError):
    """A device could not join by a code; the kind tells why."""


class WrongCode(JoinFailed):
    """The inviting side says that the code is not its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            f"{address} says that the code is wrong: compare it with what `zmesh invite` shows, "
            "and try again while that waits (three wrong attempts end it)"
        )


class NotTheInviter(JoinFailed):
    """Who answered does not know the code; it learned nothing of it but one wrong guess."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            f"who answered at {address} does not know the code: somebody may stand between. "
            "Withdraw the invitation, look who that is, and name the right device with its "
            "address (`--at`)"
        )


class InvitationExpired(JoinFailed):
    """The invitation is too old."""

    def __init__(self) -> None:
        super().__init__("the invitation has expired: make a new one, and use its code")


class InvitationUsed(JoinFailed):
    """Another device got the key by this invitation."""

    def __init__(self) -> None:
        super().__init__(
            "the invitation was used, and is good for one device: make a new one. If no other "
            "device of yours used it, its code leaked: then rotate the mesh key"
        )


class InvitationDead(JoinFailed):
    """There were too many wrong attempts at an invitation."""

    def __init__(self) -> None:
        super().__init__(
            "the invitation is dead after too many wrong attempts: make a new one. If nobody "
            "mistyped the code, somebody on the network guesses: the audit log says who"
        )


class InvitationBusy(JoinFailed):
    """Too many devices try one invitation, or one did not come to an end in time."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(f"{address} is busy with others: try again in a minute")


class InvitationBroken(JoinFailed):
    """The connection ended, or what came was not the protocol; nothing was saved."""

    def __init__(self, address: str, why: str) -> None:
        self.address = address
        self.why = why
        super().__init__(
            f"the exchange with {address} broke off ({why}): look whether `zmesh invite` still "
            "waits there, and try again"
        )


class NobodyInvites(JoinFailed):
    """No invitation was found, or it cannot be reached."""

    def __init__(self, nameplate: str, why: str) -> None:
        self.nameplate = nameplate
        self.why = why
        super().__init__(
            f"no invitation {nameplate} was found ({why}): see that `zmesh invite` still waits, "
            "and on this network; where mDNS does not reach, name its address with `--at`. Or it "
            "has expired, or somebody else used the code: the other screen tells. If that was no "
            "device of yours, rotate the mesh key"
        )


class AmbiguousInvitation(JoinFailed):
    """Several invitations carry the first digits of the code."""

    def __init__(self, nameplate: str, endpoints: Sequence[str]) -> None:
        self.nameplate = nameplate
        self.endpoints = tuple(endpoints)
        super().__init__(
            f"several invitations are called {nameplate} (at {', '.join(endpoints)}): name the "
            "right one's address with `--at`, or make a new one"
        )


class OtherMesh(JoinFailed):
    """The invitation is to another mesh than the one wanted; nothing was saved."""

    def __init__(self, wanted: str, invited: str) -> None:
        self.wanted = wanted
        self.invited = invited
        super().__init__(
            f"the invitation is to mesh {invited!r} and not to {wanted!r}: join without naming a "
            "mesh, or have the other one invite"
        )


class KeyFileExists(JoinFailed):
    """There is a key file where the key would go; it stays as it is."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"there is a key in {path} already, and it stays: move it away, or name another file "
            "with `--file`; the invitation still waits"
        )
