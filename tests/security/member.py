"""A member that means harm: it has the mesh key and a node key of its own, and no scruples."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import zmq
import zmq.asyncio
from zmq.utils import z85

from zmesh.discovery.mesh_tag import mesh_tag
from zmesh.ids import NO_LINK, JournalId, LinkId, NodeId, SessionId
from zmesh.options import WireLimits
from zmesh.reliable.proofs import hello_claim
from zmesh.security.mesh_key import CurvePair, MeshKey
from zmesh.security.node_key import NodeKey
from zmesh.wire.codec import decode, encode
from zmesh.wire.frames import Frame, Hello, Iam, LaneState, Packet, Ping, Welcome, Who

_LIMITS = WireLimits()
_INLINE = 16 * 1024
MESH = mesh_tag("default")


@dataclass(frozen=True)
class Target:
    """Who is attacked."""

    endpoint: str
    node: NodeId
    key: MeshKey

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, for sockets."""
        host, _, port = self.endpoint.removeprefix("tcp://").rpartition(":")
        return host, int(port)


@dataclass
class Member:
    """One connection to a target, on which anything can be said."""

    target: Target
    socket: "zmq.asyncio.Socket"
    connection: CurvePair
    key: NodeKey
    link: LinkId = NO_LINK
    number: int = 0
    welcome: Welcome | None = None
    heard: list[Packet] = field(default_factory=list)

    async def say(self, *frames: Frame, link: LinkId | None = None) -> None:
        """Send frames as a packet of the link."""
        self.number += 1
        packet = Packet(self.link if link is None else link, self.number, frames)
        await self.parts(encode(packet, _LIMITS, _INLINE))

    async def parts(self, parts: Sequence[Any]) -> None:
        """Send a message of any parts."""
        await self.socket.send_multipart(parts)

    async def hear(self, kind: type[Frame], seconds: float = 5.0) -> Any:
        """Return the next frame of a kind that is said to it."""
        async with asyncio.timeout(seconds):
            while True:
                packet = decode(await self.socket.recv_multipart(), _LIMITS)
                self.heard.append(packet)
                for frame in packet.frames:
                    if isinstance(frame, kind):
                        return frame

    async def is_hung_up(self, seconds: float = 5.0) -> bool:
        """Return whether the target ends the connection in time."""
        monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            return bool(await monitor.poll(int(seconds * 1000)))
        finally:
            self.socket.disable_monitor()

    def hello(self, iam: Iam, link: LinkId, **claims: Any) -> Hello:
        """Return a HELLO of its own, signed; `claims` are said all the same."""
        said: dict[str, Any] = {
            "mesh": MESH,
            "node": self.key.id,
            "to": self.target.node,
            "name": "mallory",
            "incarnation": 1,
            "journal": JournalId(self.key.id),
            "attempt": 1,
            "resume": None,
            "fresh": SessionId(os.urandom(16)),
            "endpoints": (),
            "lanes": tuple(LaneState(lane, 1, 0, (), 1024, 1 << 20) for lane in range(11)),
            "key": self.key.public,
        }
        hello = Hello(**{**said, **claims})
        claim = hello_claim(hello, link, self.connection.public, iam.incarnation)
        proof = claims.get("proof") or claim.prove(self.key)
        return Hello(**{**said, **claims, "proof": proof})

    async def introduce(self) -> Iam:
        """Ask who is there."""
        await self.say(Who(MESH, self.key.id), link=NO_LINK)
        return await self.hear(Iam)

    async def join(self) -> None:
        """Get a link, as honest members do."""
        iam = await self.introduce()
        link = LinkId(os.urandom(8))
        await self.say(self.hello(iam, link), link=link)
        self.welcome = await self.hear(Welcome)
        self.link = link
        await self.say(Ping(1))


@asynccontextmanager
async def member(
    target: Target,
    endpoint: str | None = None,
    *,
    key: NodeKey | None = None,
    connection: CurvePair | None = None,
    routing_id: bytes = b"",
    server: bytes | None = None,
) -> AsyncIterator[Member]:
    """Dial the target, by another way where one is named, and with a key of choice."""
    connection = connection or CurvePair.of(os.urandom(32))
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    if routing_id:
        socket.set(zmq.ROUTING_ID, routing_id)
    server = server or target.key.server_pair().public
    socket.set(zmq.CURVE_SERVERKEY, z85.encode(server))
    socket.set(zmq.CURVE_PUBLICKEY, z85.encode(connection.public))
    socket.set(zmq.CURVE_SECRETKEY, z85.encode(connection.secret))
    socket.connect(endpoint or target.endpoint)
    try:
        yield Member(target, socket, connection, key or NodeKey.of(os.urandom(32)))
    finally:
        socket.close(linger=0)
        context.destroy(linger=0)
