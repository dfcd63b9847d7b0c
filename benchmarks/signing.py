"""What signatures cost: made alone beside bare Ed25519, and from one process to another.

Rates are by the second of processor time of one process, all its threads together: what one quiet
core does, though what else runs on the machine still shares its caches. Medians, all measures
taking turns.

`python -m benchmarks.signing [--count N] [--runs N]`
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from multiprocessing.connection import Connection
from time import process_time

import zmesh
from benchmarks.processes import expect, role
from zmesh.ids import NO_LINK, JournalId
from zmesh.message import Record, Tag, extra
from zmesh.options import LinkOptions, WireLimits
from zmesh.security.node_key import NodeKey, is_signed
from zmesh.security.signing import Addressing, Roots, Signature, Signer
from zmesh.wire.codec import encode
from zmesh.wire.frames import Data, Packet

BODY = bytes(200)
TO = "ab" * 16
KEY = NodeKey.of(b"k" * 32)
SIGNER = Signer(KEY, JournalId(b"j" * 16), Addressing.NODE, 4, TO, None)
PIECE = 128
INLINE = LinkOptions().inline_bytes_max


def rate(count: int, work: Callable[[], object]) -> float:
    begun = process_time()
    work()
    return count / (process_time() - begun)


# Alone


def alone(count: int) -> dict[str, float]:
    """Return what is made and verified, beside Ed25519 of a message as long, and nothing else."""
    count -= count % PIECE
    pieces: list[list[Record]] = [[(0, "", BODY)] * PIECE for _ in range(count // PIECE)]
    now = time.time_ns() // 1_000_000
    made: list[list[Record]] = []
    proof = KEY.sign(BODY)

    def encoded(records: list[Record]) -> None:
        encode(Packet(NO_LINK, 1, (Data(4, 1, tuple(records)),)), WireLimits(), INLINE)
        made.append(records)

    def sign_each() -> None:
        for first, piece in enumerate(pieces):
            at = first * PIECE
            encoded(
                [SIGNER.sign(each, at + more, now, now + 1) for more, each in enumerate(piece)]
            )

    def sign_together() -> None:
        for first, piece in enumerate(pieces):
            encoded(SIGNER.sign_all(piece, first * PIECE, now, now + 1))

    def verify() -> None:
        roots = Roots(256)
        for piece in made:
            for each in piece:
                signature = Signature.of(extra(each, Tag.SIGNATURE))
                assert signature is not None
                assert signature.holds(each, TO, each[2], roots)
        made.clear()

    return {
        "bare Ed25519, sign": rate(count, lambda: [KEY.sign(BODY) for _ in range(count)]),
        "sign each and encode": rate(count, sign_each),
        "verify each": rate(count, verify),
        "sign together and encode": rate(count, sign_together),
        "verify together": rate(count, verify),
        "bare Ed25519, verify": rate(
            count, lambda: [is_signed(KEY.public, BODY, proof) for _ in range(count)]
        ),
    }


# From one process to another


async def receive(pipe: Connection) -> None:
    async with zmesh.Node("receiver", mdns=False) as node:
        pipe.send(node.endpoints)
        while True:
            count, sign = await asyncio.to_thread(pipe.recv)
            verified = node.statistics().verified
            begun = process_time()
            pipe.send("ready")
            seen = 0
            async for message in node.inbox():
                assert (message.signer is not None) is sign
                seen += 1
                if seen == count:
                    break
            assert node.statistics().verified - verified == (count if sign else 0)
            pipe.send(process_time() - begun)


async def send(pipe: Connection, endpoints: list[str]) -> None:
    async with zmesh.Node("sender", mdns=False, peers=endpoints) as node:
        await node.peers.wait_for(name="receiver", timeout=10)
        pipe.send("ready")
        while True:
            count, is_together, sign = await asyncio.to_thread(pipe.recv)
            clock, begun = time.perf_counter(), process_time()
            if is_together:
                await node.post_many("receiver", [BODY] * count, sign=sign)
            else:
                for _ in range(count):
                    await node.post("receiver", BODY, sign=sign)
            await node.flush()
            pipe.send((process_time() - begun, time.perf_counter() - clock))


def run_receiver(pipe: Connection) -> None:
    _until_closed(receive(pipe))


def run_sender(pipe: Connection, endpoints: list[str]) -> None:
    _until_closed(send(pipe, endpoints))


def _until_closed(work: Coroutine[object, object, None]) -> None:
    with suppress(EOFError):  # whoever measured has what it wants
        asyncio.run(work)


WAYS = {
    f"{name}, {'signed' if sign else 'unsigned'}": (is_together, sign)
    for name, is_together in (("post", False), ("post_many", True))
    for sign in (False, True)
}


def between(count: int, runs: int) -> dict[str, list[tuple[float, float, float]]]:
    """Return by way and run what sender and receiver do by the second of processor, and both."""
    rates: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    with (
        role(run_receiver) as (receiver, _),
        role(run_sender, expect(receiver)) as (sender, _),
    ):
        expect(sender)
        for run in range(-1, runs):
            for way, (is_together, sign) in WAYS.items():
                receiver.send((count, sign))
                expect(receiver)
                sender.send((count, is_together, sign))
                sender_s, clock_s = expect(sender)
                receiver_s = expect(receiver)
                if run >= 0:  # the first warms up
                    rates[way].append((count / sender_s, count / receiver_s, count / clock_s))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signing", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="messages of each measurement")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    found = [alone(options.count) for _ in range(options.runs)]
    print("| alone | messages a second |\n| --- | --- |")
    for what in found[0]:
        print(f"| {what} | {statistics.median(each[what] for each in found):,.0f} |")
    rates = between(options.count, options.runs)
    print("\n| between processes | sender's core | receiver's core | by the clock |")
    print("| --- | --- | --- | --- |")
    for way, each in rates.items():
        told = " | ".join(
            f"{statistics.median(column):,.0f}" for column in zip(*each, strict=True)
        )
        print(f"| {way} | {told} |")
    for name in ("post", "post_many"):
        ratios = [
            [mine / plain for mine, plain in zip(signed, unsigned, strict=True)]
            for signed, unsigned in zip(
                rates[f"{name}, signed"], rates[f"{name}, unsigned"], strict=True
            )
        ]
        told = " | ".join(f"{statistics.median(it):.2f}x" for it in zip(*ratios, strict=True))
        print(f"| {name}, signed beside unsigned | {told} |")


if __name__ == "__main__":
    main()
