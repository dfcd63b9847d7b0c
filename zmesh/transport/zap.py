"""The handler that libzmq asks whom to let in (ZAP, ZeroMQ RFC 27), on the loop of the node.

Who asks has passed CURVE, and so knows the mesh key. The answer names the connection by its public
key, which libzmq then ties to everything that comes by it.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from zmesh.ids import CONNECTION_KEY_BYTES
from zmesh.options import TransportOptions, WireLimits
from zmesh.transport.counters import Counters
from zmesh.transport.curve import ZAP_DOMAIN
from zmesh.transport.pump import Intake, Packets, push
from zmesh.transport.sockets import Sockets

ENDPOINT: Final = "inproc://zeromq.zap.01"
_VERSION: Final = b"1.0"
_MECHANISM: Final = b"CURVE"
_REQUEST_PARTS: Final = (
    8  # delimiter, version, request id, domain, address, identity, mechanism, key
)


class Authenticator:
    """Answers every request at once.

    Args:
        admit: asked with the address of a stranger, without its port, and with the key of its
            connection, whether it may come in.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sockets,
        options: TransportOptions,
        limits: WireLimits,
        admit: Callable[[str, bytes], bool],
    ) -> None:
        self._admit = admit
        self._counters = Counters()  # this is no traffic
        self._socket = sockets.handler(ENDPOINT)
        self.intake = Intake(
            loop, self._socket, None, options, limits, self._counters, deliver=self._on_requests
        )

    def close(self) -> None:
        """Answer nobody any more: nobody gets in."""
        self.intake.close()

    def _on_requests(self, requests: Packets) -> None:
        for asker, parts in requests:
            # libzmq waits for an answer to each, whatever is wrong with it.
            request = parts[2] if len(parts) > 2 else b""
            code, text, user = self._judge(parts)
            answer = [b"", _VERSION, request, code, text, user, b""]
            push(self._socket, cast("bytes", asker), [answer], self._counters)
        self.intake.look()

    def _judge(self, parts: list[bytes]) -> tuple[bytes, bytes, bytes]:
        """Return the status, its text and the user id."""
        if len(parts) != _REQUEST_PARTS or parts[1] != _VERSION:
            return b"500", b"not a request for CURVE", b""
        _, _, _, domain, address, _, mechanism, key = parts
        is_curve = domain == ZAP_DOMAIN and mechanism == _MECHANISM
        if not is_curve or len(key) != CONNECTION_KEY_BYTES:
            return b"500", b"not a request for CURVE", b""
        if not self._admit(address.decode("ascii", "replace"), key):
            return b"400", b"no room", b""
        return b"200", b"OK", key.hex().encode()
