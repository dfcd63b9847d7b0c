"""CURVE (ZeroMQ RFC 26): the keys of a transport, and what sockets are told of them."""

from dataclasses import dataclass
from typing import Final

import zmq
from zmq.utils import z85

from zmesh.errors import UsageError
from zmesh.security.mesh_key import CurvePair

ZAP_DOMAIN: Final = b"zmesh"
"""Any will do, as there is one handler a context; without one libzmq asks no handler."""


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """What a transport needs to speak CURVE, and nothing else.

    Args:
        server: the pair of the socket that listens, which all members of the mesh share.
        dialed: public halves of the pairs that others may listen with, the likeliest first. More
            than one while a mesh changes its key.
        connection: the pair of every socket that dials: what others know our connections by.

    Raises:
        UsageError: there is no key to dial with.
    """

    server: CurvePair
    dialed: tuple[bytes, ...]
    connection: CurvePair

    def __post_init__(self) -> None:
        if not self.dialed:
            raise UsageError("name the public key that others listen with")


def guard_listener(socket: "zmq.Socket[bytes]", keys: CurveKeys) -> None:
    """Have a socket let in nobody but who knows the server key and whom the ZAP handler admits.

    Holds for what is bound after. Without a handler nobody gets in.
    """
    socket.set(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.set(zmq.CURVE_SERVER, 1)
    _use(socket, keys.server)


def guard_dialer(socket: "zmq.Socket[bytes]", keys: CurveKeys, server: bytes) -> None:
    """Have a socket speak to nobody but who has the secret half of a server key."""
    socket.set(zmq.CURVE_SERVERKEY, z85.encode(server))
    _use(socket, keys.connection)


def _use(socket: "zmq.Socket[bytes]", pair: CurvePair) -> None:
    # As text: libzmq takes 32 bytes as well, but pyzmq's older releases took them for text.
    socket.set(zmq.CURVE_PUBLICKEY, z85.encode(pair.public))
    socket.set(zmq.CURVE_SECRETKEY, z85.encode(pair.secret))
