"""Moving packets between sockets and the loop: the readiness pump, and sending.

Costs that shaped it, in microseconds: receive 0.4, EVENTS and RCVMORE 1.2, a receive that finds
nothing 2.5 (an exception), send 0.3, `send_multipart` four times what is done here.

Parts are copied both ways, but for large ones that are sent: libzmq would allocate, and the kernel
map and clear, as many bytes anew for each. Small ones it costs more to lend, because pyzmq frees
each buffer in a thread of its own. Receiving without a copy saves nothing, as a body is bytes.

What is lent makes a `zmq.Frame`, which swallows an exception that a signal handler raises while
it is freed: rarely a Ctrl-C, where `asyncio.run` does not turn it into a cancellation.
"""

import asyncio
import errno
from collections.abc import Callable, Sequence
from typing import Final, cast

import zmq
from zmq.backend import Socket as _Socket

from zmesh.ids import Path
from zmesh.options import TransportOptions, WireLimits
from zmesh.transport.counters import Counters
from zmesh.transport.outcasts import Outcasts
from zmesh.transport.process import ThisProcess
from zmesh.transport.senders import USER_ID, Senders
from zmesh.transport.share import Share
from zmesh.transport.sockets import Socket

REFUSED_FULL: Final = errno.EAGAIN
REFUSED_UNROUTABLE: Final = errno.EHOSTUNREACH

UNCOPIED_BYTES: Final = 256 * 1024
"""Parts from here on are lent to libzmq."""


class _Lending:
    """Whether pyzmq can be trusted to keep what is lent until libzmq has read it.

    One for the process, as its thread that frees buffers is. An exception out of the midst of
    lending, as by a signal handler, may make pyzmq believe that this thread has ended (before
    Python 3.13): it would begin anew with the next, and let go of what libzmq still reads.
    """

    __slots__ = ("is_safe",)

    def __init__(self) -> None:
        self.is_safe = True


lending: Final = _Lending()

_send: Final = _Socket.send
"""That of every socket: what pyzmq puts around it costs twice as much again."""

_MORE: Final = int(zmq.SNDMORE | zmq.NOBLOCK)
_NOW: Final = int(zmq.NOBLOCK)
READABLE: Final = int(zmq.POLLIN)
WRITABLE: Final = int(zmq.POLLOUT)

Packets = list[tuple[Path, list[bytes]]]


def push(
    socket: Socket,
    routing_id: bytes | None,
    packets: Sequence[Sequence[bytes | memoryview]],
    counters: Counters,
) -> int:
    """Send packets until one is refused; return 0, or why: `REFUSED_...`.

    The packet that was refused and those after it are not sent.
    """
    for parts in packets:
        refused = _offer(socket, routing_id, parts)
        if refused == REFUSED_FULL:
            # A send looks for room made meanwhile at most once a millisecond; this looks now.
            has(socket, WRITABLE)
            refused = _offer(socket, routing_id, parts)
        if refused:
            return refused
        counters.packets_sent += 1
        counters.bytes_sent += sum(map(len, parts))
    return 0


def _offer(socket: Socket, routing_id: bytes | None, parts: Sequence[bytes | memoryview]) -> int:
    # Only the first part can be refused: the queue counts whole messages.
    try:
        if routing_id is not None:
            _send(socket, routing_id, _MORE)
        for part in parts[:-1]:
            _pass_on(socket, part, _MORE)
        _pass_on(socket, parts[-1], _NOW)
    except zmq.ZMQError as error:
        if error.errno in (REFUSED_FULL, REFUSED_UNROUTABLE):
            return error.errno
        raise
    return 0


def _pass_on(socket: Socket, part: bytes | memoryview, flags: int) -> None:
    if len(part) >= UNCOPIED_BYTES and lending.is_safe:
        try:
            _send(socket, part, flags, copy=False)
        except zmq.ZMQError:
            raise
        except RuntimeError:  # the process ends: there is no thread for it any more
            lending.is_safe = False
        except BaseException:
            lending.is_safe = False
            raise
        else:
            return
    _send(socket, part, flags)


def has(socket: Socket, event: int) -> bool:
    """Return whether a socket is `READABLE`, or `WRITABLE`, and look for it now."""
    return int(socket.get(zmq.EVENTS)) & event != 0


