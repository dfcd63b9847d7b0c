"""Attacks on a node, one function each. Each takes a target, does its worst, and comes back.

`STRANGERS` have no key; `MEMBERS` have the mesh's. With each stands what the victim must have
counted when it is over: an audit event, a kind of defect, or a figure of its transport.
"""

import asyncio
import contextlib
import os
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import zmq
import zmq.asyncio
from msgpack import packb

from tests.security.member import MESH, Member, Target, member
from tests.security.taps import tap
from zmesh.ids import LinkId, SessionId
from zmesh.message import CONTROL_LANE, Algorithm, COMPRESSED, Kind, Outcome, Tag, head
from zmesh.reliable.proofs import hello_claim
from zmesh.security.mesh_key import CurvePair
from zmesh.security.node_key import NodeKey
from zmesh.wire.frames import (
    VERSION,
    Ack,
    Bye,
    ByeCode,
    ControlData,
    Data,
    Error,
    ErrorCode,
    Fenced,
    FrameType,
    Hello,
    Iam,
    Interest,
    Ping,
    Settle,
    Welcome,
)

GIB = 1 << 30
MIB = 1 << 20


@dataclass(frozen=True)
class Noticed:
    """What the victim must have counted: where, under which name, and at least how often."""

    where: str  # "audited", "defects" or "transport"
    name: str
    times: int = 1


@dataclass(frozen=True)
class Attack:
    """One of them."""

    run: Callable[[Target], Awaitable[None]]
    noticed: Noticed | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        function = self.run.func if isinstance(self.run, partial) else self.run
        extra = "_".join(map(str, self.run.args)) if isinstance(self.run, partial) else ""
        return f"{function.__name__}{'_' if extra else ''}{extra}"


# Strangers


async def dial_with_another_key(target: Target) -> None:
    """Guess keys."""
    for _ in range(20):
        guess = CurvePair.of(os.urandom(32)).public
        async with member(target, server=guess) as stranger:
            assert await stranger.is_hung_up()


async def dial_without_a_key(target: Target) -> None:
    """Speak plain ZeroMQ to a node that wants CURVE."""
    with zmq.asyncio.Context() as context:
        for _ in range(20):
            socket = context.socket(zmq.DEALER)
            socket.connect(target.endpoint)
            await socket.send_multipart([packb([VERSION, bytes(8), 1, [1, MESH, bytes(16)]])])
            assert not await socket.poll(50)
            socket.close(linger=0)


async def open_and_say_nothing(target: Target) -> None:
    """Hold a thousand connections half open."""
    opened = await asyncio.gather(
        *(asyncio.open_connection(*target.address) for _ in range(1000)), return_exceptions=True
    )
    await asyncio.sleep(1.0)
    for each in opened:
        if isinstance(each, tuple):
            each[1].close()


async def say_it_slowly(target: Target) -> None:
    """Begin a greeting, and go on a byte at a time."""
    _, writer = await asyncio.open_connection(*target.address)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(47)
    with contextlib.suppress(ConnectionError):
        for byte in greeting[:40]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.1)
    writer.close()


async def announce_a_gibibyte_as_a_stranger(target: Target) -> None:
    """Say in plain ZMTP that a part of 1 GiB comes, and send some of it."""
    _, writer = await asyncio.open_connection(*target.address)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    with contextlib.suppress(ConnectionError):
        writer.write(greeting + b"\x02" + struct.pack(">Q", GIB))
        for _ in range(64):
            writer.write(bytes(64 * 1024))
            await writer.drain()
            await asyncio.sleep(0.01)
    writer.close()


# Members, below the link


