"""The transport over ZeroMQ: what the runner hands its orders to."""

import asyncio
import atexit
import logging
import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from zmesh.actions import Audited, Trace
from zmesh.discovery.endpoints import Endpoint
from zmesh.errors import Closed, ForkedProcess, InvalidOption, UsageError
from zmesh.events import Event, InboundClosed, PathCause, ProbeAnswered
from zmesh.ids import Path
from zmesh.options import TransportOptions, WireLimits
from zmesh.ports import TransportStatistics
from zmesh.transport.auditing import Auditing, OnAudit
from zmesh.transport.counters import Counters
from zmesh.transport.curve import CurveKeys
from zmesh.transport.descriptors import descriptors_left
from zmesh.transport.dialer import Dialer
from zmesh.transport.ear import Ear
from zmesh.transport.listener import Listener
from zmesh.transport.news import News
from zmesh.transport.probes import Probes
from zmesh.transport.process import ThisProcess
from zmesh.transport.pump import Packets
from zmesh.transport.sockets import Sockets, read_monitor

INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40

_logger = logging.getLogger(__name__)


def _close_forgotten(sockets: Sockets, told: str) -> None:
    was_open = sockets.is_open
    sockets.close()
    if was_open:
        warnings.warn(told, ResourceWarning, stacklevel=2)


def log_audit(event: Audited) -> None:
    """Write an event to the audit log."""
    facts = event.kind.value, event.endpoint, event.detail
    logging.getLogger("zmesh.audit").warning("%s %r: %s", *facts)


def log_trace(trace: Trace) -> None:
    """Write a trace to the log."""
    _logger.log(trace.level, "%s %s", trace.name, trace.fields)


