"""Services and calls between real nodes."""

import asyncio
import threading
from typing import Any

import pytest

from tests.nodes import nodes
from zmesh import (
    AmbiguousPeer,
    DeliveryTimeout,
    InvalidOption,
    Message,
    Node,
    NodeOptions,
    NoProvider,
    Overrun,
    PeerEvent,
    PeerUnknown,
    Reject,
    Rejected,
    RemoteError,
    UsageError,
    WrongThread,
    ZmeshError,
)


async def echo(message: Message) -> object:
    return message.body


def services_of(event: PeerEvent) -> frozenset[str]:
    assert not isinstance(event, Overrun)
    return event.peer.services


async def test_call_returns_what_the_handler_returned() -> None:
    async with nodes("a", "b") as (a, b):
        b.service("echo")(echo)
        await a.peers.wait_for(service="echo", timeout=5)
        for body in (None, 1, "x", b"raw", {"a": [1, 2.5, None]}):
            assert await a.call("echo", body) == body


async def test_large_bodies_go_both_ways() -> None:
    async with nodes("a", "b") as (a, b):
        b.service("echo")(echo)
        await a.peers.wait_for(service="echo", timeout=5)
        body = bytes(2_000_000)
        assert await a.call("echo", body, timeout=20) == body


async def test_service_given_before_opening_is_provided() -> None:
    async with nodes("a") as (a,):
        b = Node("b", peers=a.endpoints, mdns=False)

        @b.service("who")
        async def who(message: Message) -> str:
            return f"{b.name} answers {message.sender}"

        async with b:
            await a.peers.wait_for(service="who", timeout=5)
            assert await a.call("who") == "b answers a"


async def test_headers_and_priority_arrive() -> None:
    async with nodes("a", "b") as (a, b):

        @b.service("look")
        async def look(message: Message) -> list[object]:
            return [dict(message.headers), message.priority]

        await a.peers.wait_for(service="look", timeout=5)
        assert await a.call("look", headers={"unit": "C"}, priority=9) == [{"unit": "C"}, 9]


async def test_node_calls_its_own_service() -> None:
    async with nodes("a") as (a,):
        a.service("echo")(echo)
        assert await a.call("echo", 5) == 5


async def test_sixty_four_calls_at_a_time() -> None:
    async with nodes("a", "b") as (a, b):
        b.service("echo", concurrency=16)(echo)
        await a.peers.wait_for(service="echo", timeout=5)
        assert await asyncio.gather(*(a.call("echo", n) for n in range(64))) == list(range(64))


async def test_calls_are_spread_over_the_providers() -> None:
    async with nodes("a", "b", "c") as (a, b, c):
        for node in (b, c):
            name = node.name

            async def who(_: Message, name: str = name) -> str:
                await asyncio.sleep(0.01)
                return name

            node.service("who")(who)
        await a.peers.wait_for(service="who", count=2, timeout=5)
        answers = await asyncio.gather(*(a.call("who") for _ in range(20)))
        assert answers.count("b") == answers.count("c") == 10


# What goes wrong


async def test_unknown_service_is_told_at_once_with_those_known() -> None:
    async with nodes("a", "b") as (a, b):
        b.service("echo")(echo)
        await a.peers.wait_for(service="echo", timeout=5)
        with pytest.raises(NoProvider, match="services in sight: echo"):
            await a.call("ecco", timeout=5)


async def test_exception_of_the_handler_reaches_the_caller() -> None:
    async with nodes("a", "b") as (a, b):

        @b.service("fail")
        async def fail(_: Message) -> None:
            raise KeyError("paper")

        await a.peers.wait_for(service="fail", timeout=5)
        with pytest.raises(RemoteError) as caught:
            await a.call("fail", timeout=5)
        assert (caught.value.service, caught.value.type) == ("fail", "KeyError")
        assert caught.value.message == "'paper'"


async def test_rejection_reaches_the_caller() -> None:
    async with nodes("a", "b") as (a, b):

        @b.service("refuse")
        def refuse(_: Message) -> None:
            raise Reject("no paper")

        await a.peers.wait_for(service="refuse", timeout=5)
        with pytest.raises(Rejected, match="b rejected the message: no paper"):
            await a.call("refuse", timeout=5)


