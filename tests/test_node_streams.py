"""Streams between real nodes on loopback: both ways, at the reader's pace, and every end."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count

import pytest

import zmesh
from tests.nodes import nodes
from zmesh import Message, Node, NodeOptions

SMALL = NodeOptions(stream_parts=8, stream_bytes=64 * 1024, redeliver_min=0.01)


class Provider:
    """The services of these tests, and what became of their handlers."""

    def __init__(self, node: Node) -> None:
        self.yielded = 0
        self.closed = 0
        self.received: list[object] = []
        self.gate = asyncio.Event()
        node.service("count")(self.count_to)
        node.service("endless")(self.endless)
        node.service("threaded")(self.threaded)
        node.service("fails")(self.fails)
        node.service("plain")(self.plain)
        node.service("sum")(self.sum)
        node.service("double")(self.double)
        node.service("stuck")(self.stuck)

    async def count_to(self, message: Message) -> AsyncIterator[dict[str, int]]:
        for number in range(message.body):
            yield {"n": number}

    async def endless(self, message: Message) -> AsyncIterator[bytes]:
        try:
            for _ in count():
                self.yielded += 1
                yield b"x" * (message.body or 1)
        finally:
            self.closed += 1

    def threaded(self, message: Message) -> Iterator[bool]:
        try:
            for _ in range(message.body):
                self.yielded += 1
                yield threading.current_thread() is threading.main_thread()
        finally:
            self.closed += 1

    async def fails(self, message: Message) -> AsyncIterator[int]:
        yield 1
        yield 2
        if message.body == "reject":
            raise zmesh.Reject("no more")
        if message.body == "encode":
            yield object()  # type: ignore[misc]
        raise ValueError("no more")

    async def plain(self, message: Message) -> object:
        return message.body

    async def sum(self, message: Message) -> int:
        total = 0
        async for part in message.parts:
            self.received.append(part)
            total += part
            if part < 0:
                raise ValueError("a negative number")
        return total

    async def double(self, message: Message) -> AsyncIterator[int]:
        async for part in message.parts:
            yield 2 * part

    async def stuck(self, _: Message) -> AsyncIterator[int]:
        yield 1
        await self.gate.wait()
        yield 2


async def numbers(stop: int) -> AsyncIterator[int]:
    for number in range(stop):
        yield number


class Source:
    """An endless body that tells how far it was read, and whether it was closed."""

    def __init__(self) -> None:
        self.read = 0
        self.closed = False

    async def parts(self, size: int = 1) -> AsyncIterator[bytes]:
        try:
            for _ in count():
                self.read += 1
                yield b"x" * size
        finally:
            self.closed = True


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def ready(node: Node) -> None:
    await node.peers.wait_for(service="stuck", timeout=10)


def is_idle(*all_of_them: Node) -> bool:
    return all(
        (node.statistics().open_streams, node.statistics().engine.streams) == (0, 0)
        for node in all_of_them
    )


# The plain way


async def test_every_part_comes_in_order() -> None:
    async with nodes("a", "b") as (a, b):
        Provider(b)
        await ready(a)
        assert [part["n"] async for part in a.stream("count", 5000)] == list(range(5000))
        assert [part async for part in a.stream("count", 0)] == []
        await until(lambda: is_idle(a, b))


async def test_a_plain_generator_runs_in_threads() -> None:
    async with nodes("a", "b") as (a, b):
        provider = Provider(b)
        await ready(a)
        assert [part async for part in a.stream("threaded", 50)] == [False] * 50
        async for _ in a.stream("threaded", 1_000_000):
            break
        await until(lambda: provider.closed == 2)
        assert provider.yielded < 5000


async def test_a_service_that_returns_gives_one_part() -> None:
    async with nodes("a", "b") as (a, b):
        Provider(b)
        await ready(a)
        assert [part async for part in a.stream("plain", [1, 2])] == [[1, 2]]


async def test_a_call_to_a_service_that_yields_is_refused() -> None:
    async with nodes("a", "b") as (a, b):
        Provider(b)
        await ready(a)
        for body in (5, numbers(5)):
            with pytest.raises(zmesh.Rejected, match=r"'count' answers in parts.*node\.stream"):
                await a.call("count", body, timeout=5)


async def test_a_node_streams_to_itself() -> None:
    async with Node("a", mdns=False) as node:
        Provider(node)
        assert [part async for part in node.stream("double", numbers(50))] == list(
            range(0, 100, 2)
        )
        assert await node.call("sum", numbers(10)) == 45


async def test_headers_travel_with_the_request() -> None:
    async with nodes("a", "b") as (a, b):

        @b.service("who")
        async def who(message: Message) -> AsyncIterator[object]:
            yield [message.sender, message.headers["unit"], message.priority, message.topic]

        await a.peers.wait_for(service="who", timeout=10)
        stream = a.stream("who", numbers(0), headers={"unit": "C"}, priority=7)
        assert [part async for part in stream] == [["a", "C", 7, "who"]]


async def test_middleware_runs_around_the_handler() -> None:
    async with nodes("a", "b") as (a, b):
        Provider(b)

        @b.middleware
        async def doubled(message: Message, call_next: object) -> object:
            assert callable(call_next)
            parts = await call_next(message)

            async def twice() -> AsyncIterator[object]:
                async for part in parts:
                    yield part
                    yield part

            return twice()

        await ready(a)
        assert [part["n"] async for part in a.stream("count", 2)] == [0, 0, 1, 1]


async def test_a_stream_that_is_over_leaves_nothing() -> None:
    async with nodes("a", "b") as (a, b):
        Provider(b)
        await ready(a)
        assert len([part async for part in a.stream("count", 5)]) == 5
        with pytest.raises(zmesh.Rejected):
            await a.call("count", numbers(5), timeout=5)
        async for _ in a.stream("endless"):
            break
        await until(lambda: is_idle(a, b))
        for node in (a, b):
            streams = node._at_work().streams
            assert not [*streams._channels, *streams._opened, *streams._pumps]


async def test_who_still_reads_a_body_when_the_handler_has_ended_is_told() -> None:
    async with nodes("a", "b") as (a, b):
        bodies: list[AsyncIterator[object]] = []

        @b.service("careless")
        async def careless(message: Message) -> None:
            bodies.append(message.parts)

        await a.peers.wait_for(service="careless", timeout=10)
        await a.call("careless", Source().parts(), timeout=5)
        with pytest.raises(zmesh.StreamBroken, match="its handler has ended"):
            async for _ in bodies[0]:
                pass


# Pace


async def test_a_slow_reader_suspends_the_handler() -> None:
    async with nodes("a", "b", options=SMALL) as (a, b):
        provider = Provider(b)
        await ready(a)
        reader = aiter(a.stream("endless"))
        await anext(reader)
        await until(lambda: provider.yielded >= 9)
        await asyncio.sleep(0.05)
        assert provider.yielded <= 12  # the window, what was read, and one in hand
        await reader.aclose()
        await until(lambda: provider.closed == 1)


async def test_a_slow_handler_suspends_the_source() -> None:
    async with nodes("a", "b", options=SMALL) as (a, b):
        taken: list[bytes] = []
        gate = asyncio.Event()

        @b.service("slow")
        async def slow(message: Message) -> int:
            async for part in message.parts:
                taken.append(part)
                await gate.wait()
            return 0

        await a.peers.wait_for(service="slow", timeout=10)
        source = Source()
        calling = asyncio.create_task(a.call("slow", source.parts(), timeout=None))
        await until(lambda: source.read >= 9)
        await asyncio.sleep(0.05)
        assert source.read <= 12
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert source.closed
        await until(lambda: is_idle(a, b))


async def test_a_source_is_not_read_before_the_handler_asks() -> None:
    async with nodes("a", "b") as (a, b):
        Provider(b)
        await ready(a)
        source = Source()
        assert await a.call("plain", source.parts(), timeout=5) is None
        assert source.read == 0


async def test_large_parts_pass_whole() -> None:
    async with nodes("a", "b", options=SMALL) as (a, b):
        provider = Provider(b)
        await ready(a)
        read = 0
        async for part in a.stream("endless", 300_000):
            assert len(part) == 300_000
            read += 1
            if read == 20:
                break
        await until(lambda: provider.closed == 1)


# Bodies in parts


async def test_a_body_in_parts_reaches_the_handler() -> None:
    async with nodes("a", "b") as (a, b):
        provider = Provider(b)
        await ready(a)
        assert await a.call("sum", numbers(2000), timeout=10) == 1999 * 1000
        assert provider.received == list(range(2000))
        assert await a.call("sum", 7, timeout=10) == 7
        doubled = [part async for part in a.stream("double", numbers(2000))]
        assert doubled == list(range(0, 4000, 2))
        await until(lambda: is_idle(a, b))


async def test_a_handler_that_ends_early_ends_the_source() -> None:
    async with nodes("a", "b") as (a, b):

        @b.service("first")
        async def first(message: Message) -> bytes:
            async for part in message.parts:
                return part  # type: ignore[no-any-return]
            return b""

        await a.peers.wait_for(service="first", timeout=10)
        source = Source()
        assert await a.call("first", source.parts(), timeout=5) == b"x"
        assert source.closed
        await until(lambda: is_idle(a, b))


async def test_what_the_source_raises_is_raised_by_the_call() -> None:
    class Torn(Exception):
        pass

    async def torn() -> AsyncIterator[int]:
        yield 1
        raise Torn

    async def unfit() -> AsyncIterator[object]:
        yield object()

    async with nodes("a", "b") as (a, b):
        Provider(b)
        await ready(a)
        with pytest.raises(Torn):
            await a.call("sum", torn(), timeout=5)
        with pytest.raises(Torn):
            [part async for part in a.stream("double", torn())]
        with pytest.raises(zmesh.BodyNotEncodable):
            await a.call("sum", unfit(), timeout=5)
        await until(lambda: is_idle(a, b))


async def test_a_plain_function_takes_no_body_in_parts() -> None:
    async with nodes("a", "b") as (a, b):

        @b.service("plain function")
        def plain(_: Message) -> int:
            return 1

        await a.peers.wait_for(service="plain function", timeout=10)
        with pytest.raises(zmesh.Rejected, match="cannot read a body in parts"):
            await a.call("plain function", numbers(3), timeout=5)


async def test_what_does_not_go_with_a_body_in_parts_is_refused() -> None:
    async with Node("a", mdns=False) as node:
        Provider(node)
        with pytest.raises(zmesh.UsageError, match="read once"):
            await node.call("sum", numbers(3), retries=1)
        with pytest.raises(zmesh.UsageError, match="read once"):
            await node.call("sum", numbers(3), key="k")


# Ends


async def test_leaving_the_loop_stops_the_handler() -> None:
    async with nodes("a", "b") as (a, b):
        provider = Provider(b)
        await ready(a)

        async def leave_by_return() -> None:
            async for _ in a.stream("endless"):
                return

        async def leave_by_exception() -> None:
            async for _ in a.stream("endless"):
                raise LookupError

        async def be_cancelled() -> None:
            async for _ in a.stream("stuck"):
                pass

        async for _ in a.stream("endless"):
            break
        await leave_by_return()
        with pytest.raises(LookupError):
            await leave_by_exception()
        await until(lambda: provider.closed == 3)
        reading = asyncio.create_task(be_cancelled())
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: is_idle(a, b))


async def test_a_reader_dropped_elsewhere_stops_the_handler() -> None:
    async with nodes("a", "b") as (a, b):
        provider = Provider(b)
        await ready(a)
        readers = [aiter(a.stream("endless"))]
        await anext(readers[0])
        thread = threading.Thread(target=readers.clear)
        thread.start()
        thread.join()
        gc.collect()
        await until(lambda: provider.closed == 1)


async def test_what_the_handler_raises_comes_after_its_parts() -> None:
    async with nodes("a", "b") as (a, b):
        Provider(b)
        await ready(a)
        for body, error in (
            ("", zmesh.RemoteError),
            ("encode", zmesh.RemoteError),
            ("reject", zmesh.Rejected),
        ):
            reader = aiter(a.stream("fails", body))
            assert [await anext(reader), await anext(reader)] == [1, 2]
            with pytest.raises(error) as raised:
                await anext(reader)
            assert "no more" in str(raised.value) or "BodyNotEncodable" in str(raised.value)
        with pytest.raises(zmesh.RemoteError, match="negative"):
            await a.call("sum", iter_of(1, -1, 2), timeout=5)
        await until(lambda: is_idle(a, b))


async def iter_of(*values: int) -> AsyncIterator[int]:
    for value in values:
        yield value


async def test_a_part_that_does_not_come_in_time() -> None:
    async with nodes("a", "b") as (a, b):
        Provider(b)
        await ready(a)
        reader = aiter(a.stream("stuck", timeout=0.2))
        assert await anext(reader) == 1
        with pytest.raises(zmesh.DeliveryTimeout, match=r"next part of 'stuck'.*0\.2 s"):
            await anext(reader)
        await until(lambda: is_idle(a, b))


async def test_a_body_in_parts_that_takes_too_long() -> None:
    async with nodes("a", "b") as (a, b):

        @b.service("hang")
        async def hang(message: Message) -> None:
            async for _ in message.parts:
                await asyncio.Event().wait()

        await a.peers.wait_for(service="hang", timeout=10)
        with pytest.raises(zmesh.DeliveryTimeout, match=r"the call to 'hang'.*0\.2 s"):
            await a.call("hang", numbers(3), timeout=0.2)
        await until(lambda: is_idle(a, b))


async def test_nobody_yields_it() -> None:
    async with nodes("a", "b") as (a, b):
        Provider(b)
        await ready(a)
        with pytest.raises(zmesh.NoProvider, match="counts"):
            [part async for part in a.stream("counts")]
        with pytest.raises(zmesh.NoProvider):
            await a.call("counts", numbers(3))


async def test_the_provider_closes_in_the_middle() -> None:
    async with nodes("a", "b") as (a, b):
        Provider(b)
        await ready(a)
        reader = aiter(a.stream("stuck"))
        assert await anext(reader) == 1
        await b.close()
        with pytest.raises((zmesh.StreamBroken, zmesh.PeerLost)):
            await anext(reader)
        with pytest.raises((zmesh.StreamBroken, zmesh.PeerLost)):
            await anext(reader)


async def test_closing_the_node_ends_its_streams() -> None:
    async with nodes("a", "b") as (a, b):
        Provider(b)
        await ready(a)
        source = Source()
        calling = asyncio.create_task(a.call("sum", source.parts(), timeout=None))
        reader = aiter(a.stream("stuck"))
        assert await anext(reader) == 1
        reading = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0.05)
        await a.close()
        with pytest.raises((zmesh.Closed, zmesh.RemoteError)):
            await calling
        with pytest.raises(zmesh.Closed):
            await reading
        with pytest.raises(zmesh.Closed):
            aiter(a.stream("stuck"))
        await until(lambda: b.statistics().engine.streams == 0)


async def test_a_drain_lets_streams_finish() -> None:
    async with nodes("a", "b") as (a, b):
        provider = Provider(b)
        await ready(a)
        reader = aiter(a.stream("stuck"))
        assert await anext(reader) == 1
        closing = asyncio.create_task(b.close(drain=10))
        await asyncio.sleep(0.05)
        assert not closing.done()
        provider.gate.set()
        assert [part async for part in reader] == [2]
        assert await closing == zmesh.DrainReport(0, 0)


# Use


async def test_a_stream_is_read_once_and_by_one() -> None:
    async with nodes("a", "b") as (a, b):
        Provider(b)
        await ready(a)
        stream = a.stream("stuck")
        reader = aiter(stream)
        with pytest.raises(zmesh.UsageError, match="read once"):
            aiter(stream)
        assert await anext(reader) == 1
        reading = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        with pytest.raises(zmesh.UsageError, match="another task"):
            await anext(reader)
        reading.cancel()


async def test_wrong_arguments_are_told_at_once() -> None:
    async with Node("a", mdns=False) as node:
        with pytest.raises(zmesh.InvalidOption, match="timeout"):
            node.stream("count", timeout="1")  # type: ignore[arg-type]
        with pytest.raises(zmesh.InvalidOption, match="priority"):
            node.stream("count", priority=10)
        with pytest.raises(zmesh.InvalidOption, match="headers"):
            node.stream("count", headers={"k": []})  # type: ignore[dict-item]
        with pytest.raises(zmesh.InvalidOption):
            node.stream(5)  # type: ignore[arg-type]
        with pytest.raises(zmesh.BodyNotEncodable):
            node.stream("count", object())
    with pytest.raises(zmesh.Closed):
        node.stream("count")


async def test_only_so_many_streams_are_open() -> None:
    options = NodeOptions(streams_max=1)
    async with Node("a", mdns=False, options=options) as node:
        Provider(node)
        reader = aiter(node.stream("stuck"))
        assert await anext(reader) == 1
        with pytest.raises(zmesh.UsageError, match="1 streams are open"):
            aiter(node.stream("stuck"))
        await reader.aclose()
        assert [part async for part in node.stream("count", 1)] == [{"n": 0}]
