"""A mesh changes its key while it works: nothing is lost, and nothing fails."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import zmesh
from tests.storing import until
from zmesh import AuditKind, MeshKey, Node, NodeOptions
from zmesh.cli.main import main
from zmesh.face.system import SystemEntropy
from zmesh.security.key_files import create_key_file, read_key_file, replace_key_file, text_of

NAMES = ("ada", "bob", "cyd")
HERE = ["127.0.0.1"]
QUICK = NodeOptions(key_files_every=0.05)


class Member:
    """One node with a key file, which sends to all others, calls them, and notes what comes."""

    def __init__(self, name: str, mesh: str, directory: Path, key: MeshKey) -> None:
        self.name = name
        self.file = directory / f"{name}.key"
        create_key_file(self.file, text_of([key], name))
        self.node = Node(name, mesh=mesh, key=self.file, interfaces=HERE, options=QUICK)
        self.got: dict[str, list[int]] = {other: [] for other in NAMES if other != name}
        self.sent = 0
        self.called = 0
        self.rekeyed = 0
        self._stop = asyncio.Event()

        @self.node.service(f"twice-{name}")
        async def twice(message: zmesh.Message) -> int:
            return 2 * int(message.body)

    async def listen(self) -> None:
        async for message in self.node.inbox():
            sender, number = message.body
            self.got[sender].append(number)

    async def count_changes(self) -> None:
        async for event in self.node.audit():
            self.rekeyed += event.kind is AuditKind.KEYS_CHANGED
            assert event.kind is not AuditKind.KEYS_UNUSABLE, event

    async def post(self) -> None:
        """Post numbers to all others, and have every receipt."""
        while not self._stop.is_set():
            receipts = [await self.node.post(other, [self.name, self.sent]) for other in self.got]
            self.sent += 1
            await asyncio.sleep(0.002)
            if self.sent % 10 == 0:
                async with asyncio.timeout(10):
                    await asyncio.gather(*receipts)
        await self.node.flush()

    async def call(self, other: str) -> None:
        while not self._stop.is_set():
            number = self.called
            answer = await self.node.call(f"twice-{other}", number, timeout=10)
            assert answer == 2 * number
            self.called += 1
            await asyncio.sleep(0.005)

    def stop(self) -> None:
        self._stop.set()


@asynccontextmanager
async def at_work(members: list[Member]) -> AsyncIterator[list["asyncio.Task[None]"]]:
    """Have all members talk; what fails, fails the test."""
    async with AsyncExitStack() as stack:
        for member in members:
            await stack.enter_async_context(member.node)
        for member in members:
            await member.node.peers.wait_for(count=len(members) - 1, timeout=10)
            for other in member.got:
                await member.node.peers.wait_for(service=f"twice-{other}", timeout=10)
        hearing = [
            asyncio.create_task(each)
            for member in members
            for each in (member.listen(), member.count_changes())
        ]
        talking = [
            asyncio.create_task(each)
            for member in members
            for each in (member.post(), *(member.call(other) for other in member.got))
        ]
        try:
            yield talking
            for member in members:
                member.stop()
            async with asyncio.timeout(30):
                await asyncio.gather(*talking)
            await until(
                lambda: all(
                    len(numbers) >= other.sent
                    for member in members
                    for other in members
                    if (numbers := member.got.get(other.name)) is not None
                )
            )
        finally:
            for task in (*hearing, *talking):
                task.cancel()
            await asyncio.gather(*hearing, *talking, return_exceptions=True)


async def passed(talking: list["asyncio.Task[None]"], members: list[Member]) -> None:
    """Wait until everybody has sent and called on; fail where a task has failed."""
    before = [(member.sent, member.called) for member in members]

    def is_passed() -> bool:
        for task in talking:
            if task.done():
                task.result()
        now = [(member.sent, member.called) for member in members]
        return all(
            sent > sent_before + 20 and called > called_before + 20
            for (sent, called), (sent_before, called_before) in zip(now, before, strict=True)
        )

    await until(is_passed, 30)


async def test_mesh_changes_its_key_under_traffic_and_loses_nothing(tmp_path: Path) -> None:
    mesh, old = uuid.uuid4().hex, MeshKey.new(SystemEntropy())
    members = [Member(name, mesh, tmp_path, old) for name in NAMES]
    first, *others = members
    async with at_work(members) as talking:
        await passed(talking, members)
        for number, step in enumerate(("add", "promote", "drop"), 1):
            assert main(["keys", "rotate", str(first.file), step]) == 0
            for other in others:  # as an operator copies it, from one machine to the next
                await passed(talking, members)
                replace_key_file(other.file, first.file.read_text())
            await until(lambda: all(each.rekeyed == number for each in members))  # noqa: B023
            await passed(talking, members)
        [new] = read_key_file(first.file).keys
        assert new != old
        late = Node("late", mesh=mesh, key=new, interfaces=HERE)
        gone = Node("gone", mesh=mesh, key=old, interfaces=HERE, peers=first.node.endpoints)
        async with late, gone:
            await late.peers.wait_for(count=3, timeout=10)
            await until(lambda: gone.statistics().audited == {AuditKind.WRONG_KEY: 1})
            assert list(gone.peers) == []
    for member in members:
        for other in members:
            if other is not member:
                assert member.got[other.name] == list(range(other.sent))


def has_changed(node: Node, times: int) -> bool:
    return node.statistics().audited.get(AuditKind.KEYS_CHANGED) == times


async def test_link_made_with_a_key_that_is_dropped_ends(tmp_path: Path) -> None:
    """Who has not taken part in a rotation is out when the old key goes, though it was linked."""
    mesh, old, new = uuid.uuid4().hex, *(MeshKey.new(SystemEntropy()) for _ in range(2))
    file = tmp_path / "a.key"
    create_key_file(file, text_of([old], "a"))
    behind = Node("behind", mesh=mesh, key=old, interfaces=HERE, mdns=False)
    async with behind:
        ada = Node(
            "ada", mesh=mesh, key=file, interfaces=HERE, mdns=False, options=QUICK,
            peers=behind.endpoints,
        )  # fmt: skip
        async with ada:
            await ada.peers.wait_for(name="behind", timeout=10)
            for keys in ([old, new], [new, old]):
                before = ada.statistics().audited.get(AuditKind.KEYS_CHANGED, 0)
                replace_key_file(file, text_of(keys, "a"))
                await until(partial(has_changed, ada, before + 1))
                await asyncio.sleep(0.2)
                assert [peer.name for peer in ada.peers] == ["behind"]
            replace_key_file(file, text_of([new], "a"))
            # Each waits four seconds for the other, and longer while its loop runs late.
            await until(lambda: list(ada.peers) == [], seconds=30)
            await until(lambda: list(behind.peers) == [], seconds=30)