@pytest.mark.parametrize(
    ("reason", "told"),
    [(KeyError("paper"), "'paper'"), ("\udc80.txt", "?.txt"), (5, "5")],
    ids=["exception", "surrogate", "number"],
)
async def test_rejection_with_any_reason_reaches_the_caller(reason: str, told: str) -> None:
    async with nodes("a", "b") as (a, b):

        @b.service("refuse")
        async def refuse(_: Message) -> None:
            raise Reject(reason)

        await a.peers.wait_for(service="refuse", timeout=5)
        with pytest.raises(Rejected) as caught:
            await a.call("refuse", timeout=5)
        assert caught.value.reason == told


async def test_exception_without_a_text_reaches_the_caller() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise KeyError

    async with nodes("a", "b") as (a, b):

        @b.service("fail")
        async def fail(_: Message) -> None:
            raise MuteError

        await a.peers.wait_for(service="fail", timeout=5)
        with pytest.raises(RemoteError, match="its text cannot be told"):
            await a.call("fail", timeout=5)


async def test_call_in_vain_times_out_and_cancels_the_handler() -> None:
    async with nodes("a", "b") as (a, b):
        cancelled = asyncio.Event()

        @b.service("slow")
        async def slow(_: Message) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        await a.peers.wait_for(service="slow", timeout=5)
        with pytest.raises(
            DeliveryTimeout, match=r"the call to 'slow' had no outcome within 0\.1"
        ):
            await a.call("slow", timeout=0.1)
        await asyncio.wait_for(cancelled.wait(), 5)


async def test_cancelled_call_cancels_the_handler() -> None:
    async with nodes("a", "b") as (a, b):
        begun, cancelled = asyncio.Event(), asyncio.Event()

        @b.service("slow")
        async def slow(_: Message) -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        await a.peers.wait_for(service="slow", timeout=5)
        call = asyncio.create_task(a.call("slow"))
        await begun.wait()
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 5)


async def test_provider_that_closes_hands_its_calls_to_another() -> None:
    async with nodes("a", "b", "c") as (a, b, c):
        begun = asyncio.Event()
        first: list[Node] = []

        def provide(node: Node) -> None:
            @node.service("work")
            async def work(_: Message) -> str:
                if not first:
                    first.append(node)
                    begun.set()
                    await asyncio.sleep(60)
                return node.name

        provide(b)
        provide(c)
        await a.peers.wait_for(service="work", count=2, timeout=5)
        call = asyncio.create_task(a.call("work", timeout=20))
        await begun.wait()
        await first[0].close()
        assert await call == ({"b", "c"} - {first[0].name}).pop()


async def test_withdrawn_service_is_not_called_any_more() -> None:
    async with nodes("a", "b") as (a, b):
        b.service("echo")(echo)
        await a.peers.wait_for(service="echo", timeout=5)
        b.withdraw("echo")
        async for event in a.peers.watch():
            if not services_of(event):
                break
        with pytest.raises(NoProvider):
            await a.call("echo", 1, timeout=5)
        with pytest.raises(UsageError):
            b.withdraw("echo")
        b.service("echo")(echo)
        await a.peers.wait_for(service="echo", timeout=5)


async def test_service_that_cannot_be_provided_is_refused() -> None:
    async with Node("a", mdns=False) as a:
        with pytest.raises(InvalidOption, match="service"):
            a.service(echo)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="concurrency"):
            a.service("echo", concurrency=0)
        with pytest.raises(InvalidOption, match="service"):
            a.service("x" * 5000)(echo)
        a.service("echo")(echo)
        with pytest.raises(UsageError, match="provided already"):
            a.service("echo")(echo)


