"""Attacks by members on their own link: its credit, numbers, acknowledgements, bodies."""

import asyncio
import struct
from collections.abc import Iterable
from functools import partial

from tests.security.attack import KIB, MIB, Attack
from tests.security.member import Member, Target, member
from tests.security.taps import tap
from tests.security.victim import TICKS
from zmesh.message import COMPRESSED, Algorithm, Kind, Outcome, Record, Tag, head
from zmesh.wire.frames import Ack, ControlData, Data, Frame, Interest, Settle

LANE = 4
CREDIT = "defects.credit"


def direct(body: bytes = b"x") -> Record:
    """A message for the inbox."""
    return (head(Kind.DIRECT), "", body)


def request(number: int, body: bytes) -> Record:
    """A call of the victim's service."""
    return (head(Kind.REQUEST), "echo", body, (int(Tag.CORRELATION), number))


async def say_each(mallory: Member, frames: Iterable[Frame]) -> None:
    """Say each in a packet of its own."""
    for frame in frames:
        await mallory.say(frame)


async def acknowledge_what_was_never_sent(target: Target) -> None:
    """Acknowledge and settle far ahead."""
    async with member(target) as mallory:
        await mallory.join()
        settle = Settle(LANE, ((Outcome.ACCEPTED, 1, 1 << 40),))
        lies = (Ack(1 << 40, 0, ((LANE, 1 << 40, ()),), ()), ControlData(1, (settle,)))
        await mallory.is_cut_off_for(say_each(mallory, (*lies, Ack(1 << 40, 0, (), ()))))


async def grant_without_end(target: Target) -> None:
    """Grant more than there are bytes, call for large answers, and read none of them."""
    async with tap(target) as way, member(target, way.endpoint) as mallory:
        await mallory.join()
        limits = tuple((lane, 1 << 60, 1 << 60) for lane in range(10))
        await mallory.say(Ack(0, 0, (), limits))
        await mallory.say(ControlData(1, (Interest((("topic", TICKS),), ()),)))
        way.reads_answers.clear()
        for number in range(1, 16):
            await mallory.say(Data(LANE, number, (request(number, bytes(16 * KIB)),)))
            await asyncio.sleep(0)
        await asyncio.sleep(4.0)


async def send_beyond_their_credit(target: Target) -> None:
    """Send ten times what was granted, at once."""
    async with member(target) as mallory:
        await mallory.join()
        thousand = (direct(bytes(100)),) * 1000
        frames = (Data(LANE, first + 5000, thousand) for first in range(1, 100_001, 1000))
        await mallory.is_cut_off_for(say_each(mallory, frames))


async def send_more_bytes_than_their_credit(target: Target) -> None:
    """Send few records, in numbers that are allowed, and more bytes than that."""
    async with member(target) as mallory:
        await mallory.join()
        # The first never comes, so that nothing is handled.
        frames = (Data(LANE, number, (direct(bytes(15 * KIB)),)) for number in range(2, 66))
        await mallory.is_cut_off_for(say_each(mallory, frames))


async def jump_in_their_sequence(target: Target) -> None:
    """Leave holes in the numbers, as large as can be."""
    async with member(target) as mallory:
        await mallory.join()
        frames = (Data(LANE, (1 << 40) + 1000 * number, (direct(),)) for number in range(100))
        await mallory.is_cut_off_for(say_each(mallory, frames))


async def jump_in_control(target: Target) -> None:
    """The same on the lane for control."""
    async with member(target) as mallory:
        await mallory.join()
        frames = (ControlData((1 << 40) + number, (Interest((), ()),)) for number in range(10))
        await mallory.is_cut_off_for(say_each(mallory, frames))


async def declare_without_end(target: Target) -> None:
    """Tell of a hundred thousand subscriptions and services."""
    async with member(target) as mallory:
        await mallory.join()
        for piece in range(100):
            kind = "service" if piece % 2 else "topic"
            added = tuple((kind, f"t{piece}.{number}") for number in range(1000))
            await mallory.say(ControlData(1 + piece, (Interest(added, ()),)))
            await asyncio.sleep(0)
        await mallory.is_heard()


