"""A network of simulated hosts: connections as ZeroMQ makes them over TCP, and what befalls them.

A connection is dialed by one host (its path there is an `int`) and accepted by another (its path
there is `bytes`); each direction keeps the order of what it carries. Faults:

- *weather* strikes single packets, by chance: loss, duplication, reordering, delay, corruption;
- a *cut* stops one direction between two hosts until it heals; TCP keeps what was sent, and
  gives the connection up where that takes too long;
- a *black hole* swallows what existing connections carry, and nobody is told;
- a *reset* ends connections, and both ends hear of it;
- a process that dies closes its connections and refuses new ones; a host without power does
  neither, and is noticed by its silence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Generic, Protocol, TypeVar

from zmesh.events import (
    InboundClosed,
    PathCause,
    PathDown,
    PathFull,
    PathUp,
    PathWritable,
    ProbeAnswered,
)
from zmesh.ids import Path
from zmesh.testing.clock import EventQueue

P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)

NetworkEvent = PathUp | PathDown | InboundClosed | PathFull | PathWritable | ProbeAnswered

_SYN_RETRY = 0.5  # seconds between attempts to connect


class Port(Protocol[P_contra]):
    """What the network needs of a host's process."""

    @property
    def index(self) -> int:
        """Which host this is."""
        ...

    def deliver(self, event: NetworkEvent) -> None:
        """Take news of a path."""
        ...

    def receive(self, path: Path, packet: P_contra) -> None:
        """Take a packet; `Network.consumed` is told when the application read it."""
        ...


@dataclass(slots=True)
class Weather:
    """What befalls the packets one host sends another. Chances from 0 to 1, times in seconds."""

    delay: float = 0.000_2  # at least
    jitter: float = 0.000_3  # more, at most
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    reordering_delay: float = 0.05  # how long a packet that is overtaken is held back, at most
    corruption: float = 0.0

    @property
    def fair(self) -> bool:
        """Whether nothing but delay befalls packets."""
        return not (self.loss or self.duplication or self.reordering or self.corruption)


class _Socket(Generic[P]):
    """One end of a connection."""

    __slots__ = (
        "backlog", "black_holed", "closing", "connection", "full", "last_arrival", "open", "path",
        "peer", "port", "unread",
    )  # fmt: skip

    def __init__(self, port: Port[P], path: Path, connection: bytes = b"") -> None:
        self.port = port
        self.path = path
        self.connection = connection  # the public key of who dials, on a CURVE mesh
        self.peer: _Socket[P] = self
        self.open = True
        self.black_holed = False
        self.last_arrival = 0.0  # of what this end sent
        self.backlog: list[P] = []  # sent behind a cut
        self.closing = False  # closed behind a cut: the peer will hear of it when that heals
        self.unread = 0  # sent, and not yet read by the peer's application
        self.full = False