def test_service_that_cannot_be_provided_is_refused_before_the_node_opens() -> None:
    node = Node("a", options=NodeOptions(services_max=2), mdns=False)
    for name in ("x" * 5000, "", "\ud800"):
        with pytest.raises(InvalidOption, match="service"):
            node.service(name)(echo)
    node.service("one")(echo)
    node.service("two")(echo)
    with pytest.raises(UsageError, match="2 services already"):
        node.service("three")(echo)
    node.withdraw("one")
    node.service("three")(echo)


async def test_services_registered_in_one_turn_keep_to_the_limit() -> None:
    async with nodes("a", options=NodeOptions(services_max=20)) as (a,):
        for number in range(20):
            a.service(str(number))(echo)
        with pytest.raises(UsageError, match="20 services already"):
            a.service("one more")(echo)


async def test_service_withdrawn_from_another_thread_stays() -> None:
    async with nodes("a") as (a,):
        a.service("echo")(echo)
        with pytest.raises(WrongThread):
            await asyncio.to_thread(a.withdraw, "echo")
        assert await a.call("echo", 1, timeout=5) == 1
        a.withdraw("echo")


# Who is asked, and how often


async def named_nodes(*providers: Node) -> None:
    """Let each provide `who`, which takes a moment."""
    for node in providers:
        name = node.name

        async def who(message: Message, name: str = name) -> list[object]:
            await asyncio.sleep(0.001)
            return [name, message.key, message.attempt]

        node.service("who")(who)


async def test_calls_of_a_key_are_handled_by_one_provider_in_order() -> None:
    async with nodes("a", "b", "c") as (a, b, c):
        handled: dict[str, list[object]] = {}

        def provide(node: Node) -> None:
            @node.service("work")
            async def work(message: Message) -> str:
                await asyncio.sleep(0.001 * (message.body % 3))
                handled.setdefault(f"{message.key} at {node.name}", []).append(message.body)
                return node.name

        provide(b)
        provide(c)
        await a.peers.wait_for(service="work", count=2, timeout=5)
        for key in "vwxyz":
            answers = await asyncio.gather(*(a.call("work", n, key=key) for n in range(20)))
            assert len(set(answers)) == 1
            assert handled[f"{key} at {answers[0]}"] == list(range(20))
        assert len(handled) == 5


async def test_preferred_peer_is_asked_by_name_id_or_peer() -> None:
    async with nodes("a", "b", "c") as (a, b, c):
        await named_nodes(a, b, c)
        await a.peers.wait_for(service="who", count=2, timeout=5)
        peer = a.peers.get("c")
        assert peer is not None
        for prefer, name in (("b", "b"), (b.id, "b"), (peer, "c"), ("a", "a"), (a.id, "a")):
            for _ in range(5):
                assert (await a.call("who", prefer=prefer))[0] == name


async def test_where_the_preferred_peer_is_gone_another_is_asked() -> None:
    async with nodes("a", "b", "c") as (a, b, c):
        await named_nodes(b, c)
        await a.peers.wait_for(service="who", count=2, timeout=5)
        peer = a.peers.get("c")
        await c.close()
        while a.peers.get("c") is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await a.call("who", prefer="c"))[0] == "b"
        assert (await a.call("who", prefer=peer))[0] == "b"


async def test_hedged_call_is_answered_by_the_second_and_cancels_the_first() -> None:
    async with nodes("a", "b", "c") as (a, b, c):
        await named_nodes(c)
        begun, cancelled = asyncio.Event(), asyncio.Event()

        @b.service("who")
        async def stuck(_: Message) -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        await a.peers.wait_for(service="who", count=2, timeout=5)
        answer = await a.call("who", prefer="b", hedge_after=0.05, timeout=20)
        assert begun.is_set()
        assert answer == ["c", None, 2]
        await asyncio.wait_for(cancelled.wait(), 5)
        assert a.statistics().engine.calls_hedged == 1


async def test_call_is_asked_again_where_the_handler_raised() -> None:
    async with nodes("a", "b") as (a, b):
        asked = 0

        @b.service("moody")
        async def moody(_: Message) -> int:
            nonlocal asked
            asked += 1
            if asked % 3:
                raise ValueError(asked)
            return asked

        await a.peers.wait_for(service="moody", timeout=5)
        assert await a.call("moody", retries=2) == 3
        with pytest.raises(RemoteError) as caught:
            await a.call("moody", retries=1)
        assert (caught.value.type, caught.value.message) == ("ValueError", "5")
        assert caught.value.traceback is None


