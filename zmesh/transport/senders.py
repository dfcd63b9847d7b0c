"""Whose packets these are: routing ids, and the keys of the connections that have them.

A routing id alone names nobody for sure: it is given when a connection begins and free when it
ends, and a peer may claim one of its choice. The key of the connection (see `zap`) was proved.
"""

from typing import Final

from zmesh.ids import CONNECTION_KEY_BYTES, Path

USER_ID: Final = "User-Id"
"""The property of every part under which libzmq tells what the ZAP handler called its sender."""


class Senders:
    """The paths of inbound connections on CURVE: routing id and connection key.

    `known` is for the pump: one look-up a packet. It is emptied whenever some connection has ended
    (libzmq does not say which), so that the next packet of each is asked for its key again. Until
    that was told, what claims a routing id that has just become free would pass for who had it:
    it must also have guessed a number of 31 random bits that was never sent to anybody.

    `_owners` outlives that: who is about to be sent to need not have spoken since.
    """

    def __init__(self, senders_max: int) -> None:
        self._senders_max = senders_max
        self.known: dict[Path, bytes] = {}  # by routing id
        self._owners: dict[bytes, bytes] = {}

    def learn(self, routing_id: bytes, user: str) -> bytes:
        """Return the path of a packet, from its routing id and its `USER_ID`."""
        path = routing_id + bytes.fromhex(user)
        self._owners.pop(routing_id, None)
        if len(self._owners) >= self._senders_max:
            oldest = next(iter(self._owners))
            del self._owners[oldest]
            self.known.pop(oldest, None)
        self._owners[routing_id] = self.known[routing_id] = path
        return path

    def routing_id(self, path: bytes) -> bytes | None:
        """Return where to send for a path; None where it is nobody's, or another's by now."""
        routing_id = path[:-CONNECTION_KEY_BYTES]
        return routing_id if self._owners.get(routing_id) == path else None

    def doubt(self) -> None:
        """Some connection has ended: ask everybody again."""
        self.known.clear()

    def forget(self) -> None:
        """All connections have ended."""
        self.known.clear()
        self._owners.clear()
