"""Exchanges of real nodes on loopback: declared, bound, published to, and what cannot be."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

import zmesh
from tests.nodes import QUICK, nodes
from zmesh import (
    Destination,
    DestinationKind,
    Exchange,
    ExchangeConflict,
    ExchangeUnknown,
    InvalidOption,
    Message,
    Node,
    Receipt,
    Unroutable,
)
from zmesh.patterns.bindings import TABLE
from zmesh.terms import Compression, ExchangeKind


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # of whatever kind
            await asyncio.sleep(0.005)


async def take(source: "zmesh.Jobs | zmesh.Subscription", count: int) -> list[Message]:
    """Take, and accept, so many messages."""
    taken = []
    async with asyncio.timeout(5):
        async for message in source:
            taken.append(message)
            if len(taken) == count:
                break
    return taken


async def outcome(receipt: Receipt) -> int:
    async with asyncio.timeout(5):
        return await receipt


@asynccontextmanager
async def exchanges(
    *names: str, kind: ExchangeKind = "direct", options: zmesh.NodeOptions = QUICK
) -> AsyncIterator[tuple[list[Node], list[Exchange]]]:
    """Nodes that have declared one exchange."""
    async with nodes(*names, options=options) as opened:
        yield opened, [await node.exchange("x", kind=kind) for node in opened]


# From one to the other


async def test_a_consumer_binds_and_a_producer_publishes() -> None:
    async with exchanges("shop", "worker", kind="topic") as ((_, worker), (sold, done)):
        await done.bind(queue="invoices", routing_key="order.#")
        assert await sold.wait_for("order.eu.paid", timeout=5) == [
            Destination(DestinationKind.QUEUE, "invoices")
        ]
        async with worker.pull("invoices") as jobs:
            receipt = await sold.publish(
                {"id": 7}, "order.eu.paid", headers={"h": 1}, priority=7, key="k"
            )
            [job] = await take(jobs, 1)
            assert (job.body, job.topic, job.routing_key) == (
                {"id": 7},
                "invoices",
                "order.eu.paid",
            )
            assert (dict(job.headers), job.priority, job.key, job.sender) == (
                {"h": 1},
                7,
                "k",
                "shop",
            )
        assert await outcome(receipt) == 1
        assert [each.destination.name for each in sold.bindings()] == ["invoices"]
        assert repr(sold) == "<Exchange 'x', topic>"


async def test_one_receipt_is_for_all_queues_and_subscribers() -> None:
    async with exchanges("a", "b", "c", kind="fanout") as ((a, b, c), (one, other, third)):
        await one.bind(queue="work")
        await other.bind(queue="more")
        await other.bind(subject="news.today")
        async with (
            b.pull("work") as work,
            c.pull("more") as more,
            a.subscribe("news.*") as here,
            b.subscribe("news.today") as there,
            third.subscribe() as own,
        ):
            await a.peers.wait_for(topic="news.today", timeout=5)
            await one.wait_for(count=4, timeout=5)
            receipt = await one.publish("hello")
            assert not receipt.done
            for source in (work, more, here, there, own):
                [message] = await take(source, 1)
                assert (message.body, message.routing_key) == ("hello", "")
            assert await outcome(receipt) == 5
            await a.flush()


async def test_a_message_that_matches_twice_comes_once() -> None:
    async with exchanges("a", "b", kind="topic") as (_, (one, other)):
        async with other.subscribe("lazy.#", "*.*.rabbit", "lazy.#") as messages:
            await one.wait_for("lazy.pink.rabbit", timeout=5)
            for key in ("lazy.pink.rabbit", "quick.brown.fox", "lazy"):
                await one.publish(key, key)
            assert [message.body for message in await take(messages, 2)] == [
                "lazy.pink.rabbit",
                "lazy",
            ]
        await settled(one)


async def settled(exchange: Exchange) -> None:
    """Wait until nothing is bound any more."""
    await until(lambda: not exchange.bindings())


async def test_headers_decide_in_a_headers_exchange() -> None:
    async with exchanges("a", kind="headers") as ((a,), (one,)):
        await one.bind(queue="reports", where={"format": "pdf", "type": "report"})
        async with (
            one.subscribe(where={"format": "pdf", "pages": 1}, match="any") as messages,
            a.pull("reports") as jobs,
        ):
            both: zmesh.Headers = {"format": "pdf", "type": "report"}
            assert await outcome_of(one, "both", both, 2, messages, jobs) == ["both", "both"]
            assert await outcome_of(one, "one", {"format": "pdf"}, 1, messages) == ["one"]
            receipt = await one.publish("none", headers={"format": "zip"})
            assert await receipt == 0


async def outcome_of(
    exchange: Exchange,
    body: str,
    headers: zmesh.Headers,
    expected: int,
    *sources: "zmesh.Jobs | zmesh.Subscription",
) -> list[str]:
    receipt = await exchange.publish(body, headers=headers)
    taken = [(await take(source, 1))[0].body for source in sources]
    assert await outcome(receipt) == expected
    return taken


async def test_a_receipt_tells_who_did_not_accept() -> None:
    async with exchanges("a", "b", kind="fanout") as ((_, b), (one, other)):
        await other.bind(queue="work")
        async with other.subscribe() as messages, b.pull("work", settle="manual") as jobs:
            await one.wait_for(count=2, timeout=5)
            receipt = await one.publish("hello")
            await take(messages, 1)
            [job] = await take(jobs, 1)
            await job.reject("no")
            with pytest.raises(zmesh.Rejected, match="no") as caught:
                await outcome(receipt)
            assert (receipt.accepted, len(receipt.failures), receipt.expected) == (1, 1, 2)
            assert "1 of 2 messages were not accepted" in caught.value.__notes__[0]


async def test_large_compressed_messages_with_all_options_come_as_they_were() -> None:
    body = b"0123456789abcdef" * 20_000
    async with exchanges("a", "b", kind="direct") as ((_, b), (one, other)):
        await other.bind(queue="work", routing_key="k")
        async with other.subscribe("k") as messages, b.pull("work") as jobs:
            await one.wait_for("k", count=2, timeout=5)
            ways: list[Compression] = ["none", "zstd", "lz4"]
            receipts = [
                await one.publish(body, "k", headers={"n": n}, key="y", ttl=60, compression=how)
                for n, how in enumerate(ways)
            ]
            for source in (messages, jobs):
                taken = await take(source, 3)
                assert [message.body == body for message in taken] == [True] * 3
                assert [message.headers["n"] for message in taken] == [0, 1, 2]
                assert {(m.key, m.routing_key) for m in taken} == {("y", "k")}
            assert [await outcome(receipt) for receipt in receipts] == [2, 2, 2]


# Who binds, and for how long


async def test_a_binding_outlives_who_made_it_and_the_job_waits() -> None:
    async with exchanges("shop") as ((shop,), (sold,)):
        async with Node("first", peers=shop.endpoints, mdns=False) as first:
            done = await first.exchange("x", kind="direct")
            await done.bind(queue="work", routing_key="k")
            await sold.wait_for("k", timeout=5)
        receipt = await sold.publish("job", "k", mandatory=True)
        async with (
            Node("second", peers=shop.endpoints, mdns=False) as second,
            second.pull("work") as jobs,
        ):
            assert [job.body for job in await take(jobs, 1)] == ["job"]
        assert await outcome(receipt) == 1


async def test_who_comes_late_knows_all_that_is_bound() -> None:
    async with exchanges("a", kind="topic") as ((a,), (one,)):
        await one.bind(queue="work", routing_key="#")
        await one.bind(queue="work", routing_key="a.*")
        async with Node("late", peers=a.endpoints, mdns=False) as late:
            await late.peers.wait_for(name="a", timeout=5)
            other = await late.exchange("x", kind="topic")
            assert {each.routing_key for each in other.bindings()} == {"#", "a.*"}
            assert len(await other.wait_for("anything", timeout=0)) == 1


async def test_binding_again_changes_nothing_and_unbinding_takes_it_back() -> None:
    async with exchanges("a", "b") as (_, (one, other)):
        for _ in range(3):
            await one.bind(queue="work", routing_key="k")
        await other.wait_for("k", timeout=5)
        assert len(other.bindings()) == 1
        assert not await other.unbind(queue="work", routing_key="l")
        assert await other.unbind(queue="work", routing_key="k")
        assert not await other.unbind(queue="work", routing_key="k")
        await settled(one)


async def test_what_somebody_reads_is_unbound_when_it_ends_or_is_lost() -> None:
    async with exchanges("a", "b", kind="fanout") as ((_, b), (one, other)):
        async with other.subscribe():
            await one.wait_for(timeout=5)
        await settled(one)
        await settled(other)
        reading = other.subscribe()
        await reading.__aenter__()
        await one.wait_for(timeout=5)
        await b.close()  # with the block still open
        await settled(one)
        await reading.__aexit__(None, None, None)


async def test_who_was_taken_for_gone_binds_anew() -> None:
    async with (
        exchanges("a", "b", kind="fanout") as ((a, b), (one, other)),
        other.subscribe() as messages,
    ):
        await one.wait_for(timeout=5)
        declarations = a._at_work().exchanges.declarations
        declarations.on_left(b.id)
        declarations.tend()
        assert one.bindings() == []
        await one.wait_for(timeout=5)
        await one.publish("again", mandatory=True)
        assert [message.body for message in await take(messages, 1)] == ["again"]


# Nobody is to have it


async def test_what_is_unroutable_is_dropped_and_counted_or_an_error() -> None:
    async with exchanges("a") as ((a,), (one,)):
        receipt = await one.publish("lost", "k")
        assert (receipt.done, await receipt, a.statistics().unroutable) == (True, 0, 1)
        with pytest.raises(Unroutable, match=r"'x' has nobody .* 'k'") as caught:
            await one.publish("lost", "k", mandatory=True)
        assert (caught.value.exchange, caught.value.routing_key) == ("x", "k")
        assert a.statistics().unroutable == 1
        assert len(a._at_work().posting) == 0


async def test_a_subject_that_nobody_subscribes_to_is_no_destination() -> None:
    async with exchanges("a", "b", kind="fanout") as ((_, b), (one, _other)):
        await one.bind(subject="news")
        with pytest.raises(Unroutable):
            await one.publish("lost", mandatory=True)
        async with b.subscribe("news", where={"unit": "C"}) as messages:
            await one.wait_for(headers={"unit": "C"}, timeout=5)
            with pytest.raises(Unroutable):
                await one.publish("lost", headers={"unit": "F"}, mandatory=True)
            await one.publish("found", headers={"unit": "C"}, mandatory=True)
            assert [message.body for message in await take(messages, 1)] == ["found"]


async def test_what_no_binding_wants_goes_to_the_alternate() -> None:
    async with nodes("a", "b") as (a, b):
        rest = await a.exchange("rest", kind="fanout")
        one = await a.exchange("x", kind="direct", alternate=rest)
        await one.bind(queue="wanted", routing_key="k")
        async with rest.subscribe() as lost:
            other = await b.exchange("x", kind="direct", alternate="rest")
            await other.wait_for("else", timeout=5)
            await other.publish("lost", "else", mandatory=True)
            [message] = await take(lost, 1)
            assert (message.body, message.routing_key) == ("lost", "else")


async def test_exchanges_are_bound_to_exchanges() -> None:
    async with nodes("a", "b") as (a, b):
        first = await a.exchange("first", kind="fanout")
        second = await a.exchange("second", kind="topic")
        await first.bind(exchange=second)
        await second.bind(exchange="first", routing_key="#")  # a circle
        await second.bind(queue="work", routing_key="a.*")
        await first.bind(queue="work")
        other = await b.exchange("first", kind="fanout")
        receipt = await other.publish("hello", "a.b")
        assert receipt.expected == 1
        async with a.pull("work") as jobs:
            assert [job.body for job in await take(jobs, 1)] == ["hello"]
        assert await outcome(receipt) == 1


# What cannot be


async def test_an_exchange_is_declared_alike_by_all() -> None:
    async with nodes("a", "b") as (a, b):
        await a.exchange("rest", kind="fanout")
        await a.exchange("x", kind="topic", alternate="rest")
        with pytest.raises(ExchangeConflict, match="kind='topic', not with kind='direct'"):
            await b.exchange("x", kind="direct")
        with pytest.raises(ExchangeConflict, match="alternate='rest', not with alternate='x'"):
            await b.exchange("x", kind="topic", alternate="x")
        with pytest.raises(ExchangeUnknown, match=r"'nowhere' is declared \(known: rest, x"):
            await b.exchange("y", kind="topic", alternate="nowhere")
        assert b.statistics().exchanges == 2


async def test_of_two_that_differ_the_older_holds_and_the_other_learns_it() -> None:
    async with Node("a", mdns=False) as a:
        one = await a.exchange("x", kind="topic")
        await one.bind(queue="work", routing_key="#")
        await asyncio.sleep(0.01)  # so that the clock tells which was older
        async with Node("b", peers=a.endpoints, mdns=False) as b:
            other = await b.exchange("x", kind="fanout")  # it knows of nobody yet
            await other.bind(queue="other")
            await until(lambda: is_conflict(other))
            with pytest.raises(ExchangeConflict):
                other.subscribe()
            with pytest.raises(ExchangeConflict):
                await other.bind(queue="work")
            with pytest.raises(ExchangeConflict):
                await other.publish("hello")
            with pytest.raises(ExchangeConflict):
                await b.exchange("x", kind="fanout")
            again = await b.exchange("x", kind="topic")
            await until(lambda: len(a._at_work().shared.entries(TABLE)) == 3)
            names = [each.destination.name for each in (*one.bindings(), *again.bindings())]
            assert names == ["work", "work"]  # the other one was for another kind


def is_conflict(exchange: Exchange) -> bool:
    try:
        exchange.bindings()
    except ExchangeConflict:
        return True
    return False


async def test_what_cannot_be_declared_is_told_at_once() -> None:
    async with nodes("a") as (a,):
        for name in ("", 7, "x" * 1025):
            with pytest.raises(InvalidOption, match="exchange"):
                await a.exchange(name, kind="topic")  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match=r'kind.*one of "direct"'):
            await a.exchange("x", kind="x-delayed-message")  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="alternate"):
            await a.exchange("x", kind="topic", alternate="")
        with pytest.raises(InvalidOption, match="timeout"):
            await a.exchange("x", kind="topic", timeout="soon")  # type: ignore[arg-type]
        assert (a.statistics().exchanges, a.statistics().engine.shared_maps) == (0, 0)
    with pytest.raises(zmesh.NotOpen):
        await Node("b").exchange("x", kind="topic")


async def test_what_cannot_be_bound_is_told_at_once() -> None:
    async with exchanges("a", kind="topic") as (_, (one,)):
        wrongs: list[dict[str, Any]] = [
            {},
            {"queue": "q"},
            {"queue": "q", "subject": "s", "routing_key": "#"},
            {"queue": "q", "routing_key": "a.>"},
            {"queue": "q", "routing_key": "a*"},
            {"queue": "q", "routing_key": "#.a.#.b.#.c.#.d.#"},
            {"queue": "q", "routing_key": "#", "where": {"h": 1}},
            {"subject": "a.*", "routing_key": "#"},
        ]
        for wrong in wrongs:
            with pytest.raises(InvalidOption):
                await one.bind(**wrong)
            with pytest.raises(InvalidOption):
                await one.unbind(**wrong)
        with pytest.raises(ExchangeUnknown, match="'nowhere'"):
            await one.bind(exchange="nowhere", routing_key="#")
        for keys, options in (
            ((), {}),
            (("a*",), {}),
            (("#",), {"where": {"h": 1}}),
            (("#",), {"settle": "later"}),
            (("#",), {"when_full": "explode"}),
            (("#",), {"limit": 0}),
        ):
            with pytest.raises(InvalidOption):
                one.subscribe(*keys, **options)
        assert one.bindings() == []


async def test_a_routing_key_of_many_words_is_for_exchanges_that_do_not_look_at_words() -> None:
    many = ".".join("a" * 33)
    async with nodes("a") as (a,):
        topic = await a.exchange("topic", kind="topic")
        with pytest.raises(InvalidOption, match="at most 32 words"):
            await topic.publish(b"", many)
        direct = await a.exchange("direct", kind="direct")
        await direct.bind(queue="q", routing_key=many)
        await direct.publish(b"", many, mandatory=True)


async def test_what_cannot_be_published_is_told_at_once() -> None:
    async with exchanges("a", kind="fanout") as ((a,), (one,)):
        await one.bind(queue="work")
        wrongs: list[dict[str, Any]] = [
            {"routing_key": 7},
            {"routing_key": "x" * 1025},
            {"priority": 10},
            {"ttl": -1},
            {"key": 7},
            {"headers": {"h": []}},
            {"compression": "zip"},
        ]
        for wrong in wrongs:
            with pytest.raises(InvalidOption):
                await one.publish("hello", **wrong)
        with pytest.raises(zmesh.BodyNotEncodable):
            await one.publish(object())
        wrongs = [{"routing_key": 7}, {"count": 0}, {"timeout": "soon"}]
        for wrong in wrongs:
            with pytest.raises(InvalidOption):
                await one.wait_for(**wrong)
        assert a._at_work().pushing._queues.queued("work") == (0, 0)


async def test_the_map_of_declarations_is_not_for_others() -> None:
    async with nodes("a") as (a,):
        with pytest.raises(InvalidOption, match=r"does not begin with 'zmesh\.'"):
            await a.shared(TABLE)


async def test_rubbish_in_the_map_is_counted_and_has_no_effect() -> None:
    async with exchanges("a", "b", kind="fanout") as ((a, b), (one, other)):
        await one.bind(queue="work")
        a._at_work().shared.write(TABLE, "rubbish", 1, b"\xc1")
        await until(lambda: b.statistics().declarations_refused == 1)
        assert await other.wait_for(timeout=5)
        assert a.statistics().declarations_refused == 1


# Bounds, waiting, closing


async def test_bindings_are_bounded_by_the_map() -> None:
    async with exchanges("a", options=replace(QUICK, shared_keys_max=3)) as (_, (one,)):
        await one.bind(queue="work", routing_key="1")
        with pytest.raises(zmesh.MapFull):
            async with one.subscribe("2", "3"):
                pass
        assert len(one.bindings()) == 1  # none of the block's is left
        await one.bind(queue="work", routing_key="2")
        with pytest.raises(zmesh.MapFull):
            await one.bind(queue="work", routing_key="3")


async def test_too_many_queues_are_told_before_anything_is_sent() -> None:
    async with exchanges("a", kind="fanout", options=replace(QUICK, queues_max=1)) as (
        (a,),
        (one,),
    ):
        await a.push("other", "job")
        async with one.subscribe() as messages:
            await one.bind(queue="work")
            with pytest.raises(zmesh.UsageError, match="1 queues already"):
                await one.publish("hello")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(messages), 0.05)


async def test_queues_that_are_too_many_only_together_are_told_before_anything_is_sent() -> None:
    async with exchanges("a", kind="fanout", options=replace(QUICK, queues_max=3)) as (
        (a,),
        (one,),
    ):
        for queue in ("other", "known"):
            await a.push(queue, "job")
        for queue in ("known", "new", "newer"):
            await one.bind(queue=queue)
        with pytest.raises(zmesh.UsageError, match="3 queues already"):
            await one.publish("hello")
        await one.unbind(queue="newer")
        assert (await one.publish("hello")).expected == 2
        async with a.pull("known") as known, a.pull("new") as new:
            assert [job.body for job in await take(known, 2)] == ["job", "hello"]
            assert [job.body for job in await take(new, 1)] == ["hello"]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(new), 0.05)


async def test_publishing_waits_for_room_in_every_queue() -> None:
    async with exchanges("a", kind="fanout", options=replace(QUICK, queued_jobs_max=1)) as (
        (a,),
        (one,),
    ):
        await one.bind(queue="full")
        await a.push("full", "before")
        async with one.subscribe() as messages:
            waiting = asyncio.create_task(one.publish("hello"))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            async with a.pull("full") as jobs:
                assert [job.body for job in await take(jobs, 2)] == ["before", "hello"]
            receipt = await asyncio.wait_for(waiting, 5)
            assert [message.body for message in await take(messages, 1)] == ["hello"]
            assert await outcome(receipt) == 2


async def test_who_gives_up_waiting_for_room_leaves_nothing_open() -> None:
    async with exchanges("a", kind="fanout", options=replace(QUICK, queued_jobs_max=1)) as (
        (a,),
        (one,),
    ):
        await one.bind(queue="full")
        async with one.subscribe() as messages:
            await a.push("full", "before")
            waiting = asyncio.create_task(one.publish("hello"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            async with a.pull("full") as jobs:
                assert [job.body for job in await take(jobs, 1)] == ["before"]
            await asyncio.wait_for(take_all(messages), 5)
            async with asyncio.timeout(5):
                await a.flush()


async def take_all(messages: zmesh.Subscription) -> None:
    """Accept what has come, whatever that is."""
    while True:
        try:
            await asyncio.wait_for(anext(messages), 0.05)
        except TimeoutError:
            return


async def test_waiting_ends_with_a_binding_a_subscriber_or_the_node() -> None:
    async with exchanges("a", "b", kind="fanout") as ((a, b), (one, other)):
        with pytest.raises(zmesh.PeersMissing, match=r"no destination of .*'x'"):
            await one.wait_for(timeout=0.02)
        waiting = asyncio.create_task(one.wait_for(count=2, timeout=5))
        await asyncio.sleep(0.02)
        await other.bind(queue="work")
        await other.bind(subject="news")
        await asyncio.sleep(0.02)
        assert not waiting.done()
        with pytest.raises(zmesh.PeersMissing, match=r"2 destinations .*queue 'work'"):
            await one.wait_for(count=2, timeout=0.02)
        async with b.subscribe("news"):
            assert {each.name for each in await waiting} == {"work", "news"}
        waiting = asyncio.create_task(one.wait_for(count=3))
        await asyncio.sleep(0.02)
        await a.close()
        with pytest.raises(zmesh.Closed):
            await waiting


async def test_an_exchange_of_a_closed_node_is_refused() -> None:
    async with exchanges("a", kind="fanout") as ((a,), (one,)):
        async with one.subscribe():
            await a.close()
        calls: list[Coroutine[Any, Any, object]] = [
            one.publish("hello"),
            one.bind(queue="work"),
            one.unbind(queue="work"),
            one.wait_for(),
            a.exchange("x", kind="fanout"),
        ]
        for call in calls:
            with pytest.raises(zmesh.Closed):
                await call
        with pytest.raises(zmesh.Closed):
            one.subscribe()


async def test_declaring_at_the_same_time_is_declaring_once() -> None:
    async with nodes("a", "b") as (a, b):
        made = await asyncio.gather(
            *(node.exchange("x", kind="topic") for node in (a, b, a, b)),
            a.exchange("y", kind="fanout"),
        )
        assert [each.name for each in made] == ["x", "x", "x", "x", "y"]
        await until(lambda: b.statistics().exchanges == 2)
        assert a.statistics().engine.shared_maps == 1