class Intake:
    """Reads one socket on an event loop, without ever waiting for it, a `Share` of it in a turn.

    The descriptor of a ZeroMQ socket is edge-triggered: it wakes us for commands to the socket,
    and any call, a send too, takes all that wait. Whoever leaves before the socket is empty is not
    woken again, nor is who never looked into a new pipe. So: read until empty or until the budget
    of a turn is spent, and then plan to go on; call `look` after every send and inproc connect;
    and `rescue` once in a while.

    In a forked child it does nothing: pyzmq would try again for ever.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: Socket,
        path: Path | None,
        options: TransportOptions,
        limits: WireLimits,
        counters: Counters,
        *,
        deliver: Callable[[Packets], None],
        on_room: Callable[[], None] | None = None,
        senders: Senders | None = None,
        outcasts: Outcasts | None = None,
        on_outcast: Callable[[Path, zmq.Frame], None] | None = None,
    ) -> None:
        """Begin to read. With `path` None the first part of each message is its path, or what
        `senders` make of it.

        Of a packet with more than `limits.parts_max` parts one more than that is delivered,
        enough for the codec to refuse it. The others are skipped, so many in a turn as there may
        be packets: others have their turn between. `on_room` is called once there is room again
        after `await_room`. Of the `outcasts` nothing is delivered; `on_outcast` is called with a
        part of each of their messages, which knows the connection it came by.

        Raises:
            NotImplementedError: where the loop cannot watch descriptors.
        """
        self._loop = loop
        self._socket = socket
        self._path = path
        self._share = Share(options)
        self._parts_max = limits.parts_max
        self._counters = counters
        self._deliver = deliver
        self._on_room = on_room
        self._senders = senders
        self._outcasts = outcasts
        self._on_outcast = on_outcast
        self._rest_of: Path = b""  # whose message is read, where not all of it was
        self._awaits_room = False
        self._is_reading = False
        self._pid = ThisProcess.pid
        self._planned: asyncio.Handle | None = None
        self._fd = socket.fileno()
        loop.add_reader(self._fd, self._on_wake)
        self.look()  # what came before we watched

    def look(self) -> None:
        """After a call to the socket: plan to read what it may have found, in a later turn."""
        if self._planned is None and has(self._socket, READABLE):
            self._plan()

    def await_room(self) -> None:
        """Call `on_room` when the socket takes packets again."""
        self._awaits_room = True

    def rescue(self) -> bool:
        """Return whether packets waited that nothing had announced; they are read next."""
        if ThisProcess.pid != self._pid:
            return False
        if self._awaits_room:
            self._look_for_room()
        awake = zmq.zmq_poll([(self._fd, READABLE)], 0)
        if self._planned is not None or awake:
            return False  # the loop comes by itself
        self.look()
        return self._planned is not None

    def drain(self) -> Packets:
        """Read all there is, whatever the budget: for a connection that has ended."""
        packets: Packets = []
        while not self._read(packets):
            pass
        return packets

    def close(self) -> None:
        """Read nothing any more. To be called before the socket is closed."""
        self._loop.remove_reader(self._fd)
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None

    def _plan(self) -> None:
        self._planned = self._loop.call_soon(self._on_wake)

    def _on_wake(self) -> None:
        if ThisProcess.pid != self._pid:
            return
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None
        began = self._loop.time()
        packets: Packets = []
        is_empty = self._read(packets)
        if not is_empty:
            self._plan()
        if self._awaits_room:
            self._look_for_room()
        if packets:
            self._deliver(packets)
        self._share.on_turn(self._loop.time() - began, is_empty=is_empty)

    def _look_for_room(self) -> None:
        if has(self._socket, WRITABLE):
            self._awaits_room = False
            if self._on_room is not None:
                self._on_room()

    def _read(self, packets: Packets) -> bool:
        """Read up to the budget of a turn; return whether the socket is empty."""
        if self._is_reading and not self._skip_rest():
            return False
        outcasts = self._outcasts
        self._is_reading = True
        receive = self._socket.recv
        path = self._path
        senders = self._senders
        known: dict[Path, bytes] = {} if senders is None else senders.known
        count = size = 0
        count_max, bytes_max = self._share.packets_max, self._share.bytes_max
        is_empty = has_rest = False
        self._rest_of = b""
        try:
            while count < count_max and size < bytes_max:
                sender: Path = receive(_NOW) if path is None else path
                if senders is None or sender in known:
                    sender = known.get(sender, sender)
                    if outcasts and outcasts.holds(sender):
                        self._rest_of = sender
                        self._skip_first()
                        count += 1
                        has_rest = bool(self._socket.get(zmq.RCVMORE))
                        if has_rest:
                            break
                        continue
                    part = receive(_NOW)
                else:
                    sender, part = self._introduce(senders, sender)
                parts = [part]
                packets.append((sender, parts))
                count += 1
                size += len(part)
                if self._socket.get(zmq.RCVMORE):
                    size += self._read_rest(parts)
                    has_rest = len(parts) > self._parts_max
                    if has_rest:
                        self._rest_of = sender
                        break  # there may be thousands more
                # One packet a wake-up is common, and asking is cheaper than the exception.
                if count == 1 and not has(self._socket, READABLE):
                    is_empty = True
                    break
        except zmq.Again:
            is_empty = True
        self._is_reading = has_rest
        self._counters.packets_received += count
        self._counters.bytes_received += size
        return is_empty

    def _introduce(self, senders: Senders, routing_id: Path) -> tuple[Path, bytes]:
        """Read a part with what libzmq knows of its sender; return whose it is, and the part."""
        frame = self._socket.recv(_NOW, copy=False)
        user = str(frame.get(USER_ID))
        return senders.learn(cast("bytes", routing_id), user), frame.bytes

    def _read_rest(self, parts: list[bytes]) -> int:
        size = 0
        while len(parts) <= self._parts_max and self._socket.get(zmq.RCVMORE):
            part = self._socket.recv(_NOW)
            size += len(part)
            parts.append(part)
        return size

    def _skip_first(self) -> None:
        """Throw away a part of an outcast, which tells by which connection it came."""
        frame = self._socket.recv(_NOW, copy=False)
        self._counters.bytes_received += len(frame)
        self._counters.packets_ignored += 1
        if self._on_outcast is not None:
            self._on_outcast(self._rest_of, frame)

    def _skip_rest(self) -> bool:
        """Throw away what is left of a message, within a turn's budget; return whether it is gone.

        It had too many parts, or a KeyboardInterrupt out of its middle left them in the socket.
        """
        count = size = 0
        if self._outcasts and self._outcasts.holds(self._rest_of):
            if not self._socket.get(zmq.RCVMORE):
                return True
            self._skip_first()
        while self._socket.get(zmq.RCVMORE):
            if count >= self._share.packets_max or size >= self._share.bytes_max:
                return False
            part = len(self._socket.recv(_NOW))
            self._counters.bytes_received += part
            count += 1
            size += part
        return True
