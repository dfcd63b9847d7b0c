"""Does anybody listen there? A TCP connection tells, if it is still there a moment later."""

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from zmesh.discovery.endpoints import Endpoint
from zmesh.events import PathCause

LASTS_AFTER_S: Final = 0.1
"""A connection not reset by then belongs to a process that is there, if only stopped."""

GREETS_WITHIN_S: Final = 1.0
"""Who said nothing by then does not greet: libzmq does that apart from what else goes on."""

_SIGNATURE: Final = b"\xff" + bytes(8) + b"\x7f"
_VERSION: Final = b"\x03\x00"
_MECHANISM: Final = slice(12, 32)
"""The parts of a greeting (RFC 23, "Connection and Greeting"). To signature and version libzmq
answers with all of its own, and waits for the rest of ours before it judges that."""

_ONE_MORE: Final = b"\0"
"""Of the mechanism: so many bytes libzmq never sends, and is not taken for one without a key."""

OnAnswer = Callable[[PathCause | None], None]
OnGreeting = Callable[[PathCause | None, bytes], None]


@dataclass(slots=True, eq=False)
class _Probe:
    endpoint: Endpoint
    connection: socket.socket
    timer: asyncio.TimerHandle
    asks: bool  # for the greeting
    waiting: list[OnGreeting]
    said: bytes = b""


class Probes:
    """Tries connections, one per endpoint at a time, without tasks and without waiting.

    A connection that lasts says that the kernel listens for the process, and no more; one that is
    refused says that nobody does. A process that is being killed is in between: for some
    milliseconds its kernel still accepts what it is about to reset.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: dict[tuple[Endpoint, bool], _Probe] = {}

    def start(self, endpoint: Endpoint, timeout: float, on_answer: OnAnswer) -> None:
        """Try, for `timeout` seconds. `on_answer` is called in a later iteration of the loop.

        It gets None where the connection was made, else REFUSED or UNREACHABLE. Who asks for an
        endpoint that is being tried shares the answer.
        """
        self._start(endpoint, timeout, lambda cause, _: on_answer(cause), asks=False)

    def ask(self, endpoint: Endpoint, timeout: float, on_greeting: OnGreeting) -> None:
        """The same, and ask for the mechanism: b"CURVE", b"NULL", or b"" of who does not greet."""
        self._start(endpoint, min(timeout, GREETS_WITHIN_S), on_greeting, asks=True)

    def _start(
        self, endpoint: Endpoint, timeout: float, on_greeting: OnGreeting, *, asks: bool
    ) -> None:
        running = self._running.get((endpoint, asks))
        if running is not None:
            running.waiting.append(on_greeting)
            return
        try:
            connection, result = _connect(endpoint)
        except OSError as error:
            # Our own lack of descriptors says nothing about the peer: it had its time to answer.
            delay = timeout if error.errno in (errno.EMFILE, errno.ENFILE) else 0.0
            self._loop.call_later(delay, on_greeting, PathCause.UNREACHABLE, b"")
            return
        timer = self._loop.call_later(timeout, self._on_timeout, endpoint, asks)
        probe = _Probe(endpoint, connection, timer, asks, [on_greeting])
        self._running[endpoint, asks] = probe
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

    def _on_timeout(self, endpoint: Endpoint, asks: bool) -> None:
        self._answer(self._running[endpoint, asks], PathCause.UNREACHABLE)

    def _on_result(self, probe: _Probe, result: int) -> None:
        if self._running.get((probe.endpoint, probe.asks)) is not probe:
            return  # timed out or closed before its turn came
        if result == 0 and not _is_own(probe.connection):
            self._watch(probe)
        elif result in (0, errno.ECONNREFUSED):
            self._answer(probe, PathCause.REFUSED)
        else:
            self._answer(probe, PathCause.UNREACHABLE)

    def _watch(self, probe: _Probe) -> None:
        """See whether the connection lasts: libzmq's greeting says so at once, else time does."""
        self._loop.remove_writer(probe.connection)
        self._loop.add_reader(probe.connection, self._on_readable, probe)
        if probe.asks:
            with suppress(OSError):  # it has ended: reading tells
                # Few bytes, which the kernel takes.
                probe.connection.send(_SIGNATURE + _VERSION + _ONE_MORE)
        else:
            probe.timer.cancel()
            probe.timer = self._loop.call_later(LASTS_AFTER_S, self._answer, probe, None)

    def _on_readable(self, probe: _Probe) -> None:
        try:
            said = probe.connection.recv(_MECHANISM.stop - len(probe.said))
        except OSError:
            said = b""
        probe.said += said
        if not said:
            self._answer(probe, None if probe.said else PathCause.REFUSED)
        elif not probe.asks or len(probe.said) == _MECHANISM.stop:
            self._answer(probe, None)

    def _answer(self, probe: _Probe, cause: PathCause | None) -> None:
        self._end(probe)
        is_greeting = probe.said.startswith(_SIGNATURE[:1])
        mechanism = probe.said[_MECHANISM].rstrip(b"\0") if is_greeting else b""
        for on_greeting in probe.waiting:
            on_greeting(cause, mechanism)

    def _end(self, probe: _Probe) -> None:
        del self._running[probe.endpoint, probe.asks]
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