class ZmqTransport:
    """One ROUTER that listens, one DEALER a path dialed; see `zmesh.ports.Transport`.

    Belongs to one loop, its thread and its process. Sockets are made by `open`. Where `close` was
    forgotten they are closed, with a ResourceWarning, when the object is collected or the
    interpreter exits.

    Args:
        loop: must have `add_reader`, as every loop but Windows' Proactor has.
        limits: of parts, enforced before anything is allocated for them.
        options: sizes of queues, budgets of a turn, times of connections.
        hosts: addresses to listen on.
        port: 0 takes a free one for each host.
        dial_timeout: seconds from dial to the end of the handshake.
        on_events: gets all news, in order, several times in an iteration of the loop if need be.
        on_trace: gets what an operator should know; by default it is logged.
        on_audit: gets what somebody who guards the mesh should know: wrong keys and floods, from
            callbacks of the loop and no faster than the options allow. By default it is logged.
        curve: with these keys every connection is encrypted and authenticated, and inbound paths
            are the routing id and the key of the connection; without, nothing is.
        forgotten: what to warn of where it was never closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: WireLimits,
        *,
        on_events: Callable[[list[Event]], None],
        options: TransportOptions = TransportOptions(),  # noqa: B008  # frozen
        hosts: Sequence[str] = ("127.0.0.1",),
        port: int = 0,
        dial_timeout: float = 2.0,
        on_trace: Callable[[Trace], None] = log_trace,
        on_audit: OnAudit = log_audit,
        curve: CurveKeys | None = None,
        forgotten: str = "a ZmqTransport was never closed: close it",
    ) -> None:
        self._forgotten = forgotten
        self._pid = ThisProcess.pid
        self._loop = loop
        self._limits = limits
        self._options = options
        self._hosts = tuple(hosts)
        self._port = port
        self._dial_timeout = dial_timeout
        self._on_trace = on_trace
        self._news = News(loop, on_events)
        self._counters = Counters()
        self._probes = Probes(loop)
        self._auditing = Auditing(on_audit, options)
        self._curve = curve
        self._is_open = False
        self._is_closed = False
        self._descriptors_left = options.descriptors_spare

    def open(self) -> tuple[str, ...]:
        """Listen, and return the endpoints.

        Raises:
            InvalidOption: an address is not of this machine, or its port is taken.
            UsageError: the loop cannot watch descriptors.
            ForkedProcess: this process did not make the transport.
        """
        if ThisProcess.pid != self._pid:
            raise ForkedProcess(self._pid, ThisProcess.pid)
        if self._is_open or self._is_closed:
            raise UsageError("a transport is opened once: make a new one")
        spare = self._options.descriptors_spare
        if descriptors_left(spare) < spare:  # libzmq would abort the process
            raise UsageError("no file descriptors are left: raise the limit (ulimit -n)")
        sockets = Sockets(self._options, self._limits)
        # Runs before the parts could be collected in any order: the wrong one hangs, see Sockets.
        at_exit = weakref.finalize(self, _close_forgotten, sockets, self._forgotten)
        # At exit pyzmq gives up what is lent to libzmq, which sends what comes after in that
        # memory, or finds none and ends the process. What is registered last is called first.
        at_exit.atexit = False
        atexit.register(at_exit)
        self._at_exit, self._sockets = at_exit, sockets
        try:
            self._ear = self._ear_of(sockets)
        except NotImplementedError as error:
            self._sockets.close()
            raise UsageError(
                "this event loop cannot watch sockets (no add_reader): on Windows call asyncio."
                "set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy()) before it starts"
            ) from error
        self._dialer = Dialer(
            self._loop,
            sockets,
            self._options,
            self._limits,
            self._news,
            self._counters,
            self._probes,
            self._auditing,
            dial_timeout=self._dial_timeout,
            on_trace=self._on_trace,
            curve=self._curve,
        )
        self._listener = Listener(
            self._loop,
            sockets,
            self._options,
            self._limits,
            self._news,
            self._counters,
            self._auditing,
            self._curve,
        )
        self._ear.look()
        self._watchdog = self._loop.call_later(self._options.watchdog_interval, self._on_watchdog)
        self._is_open = True
        try:
            endpoints = self._listener.bind(self._hosts, self._port)
        except InvalidOption:
            self.close()
            raise
        self._port = self._port or int(endpoints[0].rpartition(":")[2])
        return endpoints

    def listen(self, hosts: Sequence[str]) -> tuple[str, ...]:
        """Listen on these hosts from now on, on the port of before; return the endpoints.

        A host that cannot be listened on is told and left out.
        """
        self._check_usable()
        for error in self._listener.rebind(hosts, self._port):
            fields = {"endpoint": error.value, "why": str(error)}
            self._on_trace(Trace("listening_failed", WARNING, fields))
        return self._listener.endpoints

    def rekey(self, curve: CurveKeys) -> None:
        """Use these keys from now on, while a mesh changes its key.

        With another server key inbound connections end, and new ones come with it; the ports stay.
        What was dialed stays up.

        Raises:
            UsageError: the transport was made without keys: nobody could be told apart.
        """
        self._check_usable()
        if self._curve is None:
            raise UsageError("a transport without keys cannot be given some: make a new one")
        self._curve = curve
        self._dialer.rekey(curve)
        self._listener.rekey(curve)

    def send(self, path: Path, packets: Sequence[Sequence[bytes | memoryview]]) -> None:
        """Send packets, each a list of parts, in order; refusals come as events."""
        self._check_usable()
        if isinstance(path, int):
            self._dialer.send(path, packets)
        else:
            self._listener.send(path, packets)

    def dial(self, path: int, endpoint: str) -> None:
        """Connect; PathUp and PathDown tell what came of it."""
        self._check_usable()
        self._dialer.dial(path, endpoint)
        self._ear.look()  # a pipe that was never looked into wakes nobody

    def hang_up(self, path: int) -> None:
        """Close a path that was dialed; nothing happens where it is closed already."""
        self._check_usable()
        self._dialer.hang_up(path)

    def shut_out(self, path: bytes, seconds: float) -> None:
        """End an inbound path, read nothing of it and do not let its key in for so long."""
        self._check_usable()
        self._listener.shut_out(path, seconds)

    def probe(self, endpoint: str, timeout: float) -> None:
        """Try a fresh connection for `timeout` seconds; ProbeAnswered tells what came of it."""
        self._check_usable()
        try:
            target = Endpoint.parse(endpoint)
        except ValueError as error:
            fields: dict[str, object] = {"endpoint": endpoint, "reason": str(error)}
            self._on_trace(Trace("probe_refused", WARNING, fields))
            self._news.later(ProbeAnswered(endpoint, PathCause.UNREACHABLE))
            return
        self._probes.start(target, timeout, partial(self._on_probe, endpoint))

    def close(self) -> None:
        """Close everything, in milliseconds, and tell nothing any more. Idempotent.

        What was sent just before mostly still goes: what the kernel takes at once. In a forked
        child nothing is done, as everything is the parent's.
        """
        was_open, self._is_open, self._is_closed = self._is_open, False, True
        if not was_open or ThisProcess.pid != self._pid:
            return
        self._watchdog.cancel()
        self._ear.close()
        self._dialer.close()
        self._listener.close()
        self._probes.close()
        self._news.close()
        self._sockets.close()
        atexit.unregister(self._at_exit)

    def statistics(self) -> TransportStatistics:
        """Return the counters as they are now."""
        return self._counters.frozen()

    def _check_usable(self) -> None:
        if ThisProcess.pid != self._pid:
            raise ForkedProcess(self._pid, ThisProcess.pid)
        if not self._is_open:
            raise Closed("transport")

    def _ear_of(self, sockets: Sockets) -> Ear:
        return Ear(self._loop, sockets.ear, self._options, self._limits, deliver=self._on_monitors)

    def _on_monitors(self, packets: Packets) -> None:
        has_ended = False
        for key, parts in packets:
            try:
                has_ended |= self._on_monitor(key, parts)
            except Exception as error:  # noqa: BLE001  # a defect: the events after it count all the same
                message = "an event of a monitor could not be handled"
                self._loop.call_exception_handler({"message": message, "exception": error})
        if has_ended:
            self._news.later(InboundClosed())
        self._news.now()
        self._ear.look()  # another key may have been dialed with

    def _on_monitor(self, key: Path, parts: list[bytes]) -> bool:
        """Take in one event; return whether a living inbound connection has ended."""
        event, value, endpoint = read_monitor(parts)
        if key == self._listener.key:
            return self._listener.on_monitor(event, value, endpoint)
        self._dialer.on_monitor(key, event, value)
        return False

    def _on_probe(self, endpoint: str, cause: PathCause | None) -> None:
        self._news.now(ProbeAnswered(endpoint, cause))

    def _on_watchdog(self) -> None:
        self._watchdog = self._loop.call_later(self._options.watchdog_interval, self._on_watchdog)
        for intake in (self._ear, *self._listener.intakes, *self._dialer.intakes):
            self._counters.watchdog_rescues += intake.rescue()
        self._look_at_descriptors()

    def _look_at_descriptors(self) -> None:
        """Stop listening while none is left, and go on once there are enough.

        libzmq would try to accept again and again, a whole core's worth. To stop ends the inbound
        connections, and so frees descriptors; so only where none was left twice in a row.
        """
        spare = self._options.descriptors_spare
        before, self._descriptors_left = self._descriptors_left, descriptors_left(spare)
        left = self._descriptors_left
        fields: dict[str, object] = {"left": left, "todo": "raise the limit (ulimit -n)"}
        if left < spare == before:
            self._on_trace(Trace("descriptors_low", WARNING, fields))
        if left == before == 0 and self._listener.suspend():
            self._on_trace(Trace("listening_suspended", ERROR, fields))
        elif left == spare and self._listener.is_suspended and self._listener.resume():
            self._on_trace(Trace("listening_resumed", INFO, {}))
