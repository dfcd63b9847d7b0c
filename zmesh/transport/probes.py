"""Does anybody listen there? A TCP connection tells, if it is still there a moment later."""

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from zmesh.discovery.endpoints import Endpoint
from zmesh.events import PathCause

LASTS_AFTER_S: Final = 0.1
"""A connection not reset by then belongs to a process that is there, if only stopped."""

GREETING: Final = b"\xff"
"""What libzmq says first, whatever its mechanism (RFC 23): before any key matters."""

OnAnswer = Callable[[PathCause | None], None]


@dataclass(slots=True, eq=False)
class _Probe:
    endpoint: Endpoint
    connection: socket.socket
    timer: asyncio.TimerHandle
    waiting: list[tuple[OnAnswer, bool]]


class Probes:
    """Tries connections, one per endpoint at a time, without tasks and without waiting.

    A connection that lasts says that the kernel listens for the process, and no more; one that is
    refused says that nobody does. A process that is being killed is in between: for some
    milliseconds its kernel still accepts what it is about to reset.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: dict[Endpoint, _Probe] = {}

    def start(
        self, endpoint: Endpoint, timeout: float, on_answer: OnAnswer, *, greeted: bool = False
    ) -> None:
        """Try, for `timeout` seconds. `on_answer` is called in a later iteration of the loop.

        It gets None where the connection was made, else REFUSED or UNREACHABLE. Who asks for an
        endpoint that is being tried shares the answer. With `greeted` None is said only of who
        greets as ZeroMQ does (RFC 23, "Connection and Greeting").
        """
        running = self._running.get(endpoint)
        if running is not None:
            running.waiting.append((on_answer, greeted))
            return
        try:
            connection, result = _connect(endpoint)
        except OSError as error:
            # Our own lack of descriptors says nothing about the peer: it had its time to answer.
            delay = timeout if error.errno in (errno.EMFILE, errno.ENFILE) else 0.0
            self._loop.call_later(delay, on_answer, PathCause.UNREACHABLE)
            return
        timer = self._loop.call_later(timeout, self._on_timeout, endpoint)
        probe = self._running[endpoint] = _Probe(
            endpoint, connection, timer, [(on_answer, greeted)]
        )
        if result in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._loop.add_writer(connection, self._on_writable, probe)
        else:
            self._loop.call_soon(self._on_result, probe, result)

    def close(self) -> None:
        """Give up all; nobody is answered."""
        for probe in tuple(self._running.values()):
            self._end(probe)

    def _on_writable(self, probe: _Probe) -> None:
        self._on_result(probe, probe.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _on_timeout(self, endpoint: Endpoint) -> None:
        self._answer(self._running[endpoint], PathCause.UNREACHABLE)

    def _on_result(self, probe: _Probe, result: int) -> None:
        if self._running.get(probe.endpoint) is not probe:
            return  # timed out or closed before its turn came
        if result == 0 and not _is_own(probe.connection):
            self._watch(probe)
        elif result in (0, errno.ECONNREFUSED):
            self._answer(probe, PathCause.REFUSED)
        else:
            self._answer(probe, PathCause.UNREACHABLE)

    def _watch(self, probe: _Probe) -> None:
        """See whether the connection lasts: libzmq's greeting says so at once, else time does."""
        probe.timer.cancel()
        probe.timer = self._loop.call_later(LASTS_AFTER_S, self._answer, probe, None)
        self._loop.remove_writer(probe.connection)
        self._loop.add_reader(probe.connection, self._on_readable, probe)

    def _on_readable(self, probe: _Probe) -> None:
        try:
            said = probe.connection.recv(1)
        except OSError:
            said = b""
        self._answer(probe, None if said else PathCause.REFUSED, said)

    def _answer(self, probe: _Probe, cause: PathCause | None, said: bytes = b"") -> None:
        self._end(probe)
        for on_answer, greeted in probe.waiting:
            is_other = cause is None and greeted and said != GREETING
            on_answer(PathCause.UNREACHABLE if is_other else cause)

    def _end(self, probe: _Probe) -> None:
        del self._running[probe.endpoint]
        probe.timer.cancel()
        self._loop.remove_writer(probe.connection)
        self._loop.remove_reader(probe.connection)
        probe.connection.close()


def _connect(endpoint: Endpoint) -> tuple[socket.socket, int]:
    """Begin to connect; return the connection and the errno so far."""
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV  # nobody is asked for names
    found = socket.getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=numeric
    )
    family, kind, protocol, _, address = found[0]
    connection = socket.socket(family, kind, protocol)
    connection.setblocking(False)
    return connection, connection.connect_ex(address)


def _is_own(connection: socket.socket) -> bool:
    # Where nobody listens on an ephemeral port of this machine, the kernel may pick the very port
    # as ours and connect the socket with itself (simultaneous open, RFC 9293 section 3.5).
    return bool(connection.getsockname() == connection.getpeername())
