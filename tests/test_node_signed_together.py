"""Messages signed together, between nodes: however they travel, each is verified by itself."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

import zmesh
from tests.nodes import QUICK
from tests.storing import until
from tests.test_node_signatures import changed, opened, resent
from zmesh import SignatureRefused
from zmesh.actions import AuditKind
from zmesh.message import Record, Tag, extra
from zmesh.options import LinkOptions
from zmesh.security.signing import SIGNED_BYTES_MAX, TOGETHER_MAX
from zmesh.terms import Compression

COUNT = 3 * TOGETHER_MAX


def roots_of(node: zmesh.Node) -> int:
    """Return how often Ed25519 verified anything of a message."""
    return node._at_work().verifying.roots.verified


async def test_many_posts_cost_one_signature_a_batch() -> None:
    async with opened("ada") as ada, opened("bob", ada, verify="required") as bob:
        receipt = await ada.post_many("bob", map(str, range(COUNT)), sign=True)
        inbox = bob.inbox()
        messages = [await anext(inbox) for _ in range(COUNT)]
        assert await receipt == COUNT
        assert [message.body for message in messages] == list(map(str, range(COUNT)))
        assert {message.signer for message in messages} == {ada.id}
        assert (bob.statistics().verified, roots_of(bob)) == (COUNT, 3)
        assert bob.statistics().signed_batches == 3
        await ada.post("bob", "alone", sign=True)
        assert (await anext(inbox)).signer == ada.id
        assert roots_of(bob) == 4


async def test_no_more_batches_are_remembered_than_may_be() -> None:
    options = replace(QUICK, signed_batches_max=2)
    async with opened("ada") as ada, opened("bob", ada, options=options) as bob:
        await ada.post_many("bob", [b""] * COUNT, sign=True)
        inbox = bob.inbox()
        for _ in range(COUNT):
            await anext(inbox)
        assert bob.statistics().signed_batches == 2


async def test_jobs_of_a_batch_are_verified_by_several_workers_and_when_they_come_again() -> None:
    async with (
        opened("ada") as ada,
        opened("bob", ada, verify="required") as bob,
        opened("cyd", ada, verify="required") as cyd,
    ):
        seen: list[tuple[object, str | None]] = []
        failed: list[object] = []

        async def work(node: zmesh.Node) -> None:
            async with node.pull("pictures", prefetch=4, settle="manual") as jobs:
                async for job in jobs:
                    if job.body % 7 == 0 and job.attempt == 1:
                        failed.append(job.body)
                        await job.fail("once more")
                        continue
                    seen.append((job.body, job.signer))
                    await job.accept()

        workers = [asyncio.create_task(work(node)) for node in (bob, cyd)]
        receipt = await ada.push_many("pictures", range(COUNT), sign=True)
        assert await receipt == COUNT
        for worker in workers:
            worker.cancel()
        assert sorted(map(str, seen)) == sorted(str((at, ada.id)) for at in range(COUNT))
        assert len(failed) == -(-COUNT // 7)
        assert 1 <= roots_of(bob) <= COUNT / 4
        assert 1 <= roots_of(cyd) <= COUNT / 4
        assert {**bob.statistics().audited, **cyd.statistics().audited} == {}


@pytest.mark.parametrize("compression", [None, "zstd"])
async def test_large_and_small_ones_go_together_compressed_and_in_fragments(
    compression: Compression | None,
) -> None:
    options = replace(QUICK, link=LinkOptions(fragment_bytes=16 * 1024))
    bodies = [
        b"small", b"text " * 1000, os.urandom(40_000), b"x" * 300_000, b"", os.urandom(300_000),
        b"last",
    ]  # fmt: skip
    async with (
        opened("ada", options=options) as ada,
        opened("bob", ada, verify="required", options=options) as bob,
    ):
        receipt = await ada.post_many("bob", bodies, sign=True, compression=compression)
        inbox = bob.inbox()
        messages = [await anext(inbox) for _ in bodies]
        assert await receipt == len(bodies)
        assert [(message.body, message.signer) for message in messages] == [
            (body, ada.id) for body in bodies
        ]
        assert roots_of(bob) < len(bodies)


async def test_durable_ones_are_verified_in_another_life_of_both(tmp_path: Path) -> None:
    async with opened("ada", path=tmp_path / "ada", sign=True) as ada:
        await ada.post_many("bob", range(40))
        await ada.push_many("pictures", range(40), durable=True)
    async with (
        opened("ada", path=tmp_path / "ada") as ada,
        opened("bob", ada, path=tmp_path / "bob", verify="required") as bob,
    ):
        inbox = bob.inbox()
        assert [(await anext(inbox)).body for _ in range(20)] == list(range(20))
    async with (
        opened("ada", path=tmp_path / "ada") as ada,
        opened("bob", ada, path=tmp_path / "bob", verify="required") as bob,
        bob.pull("pictures") as jobs,
    ):
        inbox = bob.inbox()
        messages = [await anext(inbox) for _ in range(20)]
        pulled = [await anext(jobs) for _ in range(40)]
        assert {each.signer for each in (*messages, *pulled)} == {ada.id}
        assert messages[-1].body == 39
        assert bob.statistics().audited == {}
        await until(lambda: ada._at_work().engine.stored_out == 0)


async def test_one_that_was_changed_is_refused_and_its_batch_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened("ada") as ada, opened("bob", ada) as bob:
        reading = asyncio.create_task(_read(bob, 9))

        def change(record: Record) -> Record:
            return (record[0], record[1], b"6", *record[3:]) if record[2] == b"5" else record

        changed(bob, monkeypatch, change)
        receipt = await ada.post_many("bob", [b"%d" % at for at in range(10)], sign=True)
        with pytest.raises(SignatureRefused):
            await receipt
        assert await reading == [b"0", b"1", b"2", b"3", b"4", b"6", b"7", b"8", b"9"]
        assert bob.statistics().audited == {AuditKind.BAD_SIGNATURE: 1}


async def test_one_that_comes_again_is_refused_though_its_batch_is_known() -> None:
    async with (
        opened("ada") as ada,
        opened("bob", ada) as bob,
        opened("eve", ada, bob) as eve,
    ):
        await ada.post_many("bob", ["pay 5", "pay 6", "pay 7"], sign=True)
        inbox = bob.inbox()
        messages = [await anext(inbox) for _ in range(3)]
        reading = asyncio.ensure_future(anext(inbox))
        with pytest.raises(SignatureRefused) as caught:
            await resent(eve, "bob", messages[1])
        assert caught.value.why == "it came before"
        reading.cancel()


async def test_their_bytes_count_against_the_room_there_is() -> None:
    body, count = bytes(100), 500
    link = LinkOptions(queued_bytes_max=16 * 1024)
    options = replace(QUICK, link=link)
    async with opened("ada", options=options) as ada, opened("bob", ada) as bob:
        most = 0
        reading = asyncio.create_task(_read(bob, count))
        posting = asyncio.create_task(ada.post_many("bob", [body] * count, sign=True))
        while not reading.done():
            most = max(most, ada._at_work().engine.queued(ada._at_work().engine.resolve("bob"))[1])
            await asyncio.sleep(0)
        await (await posting)
        assert 0 < most <= link.queued_bytes_max + SIGNED_BYTES_MAX + 116


async def _read(node: zmesh.Node, count: int) -> list[object]:
    inbox = node.inbox()
    found: list[object] = []
    while len(found) < count:
        message = await anext(inbox)
        assert extra(message._record, Tag.SIGNATURE) is not None
        assert message.signer is not None
        found.append(message.body)
    return found
