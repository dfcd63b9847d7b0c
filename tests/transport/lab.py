"""libzmq as it is, to be looked at."""

import socket as tcp
import struct
import time

import zmq

from tests.transport.zmtp import RawPeer

MIB = 1 << 20
MONITOR_ALL = 0xFFFF
Socket = zmq.Socket[bytes]


class Lab:
    """A context, and what tests do with it."""

    def __init__(self) -> None:
        self.context: zmq.Context[Socket] = zmq.Context()
        self.context.set(zmq.BLOCKY, 0)
        self.raw_peers: list[RawPeer] = []
        self.sockets: list[Socket] = []
        self.readers: list[Socket] = []

    def socket(self, kind: int, **options: int) -> Socket:
        """Make a socket with options, named as in libzmq."""
        made = self.context.socket(kind)
        self.sockets.append(made)
        for name, value in options.items():
            made.set(getattr(zmq, name), value)
        return made

    def listening(self, **options: int) -> tuple[Socket, str]:
        """A ROUTER, and where."""
        router = self.socket(zmq.ROUTER, **options)
        router.bind("tcp://127.0.0.1:0")
        return router, router.get_string(zmq.LAST_ENDPOINT)

    def dealer(self, endpoint: str, **options: int) -> Socket:
        made = self.socket(zmq.DEALER, **options)
        made.connect(endpoint)
        return made

    def monitored(self, endpoint: str, **options: int) -> tuple[Socket, Socket]:
        """A DEALER that connects, and what its monitor is read from."""
        made = self.socket(zmq.DEALER, **options)
        monitor = self.monitor(made)
        made.connect(endpoint)
        return made, monitor

    def monitor(self, socket: Socket) -> Socket:
        """Return what tells all that happens to a socket."""
        address = f"inproc://monitor-{len(self.readers)}"
        socket.monitor(address, MONITOR_ALL)
        reader = self.context.socket(zmq.PAIR)
        self.readers.append(reader)
        reader.connect(address)
        return reader

    def close(self) -> None:
        for raw in self.raw_peers:
            raw.close()
        for socket in self.sockets:
            if not socket.closed:
                socket.monitor(None)  # before its reader, or this would hang: see below
                socket.close()
        for reader in self.readers:
            reader.close()
        self.context.term()

    def raw(self, endpoint: str, routing_id: bytes = b"") -> RawPeer:
        self.raw_peers.append(RawPeer.dial(endpoint, routing_id))
        return self.raw_peers[-1]

    def connected(self, endpoint: str) -> tcp.socket:
        """A bare connection."""
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        return tcp.create_connection((host, int(port)), timeout=5)

    def pair(self, **options: int) -> tuple[Socket, bytes, Socket]:
        """A ROUTER, the routing id it gave, and the DEALER it gave it to."""
        router, endpoint = self.listening(**options)
        dealer = self.dealer(endpoint)
        dealer.send(b"hello")
        return router, receive(router)[0], dealer


def receive(socket: Socket) -> list[bytes]:
    assert socket.poll(5000), "nothing came"
    return socket.recv_multipart()


def nothing_comes(socket: Socket) -> bool:
    return not socket.poll(150)


def events_until(monitor: Socket, last: int) -> list[int]:
    """Read a monitor up to an event."""
    events: list[int] = []
    while not events or events[-1] != last:
        events.append(struct.unpack("=HI", receive(monitor)[0])[0])
    return events


def refusal(router: Socket, routing_id: bytes, content: bytes, pause: float = 0) -> int:
    """Send until it is refused, 500 times at most; return why."""
    try:
        for _ in range(500):
            router.send(routing_id, zmq.SNDMORE | zmq.NOBLOCK)
            router.send(content, zmq.NOBLOCK)
            time.sleep(pause)
    except zmq.ZMQError as error:
        return error.errno or 0
    return 0


def is_signalled(socket: Socket) -> bool:
    return bool(zmq.zmq_poll([(socket.fileno(), zmq.POLLIN)], 0))
