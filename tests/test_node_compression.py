"""Compression between real nodes: in every pattern, with peers that cannot, and with liars."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.nodes import QUICK, read
from zmesh import (
    DeadLettered,
    InvalidOption,
    Message,
    MissingPackage,
    Node,
    ProtocolError,
    Rejected,
    RemoteError,
)
from zmesh.message import Algorithm
from zmesh.terms import Compression
from zmesh.wire import compression

TEXT = "what is said again and again " * 100
LARGE = "\n".join(f"line {number} says nothing new" for number in range(10_000)).encode()


@asynccontextmanager
async def pair(
    monkeypatch: pytest.MonkeyPatch,
    ours: Compression | None = None,
    theirs: Compression | None = None,
    *,
    able: bool = True,
) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes that compress so; the second may be one that cannot decompress."""
    async with Node("a", mdns=False, options=QUICK, compression=ours) as a:
        if not able:
            monkeypatch.setattr("zmesh.face.identity.AVAILABLE", ())
        peers = a.endpoints
        async with Node("b", peers=peers, mdns=False, options=QUICK, compression=theirs) as b:
            await a.peers.wait_for(name="b", timeout=10)
            await b.peers.wait_for(name="a", timeout=10)
            yield a, b


def compressed(node: Node) -> int:
    return node.statistics().compressed


async def read_bodies(messages: AsyncIterable[Message]) -> None:
    async for message in messages:
        assert message.body


