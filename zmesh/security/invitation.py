"""The inviter's side: one code, many strangers, one guest. Pure; time is an argument.

A connection goes SILENT, WAITING, TRYING, PROVED, SENT. Anybody may be silent or wait; one at a
time tries, and has got from us what a guess can be tested with. Whoever then does not prove that
it knows the code, by a wrong proof, garbage, silence or going away, has used up an attempt.
"""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import assert_never

from zmesh.ids import Entropy
from zmesh.options import JoiningOptions
from zmesh.security import join_frames as frames
from zmesh.security.join_code import JoinCode
from zmesh.security.join_exchange import Exchange
from zmesh.security.join_frames import Garbage, Kind, Refusal
from zmesh.security.mesh_key import MeshKey


class InvitationState(Enum):
    """What becomes of an invitation. All but OPEN are for good."""

    OPEN = "open"
    USED = "used"  # the key was sent to one who proved to know the code
    EXPIRED = "expired"
    DEAD = "dead"  # too many wrong attempts


# Events


@dataclass(frozen=True, slots=True)
class Connected:
    """Somebody connected."""

    connection: int
    address: str


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes came over a connection."""

    connection: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A connection ended."""

    connection: int


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The deadline came."""


InviterEvent = Connected | Received | Disconnected | TimerFired


# Actions


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send these bytes."""

    connection: int
    data: bytes


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close a connection once what was sent is out. Nothing of it is heard any more."""

    connection: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """Somebody tried and did not know the code."""

    address: str
    why: str
    attempts_left: int


@dataclass(frozen=True, slots=True)
class GuestJoined:
    """A device that knew the code was sent the key."""

    address: str
    is_saved: bool  # it says that it keeps it; else that is not known


@dataclass(frozen=True, slots=True)
class InvitationEnded:
    """The invitation ended without a guest."""

    state: InvitationState


InvitationNews = AttemptFailed | GuestJoined | InvitationEnded
InviterAction = SendMessage | HangUp | InvitationNews


# The machine


class _Phase(Enum):
    SILENT = auto()  # said nothing whole yet
    WAITING = auto()  # said HELLO; others come first
    TRYING = auto()  # got our SPAKE2 message
    PROVED = auto()  # knows the code
    SENT = auto()  # got the key


_EXPECTED = {
    _Phase.SILENT: (Kind.HELLO,),
    _Phase.WAITING: (),
    _Phase.TRYING: (Kind.PROOF,),
    _Phase.PROVED: (Kind.READY,),
    _Phase.SENT: (Kind.SAVED,),
}

_REFUSALS = {
    InvitationState.USED: Refusal.USED,
    InvitationState.EXPIRED: Refusal.EXPIRED,
    InvitationState.DEAD: Refusal.DEAD,
}


@dataclass(slots=True)
class _Stranger:
    connection: int
    address: str
    deadline_s: float
    phase: _Phase = _Phase.SILENT
    incoming: frames.Incoming = field(default_factory=frames.Incoming)
    hello: bytes = b""
    exchange: Exchange | None = None


class Inviter:
    """One invitation. Give it every event, perform what it returns, and fire at `deadline_s`.

    Args:
        code: what the guest will type.
        mesh: its name; at most `MESH_BYTES_MAX` bytes.
        keys: of the mesh, the one to use first; 1 to `KEYS_MAX`.
        now_s: the time, as in `handle`.
        entropy: for each attempt's secrets.
        options: times and bounds.
    """

    def __init__(
        self,
        code: JoinCode,
        mesh: str,
        keys: tuple[MeshKey, ...],
        *,
        now_s: float,
        entropy: Entropy,
        options: JoiningOptions,
    ) -> None:
        self._code = code
        self._mesh = frames.pack_mesh(mesh)
        self._keys = frames.pack_keys(keys)
        self._entropy = entropy
        self._options = options
        self._expires_s = now_s + options.expires
        self._open_again_s = now_s  # after a wrong attempt
        self._strangers: dict[int, _Stranger] = {}  # in the order they came
        self._active: _Stranger | None = None
        self.state = InvitationState.OPEN
        self.attempts_left = options.attempts_max

    @property
    def deadline_s(self) -> float | None:
        """When `TimerFired` is due; None where nothing is waited for."""
        deadlines = [
            each.deadline_s
            for each in self._strangers.values()
            if each.phase is not _Phase.WAITING
        ]
        if self.state is InvitationState.OPEN:
            deadlines.append(self._expires_s)
            if self._active is None and self._next() is not None:
                deadlines.append(self._open_again_s)
        return min(deadlines, default=None)

    @property
    def connections(self) -> int:
        """How many are looked after."""
        return len(self._strangers)

    def handle(self, event: InviterEvent, now_s: float) -> list[InviterAction]:
        """Take an event; return what to do, in order. Then look at `deadline_s`."""
        actions: list[InviterAction] = []
        if self.state is InvitationState.OPEN and now_s >= self._expires_s:
            actions += self._end(InvitationState.EXPIRED)
        match event:
            case Connected(connection, address):
                actions += self._on_connected(connection, address, now_s)
            case Received(connection, data):
                actions += self._on_received(connection, data, now_s)
            case Disconnected(connection):
                if connection in self._strangers:
                    stranger = self._strangers[connection]
                    actions += self._drop(stranger, "it went away", now_s, is_there=False)
            case TimerFired():
                actions += self._on_timer(now_s)
            case _:
                assert_never(event)
        return actions + self._serve_next(now_s)

    def _on_connected(self, connection: int, address: str, now_s: float) -> list[InviterAction]:
        if self.state is not InvitationState.OPEN:
            return _refuse(connection, _REFUSALS[self.state])
        actions: list[InviterAction] = []
        if len(self._strangers) >= self._options.connections_max:
            # A joiner speaks at once, so who is silent for longest is the least likely to be one.
            silent = (one for one in self._strangers.values() if one.phase is _Phase.SILENT)
            oldest = next(silent, None)
            if oldest is None:
                return _refuse(connection, Refusal.BUSY)
            actions += self._drop(oldest, "others came", now_s)
        deadline_s = now_s + self._options.silence_max
        self._strangers[connection] = _Stranger(connection, address, deadline_s)
        return actions

    def _on_received(self, connection: int, data: bytes, now_s: float) -> list[InviterAction]:
        stranger = self._strangers.get(connection)
        if stranger is None:
            return []  # on its way while we hung up
        try:
            message = stranger.incoming.add(data, *_EXPECTED[stranger.phase])
            if message is None:
                return []
            if stranger.phase is _Phase.SILENT:
                frames.exchange_of_hello(message)
                stranger.hello = message
                stranger.phase = _Phase.WAITING
                return []
            return self._on_message(stranger, message, now_s)
        except Garbage as garbage:
            return self._drop(stranger, str(garbage), now_s)

    def _on_message(
        self, stranger: _Stranger, message: bytes, now_s: float
    ) -> list[InviterAction]:
        """Take what the one whose turn it is says."""
        exchange, body = stranger.exchange, message[1:]
        assert exchange is not None  # noqa: S101  # since its turn
        stranger.deadline_s = now_s + self._options.answer_max
        if stranger.phase is _Phase.TRYING:
            if not exchange.check("joiner", body):
                return self._drop(stranger, "its code is wrong", now_s, Refusal.WRONG_CODE)
            exchange.note(message)
            stranger.phase = _Phase.PROVED
            sealed = exchange.seal("mesh", self._mesh)
            proof = exchange.prove("inviter", sealed)
            welcome = exchange.note(bytes([Kind.WELCOME]) + proof + sealed)
            return [SendMessage(stranger.connection, welcome)]
        if stranger.phase is _Phase.PROVED:
            if not exchange.check("ready", body):
                return self._drop(stranger, "a message was tampered with", now_s)
            exchange.note(message)
            stranger.phase = _Phase.SENT
            self.state = InvitationState.USED
            sealed = exchange.seal("keys", self._keys)
            keys = exchange.note(bytes([Kind.KEYS]) + sealed)
            return [SendMessage(stranger.connection, keys), *self._refuse_others(stranger)]
        if not exchange.check("saved", body):
            return self._drop(stranger, "a message was tampered with", now_s)
        self._forget(stranger)
        return [GuestJoined(stranger.address, is_saved=True), HangUp(stranger.connection)]

    def _on_timer(self, now_s: float) -> list[InviterAction]:
        late = [
            each
            for each in self._strangers.values()
            if each.phase is not _Phase.WAITING and now_s >= each.deadline_s
        ]
        actions: list[InviterAction] = []
        for each in late:
            if each.connection in self._strangers:  # still, after what became of the others
                actions += self._drop(each, "it fell silent", now_s)
        return actions

    def _serve_next(self, now_s: float) -> list[InviterAction]:
        """Let the next one try, where nobody does and the pause is over."""
        actions: list[InviterAction] = []
        while (
            self.state is InvitationState.OPEN
            and self._active is None
            and now_s >= self._open_again_s
            and (stranger := self._next()) is not None
        ):
            exchange = Exchange("inviter", self._code, self._entropy)
            try:
                exchange.finish(frames.exchange_of_hello(stranger.hello))
            except Garbage as garbage:
                actions += self._drop(stranger, str(garbage), now_s)
                continue
            self._active = stranger
            stranger.exchange = exchange
            stranger.phase = _Phase.TRYING
            stranger.deadline_s = now_s + self._options.answer_max
            exchange.note(stranger.hello)
            answer = exchange.note(bytes([Kind.ANSWER]) + exchange.message)
            actions.append(SendMessage(stranger.connection, answer))
        return actions

    def _next(self) -> _Stranger | None:
        waiting = (one for one in self._strangers.values() if one.phase is _Phase.WAITING)
        return next(waiting, None)

    def _drop(
        self,
        stranger: _Stranger,
        why: str,
        now_s: float,
        refusal: Refusal | None = None,
        *,
        is_there: bool = True,
    ) -> list[InviterAction]:
        """Hang up on somebody; that is an attempt where it had its turn and proved nothing."""
        self._forget(stranger)
        actions: list[InviterAction] = []
        if is_there:
            actions += _refuse(stranger.connection, refusal)
        if stranger.phase is _Phase.TRYING:
            self.attempts_left -= 1
            self._open_again_s = now_s + self._options.pause
            actions.append(AttemptFailed(stranger.address, why, self.attempts_left))
            if self.attempts_left == 0:
                actions += self._end(InvitationState.DEAD)
        elif stranger.phase is _Phase.SENT:
            actions.append(GuestJoined(stranger.address, is_saved=False))
        return actions

    def _forget(self, stranger: _Stranger) -> None:
        del self._strangers[stranger.connection]
        if stranger is self._active:
            self._active = None

    def _end(self, state: InvitationState) -> list[InviterAction]:
        self.state = state
        return [*self._refuse_others(None), InvitationEnded(state)]

    def _refuse_others(self, guest: _Stranger | None) -> list[InviterAction]:
        """Tell everybody but the guest that there is nothing more to be had."""
        actions: list[InviterAction] = []
        for each in list(self._strangers.values()):
            if each is not guest:
                self._forget(each)
                actions += _refuse(each.connection, _REFUSALS[self.state])
        return actions


def _refuse(connection: int, why: Refusal | None) -> list[InviterAction]:
    if why is None:
        return [HangUp(connection)]
    return [SendMessage(connection, frames.refused(why)), HangUp(connection)]
