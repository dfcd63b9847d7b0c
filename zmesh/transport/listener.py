"""The inbound half: the ROUTER that peers dial, and the paths they came by."""

import asyncio
import os
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
from zmesh.ids import Path
from zmesh.options import TransportOptions, WireLimits
from zmesh.transport.auditing import Auditing
from zmesh.transport.counters import Counters
from zmesh.transport.curve import CurveKeys, guard_listener
from zmesh.transport.doorkeeper import Doorkeeper
from zmesh.transport.held_ports import endpoint_of
from zmesh.transport.news import News
from zmesh.transport.pump import REFUSED_FULL, REFUSED_UNROUTABLE, Intake, Packets, push
from zmesh.transport.senders import Senders
from zmesh.transport.sockets import Sockets
from zmesh.transport.zap import Authenticator


class Listener:
    """One ROUTER bound to every endpoint of the node.

    Paths are the routing ids it gave; on CURVE, with the key of the connection, see `senders`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sockets,
        options: TransportOptions,
        limits: WireLimits,
        news: News,
        counters: Counters,
        auditing: Auditing,
        curve: CurveKeys | None = None,
    ) -> None:
        self._loop = loop
        self._options = options
        self._news = news
        self._counters = counters
        self._bound: dict[str, str] = {}  # endpoints, by host
        self._ports = sockets.ports
        self._suspended: list[str] = []  # hosts not listened on until `resume`
        self._full: dict[bytes, asyncio.TimerHandle] = {}
        self._doorkeeper = Doorkeeper(
            options, counters, auditing, loop.time, is_guarded=curve is not None
        )
        self._curve = curve
        self._senders = None if curve is None else Senders(2 * options.inbound_max)
        self._authenticator = (
            None
            if curve is None
            else Authenticator(loop, sockets, options, limits, self._doorkeeper.admit)
        )
        self._socket, self.key = sockets.router(curve)
        self._intake = Intake(
            loop,
            self._socket,
            None,
            options,
            limits,
            counters,
            deliver=self._on_packets,
            senders=self._senders,
            outcasts=self._doorkeeper.outcasts,
            on_outcast=self._on_outcast,
        )

    @property
    def intakes(self) -> list[Intake]:
        """Its own, and that of the handler who lets in."""
        handler = [] if self._authenticator is None else [self._authenticator.intake]
        return [self._intake, *handler]

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

        Where nothing changes for a host, its connections stay. While it is suspended, that is
        where it will listen when it resumes.
        """
        is_suspended = self.is_suspended
        gone = [host for host in self._bound if host not in hosts]
        for host in gone:
            endpoint = self._bound.pop(host)
            if host in self._suspended:
                self._suspended.remove(host)
            else:
                self._unbind(host, endpoint)
        if gone:
            self._news.later(InboundClosed())
        failures = []
        for host in hosts:
            if host in self._bound:
                continue
            if is_suspended:
                self._bound[host] = endpoint_of(host, port)
                self._suspended.append(host)
                continue
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
        try:
            self._bound[host] = self._bind(host, port)
        except OSError as error:
            port_free = f"port={port} free" if port else "a port free"
            expected = f"an address of this machine with {port_free} ({error})"
            raise InvalidOption("endpoint", endpoint_of(host, port), expected) from error

    def send(self, path: bytes, packets: Sequence[Sequence[bytes | memoryview]]) -> None:
        """Send to the peer behind a path."""
        routing_id = path if self._senders is None else self._senders.routing_id(path)
        if routing_id is None:
            refused = REFUSED_UNROUTABLE
        else:
            refused = push(self._socket, routing_id, packets, self._counters)
            self._intake.look()
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

    def shut_out(self, path: bytes, seconds: float) -> None:
        """End the connection of a path as soon as more comes by it, and read nothing of it."""
        self._doorkeeper.outcasts.add(path, seconds)

    def on_monitor(self, event: int, value: int, endpoint: str) -> bool:
        """Take in an event of the monitor; return whether a living connection has ended."""
        has_ended = self._doorkeeper.on_monitor(event, value, endpoint)
        if has_ended and self._senders is not None:
            self._senders.doubt()
        return has_ended

    def rekey(self, keys: CurveKeys) -> None:
        """Listen with another server key from now on, on the same ports.

        Where it is another one, inbound connections end.
        """
        before, self._curve = self._curve, keys
        if before is not None and keys.server == before.server:
            return
        guard_listener(self._socket, keys)
        if self._senders is not None:
            self._senders.forget()
        listened = [host for host in self._bound if host not in self._suspended]
        for host in listened:
            self._socket.unbind(self._bound[host])
            try:
                self._bound[host] = self._lend(host)
            except OSError:  # no descriptor left
                self._ports.release(host)
                self._suspended.append(host)
        if listened:
            self._news.later(InboundClosed())

    def suspend(self) -> bool:
        """Stop listening, and return whether it did listen.

        It ends the inbound connections too; their links survive that.
        """
        listened = [host for host in self._bound if host not in self._suspended]
        for host in listened:
            self._unbind(host, self._bound[host])
        self._suspended += listened
        if listened:
            self._news.later(InboundClosed())
        return bool(listened)

    def resume(self) -> bool:
        """Listen again; return False where a port was taken meanwhile: try again later."""
        try:
            while self._suspended:
                host = self._suspended[-1]
                port = int(self._bound[host].rpartition(":")[2])
                self._bound[host] = self._bind(host, port)
                self._suspended.pop()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Read and report nothing any more."""
        self._intake.close()
        self._doorkeeper.close()
        if self._authenticator is not None:
            self._authenticator.close()
        for timer in self._full.values():
            timer.cancel()
        self._full.clear()

    def _bind(self, host: str, port: int) -> str:
        self._ports.hold(host, port)
        try:
            return self._lend(host)
        except OSError:
            self._ports.release(host)
            raise

    def _lend(self, host: str) -> str:
        """Have libzmq listen, and return the endpoint as libzmq names it: `unbind` wants that."""
        lent = self._ports.lend(host)
        self._socket.set(zmq.USE_FD, lent)
        try:
            self._socket.bind(self._ports.endpoint(host))
        except zmq.ZMQError as error:  # the socket is closed, or is at its limit
            os.close(lent)
            raise OSError(error.errno, str(error)) from error
        finally:
            self._socket.set(zmq.USE_FD, -1)
        return self._socket.get_string(zmq.LAST_ENDPOINT)

    def _unbind(self, host: str, endpoint: str) -> None:
        self._socket.unbind(endpoint)
        self._ports.release(host)

    def _on_outcast(self, path: Path, part: zmq.Frame) -> None:
        self._doorkeeper.end(path, part, self._bound.values())

    def _on_packets(self, packets: Packets) -> None:
        self._news.now(PacketsReceived(packets))

    def _on_retry(self, path: bytes) -> None:
        # Whether there is room only the next send can tell: a ROUTER polls for all its peers.
        del self._full[path]
        self._news.now(PathWritable(path))
