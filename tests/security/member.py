"""A member that means harm: it has the mesh key and a node key of its own, and no scruples."""

import asyncio
import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import zmq
import zmq.asyncio
from zmq.utils import z85

from zmesh.discovery.mesh_tag import mesh_tag
from zmesh.ids import NO_LINK, JournalId, LinkId, NodeId, SessionId
from zmesh.message import Outcome
from zmesh.options import WireLimits
from zmesh.reliable.proofs import hello_claim
from zmesh.security.mesh_key import CurvePair, MeshKey
from zmesh.security.node_key import NodeKey
from zmesh.wire.codec import decode, encode
from zmesh.wire.frames import (
    ControlData,
    Error,
    ErrorCode,
    Frame,
    Hello,
    Iam,
    LaneState,
    Packet,
    Ping,
    Settle,
    Welcome,
    Who,
)

_LIMITS = WireLimits()
_INLINE = 16 * 1024
HEARS_WITHIN = 20.0
"""Seconds until an answer comes, on a machine that is busy with other tests."""
MESH = mesh_tag("default")


@dataclass(frozen=True)
class Target:
    """Who is attacked."""

    endpoint: str
    node: NodeId
    key: MeshKey
    source: str = "127.0.0.1"  # the address that attacks come from
    name: str = "mallory"  # of attackers that join
    paths: Mapping[str, bytes] = field(default_factory=dict)  # of its peers, by name

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, for sockets."""
        host, _, port = self.endpoint.removeprefix("tcp://").rpartition(":")
        return host, int(port)

    @property
    def way(self) -> str:
        """How to connect to it, for ZeroMQ: from the source."""
        return f"tcp://{self.source}:0;{self.endpoint.removeprefix('tcp://')}"

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to it from the source, and say nothing yet."""
        return await asyncio.open_connection(*self.address, local_addr=(self.source, 0))


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
    _heard: deque[Frame] = field(default_factory=deque)

    async def say(self, *frames: Frame, link: LinkId | None = None) -> None:
        """Send frames as a packet of the link."""
        self.number += 1
        packet = Packet(self.link if link is None else link, self.number, frames)
        await self.parts(encode(packet, _LIMITS, _INLINE))

    async def parts(self, parts: Sequence[Any]) -> None:
        """Send a message of any parts."""
        await self.socket.send_multipart(parts)

    async def hear(self, kind: type[Frame]) -> Any:
        """Return the next frame of a kind that is said to it; others before it are lost."""
        async with asyncio.timeout(HEARS_WITHIN):
            while True:
                while self._heard:
                    frame = self._heard.popleft()
                    if isinstance(frame, kind):
                        return frame
                packet = decode(await self.socket.recv_multipart(), _LIMITS)
                self._heard.extend(packet.frames)

    async def is_heard(self) -> None:
        """Wait until the target has read all that was said to it."""
        await self.introduce()

    async def is_cut_off_for(self, saying: Coroutine[Any, Any, None]) -> None:
        """Say what the target will have enough of, or as much of it as it listens to."""
        task = asyncio.ensure_future(saying)
        try:
            error = await self.hear(Error)
            assert error.code in (ErrorCode.OVER_CREDIT, ErrorCode.MALFORMED)
        finally:
            # Who is let in no more has nobody left to send to, and would wait for ever.
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @asynccontextmanager
    async def shut_out(self) -> AsyncIterator[None]:
        """Do what the target ends the connection for; and wait until it has."""
        monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            # Who was refused has nobody left to send to, and would wait for ever.
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    yield
            assert await monitor.poll(int(HEARS_WITHIN * 1000)), "it is listened to for ever"
        finally:
            self.socket.disable_monitor()
            monitor.close(linger=0)

    async def settled(self, count: int) -> Counter[Outcome]:
        """Return what became of so many messages."""
        outcomes: Counter[Outcome] = Counter()
        while outcomes.total() < count:
            for record in (await self.hear(ControlData)).records:
                if isinstance(record, Settle):
                    for outcome, first, last in record.outcomes:
                        outcomes[outcome] += last - first + 1
        return outcomes

    async def hears_nothing(self, seconds: float = 0.3) -> bool:
        """Return whether nothing at all comes for a while."""
        return not await self.socket.poll(int(seconds * 1000))

    def hello(self, iam: Iam, link: LinkId, **claims: Any) -> Hello:
        """Return a HELLO of its own, signed; `claims` are said all the same."""
        said: dict[str, Any] = {
            "mesh": MESH,
            "node": self.key.id,
            "to": self.target.node,
            "name": self.target.name,
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
        proof = claims["proof"] if "proof" in claims else claim.prove(self.key)
        return Hello(**{**said, **claims, "proof": proof})

    async def introduce(self) -> Iam:
        """Ask who is there."""
        await self.say(Who(MESH, self.key.id), link=NO_LINK)
        iam: Iam = await self.hear(Iam)
        return iam

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
    socket.connect(endpoint or target.way)
    try:
        yield Member(target, socket, connection, key or NodeKey.of(os.urandom(32)))
    finally:
        socket.close(linger=0)
        context.destroy(linger=0)
