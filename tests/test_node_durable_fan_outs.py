"""Fan-outs of a node with a journal, between real nodes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from zmesh import (
    Closed,
    FanOutReport,
    Group,
    JournalFull,
    JournalOptions,
    Node,
    NodeOptions,
    Storage,
    UsageError,
)

OPTIONS = NodeOptions(redeliver_min=0.01, redeliver_max=0.05, reconnect_max=0.2)


def sender(place: Path, *known: Node, **how: Any) -> Node:
    peers = [endpoint for node in known for endpoint in node.endpoints]
    storage = how.pop("storage", place / "office.zmesh")
    return Node("office", peers=peers, mdns=False, options=OPTIONS, storage=storage, **how)


def member(name: str, storage: Path | None = None) -> Node:
    return Node(name, mdns=False, options=OPTIONS, storage=storage)


def names(report: FanOutReport) -> tuple[list[str], list[str]]:
    return (
        sorted(each.name for each in report.accepted),
        sorted(each.name for each in report.pending),
    )


async def take(group: Group) -> object:
    """Take one message, and accept it."""
    return (await asyncio.wait_for(anext(group), 10)).body


async def test_report_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with (
        member("one", tmp_path / "one.zmesh") as one,
        member("two", tmp_path / "two.zmesh") as two,
        one.join("cameras") as first,
        two.join("cameras", settle="manual") as second,
    ):
        async with sender(tmp_path, one, two) as office:
            await office.peers.wait_for(group="cameras", count=2, timeout=10)
            fan_out = office.fan_out("cameras", {"version": 7}, timeout=60)
            await fan_out.stored()
            assert await take(first) == {"version": 7}
            async for outcome in fan_out:
                assert outcome.name == "one"
                break
            held = await asyncio.wait_for(anext(second), 10)
            assert office.fan_outs() == [fan_out]
        with pytest.raises(Closed):
            await fan_out
        async with sender(tmp_path, one, two) as office:
            [again] = office.fan_outs()
            assert again.group == "cameras"
            assert names(again.report) == (["one"], ["two"])
            await again.stored()
            await office.peers.wait_for(group="cameras", count=2, timeout=10)
            await held.accept()
            report = await asyncio.wait_for(again, 10)
            assert names(report) == (["one", "two"], [])
            assert office.fan_outs() == []
    async with sender(tmp_path) as office:
        assert office.fan_outs() == []


async def test_restarted_member_with_a_journal_does_not_handle_it_again(tmp_path: Path) -> None:
    async with sender(tmp_path) as office:
        [endpoint] = office.endpoints
        journal = tmp_path / "one.zmesh"
        async with (
            Node("one", peers=[endpoint], mdns=False, storage=journal) as one,
            one.join("cameras") as group,
        ):
            await office.peers.wait_for(group="cameras", timeout=10)
            fan_out = office.fan_out("cameras", 1, include_late=True, timeout=60)
            assert await take(group) == 1
            async for outcome in fan_out:
                assert outcome.name == "one"
                break
        async with (
            Node("one", peers=[endpoint], mdns=False, storage=journal) as one,
            one.join("cameras") as group,
        ):
            await office.peers.wait_for(group="cameras", timeout=10)
            second = office.fan_out("cameras", 2, timeout=60)
            assert await take(group) == 2
            await asyncio.wait_for(second, 10)
        fan_out.cancel()


async def test_report_that_became_final_while_nobody_looked_is_there(tmp_path: Path) -> None:
    async with member("one") as one, one.join("cameras", settle="manual") as group:
        async with sender(tmp_path, one) as office:
            await office.peers.wait_for(group="cameras", timeout=10)
            await office.fan_out("cameras", 1, timeout=1).stored()
            await asyncio.wait_for(anext(group), 10)
        async with sender(tmp_path) as office:
            async with asyncio.timeout(10):
                while not (found := office.fan_outs()[0]).done:
                    await asyncio.wait([asyncio.ensure_future(found.news())], timeout=5)
            [over] = office.fan_outs()
            assert over is found
            assert names(await over) == ([], ["one"])
            assert office.fan_outs() == []
    async with sender(tmp_path) as office:
        assert office.fan_outs() == []


async def test_cancelled_waiter_does_not_cancel_a_durable_fan_out(tmp_path: Path) -> None:
    async with (
        member("one") as one,
        sender(tmp_path, one) as office,
        one.join("cameras", settle="manual") as group,
    ):
        await office.peers.wait_for(group="cameras", timeout=10)
        fan_out = office.fan_out("cameras", 1, timeout=60)
        waiting = asyncio.ensure_future(fan_out)
        held = await asyncio.wait_for(anext(group), 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert office.fan_outs() == [fan_out]
        await held.accept()
        assert (await asyncio.wait_for(fan_out, 10)).is_complete


async def test_cancelled_fan_out_is_not_there_after_a_restart(tmp_path: Path) -> None:
    async with (
        member("one") as one,
        sender(tmp_path, one) as office,
        one.join("cameras", settle="manual") as group,
    ):
        await office.peers.wait_for(group="cameras", timeout=10)
        fan_out = office.fan_out("cameras", 1, timeout=60)
        await asyncio.wait_for(anext(group), 10)
        fan_out.cancel()
        assert office.fan_outs() == []
    async with sender(tmp_path) as office:
        assert office.fan_outs() == []


async def test_fan_out_that_finds_no_room_is_sent_to_nobody(tmp_path: Path) -> None:
    small = Storage(tmp_path / "office.zmesh", options=JournalOptions(journal_bytes_max=1 << 20))
    async with sender(tmp_path, storage=small) as office, office.join("cameras") as group:
        fan_out = office.fan_out("cameras", bytes(2 << 20))
        with pytest.raises(JournalFull):
            await fan_out.stored()
        with pytest.raises(JournalFull):
            await fan_out
        assert office.fan_outs() == []
        following = office.fan_out("cameras", b"small")
        assert await take(group) == b"small"
        assert (await following).is_complete


async def test_fan_out_may_do_without_the_journal(tmp_path: Path) -> None:
    async with sender(tmp_path) as office, office.join("cameras", settle="manual") as group:
        fan_out = office.fan_out("cameras", 1, durable=False, timeout=60)
        with pytest.raises(UsageError, match="not durable"):
            await fan_out.stored()
        await asyncio.wait_for(anext(group), 10)
    async with sender(tmp_path) as office:
        assert office.fan_outs() == []


async def test_node_without_storage_has_no_durable_fan_outs() -> None:
    async with member("one") as one, one.join("cameras"):
        with pytest.raises(UsageError, match="storage"):
            one.fan_out("cameras", 1, durable=True)
