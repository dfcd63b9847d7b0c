"""Requests whose answer may come later, between real nodes with a journal."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import zmesh
from zmesh import (
    Closed,
    DeliveryTimeout,
    Expired,
    InvalidOption,
    JournalFull,
    JournalOptions,
    Message,
    Node,
    NodeOptions,
    Reject,
    Rejected,
    RemoteError,
    Storage,
    TicketUnknown,
    UsageError,
)

OPTIONS = NodeOptions(redeliver_min=0.01, redeliver_max=0.05, reconnect_max=0.2)


def caller(place: Path, *known: Node, **how: Any) -> Node:
    peers = [endpoint for node in known for endpoint in node.endpoints]
    storage = how.pop("storage", place / "caller.zmesh")
    options = how.pop("options", OPTIONS)
    return Node("caller", peers=peers, mdns=False, options=options, storage=storage, **how)


def provider() -> Node:
    return Node("provider", mdns=False, options=OPTIONS)


async def test_service_that_comes_later_answers(tmp_path: Path) -> None:
    async with provider() as b, caller(tmp_path, b) as a:
        ticket = await a.call_later("echo", {"n": 1}, headers={"unit": "C"}, priority=9)
        assert ticket.state == "waiting"

        @b.service("echo")
        async def echo(message: Message) -> object:
            return [message.body, dict(message.headers), message.priority]

        assert await ticket.reply(5) == [{"n": 1}, {"unit": "C"}, 9]
        assert ticket.state == "answered"
        assert await ticket.reply() == await a.ticket(ticket.id).reply()
        assert ticket.service == "echo"


async def test_own_service_answers(tmp_path: Path) -> None:
    async with caller(tmp_path) as a:
        ticket = await a.call_later("echo", b"x" * 100_000)

        @a.service("echo")
        async def echo(message: Message) -> object:
            return message.body

        assert await ticket.reply(5) == b"x" * 100_000


async def test_answer_is_there_after_a_restart(tmp_path: Path) -> None:
    async with provider() as b:

        @b.service("echo")
        async def echo(message: Message) -> object:
            return message.body

        async with caller(tmp_path, b) as a:
            ticket = await a.call_later("echo", "hello")
            assert await ticket.reply(5) == "hello"
    async with caller(tmp_path) as a:
        found = a.ticket(ticket.id)
        assert (found.state, found.service) == ("answered", "echo")
        assert await found.reply() == "hello"


async def test_request_of_an_earlier_life_is_made_in_this_one(tmp_path: Path) -> None:
    async with caller(tmp_path) as a:
        ticket = await a.call_later("echo", "hello")
        waiting = asyncio.create_task(ticket.reply())
        await asyncio.sleep(0)
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        await ticket.reply()
    async with provider() as b:

        @b.service("echo")
        async def echo(message: Message) -> object:
            return message.body

        async with caller(tmp_path, b) as a:
            assert [each.id for each in a.tickets()] == [ticket.id]
            assert await a.ticket(ticket.id).reply(5) == "hello"


async def test_provider_that_restarts_is_asked_again(tmp_path: Path) -> None:
    asked = asyncio.Event()
    b = provider()

    @b.service("work")
    async def hang(_: Message) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with b:
        [endpoint] = b.endpoints
        port = int(endpoint.rsplit(":", 1)[1])
        a = caller(tmp_path, b)
        await a.open()
        ticket = await a.call_later("work")
        await asyncio.wait_for(asked.wait(), 5)
    try:
        again = Node("provider", mdns=False, port=port)

        @again.service("work")
        async def work(_: Message) -> str:
            return "done"

        async with again:
            assert await ticket.reply(20) == "done"
    finally:
        await a.close()


async def test_errors_are_those_of_a_call_in_all_lives(tmp_path: Path) -> None:
    tries = 0
    async with provider() as b:

        @b.service("raises")
        async def raises(_: Message) -> None:
            nonlocal tries
            tries += 1
            raise ValueError("no")

        @b.service("refuses")
        async def refuses(_: Message) -> None:
            raise Reject("never")

        async with caller(tmp_path, b) as a:
            raised = await a.call_later("raises", retries=2)
            refused = await a.call_later("refuses", retries=2)
            with pytest.raises(RemoteError, match="no"):
                await raised.reply(5)
            with pytest.raises(Rejected, match="never"):
                await refused.reply(5)
            assert tries == 3
    async with caller(tmp_path) as a:
        assert {each.state for each in a.tickets()} == {"failed"}
        with pytest.raises(RemoteError) as error:
            await a.ticket(raised.id).reply()
        assert (error.value.type, error.value.service) == ("ValueError", "raises")
        with pytest.raises(Rejected) as refusal:
            await a.ticket(refused.id).reply()
        assert (refusal.value.peer, refusal.value.reason) == ("provider", "never")


async def test_time_to_live_ends_it(tmp_path: Path) -> None:
    async with caller(tmp_path) as a:
        ticket = await a.call_later("nobody", ttl=0.05)
        with pytest.raises(Expired):
            await ticket.reply(5)
        assert ticket.state == "failed"


async def test_reply_waits_as_long_as_told(tmp_path: Path) -> None:
    async with caller(tmp_path) as a:
        ticket = await a.call_later("nobody")
        with pytest.raises(DeliveryTimeout, match="nobody"):
            await ticket.reply(timeout=0.01)
        assert ticket.state == "waiting"


async def test_forgotten_ticket_is_unknown_in_all_lives(tmp_path: Path) -> None:
    async with caller(tmp_path) as a:
        ticket = await a.call_later("nobody")
        waiting = asyncio.create_task(ticket.reply())
        await asyncio.sleep(0)
        await ticket.forget()
        with pytest.raises(TicketUnknown):
            await waiting
        with pytest.raises(TicketUnknown) as error:
            a.ticket(ticket.id)
        assert error.value.ticket == ticket.id
        await ticket.forget()
        assert a.tickets() == []
    async with caller(tmp_path) as a:
        assert a.tickets() == []


async def test_forgotten_call_stops_its_handler(tmp_path: Path) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()
    async with provider() as b, caller(tmp_path, b) as a:

        @b.service("hang")
        async def hang(_: Message) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        ticket = await a.call_later("hang")
        await asyncio.wait_for(begun.wait(), 5)
        await ticket.forget()
        await asyncio.wait_for(stopped.wait(), 5)


async def test_tickets_are_listed_in_order_and_counted(tmp_path: Path) -> None:
    async with caller(tmp_path) as a:
        made = []
        for number in range(3):
            made.append(await a.call_later("nobody", number))
            await asyncio.sleep(0.002)  # they are told apart by the wall clock's milliseconds
        assert [each.id for each in a.tickets()] == [each.id for each in made]
        engine = a.statistics().engine
        assert (engine.tickets, engine.tickets_waiting) == (3, 3)


async def test_node_without_storage_makes_no_tickets() -> None:
    async with Node("a", mdns=False) as a:
        with pytest.raises(UsageError, match="storage"):
            await a.call_later("echo")
        assert a.tickets() == []
        with pytest.raises(TicketUnknown):
            a.ticket("x")


async def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    async with caller(tmp_path, options=NodeOptions(tickets_max=1)) as a:
        for wrong in ({"priority": 10}, {"ttl": 0}, {"retries": -1}, {"key": 1}):
            with pytest.raises(InvalidOption):
                await a.call_later("echo", **wrong)  # type: ignore[arg-type]
        assert a.tickets() == []
        await a.call_later("echo")
        with pytest.raises(UsageError, match="1 tickets already"):
            await a.call_later("echo")


async def test_request_that_finds_no_room_is_not_made(tmp_path: Path) -> None:
    small = JournalOptions(journal_bytes_max=1 << 20)
    storage = Storage(tmp_path / "caller.zmesh", options=small)
    async with caller(tmp_path, storage=storage) as a:
        with pytest.raises(JournalFull):
            await a.call_later("echo", bytes(2 << 20))
        assert a.tickets() == []
        ticket = await a.call_later("echo", b"small")
        assert ticket.state == zmesh.TicketState.WAITING


async def test_request_waits_for_room_where_the_node_was_told_to(tmp_path: Path) -> None:
    small = JournalOptions(journal_bytes_max=1 << 20)
    storage = Storage(tmp_path / "caller.zmesh", when_full="wait", options=small)
    async with caller(tmp_path, storage=storage) as a:
        first = await a.call_later("echo", bytes(600_000))
        second = asyncio.create_task(a.call_later("echo", bytes(600_000)))
        done, _ = await asyncio.wait([second], timeout=0.2)
        assert not done
        await first.forget()
        ticket = await asyncio.wait_for(second, 10)
        assert [each.id for each in a.tickets()] == [ticket.id]


async def test_transaction_of_a_ticket_is_committed_once(tmp_path: Path) -> None:
    runs = 0
    b = Node("provider", mdns=False, options=OPTIONS, storage=tmp_path / "provider.zmesh")

    @b.service("order")
    async def order(message: Message) -> str:
        nonlocal runs
        runs += 1
        try:
            async with message.transaction() as db:
                await db.execute("CREATE TABLE IF NOT EXISTS orders (number)")
                await db.execute("INSERT INTO orders VALUES (?)", (message.body,))
        except zmesh.AlreadyHandled:
            return "ordered before"
        raise OSError("the answer is lost")

    async with b, caller(tmp_path, b) as a:
        ticket = await a.call_later("order", 7, retries=1)
        assert await ticket.reply(10) == "ordered before"
        assert runs == 2
        with pytest.raises(RemoteError, match="a plain call has no transaction"):
            await a.call("order", 7)
    with closing(sqlite3.connect(tmp_path / "provider.zmesh.app")) as database:
        assert database.execute("SELECT number FROM orders").fetchall() == [(7,)]