async def never_read(target: Target) -> None:
    """Subscribe and call, and read nothing of what comes."""
    async with tap(target) as way, member(target, way.endpoint) as mallory:
        await mallory.join()
        await mallory.say(ControlData(1, (Interest((("topic", TICKS),), ()),)))
        await mallory.hear(Data)
        way.reads_answers.clear()
        for number in range(1, 15):
            await mallory.say(Data(LANE, number, (request(number, bytes(15 * KIB)),)))
        await asyncio.sleep(4.0)


# Bombs


def zstd_bomb(size: int, told: int) -> bytes:
    """A frame of `size` zeros, whose head tells of another size (RFC 8878, section 3.1.1.1)."""
    import zstandard  # noqa: PLC0415  # an extra

    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(size)))
    assert frame[4] >> 6 == 2, "its size is not of four bytes"
    place = 5 if frame[4] & 0x20 else 6
    assert struct.unpack_from("<I", frame, place) == (size,)
    struct.pack_into("<I", frame, place, told)
    return bytes(frame)


def lz4_bomb(size: int, _: int) -> bytes:
    """A block of `size` zeros; blocks tell no size."""
    import lz4.block  # noqa: PLC0415  # an extra

    packed: bytes = lz4.block.compress(bytes(size), store_size=False)
    return packed


BOMBS = {"zstd": (zstd_bomb, Algorithm.ZSTD), "lz4": (lz4_bomb, Algorithm.LZ4)}


def exploding(kind: Kind, target: str, packed: bytes, way: Algorithm, told: int) -> Record:
    """A record with a body that says what it becomes."""
    extras = (int(Tag.CORRELATION), told, int(Tag.COMPRESSED), (int(way), told))
    return (head(kind) | COMPRESSED, target, packed, extras)


async def send_bodies_that_say_they_explode(algorithm: str, target: Target) -> None:
    """Send bodies that say truly, or not, that they become more than is taken."""
    make, way = BOMBS[algorithm]
    size = 2 * MIB
    packed = make(size, size)
    async with member(target) as mallory:
        await mallory.join()
        sizes = (1 << 40, 65 * MIB, (len(packed) + 1) * 257, 1 << 62)
        for number, told in enumerate(sizes, 1):
            await mallory.say(Data(LANE, number, (exploding(Kind.DIRECT, "", packed, way, told),)))
        assert await mallory.settled(len(sizes)) == {Outcome.REJECTED: len(sizes)}


async def send_bodies_that_explode(algorithm: str, target: Target) -> None:
    """Send bodies that say they stay small, and are 64 MiB once they are decompressed."""
    make, way = BOMBS[algorithm]
    size = 8 * MIB if algorithm == "lz4" else 64 * MIB
    async with member(target) as mallory:
        await mallory.join()
        for number in range(1, 9):
            told = 1000 + number
            packed = make(size, told)
            kind, service = (Kind.REQUEST, "echo") if number % 4 == 0 else (Kind.DIRECT, "")
            record = exploding(kind, service, packed, way, told)
            await mallory.say(Data(LANE, number, (record,)))
            await mallory.settled(1)


LINKS = (
    Attack(acknowledge_what_was_never_sent, {"defects.unsent": 3}),
    Attack(send_beyond_their_credit, {CREDIT: 3}),
    Attack(send_more_bytes_than_their_credit, {CREDIT: 3}),
    Attack(jump_in_their_sequence, {CREDIT: 3}),
    Attack(jump_in_control, {CREDIT: 3}),
    Attack(declare_without_end, {"defects.interest": 90}),
    Attack(grant_without_end, {"happened.Suspected": 1}),
    Attack(never_read, {"happened.Suspected": 1}),
    *(
        Attack(partial(attack, algorithm), noticed)
        for algorithm in BOMBS
        for attack, noticed in (
            (send_bodies_that_say_they_explode, {"defects.compression": 4}),
            (send_bodies_that_explode, {"bodies.refused": 6}),
        )
    ),
)
