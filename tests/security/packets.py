"""Attacks by members on what reads their packets: sizes, parts, nesting, rubbish."""

import asyncio
import os
import struct
from contextlib import suppress

from msgpack import packb

from tests.security.attack import MIB, Attack
from tests.security.member import Target, member
from tests.security.strangers import GIB
from tests.security.taps import tap
from zmesh.wire.frames import VERSION


async def announce_a_gibibyte(target: Target) -> None:
    """Say after the handshake that a part of 1 GiB comes, and send some of it."""
    async with tap(target) as way, member(target, way.endpoint) as mallory:
        await mallory.join()
        with suppress(ConnectionError):
            await way.inject(b"\x02" + struct.pack(">Q", GIB))
            for _ in range(32):
                await way.inject(bytes(MIB // 4))
        await asyncio.wait_for(way.is_over.wait(), 5)


async def send_a_part_too_large(target: Target) -> None:
    """Send more than a part may be, sealed as it should be."""
    async with tap(target) as way, member(target, way.endpoint) as mallory:
        await mallory.join()
        await mallory.parts([bytes(8 * MIB)])
        await asyncio.wait_for(way.is_over.wait(), 5)


async def send_deep_msgpack(target: Target) -> None:
    """Send arrays in arrays in arrays."""
    async with member(target) as mallory:
        await mallory.join()
        async with mallory.shut_out():
            for _ in range(50):
                await mallory.parts([b"\x91" * 200_000])


async def send_huge_msgpack(target: Target) -> None:
    """Send a megabyte of empty maps, which is seventy once it is read."""
    async with member(target) as mallory:
        await mallory.join()
        head = b"\x94" + packb(VERSION) + packb(bytes(mallory.link)) + packb(mallory.number)
        async with mallory.shut_out():
            # Small enough to be looked at.
            await mallory.parts([head + b"\xdd" + struct.pack(">I", 200_000) + b"\x80" * 200_000])
            for _ in range(20):
                await mallory.parts([b"\xdd" + struct.pack(">I", 1_000_000) + b"\x80" * 1_000_000])


async def send_many_parts(target: Target) -> None:
    """Send messages of thousands of parts."""
    async with member(target) as mallory:
        await mallory.join()
        async with mallory.shut_out():
            for _ in range(10):
                await mallory.parts([b"x"] * 20_000)


async def send_rubbish(target: Target) -> None:
    """Send random bytes."""
    async with member(target) as mallory:
        await mallory.join()
        async with mallory.shut_out():
            for _ in range(900):
                await mallory.parts([os.urandom(64)])


async def send_slowly(target: Target) -> None:
    """Begin a part, and go on a byte at a time until others think that one has died."""
    async with tap(target) as way, member(target, way.endpoint) as mallory:
        await mallory.join()
        await mallory.is_heard()
        way.passes_on.clear()
        await way.inject(b"\x02" + struct.pack(">Q", MIB - 100))
        for _ in range(80):
            await way.inject(b"x")
            await asyncio.sleep(0.05)


SHUT_OUT = {"defects.cut off": 1, "transport.inbound_shut_out": 1, "audited.flooded": 1}

BROKEN = {"transport.inbound_broken": 1, "audited.flooded": 1}

PACKETS = (
    Attack(announce_a_gibibyte, BROKEN),
    Attack(send_a_part_too_large, BROKEN),
    Attack(send_deep_msgpack, {"defects.malformed": 3, **SHUT_OUT}),
    Attack(send_huge_msgpack, {"defects.oversized": 3, **SHUT_OUT}),
    Attack(send_many_parts, {"defects.oversized": 1, **SHUT_OUT}),
    Attack(send_rubbish, {"defects.malformed": 3, **SHUT_OUT}),
    Attack(send_slowly, {"happened.Suspected": 1}),
)