@pytest.fixture
def garbage(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever is compressed with LZ4 is none of it."""
    monkeypatch.setitem(compression._PACK, Algorithm.LZ4, lambda body: b"\xff" * (len(body) // 9))
    return iter(())


# Every pattern


async def test_messages_say_how_they_are_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(monkeypatch) as (a, b):
        reading = asyncio.create_task(read(b.inbox(), 9))
        await a.send("b", TEXT, timeout=5)
        assert compressed(a) == 0
        await a.send("b", TEXT, compression="zstd", timeout=5)
        await a.send("b", {"text": TEXT}, compression="lz4", timeout=5)
        await a.send("b", LARGE, compression="zstd", timeout=5)
        await a.post("b", LARGE, compression="none")
        a.post_nowait("b", TEXT, compression="zstd")
        await (await a.post_many("b", [TEXT, LARGE, b"short"], compression="lz4"))
        await a.flush()
        bodies = [message.body for message in await reading]
        assert bodies == [TEXT, TEXT, {"text": TEXT}, LARGE, LARGE, TEXT, TEXT, LARGE, b"short"]
        assert compressed(a) == 6
        assert a.statistics().compression_saved_bytes > len(LARGE)
        assert a.statistics().engine.decompressed == 0


@pytest.mark.parametrize("able", [True, False])
async def test_every_pattern_compresses_as_its_node_does(
    monkeypatch: pytest.MonkeyPatch, *, able: bool
) -> None:
    async with pair(monkeypatch, "zstd", "lz4" if able else None, able=able) as (a, b):

        @b.service("echo")
        async def echo(message: Message) -> object:
            return message.body

        await a.peers.wait_for(service="echo", timeout=10)
        assert await a.call("echo", LARGE, timeout=5) == LARGE
        assert [reply.body async for reply in a.survey("echo", TEXT)] == [TEXT]
        async with b.subscribe("news") as news:
            await a.peers.wait_for(topic="news", timeout=10)
            await a.publish("news", LARGE, headers={"unit": "C"})
            assert [message.body for message in await read(news, 1)] == [LARGE]
        async with b.join("cameras") as group:
            await a.peers.wait_for(group="cameras", timeout=10)
            fan_out = a.fan_out("cameras", LARGE, timeout=5)
            assert [message.body for message in await read(group, 1)] == [LARGE]
            assert (await fan_out).accepted
        async with b.pull("jobs") as jobs:
            receipts = [
                await a.push("jobs", TEXT, key="k"),
                a.push_nowait("jobs", LARGE, ttl=60),
                await a.push_many("jobs", [LARGE, TEXT]),
            ]
            bodies = []
            async for job in jobs:
                bodies.append(job.body)
                if len(bodies) == 4:
                    break
            for receipt in receipts:
                await receipt
            assert sorted(map(str, bodies)) == sorted(map(str, [TEXT, LARGE, LARGE, TEXT]))
        assert compressed(a) == 8
        assert bool(a.statistics().engine.decompressed) is not able
        assert compressed(b) == (2 if able else 0)
        assert a.statistics().engine.defects == b.statistics().engine.defects == {}


@pytest.mark.parametrize("able", [True, False])
async def test_streams_keep_their_credit_whatever_is_compressed(
    monkeypatch: pytest.MonkeyPatch, *, able: bool
) -> None:
    """More goes both ways than fits a window, counted alike on both sides."""
    lines = [f"{number}".encode() + LARGE[: 30_000 + number] for number in range(300)]

    async def source() -> AsyncIterator[bytes]:
        for line in lines:
            yield line

    async with pair(monkeypatch, "lz4", able=able) as (a, b):

        @a.service("tail")
        async def tail(_: Message) -> AsyncIterator[bytes]:
            for line in lines:
                yield line

        @b.service("sum")
        async def total(message: Message) -> int:
            return sum([len(part) async for part in message.parts])

        await b.peers.wait_for(service="tail", timeout=10)
        await a.peers.wait_for(service="sum", timeout=10)
        assert [part async for part in b.stream("tail", timeout=5)] == lines
        assert await a.call("sum", source(), timeout=10) == sum(map(len, lines))
        assert compressed(a) == 2 * len(lines)
        assert a.statistics().engine.defects == b.statistics().engine.defects == {}


async def test_filters_by_content_see_what_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(monkeypatch, "zstd") as (a, b):
        async with b.subscribe("news", content="room == 'kitchen'") as kitchen:
            await a.peers.wait_for(topic="news", timeout=10)
            for room in ("hall", "kitchen"):
                await a.publish("news", {"room": room, "text": TEXT})
            (message,) = await read(kitchen, 1)
            assert message.body["room"] == "kitchen"
        assert compressed(a) == 2
        assert b.statistics().engine.unwanted == 0


@pytest.mark.parametrize("able", [True, False])
async def test_files_travel_compressed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, able: bool
) -> None:
    (tmp_path / "log").write_bytes(LARGE * 3)
    (tmp_path / "in").mkdir()
    async with pair(monkeypatch, "zstd", able=able) as (a, b):
        async with b.receive_files(tmp_path / "in"):
            await a.peers.wait_for(service="zmesh.files", timeout=10)
            await a.send_file("b", tmp_path / "log")
        assert (tmp_path / "in" / "log").read_bytes() == LARGE * 3
        assert compressed(a) > 0
        assert a.statistics().engine.defects == b.statistics().engine.defects == {}


async def test_node_compresses_for_itself_as_well() -> None:
    async with Node("a", mdns=False, compression="lz4") as a:
        reading = asyncio.create_task(read(a.inbox(), 1))
        await a.send("a", LARGE, timeout=5)
        assert (await reading)[0].body == LARGE


# What cannot work


async def test_compression_that_cannot_work_is_refused_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InvalidOption, match="gzip"):
        Node("a", compression="gzip")  # type: ignore[arg-type]
    monkeypatch.setattr(compression, "AVAILABLE", (Algorithm.ZSTD,))
    with pytest.raises(MissingPackage, match=r"lz4: pip install 'zmesh\[lz4\]'"):
        Node("a", compression="lz4")
    async with Node("a", mdns=False) as a:
        for asking in (
            a.post("a", b"", compression="lz4"),
            a.post_many("a", [b""], compression="lz4"),
            a.call("s", compression="lz4"),
            a.publish("t", b"", compression="lz4"),
            a.push("q", b"", compression="lz4"),
        ):
            with pytest.raises(MissingPackage):
                await asking
        for ask in (
            lambda: a.post_nowait("a", b"", compression="lz4"),
            lambda: a.stream("s", compression="lz4"),
            lambda: a.fan_out("g", b"", compression="lz4"),
            lambda: a.survey("s", compression="lz4"),
        ):
            with pytest.raises(MissingPackage):
                ask()


# Liars


@pytest.mark.usefixtures("garbage")
async def test_a_body_that_does_not_decompress_is_rejected_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair(monkeypatch, "lz4") as (a, b):
        receipt = await a.post("b", TEXT)
        await a.post("b", "fine")
        bodies = []
        async for message in b.inbox():
            try:
                bodies.append(message.body)
            except ProtocolError as error:
                assert error.kind == "compression"  # noqa: PT017
            if bodies:
                break
        assert bodies == ["fine"]
        with pytest.raises(Rejected, match="cannot be decompressed"):
            await receipt


@pytest.mark.usefixtures("garbage")
async def test_a_loop_that_ends_over_it_is_not_given_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair(monkeypatch, "lz4") as (a, b):
        receipt = await a.post("b", TEXT)
        with pytest.raises(ProtocolError):
            await read_bodies(b.inbox())
        with pytest.raises(Rejected):
            await receipt
        await a.post("b", "fine")
        assert [message.body for message in await read(b.inbox(), 1)] == ["fine"]


@pytest.mark.usefixtures("garbage")
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_request_that_does_not_decompress_is_rejected(
    monkeypatch: pytest.MonkeyPatch, *, is_async: bool
) -> None:
    async with pair(monkeypatch, "lz4") as (a, b):

        async def echo(message: Message) -> object:
            return message.body

        def plain_echo(message: Message) -> object:
            return message.body

        b.service("echo")(echo if is_async else plain_echo)
        await a.peers.wait_for(service="echo", timeout=10)
        with pytest.raises(Rejected, match="cannot be decompressed"):
            await a.call("echo", TEXT, timeout=5)
        assert await a.call("echo", "fine", timeout=5) == "fine"


@pytest.mark.usefixtures("garbage")
async def test_an_answer_that_does_not_decompress_fails_its_call_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair(monkeypatch, theirs="lz4") as (a, b):

        @b.service("echo")
        async def echo(message: Message) -> object:
            return message.body

        @a.service("ask")
        async def ask(message: Message) -> object:
            return await a.call("echo", message.body, timeout=5)

        await a.peers.wait_for(service="echo", timeout=10)
        with pytest.raises(ProtocolError, match="cannot be decompressed"):
            await a.call("echo", TEXT, timeout=5)
        with pytest.raises(RemoteError, match="cannot be decompressed"):
            await a.call("ask", TEXT, timeout=5)  # whose own caller is not to blame
        assert await a.call("echo", "fine", timeout=5) == "fine"


@pytest.mark.usefixtures("garbage")
async def test_a_job_that_does_not_decompress_ends_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair(monkeypatch, "lz4") as (a, b), b.pull("jobs") as jobs:
        receipt = await a.push("jobs", TEXT)
        with pytest.raises(ProtocolError):
            await read_bodies(jobs)
        with pytest.raises((Rejected, DeadLettered), match="cannot be decompressed"):
            await receipt
