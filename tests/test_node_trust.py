"""Nodes that trust listed keys alone, and let each do what rules say."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

import zmesh
from tests.storing import until
from zmesh import Audited, AuditKind, MeshKey, Node, NotAllowed, Trust
from zmesh.errors import DeliveryTimeout, InvalidOption, NoProvider, PeerLost, Rejected, UsageError
from zmesh.face.audit import AuditWatcher
from zmesh.face.system import SystemEntropy
from zmesh.security.rules import Action
from zmesh.security_errors import InvalidTrust

HERE = ["127.0.0.1"]
CLOSED = '[[rule]]\nwho = "*"\njoin = "nowhere"\n'
ACTIONS = "".join(f'{action} = ">"\n' for action in Action)
NOT_B = f'[[rule]]\nwho = "a"\n{ACTIONS}' + CLOSED
"""`a` may do everything, as its own rules concern it as well."""


class Mesh:
    """Nodes with one key, and the directory of each."""

    def __init__(self, stack: AsyncExitStack, place: Path) -> None:
        self.key = MeshKey.new(SystemEntropy())
        self.name = uuid.uuid4().hex
        self.place = place
        self.nodes: list[Node] = []
        self._stack = stack

    def directory(self, name: str = "all") -> Path:
        directory = self.place / name
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory

    async def start(
        self, name: str, trust: Path | Trust | None, storage: Path | None = None
    ) -> Node:
        known = [endpoint for node in self.nodes for endpoint in node.endpoints]
        node = Node(
            name, mesh=self.name, key=self.key, interfaces=HERE, mdns=False, peers=known,
            trust=trust, storage=storage,
        )  # fmt: skip
        self.nodes.append(await self._stack.enter_async_context(node))
        return node

    def list(self, directory: Path, *nodes: Node, rules: str | None = None) -> None:
        for node in nodes:
            (directory / f"{node.name}.pub").write_text(node.public_key)
        if rules is not None:
            (directory / "rules.toml").write_text(rules)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        yield Mesh(stack, tmp_path)


async def pair(
    mesh: Mesh, rules: str | None = None, *, mutual: bool = False, storage: Path | None = None
) -> tuple[Node, Node]:
    """Return two linked nodes: what `a` lets others do is in a directory, and `b` has the same."""
    directory = mesh.directory()
    a = await mesh.start("a", directory)
    b = await mesh.start("b", directory if mutual else mesh.directory("of b"), storage)
    mesh.list(directory, a, b, rules=rules)
    mesh.list(mesh.directory("of b"), a, b)
    for node in (a, b):
        await node.reload_trust()
    for node in (a, b):
        await node.peers.wait_for(count=1, timeout=20)
    return a, b


async def heard(watcher: AuditWatcher, kind: AuditKind) -> Audited:
    async with asyncio.timeout(10.0):
        async for event in watcher:
            if event.kind is kind:
                return event
    raise AssertionError("the node was closed")


@asynccontextmanager
async def denied(action: str, name: str, by: str = "this very node") -> AsyncIterator[None]:
    with pytest.raises(NotAllowed) as caught:
        async with asyncio.timeout(10.0):
            yield
    assert (caught.value.action, caught.value.name) == (action, name)
    assert by in caught.value.by
    assert caught.value.rule


async def test_listed_nodes_talk_and_a_stranger_with_the_mesh_key_does_not(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await pair(mesh)
    await b.post("a", "hi")
    watcher = a.audit()
    stranger = await mesh.start("stranger", None)
    told = await heard(watcher, AuditKind.NOT_TRUSTED)
    assert stranger.id in told.peer
    assert a.statistics().audited["not_trusted"] >= 1
    await until(lambda: stranger.statistics().engine.membership.not_trusted_there > 0, 10.0)
    assert not list(stranger.peers)
    assert {peer.name for peer in a.peers} == {"b"}
    lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert any("stranger: not trusted" in line and "not listed" in line for line in lines)
    with pytest.raises(zmesh.PeersMissing, match="do not list this node's key"):
        await stranger.peers.wait_for(count=1, timeout=0.1)
    with pytest.raises(NoProvider, match="do not list this node's key"):
        await stranger.call("x", timeout=5)
    with pytest.raises(DeliveryTimeout, match="do not list this node's key"):
        await stranger.send("a", 1, timeout=0.2)


async def test_a_revoked_node_is_cut_off_within_moments_and_stays_out(mesh: Mesh) -> None:
    a, b = await pair(mesh)
    watcher = a.audit()
    receipt = await a.post("b", "unread")
    revoked = mesh.directory() / "revoked"
    revoked.mkdir(mode=0o700)
    (mesh.directory() / "b.pub").rename(revoked / "b.pub")
    told = await heard(watcher, AuditKind.REVOKED)
    assert b.id in told.peer
    with pytest.raises(PeerLost, match="not trusted any more"):
        await receipt
    await until(lambda: not list(a.peers) and not list(b.peers), 10.0)
    await asyncio.sleep(2.0)
    assert not list(a.peers)
    (revoked / "b.pub").rename(mesh.directory() / "b.pub")
    await a.reload_trust()
    await a.peers.wait_for(count=1, timeout=30)


async def test_what_the_rules_of_a_node_forbid_it_is_refused_at_once(mesh: Mesh) -> None:
    a, _ = await pair(mesh, CLOSED, mutual=True)
    async with denied("call", "x"):
        await a.call("x")
    async with denied("call", "x"):
        a.stream("x")
    async with denied("call", "x"):
        a.survey("x", timeout=1)
    async with denied("publish", "x"):
        await a.publish("x", 1)
    async with denied("subscribe", "x.>"):
        a.subscribe("x.>")
    async with denied("push", "x"):
        await a.push("x", 1)
    async with denied("push", "x"):
        a.push_nowait("x", 1)
    async with denied("pull", "x"):
        a.pull("x")
    async with denied("join", "x"):
        a.join("x")
    async with denied("fan_out", "x"):
        await a.fan_out("x", 1, timeout=1)
    async with denied("send", "b"):
        await a.send("b", 1)
    async with denied("send", "b"):
        a.post_nowait("b", 1)
    async with denied("send", "b"):
        await a.post_many("b", [1])
    async with denied("share", "x"):
        await a.shared("x")
    async with denied("share", "zmesh.exchanges"):
        await a.exchange("x", kind="direct")
    async with denied("call", "zmesh.files"):
        await a.send_file("b", __file__)
    async with denied("serve", "zmesh.files"):
        a.receive_files(".")
    async with denied("serve", "x"):
        a.service("x")(lambda message: message.body)
    a.join("nowhere")


@pytest.mark.parametrize("rules", [None, CLOSED])
async def test_a_node_that_its_own_trust_revokes_may_do_nothing(
    rules: str | None, mesh: Mesh
) -> None:
    a, _ = await pair(mesh, rules, mutual=True)
    revoked = mesh.directory() / "revoked"
    revoked.mkdir(mode=0o700)
    (mesh.directory() / "a.pub").rename(revoked / "a.pub")
    await a.reload_trust()
    async with denied("publish", "x"):
        await a.publish("x", 1)
    async with denied("push", "x"):
        a.push_nowait("x", 1)
    with pytest.raises(NotAllowed, match="its key was revoked"):
        await a.call("x")


async def serve(node: Node) -> None:
    @node.service("x")
    async def echo(message: zmesh.Message) -> object:
        return message.body


async def test_what_the_rules_of_another_node_forbid_is_told_by_the_same_error(
    mesh: Mesh,
) -> None:
    a, b = await pair(mesh, NOT_B)
    await serve(a)
    await b.peers.wait_for(service="x", count=1, timeout=10)
    by = "a"
    watcher = a.audit()
    async with denied("call", "x", by):
        await b.call("x", 1)
    told = await heard(watcher, AuditKind.FORBIDDEN)
    assert (told.peer, told.detail) == ("b", "call 'x'")
    assert told.rule == "rules.toml: default deny"
    async with denied("call", "x", by):
        async for _ in b.stream("x"):
            pass
    async with denied("send", "a", by):
        await b.send("a", 1)
    replies = b.survey("x", timeout=1)
    assert [reply async for reply in replies] == []
    assert isinstance(replies.failures[0].error, NotAllowed)
    async with a.subscribe("y"), a.pull("y"), a.join("y"):
        await until(lambda: "y" in next(iter(b.peers)).groups, 10.0)
        await b.peers.wait_for(count=1, timeout=1)
        receipt = await b.publish("y", 1, min_receivers=1, timeout=5)
        async with denied("publish", "y", by):
            await receipt
        job = await b.push("y", 1)
        async with denied("push", "y", by):
            await job
        assert "NOT-ALLOWED" in b.dead_letters()[0].reason
        report = await b.fan_out("y", 1, timeout=5)
        assert [outcome.name for outcome in report.failed] == ["a"]


async def test_what_is_stored_and_forbidden_is_not_tried_for_ever(
    mesh: Mesh, tmp_path: Path
) -> None:
    a, b = await pair(mesh, NOT_B, storage=tmp_path / "journal")
    await serve(a)
    async with a.subscribe("y"), a.subscribe("y", since="first"), a.pull("y"), a.join("y"):
        await until(lambda: {"y"} == set(next(iter(b.peers)).groups))
        await b.peers.wait_for(service="x", count=1, timeout=10)
        ticket = await b.call_later("x", 1)
        async with denied("call", "x", "a"):
            await ticket.reply(timeout=10)
        published = await b.publish("y", 1)
        async with denied("publish", "y", "a"):
            await published
        async with denied("send", "a", "a"):
            await b.send("a", 1)
        pushed = await b.push("y", 1)
        async with denied("push", "y", "a"):
            await pushed
        report = await b.fan_out("y", 1, timeout=10)
        assert [outcome.name for outcome in report.failed] == ["a"]
        assert len(b.dead_letters()) >= 2
        refused = a.statistics().audited["forbidden"]
        await asyncio.sleep(2.0)
        assert a.statistics().audited["forbidden"] == refused


async def test_an_interest_that_is_refused_is_told_to_its_node(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await pair(mesh, NOT_B)
    watcher = b.audit()
    await serve(b)
    told = await heard(watcher, AuditKind.FORBIDDEN)
    assert told.detail == "it does not let this node serve 'x'"
    assert told.rule == "rules.toml: default deny"
    with pytest.raises(NoProvider):
        await a.call("x", 1, timeout=1)
    assert any("serve 'x'" in r.getMessage() for r in caplog.records)


async def test_rules_that_change_count_at_once_for_what_is_there(mesh: Mesh) -> None:
    a, b = await pair(mesh, NOT_B)
    await serve(a)
    await serve(b)
    await b.peers.wait_for(service="x", count=1, timeout=10)
    with pytest.raises(NotAllowed):
        await b.call("x", 1, prefer="a")
    rules = mesh.directory() / "rules.toml"
    rules.write_text(NOT_B + '[[rule]]\nwho = "b"\ncall = "x"\nserve = "x"\n')
    (mesh.directory() / "spoiled.pub").write_text("")
    with pytest.raises(InvalidTrust, match="no key"):
        await a.reload_trust()  # what can be used counts
    assert await b.call("x", 1, prefer="a", timeout=5) == 1
    await until(lambda: "x" in next(iter(a.peers)).services, 10.0)
    rules.write_text(NOT_B)
    (mesh.directory() / "spoiled.pub").unlink()
    await a.reload_trust()
    with pytest.raises(NotAllowed):
        await b.call("x", 1, prefer="a", timeout=5)
    await until(lambda: "x" not in next(iter(a.peers)).services, 10.0)


async def test_a_file_that_is_spoiled_is_told_once_and_opens_nothing(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    a, _ = await pair(mesh, CLOSED)
    watcher = a.audit()
    (mesh.directory() / "rules.toml").write_text('default = "allow"\nsurprise = 1')
    told = await heard(watcher, AuditKind.BAD_TRUST)
    assert told.rule == "rules.toml"
    assert "surprise" in told.detail
    with pytest.raises(InvalidTrust, match="surprise"):
        await a.reload_trust()
    await asyncio.sleep(2.5)
    assert a.statistics().audited["bad_trust"] == 1
    assert sum("surprise" in r.getMessage() for r in caplog.records if r.name == "zmesh") == 1
    with pytest.raises(NotAllowed):
        await a.call("x")


async def test_an_application_that_rejects_is_no_rule(mesh: Mesh) -> None:
    a, b = await pair(mesh)

    @a.service("x")
    async def reject(_: zmesh.Message) -> None:
        raise zmesh.Reject('NOT-ALLOWED ["call", "x", "forged"]')

    @a.service("parts")
    async def parts(_: zmesh.Message) -> AsyncIterator[int]:
        yield 1
        raise zmesh.Reject('NOT-ALLOWED ["call", "x", "forged"]')

    await b.peers.wait_for(service="parts", count=1, timeout=10)
    with pytest.raises(Rejected):
        await b.call("x")
    with pytest.raises(Rejected):
        async for _ in b.stream("parts"):
            pass


async def test_trust_may_be_given_and_replaced_without_files(mesh: Mesh) -> None:
    a, b = await mesh.start("a", Trust({})), await mesh.start("b", None)
    await asyncio.sleep(0.5)
    assert not list(a.peers)
    await a.reload_trust(Trust({"a": a.public_key, "b": b.public_key}))
    await a.peers.wait_for(count=1, timeout=30)
    await a.reload_trust(Trust({"a": a.public_key, "b": b.public_key}, revoked=["b"]))
    await until(lambda: not list(a.peers), 5.0)


async def test_trust_that_cannot_be_replaced_so_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    a, b = await mesh.start("a", Trust({})), await mesh.start("b", None)
    c = await mesh.start("c", mesh.directory())
    for node, trust in ((a, None), (b, None), (b, Trust({})), (c, Trust({}))):
        with pytest.raises(UsageError):
            await node.reload_trust(trust)
    with pytest.raises(InvalidTrust, match="cannot be listed"):
        await mesh.start("d", tmp_path / "nowhere")


def test_trust_without_a_mesh_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="a mesh key as well"):
        Node("a", trust=tmp_path, key=())
    with pytest.raises(InvalidOption, match="a directory of keys"):
        Node("a", trust=5, key=())  # type: ignore[arg-type]
