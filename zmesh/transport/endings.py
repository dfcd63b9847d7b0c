"""How inbound connections end: libzmq says that one did, and mostly neither by whom nor why.

The kernel knows, for as long as somebody has the connection open. So the latest are kept open by
a second descriptor until libzmq tells of their end. Where the other end has left, nothing more is
to be read; otherwise it was libzmq that ended it, over something it takes from nobody.
"""

import socket
import struct
from typing import Final

GREETING_BEGUN: Final = (11, 12, 64)
"""Bytes of its greeting (RFC 23) that libzmq has sent when it reads the mechanism of the other end
and hangs up: the signature with one or both numbers of its version, or all."""

_TCP_INFO_BYTES: Final = 136
_RECEIVED: Final = struct.Struct("=Q")
_RECEIVED_AT: Final = 128
"""In Linux's `struct tcp_info`: tcpi_bytes_received."""

_NOW: Final = getattr(socket, "MSG_DONTWAIT", 0)
"""libzmq has made the connection such that nobody waits for it: this only makes it sure."""


class Endings:
    """The latest connections, each by the descriptor libzmq has for it.

    Args:
        watched_max: how many; the oldest is let go for one that is new.
    """

    def __init__(self, watched_max: int) -> None:
        self._watched_max = watched_max
        self._watched: dict[int, socket.socket] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, descriptor: int, connection: socket.socket) -> None:
        """Keep a connection, which is ours to close."""
        self.let_go(descriptor)
        self._watched[descriptor] = connection
        if len(self._watched) > self._watched_max:
            self.let_go(next(iter(self._watched)))

    def take(self, descriptor: int) -> socket.socket | None:
        """Return a connection, to be closed by the caller; None where it is not kept."""
        return self._watched.pop(descriptor, None)

    def let_go(self, descriptor: int) -> None:
        """Keep a connection no more."""
        connection = self._watched.pop(descriptor, None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Keep none."""
        for descriptor in tuple(self._watched):
            self.let_go(descriptor)


def is_open(connection: socket.socket) -> bool:
    """Return whether the other end has not left, or said more than was read."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | _NOW))
    except BlockingIOError:
        return True
    except OSError:
        return False


def has_greeted(connection: socket.socket) -> bool:
    """Return whether what came is as much as libzmq sends before it reads our mechanism.

    False also where the system does not tell how much came.
    """
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except (AttributeError, OSError):  # not Linux
        return False
    if len(told) < _TCP_INFO_BYTES:
        return False
    [received] = _RECEIVED.unpack_from(told, _RECEIVED_AT)
    return received in GREETING_BEGUN