async def test_traceback_reaches_the_caller_where_the_provider_allows() -> None:
    async with nodes("a", options=NodeOptions(tracebacks_to_callers=True)) as (a,):

        @a.service("fail")
        async def fail(_: Message) -> None:
            raise LookupError("paper")

        with pytest.raises(RemoteError) as caught:
            await a.call("fail", timeout=5)
        assert caught.value.traceback is not None
        assert caught.value.traceback.startswith("Traceback (most recent call last):")
        assert caught.value.traceback.endswith("LookupError: paper\n")
        assert "test_node_calls.py" in caught.value.traceback


async def test_nested_call_inherits_what_is_left_of_the_time() -> None:
    async with nodes("a", "b") as (a, b):

        @b.service("outer")
        async def outer(message: Message) -> object:
            return await b.call("inner", timeout=message.remaining)

        @b.service("inner")
        async def inner(message: Message) -> float | None:
            return message.remaining

        await a.peers.wait_for(service="outer", timeout=5)
        left = await a.call("outer", timeout=20)
        assert 15 < left <= 20
        assert await a.call("outer", timeout=None) is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"hedge_after": -1}, InvalidOption),
        ({"hedge_after": "soon"}, InvalidOption),
        ({"hedge_after": float("nan")}, InvalidOption),
        ({"retries": -1}, InvalidOption),
        ({"retries": 1.5}, InvalidOption),
        ({"retries": True}, InvalidOption),
        ({"key": 7}, InvalidOption),
        ({"key": b"user"}, InvalidOption),
        ({"key": "\ud800"}, InvalidOption),
        ({"key": "x" * 5000}, InvalidOption),
        ({"prefer": 7}, InvalidOption),
        ({"prefer": "nobody"}, PeerUnknown),
        ({"prefer": "00" * 16}, PeerUnknown),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_option_that_cannot_work_is_told_at_once_by_its_name(
    options: dict[str, Any], error: type[ZmeshError]
) -> None:
    async with nodes("a") as (a,):
        a.service("echo")(echo)
        with pytest.raises(error) as caught:
            await a.call("echo", **options)
        if isinstance(caught.value, InvalidOption):
            assert caught.value.option.split()[-1] in options
        assert a.statistics().open_calls == 0


async def test_preferring_one_of_two_namesakes_is_ambiguous() -> None:
    async with nodes("a", "b", "b") as (a, b, _):
        await named_nodes(b)
        await a.peers.wait_for(count=2, timeout=5)
        with pytest.raises(AmbiguousPeer):
            await a.call("who", prefer="b")


# Handlers that take their time


async def test_plain_handlers_block_threads_and_not_the_node() -> None:
    async with nodes("a", "b") as (a, b):
        here, gate, together = threading.get_ident(), threading.Event(), threading.Barrier(4)

        @b.service("block", concurrency=4)
        def block(_: Message) -> bool:
            together.wait(10)
            gate.wait(10)
            return threading.get_ident() != here

        b.service("echo")(echo)
        await a.peers.wait_for(service="block", timeout=5)
        await a.peers.wait_for(service="echo", timeout=5)
        calls = [asyncio.create_task(a.call("block")) for _ in range(4)]
        await asyncio.sleep(0.02)
        assert await a.call("echo", 1) == 1
        assert not any(call.done() for call in calls)
        gate.set()
        assert await asyncio.gather(*calls) == [True] * 4


async def test_handler_is_asked_once_however_long_it_takes() -> None:
    async with nodes("a", "b") as (a, b):
        asked = 0

        @b.service("slow")
        async def slow(_: Message) -> int:
            nonlocal asked
            asked += 1
            await asyncio.sleep(3)
            return asked

        await a.peers.wait_for(service="slow", timeout=5)
        assert await a.call("slow", timeout=20) == 1
