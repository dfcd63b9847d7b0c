"""Traps on the way to a node: a false listener, and a relay."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import zmq
import zmq.asyncio
from zmq.auth import CURVE_ALLOW_ANY
from zmq.auth.asyncio import AsyncioAuthenticator
from zmq.utils import z85

from tests.security.member import MESH, Target, member
from zmesh.options import WireLimits
from zmesh.reliable.proofs import iam_claim
from zmesh.security.node_key import NodeKey
from zmesh.wire.codec import decode, encode
from zmesh.wire.frames import Hello, Iam, Packet, Who

_LIMITS = WireLimits()


@asynccontextmanager
async def listener(target: Target) -> AsyncIterator[tuple["zmq.asyncio.Socket", str]]:
    """Listen as a member of the target's mesh does; the socket and its endpoint."""
    context = zmq.asyncio.Context()
    guard = AsyncioAuthenticator(context)
    guard.start()
    guard.configure_curve(domain="*", location=CURVE_ALLOW_ANY)
    socket = context.socket(zmq.ROUTER)
    pair = target.key.server_pair()
    socket.set(zmq.CURVE_SERVER, 1)
    socket.set(zmq.CURVE_PUBLICKEY, z85.encode(pair.public))
    socket.set(zmq.CURVE_SECRETKEY, z85.encode(pair.secret))
    socket.set_string(zmq.ZAP_DOMAIN, "trap")
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    try:
        yield socket, f"tcp://127.0.0.1:{port}"
    finally:
        guard.stop()
        socket.close(linger=0)
        context.destroy(linger=0)


@dataclass
class Trap:
    """Who came by, and what they said."""

    endpoint: str
    hellos: list[tuple[Packet, Hello]] = field(default_factory=list)


@asynccontextmanager
async def trap(target: Target) -> AsyncIterator[Trap]:
    """Be somebody whom others may dial, prove to be that, and keep the HELLOs they say."""
    key = NodeKey.of(os.urandom(32))
    async with listener(target) as (socket, endpoint):
        caught = Trap(endpoint)

        async def answer() -> None:
            while True:
                frames = await socket.recv_multipart(copy=False)
                asker = z85.decode(str(frames[1].get("User-Id")))
                packet = decode([frame.bytes for frame in frames[1:]], _LIMITS)
                said = packet.frames[0]
                if isinstance(said, Hello):
                    caught.hellos.append((packet, said))
                elif isinstance(said, Who):
                    iam = Iam(MESH, key.id, "trap", 1, (endpoint,), (), key.public)
                    proof = iam_claim(iam, said.node, asker).prove(key)
                    iam = Iam(MESH, key.id, "trap", 1, (endpoint,), (), key.public, proof)
                    parts = encode(Packet(packet.link, 1, (iam,)), _LIMITS, 1 << 14)
                    await socket.send_multipart([frames[0], *parts])

        answering = asyncio.create_task(answer())
        try:
            yield caught
        finally:
            answering.cancel()
            with suppress(asyncio.CancelledError):
                await answering


@asynccontextmanager
async def relay(target: Target) -> AsyncIterator[str]:
    """Pass on what others say to the target, and back, on connections of its own; its endpoint."""
    async with listener(target) as (near, endpoint), member(target) as far:
        callers: list[bytes] = []

        async def inward() -> None:
            while True:
                caller, *parts = await near.recv_multipart()
                callers.append(caller)
                await far.parts(parts)

        async def outward() -> None:
            while True:
                parts = await far.socket.recv_multipart()
                await near.send_multipart([callers[-1], *parts])

        tasks = [asyncio.create_task(each()) for each in (inward, outward)]
        try:
            yield endpoint
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
