"""Signed messages between nodes: who wrote them, what is refused, and what outlives a process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import zmesh
from tests.nodes import QUICK
from tests.storing import SMALL, until
from zmesh import Node, NodeOptions, SignatureRefused, Storage
from zmesh.actions import AuditKind, Delivery
from zmesh.face.signing import signed
from zmesh.face.verifying import Verify
from zmesh.journal.tools import backup
from zmesh.message import Kind, Record


@asynccontextmanager
async def opened(
    name: str,
    *others: Node,
    path: Path | None = None,
    sign: bool = False,
    verify: Verify = "if-signed",
    options: NodeOptions = QUICK,
) -> AsyncIterator[Node]:
    known = [endpoint for other in others for endpoint in other.endpoints]
    storage = None if path is None else Storage(path, options=SMALL)
    async with Node(
        name, peers=known, mdns=False, storage=storage, options=options, sign=sign, verify=verify
    ) as node:
        if others:
            await node.peers.wait_for(count=len(others), timeout=10)
            for other in others:
                await other.peers.wait_for(name=name, timeout=10)
        yield node


# What is told


async def test_a_signed_message_tells_who_signed_it() -> None:
    async with opened("ada") as ada, opened("bob", ada) as bob:
        receipt = await ada.post("bob", "hello", sign=True, headers={"a": 1}, key="k", priority=7)
        message = await anext(bob.inbox())
        assert message.signer == ada.id
        assert message.signer_key is not None
        assert len(message.signer_key) == 32
        assert await receipt == 1
        await ada.post("bob", "unsigned")
        message = await anext(bob.inbox())
        assert (message.signer, message.signer_key) == (None, None)


async def test_everything_that_is_sent_can_be_signed(tmp_path: Path) -> None:
    async with (
        opened("ada", sign=True) as ada,
        opened("bob", ada, verify="required") as bob,
        bob.subscribe("news.>") as news,
        bob.pull("jobs") as jobs,
        bob.join("team") as team,
    ):
        signers = []

        @bob.service("who")
        async def who(message: zmesh.Message) -> str | None:
            return message.signer

        @bob.service("parts")
        async def parts(message: zmesh.Message) -> AsyncIterator[str | None]:
            yield message.signer
            async for part in message.parts:
                yield part

        async def bodies() -> AsyncIterator[int]:
            yield 7

        await ada.peers.wait_for(service="parts", timeout=5)
        await ada.peers.wait_for(group="team", timeout=5)
        await ada.post_many("bob", [1, b"2"])
        ada.post_nowait("bob", 3, compression="zstd")
        signers += [(await anext(bob.inbox())).signer for _ in range(3)]
        await ada.publish("news.x", "y" * 2000, type="t", min_receivers=1, compression="lz4")
        signers.append((await anext(news)).signer)
        await ada.push("jobs", 1, key="k", priority=9)
        await ada.push_many("jobs", [b"2" * 2000, {"three": 3}], compression="zstd")
        ada.push_nowait("jobs", 4)
        signers += [(await anext(jobs)).signer for _ in range(4)]
        report = ada.fan_out("team", 1)
        signers.append((await anext(team)).signer)
        assert len((await report).accepted) == 1
        signers.append(await ada.call("who", timeout=5, key="k"))
        signers += [reply.body async for reply in ada.survey("who")]
        told = [part async for part in ada.stream("parts", bodies())]
        assert told == [ada.id, 7]
        exchange = await ada.exchange("orders", kind="direct")
        await exchange.bind(queue="jobs", routing_key="new")
        await exchange.publish(b"z" * 2000, "new", compression="zstd")
        signers.append((await anext(jobs)).signer)
        async with bob.receive_files(tmp_path) as files:
            await ada.peers.wait_for(service="zmesh.files", timeout=5)
            (tmp_path / "sent").mkdir()
            (tmp_path / "sent" / "a.txt").write_text("hello")
            await ada.send_file("bob", tmp_path / "sent" / "a.txt", timeout=5)
            assert (await anext(files)).size == 5
        assert signers == [ada.id] * len(signers)
        assert bob.statistics().audited == {}
        assert ada.statistics().signed >= len(signers)


# What is refused


async def test_what_is_not_signed_is_refused_where_signatures_are_required() -> None:
    async with opened("ada") as ada, opened("bob", ada, verify="required") as bob:
        audit = bob.audit()

        @bob.service("who")
        async def who(message: zmesh.Message) -> str | None:
            return message.signer

        @bob.service("open", verify="if-signed")
        async def opened_to_all(message: zmesh.Message) -> str | None:
            return message.signer

        await ada.peers.wait_for(service="open", timeout=5)
        receipt = await ada.post("bob", 1)
        signed = await ada.post("bob", 2, sign=True)
        assert (await anext(bob.inbox())).body == 2
        assert await signed == 1
        with pytest.raises(SignatureRefused) as caught:
            await receipt
        assert "not signed" in caught.value.why
        with pytest.raises(SignatureRefused):
            await ada.call("who", timeout=5)
        with pytest.raises(SignatureRefused):
            [part async for part in ada.stream("who")]
        assert await ada.call("who", timeout=5, sign=True) == ada.id
        assert await ada.call("open", timeout=5) is None
        event = await anext(audit)
        assert (event.kind, event.peer) == (AuditKind.BAD_SIGNATURE, "ada")
        assert event.detail.startswith("a direct message: it is not signed")
        assert bob.statistics().audited == {AuditKind.BAD_SIGNATURE: 3}


async def test_one_inbox_loop_that_requires_signatures_does_so_for_all() -> None:
    async with opened("ada") as ada, opened("bob", ada) as bob:
        bob.inbox()
        bob.inbox(verify="required")
        receipt = await ada.post("bob", 1)
        await ada.post("bob", 2, sign=True)
        assert (await anext(bob.inbox())).body == 2
        with pytest.raises(SignatureRefused):
            await receipt


def changed(node: Node, monkeypatch: pytest.MonkeyPatch, change: object) -> None:
    """Have records change between their signature and their receiver."""
    assembly = node._at_work()
    put = assembly.inbox.put

    def put_changed(settler: object, delivery: Delivery, start: int, stop: int) -> None:
        delivery.records = [change(each) for each in delivery.records]  # type: ignore[operator]
        put(settler, delivery, start, stop)  # type: ignore[arg-type]

    monkeypatch.setattr(assembly.inbox, "put", put_changed)


async def test_a_changed_body_is_refused_and_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened("ada") as ada, opened("bob", ada) as bob:
        reading = asyncio.ensure_future(anext(bob.inbox()))

        def change(record: Record) -> Record:
            return (record[0], record[1], b"forged", *record[3:])

        changed(bob, monkeypatch, change)
        with pytest.raises(SignatureRefused) as caught:
            await ada.send("bob", b"body", sign=True, timeout=5)
        assert "does not hold" in caught.value.why
        assert bob.statistics().audited == {AuditKind.BAD_SIGNATURE: 1}
        reading.cancel()


async def test_another_priority_than_was_signed_is_refused() -> None:
    async with opened("ada") as ada, opened("bob", ada) as bob:
        reading = asyncio.ensure_future(anext(bob.inbox()))
        engine, at_work = ada._at_work().engine, ada._at_work()
        record = at_work.outgoing.record(Kind.DIRECT, "", b"x")
        node = engine.resolve("bob")
        record = signed(record, at_work.outgoing.signing.for_node(node, 4, None, None))
        with pytest.raises(SignatureRefused):
            await (await at_work.posting.post("bob", record, 5, None, None))
        reading.cancel()


# Replays


async def resent(by: Node, to: str, message: zmesh.Message) -> None:
    """Send what somebody else signed, as it was."""
    record = message._record
    await (await by._at_work().posting.post(to, record, message.priority, None, None))


async def test_a_member_that_sends_it_again_is_refused_and_audited() -> None:
    async with (
        opened("ada") as ada,
        opened("bob", ada) as bob,
        opened("eve", ada, bob) as eve,
    ):
        receipt = await ada.post("bob", "pay 5", sign=True)
        message = await anext(bob.inbox())
        assert await receipt == 1
        reading = asyncio.ensure_future(anext(bob.inbox()))
        with pytest.raises(SignatureRefused) as caught:
            await resent(eve, "bob", message)
        assert caught.value.why == "it came before"
        with pytest.raises(SignatureRefused):
            await resent(ada, "bob", message)  # without a mesh key the link proves nothing
        assert bob.statistics().audited == {AuditKind.REPLAYED: 2}
        await eve.post("bob", "own", sign=True)
        assert (await reading).signer == eve.id


async def test_it_is_no_use_to_another_receiver() -> None:
    async with (
        opened("ada") as ada,
        opened("bob", ada) as bob,
        opened("eve", ada, bob) as eve,
    ):
        await ada.post("eve", "for eve", sign=True)
        message = await anext(eve.inbox())
        reading = asyncio.ensure_future(anext(bob.inbox()))
        with pytest.raises(SignatureRefused) as caught:
            await resent(eve, "bob", message)
        assert "does not hold" in caught.value.why
        reading.cancel()


async def test_what_was_given_back_is_no_replay_when_it_comes_again() -> None:
    async with opened("ada", sign=True) as ada, opened("bob", ada) as bob:
        receipt = await ada.post("bob", "hello")
        inbox = bob.inbox("manual")
        await (await anext(inbox)).release()
        await (await anext(inbox)).fail("not yet")
        message = await anext(inbox)
        assert (message.signer, message.attempt) == (ada.id, 2)
        await message.accept()
        assert await receipt == 1

        calls = []

        @bob.service("flaky")
        async def flaky(message: zmesh.Message) -> int:
            calls.append(message.signer)
            if len(calls) == 1:
                raise ValueError("once")
            return len(calls)

        await ada.peers.wait_for(service="flaky", timeout=5)
        assert await ada.call("flaky", retries=1, timeout=5) == 2
        async with bob.pull("jobs", settle="manual") as jobs:
            await ada.push("jobs", 1)
            await anext(jobs)
        async with bob.pull("jobs") as jobs:
            assert (await anext(jobs)).signer == ada.id
        assert calls == [ada.id] * 2
        assert bob.statistics().audited == {}


async def test_a_signature_expires_and_clocks_may_differ_within_a_tolerance() -> None:
    strict = replace(QUICK, clock_tolerance=0.05, signature_valid_for=0.1)
    async with opened("ada", options=strict) as ada, opened("bob", ada, options=strict) as bob:
        at_work = ada._at_work()
        late = await ada.post("bob", "late", sign=True)
        await asyncio.sleep(0.3)
        at_work.outgoing.signing._wall_ms = lambda: 4_000_000_000_000
        early = await ada.post("bob", "early", sign=True)
        await ada.post("bob", "unsigned")
        assert (await anext(bob.inbox())).body == "unsigned"
        with pytest.raises(SignatureRefused, match="expired"):
            await late
        with pytest.raises(SignatureRefused, match="future"):
            await early


async def test_several_subscriptions_get_it_and_those_that_follow() -> None:
    async with opened("ada", sign=True) as ada, opened("bob", ada) as bob:
        async with bob.subscribe("a") as one, bob.subscribe("*", settle="manual") as two:
            await ada.peers.wait_for(topic="b", timeout=10)  # the second: else it gets a replay
            receipt = await ada.publish("a", 1, retain=True)
            assert (await anext(one)).signer == ada.id
            await (await anext(two)).fail("again")  # both get it again
            assert (await anext(one)).signer == ada.id
            await (await anext(two)).accept()
            assert await receipt == 1
        async with bob.subscribe("a") as later:
            message = await anext(later)
            assert (message.retained, message.signer) == (True, ada.id)
        assert bob.statistics().audited == {}


# Storage


async def test_durable_posts_are_verified_in_another_life_of_both(tmp_path: Path) -> None:
    async with opened("ada", path=tmp_path / "ada", sign=True) as ada:
        signer = ada.id
        await ada.post("bob", "one")
        await ada.post_many("bob", [b"two", b"3" * 3000], compression="zstd")
    async with (
        opened("ada", path=tmp_path / "ada") as ada,
        opened("bob", ada, path=tmp_path / "bob", verify="required") as bob,
    ):
        message = await anext(bob.inbox("manual"))
        assert (ada.id, message.signer, message.body) == (signer, signer, "one")
    async with (
        opened("ada", path=tmp_path / "ada") as ada,
        opened("bob", ada, path=tmp_path / "bob", verify="required") as bob,
    ):
        messages = [await anext(bob.inbox()) for _ in range(3)]
        assert [message.signer for message in messages] == [signer] * 3
        await until(lambda: ada._at_work().engine.stored_out == 0)


async def test_a_replay_is_known_in_another_life_of_the_receiver(tmp_path: Path) -> None:
    async with opened("ada", path=tmp_path / "ada") as ada, opened("eve", ada) as eve:
        async with opened("bob", ada, path=tmp_path / "bob") as bob:
            receipt = await ada.post(bob.id, "pay 5", sign=True)
            message = await anext(bob.inbox())
            assert await receipt == 1
        async with opened("bob", ada, eve, path=tmp_path / "bob") as bob:
            reading = asyncio.ensure_future(anext(bob.inbox()))
            with pytest.raises(SignatureRefused) as caught:
                await resent(eve, "bob", message)
            assert caught.value.why == "it came before"
            reading.cancel()


async def test_a_copy_of_a_journal_takes_nothing_that_came_after_it_was_made(
    tmp_path: Path,
) -> None:
    async with opened("ada", path=tmp_path / "ada") as ada, opened("eve", ada) as eve:
        async with opened("bob", ada, path=tmp_path / "bob") as bob:
            backup(tmp_path / "bob", tmp_path / "copy")
            receipt = await ada.post(bob.id, "pay 5", sign=True)
            message = await anext(bob.inbox())
            assert await receipt == 1
            bob_id = bob.id
        for _ in range(2):
            async with opened("bob", ada, eve, path=tmp_path / "copy") as bob:
                assert bob.id == bob_id
                reading = asyncio.ensure_future(anext(bob.inbox()))
                with pytest.raises(SignatureRefused, match="may have come before"):
                    await resent(eve, "bob", message)
                await ada.send("bob", "new", sign=True, timeout=5)
                assert (await reading).body == "new"


async def test_without_storage_what_was_signed_before_is_too_old_to_tell() -> None:
    async with opened("ada") as ada:
        at_work = ada._at_work()
        now = at_work.outgoing.signing._wall_ms()
        async with opened("bob", ada) as bob:
            at_work.outgoing.signing._wall_ms = lambda: now - 1000
            receipt = await ada.post("bob", 1, sign=True)
            await ada.post("bob", 2)
            assert (await anext(bob.inbox())).body == 2
            with pytest.raises(SignatureRefused, match="may have come before"):
                await receipt


async def test_durable_jobs_and_topics_and_retained_ones_outlive_processes(
    tmp_path: Path,
) -> None:
    async with opened("ada", path=tmp_path / "ada", sign=True) as ada:
        signer = ada.id
        await ada.push("jobs", 1, key="k", priority=8)
        await ada.push_many("jobs", [2, 3])
        async with (
            opened("bob", ada, path=tmp_path / "bob") as bob,
            bob.subscribe("news", name="reader") as news,
        ):
            await ada.publish("news", 0, min_receivers=1)
            assert (await anext(news)).signer == signer
        await ada.publish("news", 1, type="t", key="k", priority=9)
        await ada.publish("kept", 2, retain=True, headers={"h": 1})
    async with (
        opened("ada", path=tmp_path / "ada") as ada,
        opened("bob", ada, path=tmp_path / "bob", verify="required") as bob,
        bob.pull("jobs") as jobs,
        bob.subscribe("news", name="reader") as news,
        bob.subscribe("kept") as kept,
    ):
        assert {(await anext(jobs)).signer for _ in range(3)} == {signer}
        message = await anext(news)
        assert (message.body, message.signer, message.type) == (1, signer, "t")
        message = await anext(kept)
        assert (message.body, message.signer, message.retained) == (2, signer, True)
        assert bob.statistics().audited == {}


async def test_requeued_dead_letters_are_still_signed(tmp_path: Path) -> None:
    async with (
        opened("ada", path=tmp_path / "ada", sign=True) as ada,
        opened("bob", ada, path=tmp_path / "bob", verify="required") as bob,
        bob.pull("jobs", settle="manual") as jobs,
    ):
        receipts = [await ada.post("bob", "no"), await ada.push("jobs", "no")]
        for messages in (bob.inbox("manual"), jobs):
            await (await anext(messages)).reject("not now")
        for receipt in receipts:
            with pytest.raises(zmesh.Rejected):
                await receipt
        assert len(ada.dead_letters()) == 2
        for letter in ada.dead_letters():
            await ada.requeue(letter)
        for messages in (bob.inbox("manual"), jobs):
            message = await anext(messages)
            assert message.signer == ada.id
            await message.accept()
        assert bob.statistics().audited == {}


async def test_durable_fan_outs_and_tickets_are_verified_in_another_life(tmp_path: Path) -> None:
    async with opened("ada", path=tmp_path / "ada", sign=True) as ada:
        signer = ada.id
        await ada.fan_out("team", 1, include_late=True, timeout=60).stored()
        ticket = await ada.call_later("who")
    async with (
        opened("ada", path=tmp_path / "ada") as ada,
        opened("bob", ada, path=tmp_path / "bob", verify="required") as bob,
    ):

        @bob.service("who")
        async def who(message: zmesh.Message) -> str | None:
            return message.signer

        async with bob.join("team") as team:
            assert (await anext(team)).signer == signer
        assert await ada.ticket(ticket.id).reply() == signer
        assert bob.statistics().audited == {}