class Network(Generic[P]):
    """All connections between the hosts. Packets are whatever the hosts exchange."""

    def __init__(
        self,
        queue: EventQueue,
        random: Random,
        *,
        corrupt: Callable[[int, int, P, Random], P],
        unread_max: int = 1000,
        dial_timeout: float = 2.0,
        give_up_after: float = 12.0,
    ) -> None:
        self._queue = queue
        self._random = random
        self._corrupt = corrupt
        self._unread_max = unread_max
        self._dial_timeout = dial_timeout
        self._give_up_after = give_up_after
        self._machines: dict[str, int] = {}  # endpoint -> host
        self._listening: dict[str, Port[P]] = {}
        self._sockets: dict[tuple[int, Path], _Socket[P]] = {}  # by host and path, open ones
        self._connections: dict[int, _Socket[P]] = {}  # the dialing ends
        self._number = 0
        self._weather: dict[tuple[int, int], Weather] = {}
        self._cuts: dict[tuple[int, int], int] = {}  # how many faults cut this direction now
        self._dark: set[int] = set()
        self._undialable: set[int] = set()
        self.calm = Weather()
        self.struck = 0  # packets that weather befell
        self.on_sent: Callable[[int, int, P], None] = _ignore

    # What hosts do

    def listen(self, port: Port[P], endpoint: str) -> None:
        """Accept connections to `endpoint` from now on."""
        self._machines[endpoint] = port.index
        self._listening[endpoint] = port

    def dial(self, port: Port[P], path: int, endpoint: str, connection: bytes = b"") -> None:
        """Connect; PathUp or PathDown tells how it went.

        `connection` is what the other end sees as the proved key of who dials, on a CURVE mesh.
        """
        socket: _Socket[P] = _Socket(port, path, connection)
        self._sockets[port.index, path] = socket
        self._connect(
            port.index,
            endpoint,
            self._queue.now + self._dial_timeout,
            lambda cause: self._dialed(socket, path, endpoint, cause),
        )

    def probe(self, port: Port[P], endpoint: str, timeout: float) -> None:
        """Try a fresh connection; ProbeAnswered tells whether there is anybody."""
        self._connect(
            port.index,
            endpoint,
            self._queue.now + timeout,
            lambda cause: port.deliver(ProbeAnswered(endpoint, cause)),
        )

    def hang_up(self, port: Port[P], path: Path) -> None:
        """Close a connection at this end; the other end hears of it when it can."""
        socket = self._sockets.get((port.index, path))
        if socket is not None:
            self._close(socket)

    def send(self, port: Port[P], path: Path, packet: P) -> None:
        """Send a packet, or tell the host by PathFull or PathDown that it was not sent."""
        socket = self._sockets.get((port.index, path))
        if socket is None:
            if isinstance(path, bytes):
                port.deliver(PathDown(path, PathCause.UNROUTABLE))
            return
        if socket.unread >= self._unread_max:
            socket.full = True
            port.deliver(PathFull(path))
            return
        socket.unread += 1
        there = socket.peer.port.index
        self.on_sent(port.index, there, packet)
        if socket.black_holed:
            return
        if self._cuts.get((port.index, there)):
            socket.backlog.append(packet)
        else:
            self._transmit(socket, packet)

    def other_end(self, port: Port[P], path: Path) -> int | None:
        """Return which host a path leads to, while it is open."""
        socket = self._sockets.get((port.index, path))
        return None if socket is None else socket.peer.port.index

    def consumed(self, port: Port[P], path: Path) -> None:
        """Tell that the host read a packet that came on this path."""
        socket = self._sockets.get((port.index, path))
        if socket is None:
            return
        sender = socket.peer
        sender.unread -= 1
        if sender.full and sender.unread <= self._unread_max // 2:
            sender.full = False
            sender.port.deliver(PathWritable(sender.path))

    # What befalls them

    def weather(self, source: int, target: int) -> Weather:
        """Return what befalls packets from `source` to `target`."""
        return self._weather.get((source, target), self.calm)

    def set_weather(self, source: int, target: int, weather: Weather | None) -> None:
        """Change what befalls packets from `source` to `target`; None: calm again."""
        if weather is None:
            self._weather.pop((source, target), None)
        else:
            self._weather[source, target] = weather

    def cut(self, source: int, target: int) -> None:
        """Let nothing pass from `source` to `target` until `heal`, as often as cut."""
        self._cuts[source, target] = self._cuts.get((source, target), 0) + 1
        if self._cuts[source, target] == 1:
            self._queue.after(self._give_up_after, self._give_up, source, target)

    def heal(self, source: int, target: int) -> None:
        """Undo one cut; with the last, what TCP kept goes on its way."""
        self._cuts[source, target] -= 1
        if self._cuts[source, target]:
            return
        for socket in self._between(source, target):
            backlog, socket.backlog = socket.backlog, []
            for packet in backlog:
                self._transmit(socket, packet)
            if socket.closing:
                self._announce_close(socket)

    def is_cut(self, source: int, target: int) -> bool:
        """Return whether nothing passes from `source` to `target` now."""
        return bool(self._cuts.get((source, target)))

    def black_hole(self, one: int, other: int) -> None:
        """Swallow all that the connections now open between two hosts carry, either way.

        TCP keepalive ends such connections at last.
        """
        for socket in [*self._between(one, other), *self._between(other, one)]:
            socket.black_holed = True
            self._queue.after(self._give_up_after, self._abort, socket)

    @property
    def black_holes(self) -> bool:
        """Whether connections swallow everything, and nobody was told yet."""
        return any(socket.black_holed for socket in self._sockets.values())

    def reset(self, one: int, other: int) -> None:
        """End the connections now open between two hosts; both ends hear of it."""
        for socket in [*self._between(one, other), *self._between(other, one)]:
            self._queue.after(self._latency(socket), self._abort, socket)

    def inject(self, source: int, target: int, packet: P) -> None:
        """Let a packet arrive once more, on the newest connection that is up."""
        for socket in reversed(self._between(source, target)):
            if socket.open and socket.peer.open and not self.is_cut(source, target):
                self.struck += 1
                socket.unread += 1
                self._queue.after(self._latency(socket), self._arrive, socket, packet)
                return

    def kill(self, port: Port[P], *, dark: bool = False) -> None:
        """End a process. Its connections close, unless the host went `dark` with it."""
        for endpoint in [at for at, owner in self._listening.items() if owner is port]:
            del self._listening[endpoint]
        if dark:
            self._dark.add(port.index)
        for socket in [s for s in self._sockets.values() if s.port is port]:
            if dark:
                self._forget(socket)
                # Nobody is told; keepalive ends such connections at last.
                self._queue.after(self._give_up_after, self._abort, socket.peer)
            else:
                self._close(socket)

    def power(self, index: int) -> None:
        """Give a dark host its power back: it answers for connections it no longer knows."""
        self._dark.discard(index)

    def shield(self, index: int) -> None:
        """Let nobody dial this host, which may dial others: it sits behind a firewall."""
        self._undialable.add(index)

    # Connecting

    def _connect(
        self, source: int, endpoint: str, deadline: float, done: Callable[[PathCause | None], None]
    ) -> None:
        weather = self.weather(source, self._machines.get(endpoint, source))
        delay = 2 * (weather.delay + weather.jitter * self._random.random())
        self._queue.after(delay, self._try_connect, source, endpoint, deadline, done)

    def _try_connect(
        self, source: int, endpoint: str, deadline: float, done: Callable[[PathCause | None], None]
    ) -> None:
        target = self._machines.get(endpoint)
        silent = target is not None and (
            target in self._dark
            or target in self._undialable
            or self.is_cut(source, target)
            or self.is_cut(target, source)
        )
        if not silent:
            done(None if endpoint in self._listening else PathCause.REFUSED)
        elif self._queue.now + _SYN_RETRY < deadline:
            self._queue.after(_SYN_RETRY, self._try_connect, source, endpoint, deadline, done)
        else:
            self._queue.at(deadline, done, PathCause.UNREACHABLE)

    def _dialed(
        self, socket: _Socket[P], path: int, endpoint: str, cause: PathCause | None
    ) -> None:
        if not socket.open:
            return
        if cause is not None:
            self._forget(socket)
            socket.port.deliver(PathDown(path, cause))
            return
        self._number += 1
        # libzmq names an inbound connection by a zero and a counter
        accepted: _Socket[P] = _Socket(
            self._listening[endpoint],
            b"\0" + self._number.to_bytes(4, "big") + socket.connection,
        )
        accepted.peer, socket.peer = socket, accepted
        self._sockets[accepted.port.index, accepted.path] = accepted
        self._connections[self._number] = socket
        socket.port.deliver(PathUp(path))

    # Carrying

    def _transmit(self, socket: _Socket[P], packet: P) -> None:
        random = self._random.random
        weather = self.weather(socket.port.index, socket.peer.port.index)
        arrival = self._queue.now + weather.delay + weather.jitter * random()
        if weather.fair:
            socket.last_arrival = max(arrival, socket.last_arrival)
            self._queue.at(socket.last_arrival, self._arrive, socket, packet)
            return
        if random() < weather.corruption:
            self.struck += 1
            hosts = socket.port.index, socket.peer.port.index
            packet = self._corrupt(*hosts, packet, self._random)
        if random() < weather.duplication:
            self.struck += 1
            socket.unread += 1
            late = arrival + weather.reordering_delay * random()
            self._queue.at(late, self._arrive, socket, packet)
        if random() < weather.loss:
            self.struck += 1
            socket.unread -= 1
        elif random() < weather.reordering:
            self.struck += 1
            late = arrival + weather.reordering_delay * random()
            self._queue.at(late, self._arrive, socket, packet)
        else:
            socket.last_arrival = max(arrival, socket.last_arrival)
            self._queue.at(socket.last_arrival, self._arrive, socket, packet)

    def _arrive(self, socket: _Socket[P], packet: P) -> None:
        there = socket.peer
        if socket.black_holed:
            return
        if there.open:
            there.port.receive(there.path, packet)
        elif there.port.index not in self._dark:
            # TCP answers what comes for a connection it does not know with a reset.
            self._queue.after(self._latency(there), self._abort, socket)

    # Ending

    def _close(self, socket: _Socket[P]) -> None:
        self._forget(socket)
        if socket.peer is socket or socket.black_holed:
            return
        if self.is_cut(socket.port.index, socket.peer.port.index):
            socket.closing = True
        else:
            self._announce_close(socket)

    def _announce_close(self, socket: _Socket[P]) -> None:
        socket.closing = False
        at = max(socket.last_arrival, self._queue.now + self._latency(socket))
        self._queue.at(at, self._abort, socket.peer)

    def _abort(self, socket: _Socket[P]) -> None:
        """The system tells this end that its connection is over."""
        if not socket.open:
            return
        self._forget(socket)
        if isinstance(socket.path, int):
            socket.port.deliver(PathDown(socket.path, PathCause.CLOSED))
        else:
            socket.port.deliver(InboundClosed())

    def _give_up(self, source: int, target: int) -> None:
        """TCP tried long enough: whoever waits behind the cut loses the connection."""
        if self.is_cut(source, target):
            for socket in self._between(source, target):
                if socket.backlog:
                    self._abort(socket)

    def _forget(self, socket: _Socket[P]) -> None:
        socket.open = False
        del self._sockets[socket.port.index, socket.path]

    # Finding

    def _latency(self, socket: _Socket[P]) -> float:
        weather = self.weather(socket.port.index, socket.peer.port.index)
        return weather.delay + weather.jitter * self._random.random()

    def _between(self, source: int, target: int) -> list[_Socket[P]]:
        """The ends at `source` of its connections with `target`, in the order they were made."""
        found = []
        for number, dialer in list(self._connections.items()):
            accepted = dialer.peer
            if not dialer.open and not accepted.open:
                if not (dialer.closing or accepted.closing):
                    del self._connections[number]
                continue
            found += [
                end
                for end in (dialer, accepted)
                if end.port.index == source and end.peer.port.index == target
            ]
        return found


def _ignore(*_: object) -> None:
    """Nobody watches."""
