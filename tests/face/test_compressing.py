"""Compression at the sender's face: what is asked for, and where it is done."""

import asyncio
import threading

import pytest

from zmesh.errors import BodyNotEncodable, InvalidOption
from zmesh.face.compressing import THREADED_BYTES
from zmesh.face.outgoing import Outgoing
from zmesh.message import COMPRESSED, Algorithm, Kind, Record
from zmesh.options import NodeOptions
from zmesh.terms import Compression
from zmesh.wire import compression
from zmesh.wire.bodies import body_of

OPTIONS = NodeOptions(compressed_bytes_min=100)
SMALL = b"again and " * 100
LARGE = b"again and " * THREADED_BYTES


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads in which something was compressed, as it happens."""
    found: list[threading.Thread] = []
    lz4 = compression._PACK[Algorithm.LZ4]

    def pack(body: bytes | memoryview) -> bytes:
        found.append(threading.current_thread())
        return lz4(body)

    monkeypatch.setitem(compression._PACK, Algorithm.LZ4, pack)
    return found


def algorithm(outgoing: Outgoing, wanted: Compression | None) -> Algorithm | None:
    found = outgoing.compressing.compressor(wanted)
    return None if found is None else found.algorithm


def test_a_message_is_compressed_as_it_says_or_else_as_the_node_does() -> None:
    plain, packing = Outgoing(OPTIONS), Outgoing(OPTIONS, "lz4")
    assert [algorithm(plain, each) for each in (None, "none", "lz4", "zstd")] == [
        None, None, Algorithm.LZ4, Algorithm.ZSTD,
    ]  # fmt: skip
    assert [algorithm(packing, each) for each in (None, "none", "lz4", "zstd")] == [
        Algorithm.LZ4, None, Algorithm.LZ4, Algorithm.ZSTD,
    ]  # fmt: skip
    with pytest.raises(InvalidOption, match="gzip"):
        plain.compressing.compressor("gzip")  # type: ignore[arg-type]


async def test_large_bodies_are_compressed_in_a_thread_and_small_ones_here(
    threads: list[threading.Thread],
) -> None:
    outgoing = Outgoing(OPTIONS, "lz4")
    compressing, here = outgoing.compressing, threading.current_thread()
    for body in (SMALL, LARGE):
        record = outgoing.record(Kind.DIRECT, "", body)
        made = await compressing.soon(record, compressing.default)
        assert made[0] >= COMPRESSED
        assert body_of(made) == body
    assert [thread is here for thread in threads] == [True, False]
    made = compressing.now(outgoing.record(Kind.DIRECT, "", LARGE), compressing.default)
    assert threads[-1] is here
    assert compressing.compressed == 3
    assert compressing.saved_bytes > len(LARGE)
    assert await compressing.soon(made, None) is made


async def test_what_is_cancelled_while_it_is_compressed_is_dropped() -> None:
    compressing = Outgoing(OPTIONS, "lz4").compressing
    record: Record = (0, "", LARGE)
    task = asyncio.create_task(compressing.soon(record, compressing.default))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert compressing.compressed == 0
    assert (await compressing.soon(record, compressing.default))[0] >= COMPRESSED


async def test_a_batch_prepares_its_large_bodies_one_by_one(
    threads: list[threading.Thread],
) -> None:
    outgoing = Outgoing(OPTIONS)
    bodies = [SMALL, SMALL, LARGE, LARGE, SMALL, b"tiny"]
    batch = outgoing.batch(bodies, None, compressor=outgoing.compressing.compressor("lz4"))
    pieces = []
    while not batch.is_exhausted:
        await batch.prepare()
        await batch.prepare()  # again changes nothing
        pieces.append(batch.take(10, 10**9))
    assert [len(piece) for piece in pieces] == [2, 1, 3]
    assert [body_of(record) for piece in pieces for record in piece] == bodies
    here = threading.current_thread()
    assert [thread is here for thread in threads] == [True, True, False, False, True]


async def test_a_batch_is_taken_by_the_bytes_there_were() -> None:
    outgoing = Outgoing(OPTIONS)
    compressor = outgoing.compressing.compressor("lz4")
    batch = outgoing.batch([SMALL] * 10, {"h": 1}, Kind.JOB, "queue", compressor)
    assert len(batch.take(100, 3 * len(SMALL))) == 3
    assert len(batch.take(5, 10**9)) == 5
    assert len(batch.take(100, 0)) == 1
    assert len(batch.take(100, 10**9)) == 1
    assert batch.is_exhausted


async def test_a_batch_tells_of_a_body_that_cannot_be_sent() -> None:
    outgoing = Outgoing(OPTIONS)
    compressor = outgoing.compressing.compressor("lz4")
    batch = outgoing.batch([object()], None, compressor=compressor)
    with pytest.raises(BodyNotEncodable):
        await batch.prepare()
    with pytest.raises(BodyNotEncodable):
        batch.take(1, 1)