async def announce_a_gibibyte(target: Target) -> None:
    """The same from a member, after its handshake."""
    async with tap(target.endpoint) as way, member(target, way.endpoint) as mallory:
        await mallory.join()
        with contextlib.suppress(ConnectionError):
            await way.inject(b"\x02" + struct.pack(">Q", GIB))
            for _ in range(32):
                await way.inject(bytes(MIB // 4))
                await asyncio.sleep(0.01)


async def send_a_part_too_large(target: Target) -> None:
    """Send more than a part may be."""
    async with member(target) as mallory:
        await mallory.join()
        await mallory.parts([bytes(8 * MIB)])
        assert await mallory.is_hung_up()


async def send_deep_msgpack(target: Target) -> None:
    """Send arrays in arrays in arrays."""
    async with member(target) as mallory:
        await mallory.join()
        for _ in range(100):
            await mallory.parts([b"\x91" * 200_000])


async def send_huge_msgpack(target: Target) -> None:
    """Send a megabyte of empty maps, which is seventy once it is read."""
    async with member(target) as mallory:
        await mallory.join()
        for _ in range(20):
            await mallory.parts([b"\xdd" + struct.pack(">I", 1_000_000) + b"\x80" * 1_000_000])


async def send_many_parts(target: Target) -> None:
    """Send messages of thousands of parts."""
    async with member(target) as mallory:
        await mallory.join()
        for _ in range(10):
            await mallory.parts([b"x"] * 20_000)


async def send_rubbish(target: Target) -> None:
    """Send random bytes."""
    async with member(target) as mallory:
        await mallory.join()
        for _ in range(1000):
            await mallory.parts([os.urandom(64)])


# Members that lie about who they are


async def lie_about_who_they_are(target: Target) -> None:
    """Claim other ids than the own key's: of others, of the victim, with the wrong proof."""
    other = NodeKey.of(os.urandom(32))
    async with member(target) as mallory:
        iam = await mallory.introduce()
        lies = (
            {"node": other.id},
            {"node": other.id, "key": other.public},
            {"node": target.node},
            {"proof": bytes(64)},
            {"key": b"", "proof": b""},
        )
        for lie in lies:
            link = LinkId(os.urandom(8))
            await mallory.say(mallory.hello(iam, link, **lie), link=link)
        await asyncio.sleep(0.2)


async def fence_and_say_goodbye_for_others(target: Target) -> None:
    """Say on many links that they are over: BYE, FENCED, ERROR, acknowledgements, outcomes."""
    async with member(target) as mallory:
        await mallory.join()
        for _ in range(200):
            link = LinkId(os.urandom(8))
            await mallory.say(Bye(ByeCode.CLOSED, "gone"), link=link)
            await mallory.say(Error(ErrorCode.UNKNOWN_LINK, "say HELLO"), link=link)
            await mallory.say(Ack(1 << 40, 0, ((4, 1 << 40, ()),), ()), link=link)


async def acknowledge_what_was_never_sent(target: Target) -> None:
    """Acknowledge and settle far ahead, on the own link."""
    async with member(target) as mallory:
        await mallory.join()
        await mallory.say(Ack(1 << 40, 0, ((4, 1 << 40, ()),), ((4, 1 << 50, 1 << 50),)))
        settle = Settle(4, ((Outcome.ACCEPTED, 1, 1 << 40),))
        await mallory.say(ControlData(1, (settle,)))
        await asyncio.sleep(0.2)


async def send_beyond_their_credit(target: Target) -> None:
    """Send ten times what was granted, at once."""
    record = (head(Kind.DIRECT), "", bytes(100))
    async with member(target) as mallory:
        await mallory.join()
        for first in range(1, 10_001, 1000):
            await mallory.say(Data(4, first, (record,) * 1000))
        await asyncio.sleep(0.2)


async def jump_in_their_sequence(target: Target) -> None:
    """Leave holes in the numbers, as large as can be."""
    record = (head(Kind.DIRECT), "", b"x")
    async with member(target) as mallory:
        await mallory.join()
        for number in range(100):
            await mallory.say(Data(4, (1 << 40) + 1000 * number, (record,)))
        await asyncio.sleep(0.2)


async def declare_without_end(target: Target) -> None:
    """Tell of a hundred thousand subscriptions and services."""
    async with member(target) as mallory:
        await mallory.join()
        for piece in range(100):
            added = tuple(("topic", f"t{piece}.{number}") for number in range(1000))
            await mallory.say(ControlData(1 + piece, (Interest(added, ()),)))
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)


async def send_a_bomb(algorithm: str, target: Target) -> None:
    """Send bodies that are small until they are decompressed."""
    size = 64 * MIB
    if algorithm == "zstd":
        import zstandard

        bomb, way = zstandard.ZstdCompressor().compress(bytes(size)), Algorithm.ZSTD
    else:
        import lz4.block

        bomb, way = lz4.block.compress(bytes(size), store_size=False), Algorithm.LZ4
    kind = head(Kind.DIRECT) | COMPRESSED
    async with member(target) as mallory:
        await mallory.join()
        for number in range(1, 9):
            for told in (size, 1, 1 << 40):
                record = (kind, "", bomb, (int(Tag.COMPRESSED), (int(way), told)))
                with contextlib.suppress(Exception):
                    await mallory.say(Data(4, 3 * number, (record,)))
        await asyncio.sleep(0.5)


async def ask_and_never_read(target: Target) -> None:
    """Ask for large answers, and take none of them."""
    async with tap(target.endpoint) as way, member(target, way.endpoint) as mallory:
        await mallory.join()
        way.reads_answers.clear()
        for number in range(1, 65):
            body = bytes(16 * 1024)
            record = (head(Kind.REQUEST), "echo", body, (int(Tag.CORRELATION), number))
            await mallory.say(Data(4, number, (record,)))
        await asyncio.sleep(1.0)


async def dial_again_and_again(target: Target) -> None:
    """Join under a new name each time."""
    for _ in range(30):
        async with member(target) as mallory:
            await mallory.join()


STRANGERS = (
    Attack(dial_with_another_key, Noticed("audited", "wrong_key")),
    Attack(dial_without_a_key, Noticed("audited", "wrong_key")),
    Attack(open_and_say_nothing, Noticed("audited", "flooded")),
    Attack(say_it_slowly, Noticed("transport", "handshakes_abandoned")),
    Attack(announce_a_gibibyte_as_a_stranger, Noticed("audited", "wrong_key")),
)

MEMBERS = (
    Attack(announce_a_gibibyte),
    Attack(send_a_part_too_large),
    Attack(send_deep_msgpack, Noticed("defects", "malformed")),
    Attack(send_huge_msgpack, Noticed("defects", "oversized")),
    Attack(send_many_parts, Noticed("defects", "oversized")),
    Attack(send_rubbish, Noticed("defects", "malformed")),
    Attack(lie_about_who_they_are, Noticed("audited", "not_proved")),
    Attack(fence_and_say_goodbye_for_others),
    Attack(acknowledge_what_was_never_sent, Noticed("defects", "ack")),
    Attack(send_beyond_their_credit, Noticed("defects", "credit")),
    Attack(jump_in_their_sequence, Noticed("defects", "credit")),
    Attack(declare_without_end, Noticed("defects", "interest")),
    Attack(partial(send_a_bomb, "zstd")),
    Attack(partial(send_a_bomb, "lz4")),
    Attack(ask_and_never_read),
    Attack(dial_again_and_again),
)
