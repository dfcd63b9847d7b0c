"""The joiner's side: one code, one connection, and a mesh key at its end. Pure."""

from dataclasses import dataclass
from enum import Enum, auto

from zmesh.ids import Entropy
from zmesh.joining_errors import (
    InvitationBroken,
    InvitationBusy,
    InvitationDead,
    InvitationExpired,
    InvitationUsed,
    JoinFailed,
    NotTheInviter,
    WrongCode,
)
from zmesh.security import join_frames as frames
from zmesh.security.join_code import JoinCode
from zmesh.security.join_exchange import Exchange
from zmesh.security.join_frames import PROOF_BYTES, Garbage, Kind, Refusal
from zmesh.security.mesh_key import MeshKey


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class MeshNamed:
    """The inviter knows the code, and says which mesh it is. Call `accept`, or hang up."""

    mesh: str


@dataclass(frozen=True, slots=True)
class KeysReceived:
    """The mesh's keys, the one to use first. Keep them, then call `saved`."""

    keys: tuple[MeshKey, ...]


JoinerAction = SendMessage | MeshNamed | KeysReceived


class _Phase(Enum):
    STARTED = auto()  # HELLO went
    PROVING = auto()  # PROOF went
    ASKED = auto()  # the application was told the mesh
    ACCEPTED = auto()  # READY went
    RECEIVED = auto()  # the application has the keys
    DONE = auto()


_EXPECTED = {_Phase.STARTED: Kind.ANSWER, _Phase.PROVING: Kind.WELCOME, _Phase.ACCEPTED: Kind.KEYS}


class Joiner:
    """One attempt to join. Send `hello`, give it what comes, and perform what it returns.

    Args:
        code: as it was typed.
        address: of the other side, for errors.
        entropy: for its secrets.

    Raises:
        MissingPackage: `spake2` is not installed.
    """

    def __init__(self, code: JoinCode, address: str, entropy: Entropy) -> None:
        self._address = address
        self._exchange = Exchange("joiner", code, entropy)
        self._incoming = frames.Incoming()
        self._phase = _Phase.STARTED
        self.hello = self._exchange.note(frames.hello(self._exchange.message))
        """What is sent first."""

    def receive(self, data: bytes) -> list[JoinerAction]:
        """Take bytes that came; return what to do. After an error, hang up.

        Raises:
            JoinFailed: its kind says why there is no key to be had.
        """
        expected = _EXPECTED.get(self._phase)
        try:
            if expected is None:
                raise Garbage("nothing was expected")
            message = self._incoming.add(data, expected, Kind.REFUSED)
            if message is None:
                return []
            if message[0] == Kind.REFUSED:
                raise self._refused(message[1])
            return self._on_message(message)
        except Garbage as garbage:
            raise InvitationBroken(self._address, str(garbage)) from garbage

    def accept(self) -> bytes:
        """Return what to send where the mesh is the right one, and its key can be kept."""
        assert self._phase is _Phase.ASKED  # noqa: S101
        self._phase = _Phase.ACCEPTED
        return self._exchange.note(bytes([Kind.READY]) + self._exchange.prove("ready"))

    def saved(self) -> bytes:
        """Return what to send once the keys are kept: it ends the joining."""
        assert self._phase is _Phase.RECEIVED  # noqa: S101
        self._phase = _Phase.DONE
        return bytes([Kind.SAVED]) + self._exchange.prove("saved")

    def _on_message(self, message: bytes) -> list[JoinerAction]:
        exchange, body = self._exchange, message[1:]
        if self._phase is _Phase.STARTED:
            exchange.finish(body)
            exchange.note(message)
            self._phase = _Phase.PROVING
            proof = exchange.note(bytes([Kind.PROOF]) + exchange.prove("joiner"))
            return [SendMessage(proof)]
        if self._phase is _Phase.PROVING:
            proof, sealed = body[:PROOF_BYTES], body[PROOF_BYTES:]
            if not exchange.check("inviter", proof, sealed):
                raise NotTheInviter(self._address)
            mesh = frames.unpack_mesh(exchange.unseal("mesh", sealed))
            exchange.note(message)
            self._phase = _Phase.ASKED
            return [MeshNamed(mesh)]
        keys = frames.unpack_keys(exchange.unseal("keys", body))
        exchange.note(message)
        self._phase = _Phase.RECEIVED
        return [KeysReceived(keys)]

    def _refused(self, why: int) -> JoinFailed:
        match why:
            case Refusal.WRONG_CODE:
                return WrongCode(self._address)
            case Refusal.EXPIRED:
                return InvitationExpired()
            case Refusal.USED:
                return InvitationUsed()
            case Refusal.DEAD:
                return InvitationDead()
            case Refusal.BUSY:
                return InvitationBusy(self._address)
            case _:
                raise Garbage("a refusal that is none")
