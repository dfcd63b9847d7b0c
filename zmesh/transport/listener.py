"""The inbound half: the ROUTER that peers dial, and the paths they came by."""

import asyncio
from collections.abc import Sequence

import zmq

from zmesh.errors import InvalidOption
from zmesh.events import (
    InboundClosed,
    PacketsReceived,
    PathCause,
    PathDown,
    PathFull,
    PathWritable,
)
from zmesh.options import TransportOptions, WireLimits
from zmesh.transport.counters import Counters
from zmesh.transport.news import News
from zmesh.transport.pump import REFUSED_FULL, Intake, Packets, push
from zmesh.transport.sockets import Sockets


class Listener:
    """One ROUTER bound to every endpoint of the node. Paths are the routing ids it gave."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sockets,
        options: TransportOptions,
        limits: WireLimits,
        news: News,
        counters: Counters,
    ) -> None:
        self._loop = loop
        self._options = options
        self._news = news
        self._counters = counters
        self._bound: dict[str, str] = {}  # endpoints, by host
        self._suspended: list[str] = []  # endpoints not listened on until `resume`
        self._has_handshake_failed = False
        self._full: dict[bytes, asyncio.TimerHandle] = {}
        self._socket, self.key = sockets.router()
        self.intake = Intake(
            loop, self._socket, None, options, limits, counters, deliver=self._on_packets
        )

    @property
    def is_suspended(self) -> bool:
        """Whether it does not listen, or not on every endpoint."""
        return bool(self._suspended)

    def bind(self, hosts: Sequence[str], port: int) -> tuple[str, ...]:
        """Listen on every host; port 0 takes a free one for each. Return the endpoints.

        Raises:
            InvalidOption: the address is not of this machine, or the port is taken.
        """
        for host in hosts:
            self._listen(host, port)
        return tuple(self._bound.values())

    def rebind(self, hosts: Sequence[str], port: int) -> list[InvalidOption]:
        """Listen on these hosts, and on no others any more; return why not on some of them.

        Where nothing changes for a host, its connections stay. While it is suspended nothing
        changes at all.
        """
        if self._suspended:
            return []
        gone = [host for host in self._bound if host not in hosts]
        for host in gone:
            self._socket.unbind(self._bound.pop(host))
        if gone:
            self._news.later(InboundClosed())
        failures = []
        for host in hosts:
            if host not in self._bound:
                try:
                    self._listen(host, port)
                except InvalidOption as error:
                    failures.append(error)
        return failures

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where it listens, or will when it resumes."""
        return tuple(self._bound.values())

    def _listen(self, host: str, port: int) -> None:
        endpoint = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
        try:
            self._bound[host] = self._bind(endpoint)
        except zmq.ZMQError as error:
            expected = f"an address of this machine with that port free ({error})"
            raise InvalidOption("endpoint", endpoint, expected) from error

    def send(self, path: bytes, packets: Sequence[Sequence[bytes | memoryview]]) -> None:
        """Send to the peer behind a path."""
        refused = push(self._socket, path, packets, self._counters)
        self.intake.look()
        if refused == REFUSED_FULL:
            self._counters.packets_full += 1
            if path not in self._full:
                self._full[path] = self._loop.call_later(
                    self._options.full_retry, self._on_retry, path
                )
                self._news.later(PathFull(path))
        elif refused:
            self._counters.packets_unroutable += 1
            self._news.later(PathDown(path, PathCause.UNROUTABLE))

    def on_monitor(self, event: int) -> bool:
        """Take in an event of the monitor; return whether a living connection has ended."""
        if event != zmq.EVENT_DISCONNECTED:
            # libzmq says that a handshake failed right before, in the same call, it says that the
            # connection ended. A probe looks like that: it must not make its target probe others.
            self._has_handshake_failed = True
            return False
        was_alive = not self._has_handshake_failed
        self._has_handshake_failed = False
        return was_alive

    def suspend(self) -> None:
        """Stop listening. It ends the inbound connections too; their links survive that."""
        if not self._suspended:
            self._suspended = list(self._bound.values())
            for endpoint in self._suspended:
                self._socket.unbind(endpoint)
            self._news.later(InboundClosed())

    def resume(self) -> bool:
        """Listen again; return False where a port was taken meanwhile: try again later."""
        try:
            while self._suspended:
                self._bind(self._suspended[-1])
                self._suspended.pop()
        except zmq.ZMQError:
            return False
        return True

    def close(self) -> None:
        """Read and report nothing any more."""
        self.intake.close()
        for timer in self._full.values():
            timer.cancel()
        self._full.clear()

    def _bind(self, endpoint: str) -> str:
        # IPv4 on an IPv6 socket would be reported as ::ffff:..., and fail where there is no IPv6.
        self._socket.set(zmq.IPV6, int("[" in endpoint))
        self._socket.bind(endpoint)
        return self._socket.get_string(zmq.LAST_ENDPOINT)

    def _on_packets(self, packets: Packets) -> None:
        self._news.now(PacketsReceived(packets))

    def _on_retry(self, path: bytes) -> None:
        # Whether there is room only the next send can tell: a ROUTER polls for all its peers.
        del self._full[path]
        self._news.now(PathWritable(path))
