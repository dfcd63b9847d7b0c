"""A peer that speaks ZMTP 3.0 with raw sockets, so that tests can break its rules (RFC 23)."""

import socket
import struct
from typing import Self

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def ready(kind: bytes, routing_id: bytes = b"") -> bytes:
    """The READY command of the NULL mechanism."""
    body = b"\x05READY"
    for name, value in ((b"Socket-Type", kind), (b"Identity", routing_id)):
        body += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
    return b"\x04" + bytes([len(body)]) + body


def part(content: bytes, *, more: bool = False) -> bytes:
    """One part of a message, long form."""
    return bytes([2 | more]) + struct.pack(">Q", len(content)) + content


class RawPeer:
    """A connection after its handshake."""

    def __init__(self, connection: socket.socket, kind: bytes, routing_id: bytes = b"") -> None:
        self.connection = connection
        connection.settimeout(5)
        connection.sendall(GREETING)
        self._read(len(GREETING))
        connection.sendall(ready(kind, routing_id))
        self._read(self._read(2)[1])

    @classmethod
    def dial(cls, endpoint: str, routing_id: bytes = b"") -> Self:
        """Connect as a DEALER."""
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        return cls(socket.create_connection((host, int(port))), b"DEALER", routing_id)

    def send(self, *contents: bytes) -> None:
        """Send one message."""
        for content in contents[:-1]:
            self.connection.sendall(part(content, more=True))
        self.connection.sendall(part(contents[-1]))

    def receive(self) -> bytes:
        """Read one part; TimeoutError where none comes, EOFError where none ever will."""
        flags = self._read(1)[0]
        size = struct.unpack(">Q", self._read(8))[0] if flags & 2 else self._read(1)[0]
        return self._read(size)

    def is_closed(self) -> bool:
        """Whether the other side ended the connection; what it sent before is thrown away."""
        try:
            while self.connection.recv(65536):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self.connection.close()

    def _read(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            chunk = self.connection.recv(size - len(content))
            if not chunk:
                raise EOFError
            content += chunk
        return content
