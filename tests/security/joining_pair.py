"""An inviter and joiners, joined by hand: literal times, seeded secrets, no socket."""

from random import Random

from zmesh.options import JoiningOptions
from zmesh.security.invitation import (
    AttemptFailed,
    Connected,
    Disconnected,
    GuestJoined,
    HangUp,
    InvitationEnded,
    Inviter,
    InviterAction,
    Received,
    SendMessage,
    TimerFired,
)
from zmesh.security.join_code import JoinCode
from zmesh.security.joining import Joiner
from zmesh.security.mesh_key import MeshKey

CODE = JoinCode.parse("417-7KQM-3XTA")
WRONG = JoinCode.parse("417-7KQM-3XTB")
KEYS = (MeshKey(bytes(range(32))), MeshKey(b"o" * 32))
OPTIONS = JoiningOptions()


class Seeded:
    """Randomness that repeats."""

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed)

    def token(self, size: int, /) -> bytes:
        return self._random.randbytes(size)

    def uniform(self, low: float, high: float, /) -> float:
        return self._random.uniform(low, high)


class Host:
    """An inviter, and what it did to each connection."""

    def __init__(self, options: JoiningOptions = OPTIONS, mesh: str = "cameras") -> None:
        self.now_s = 1000.0
        self.inviter = Inviter(
            CODE, mesh, KEYS, now_s=self.now_s, entropy=Seeded(1), options=options
        )
        self.sent: dict[int, list[bytes]] = {}
        self.hung_up: set[int] = set()
        self.news: list[AttemptFailed | GuestJoined | InvitationEnded] = []

    def connect(self, connection: int) -> None:
        self.sent[connection] = []
        self._perform(self.inviter.handle(Connected(connection, f"host{connection}"), self.now_s))

    def give(self, connection: int, data: bytes) -> None:
        self._perform(self.inviter.handle(Received(connection, data), self.now_s))

    def leave(self, connection: int) -> None:
        self._perform(self.inviter.handle(Disconnected(connection), self.now_s))

    def fire(self) -> None:
        """Let time pass until the deadline."""
        deadline_s = self.inviter.deadline_s
        assert deadline_s is not None
        self.now_s = max(self.now_s, deadline_s)
        self._perform(self.inviter.handle(TimerFired(), self.now_s))

    def take(self, connection: int) -> bytes:
        """Return what was sent since the last time."""
        taken = b"".join(self.sent[connection])
        self.sent[connection] = []
        return taken

    def _perform(self, actions: list[InviterAction]) -> None:
        for action in actions:
            match action:
                case SendMessage(connection, data):
                    assert connection not in self.hung_up
                    self.sent[connection].append(data)
                case HangUp(connection):
                    self.hung_up.add(connection)
                case _:
                    self.news.append(action)


def joiner(code: JoinCode = CODE, seed: int = 2) -> Joiner:
    return Joiner(code, "host:1", Seeded(seed))
