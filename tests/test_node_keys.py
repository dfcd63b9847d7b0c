"""Nodes with mesh keys: who talks to whom, what is said when they cannot, and what others see."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

import zmesh
from tests.storing import until
from zmesh import Audited, AuditKind, MeshKey, Node, NodeKeyMissing
from zmesh.discovery.records import SERVICE
from zmesh.face.settings import Announce
from zmesh.face.system import SystemEntropy
from zmesh.ids import NodeId
from zmesh.journal.creation import create
from zmesh.journal.files import Files
from zmesh.journal.opening import new_identity
from zmesh.security.node_key import NodeKey
from zmesh.security_errors import InvalidKey

HERE = ["127.0.0.1"]
MIB = 1 << 20


def fresh() -> MeshKey:
    return MeshKey.new(SystemEntropy())


@pytest.fixture
def mesh() -> str:
    return uuid.uuid4().hex


@asynccontextmanager
async def opened(*nodes: Node) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node)
        yield


async def wiretap(port: int, heard: bytearray) -> asyncio.Server:
    """Pass on what goes to and comes from a port, and keep it."""

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            heard.extend(data)
            target.write(data)
            await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        copies = [asyncio.create_task(copy(*each)) for each in ((reader, back), (there, writer))]
        try:
            await asyncio.gather(*copies, return_exceptions=True)
        finally:
            back.close()
            writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def first_audit(node: Node) -> Audited:
    async with asyncio.timeout(2.0):
        return await anext(node.audit())


async def test_nodes_with_one_key_find_each_other_and_talk(mesh: str) -> None:
    key = fresh()
    ada, bob = (Node(name, mesh=mesh, key=key, interfaces=HERE) for name in ("ada", "bob"))
    async with opened(ada, bob):

        @bob.service("double")
        async def double(message: zmesh.Message) -> int:
            return 2 * int(message.body)

        await ada.peers.wait_for(service="double", timeout=10)
        assert await ada.call("double", 21, timeout=5) == 42
        [peer] = ada.peers
        assert peer.name == "bob"
        assert peer.id == bob.id


@pytest.mark.parametrize("is_inbound", [True, False])
async def test_the_largest_part_passes_encrypted_as_well(*, is_inbound: bool) -> None:
    """Encrypted it is larger than a part may be in plain: the connection must not end of it."""
    key, link = fresh(), zmesh.LinkOptions(fragment_bytes=MIB, window_bytes=4 * MIB)
    options = zmesh.NodeOptions(link=link)
    ada = Node("ada", key=key, interfaces=HERE, mdns=False, options=options)
    async with ada:
        bob = Node(
            "bob", key=key, interfaces=HERE, mdns=False, peers=ada.endpoints, options=options
        )
        async with bob:
            sender, receiver = (bob, ada) if is_inbound else (ada, bob)
            await sender.peers.wait_for(count=1, timeout=10)
            body = bytes(MIB)
            receipt = await sender.post(receiver.id, body)
            async for message in receiver.inbox():
                assert message.body == body
                break
            assert await asyncio.wait_for(receipt, 10) == 1
            [statistics] = sender.statistics().links.values()
            assert statistics.links == 1


@pytest.mark.parametrize("has_key", [True, False])
async def test_nothing_is_readable_on_the_wire_with_a_key(mesh: str, *, has_key: bool) -> None:
    key = [fresh()] if has_key else []
    secret, heard = "the cake is in the oven", bytearray()
    ada = Node("ada-lovelace", mesh=mesh, key=key, interfaces=HERE, mdns=False)
    async with opened(ada):
        tap = await wiretap(int(ada.endpoints[0].rpartition(":")[2]), heard)
        port = tap.sockets[0].getsockname()[1]
        bob = Node(
            "bob", mesh=mesh, key=key, interfaces=HERE, mdns=False, peers=[f"127.0.0.1:{port}"]
        )
        async with opened(bob):
            await bob.peers.wait_for(name="ada-lovelace", timeout=10)

            @ada.service("echo")
            async def echo(message: zmesh.Message) -> object:
                return message.body

            await bob.peers.wait_for(service="echo", timeout=10)
            assert await bob.call("echo", secret, timeout=5) == secret
            assert len(heard) > 200
            for told in (secret.encode(), b"ada-lovelace", bytes.fromhex(ada.id)):
                assert (told in heard) is not has_key
        tap.close()


async def test_wrong_key_is_told_on_both_sides_within_two_seconds(
    mesh: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zmesh.face.assembly.ALONE_AFTER", 1.0)
    ada = Node("ada", mesh=mesh, key=fresh(), interfaces=HERE, mdns=False)
    async with opened(ada):
        there = ada.endpoints[0]
        eve = Node("eve", mesh=mesh, key=fresh(), interfaces=HERE, mdns=False, peers=[there])
        async with opened(eve):
            refused, told = await asyncio.gather(first_audit(ada), first_audit(eve))
            assert (told.kind, told.endpoint) == (AuditKind.WRONG_KEY, there)
            assert told.detail == "who listens there uses another mesh key than this node"
            assert refused.kind is AuditKind.WRONG_KEY
            assert refused.endpoint in ("127.0.0.1", "")  # it may be gone before it is looked at
            assert "its mesh key is another one" in refused.detail
            with pytest.raises(zmesh.PeersMissing, match=f"{there}.* uses another mesh key"):
                await eve.peers.wait_for(name="ada", timeout=1.5)
            assert eve.statistics().transport.dials_wrong_key
            lines = [
                each.getMessage()
                for each in caplog.records
                if each.name == "zmesh.audit" and each.levelno == logging.WARNING
            ]
            who = [line.partition(":")[0] for line in lines]
            assert who.count("eve") == 1
            assert who.count("ada") in (1, 2)  # one whose address is known, one where it is not
    assert "eve: no peers in mesh" in caplog.text


def _turned_away(node: Node) -> int:
    transport = node.statistics().transport
    return transport.handshakes_failed + transport.handshakes_abandoned


@pytest.mark.parametrize("dialer_has_key", [True, False])
async def test_key_on_one_side_only_is_told_there_and_counted_here(
    mesh: str, *, dialer_has_key: bool
) -> None:
    keys: list[list[MeshKey]] = [[], [fresh()]]
    here, there = keys if not dialer_has_key else reversed(keys)
    ada = Node("ada", mesh=mesh, key=there, interfaces=HERE, mdns=False)
    async with opened(ada):
        eve = Node("eve", mesh=mesh, key=here, interfaces=HERE, mdns=False, peers=ada.endpoints)
        async with opened(eve):
            told = await first_audit(eve)
            assert told.kind is AuditKind.WRONG_KEY
            # Who is dialed learns why only where it hangs up first; it counts it in any case.
            await until(lambda: _turned_away(ada) > 0)
            assert set(ada.statistics().audited) <= {AuditKind.WRONG_KEY}
            assert told.endpoint == ada.endpoints[0]
            assert ("this node has none" in told.detail) is not dialer_has_key
            with pytest.raises(zmesh.PeersMissing, match="only one side uses any"):
                await eve.peers.wait_for(name="ada", timeout=1)


async def test_meshes_of_one_name_and_different_keys_do_not_see_each_other(mesh: str) -> None:
    ada = Node("ada", mesh=mesh, key=fresh(), interfaces=HERE)
    eve = Node("eve", mesh=mesh, key=fresh(), interfaces=HERE)
    open_house = Node("open", mesh=mesh, key=())
    async with opened(ada, eve, open_house):
        with pytest.raises(zmesh.PeersMissing, match=r"mDNS shows .* the same mesh= and key="):
            await ada.peers.wait_for(count=1, timeout=1.5)
        for node in (ada, eve, open_house):
            assert list(node.peers) == []
            assert node.statistics().transport.dials == 0


@pytest.mark.parametrize("dials", ["old first", "new first"])
async def test_either_key_of_a_rotation_lets_in(mesh: str, dials: str) -> None:
    old, new = fresh(), fresh()
    ada = Node("ada", mesh=mesh, key=[old, new], interfaces=HERE)
    bob = Node("bob", mesh=mesh, key=[new, old], interfaces=HERE)
    async with opened(*((ada, bob) if dials == "old first" else (bob, ada))):
        await ada.peers.wait_for(name="bob", timeout=10)
        await bob.peers.wait_for(name="ada", timeout=10)


async def announced_by(node: Node) -> dict[str, str | None]:
    """Return the TXT entries everybody on the network can read."""
    async with AsyncZeroconf(interfaces=HERE) as zeroconf:
        info = AsyncServiceInfo(SERVICE, f"{node.id}.{SERVICE}")
        assert await info.async_request(zeroconf.zeroconf, 5000)
        assert info.server == f"{node.id}.local."
        return dict(info.decoded_properties)


@pytest.mark.parametrize("announce", [None, "name", "id-only"])
@pytest.mark.parametrize("has_key", [True, False])
async def test_name_is_announced_without_a_key_or_where_that_is_asked_for(
    mesh: str, *, announce: Announce | None, has_key: bool
) -> None:
    key = fresh()
    node = Node("ada", mesh=mesh, key=[key] if has_key else (), interfaces=HERE, announce=announce)
    async with opened(node):
        entries = await announced_by(node)
    is_named = announce == "name" or (announce is None and not has_key)
    assert sorted(entries) == sorted(
        ["txtvers", "v", "id", "mesh", *(["name"] if is_named else [])]
    )
    assert (entries["mesh"] == key.tag(mesh).hex()) is has_key


async def test_node_without_key_says_once_that_it_is_on_loopback_only_and_what_to_do(
    mesh: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zmesh")
    async with opened(Node("ada", mesh=mesh, mdns=False)):
        [line] = [each for each in caplog.records if "no mesh key" in each.getMessage()]
        assert line.levelno == logging.INFO
        assert f"`zmesh keys new --mesh {mesh}`" in line.getMessage()
    caplog.clear()
    async with opened(
        Node("ada", mesh=mesh, mdns=False, interfaces=HERE),
        Node("ada", mesh=mesh, mdns=False, interfaces=HERE, key=fresh()),
    ):
        assert "mesh key" not in caplog.text


async def test_node_keeps_its_key_in_its_journal(mesh: str, tmp_path: Path) -> None:
    key, ids = fresh(), set()
    for _ in range(2):
        node = Node("ada", mesh=mesh, key=key, interfaces=HERE, storage=tmp_path / "ada")
        async with opened(node):
            ids.add(node.id)
    assert len(ids) == 1


async def test_journal_from_before_node_keys_works_without_a_mesh_key_only(
    mesh: str, tmp_path: Path
) -> None:
    path, old = tmp_path / "old", NodeId(b"n" * 16)
    create(Files(path), new_identity(old, b""))
    for _ in range(2):
        with pytest.raises(NodeKeyMissing, match="key="):
            await Node("ada", mesh=mesh, key=fresh(), interfaces=HERE, storage=path).open()
        node = Node("ada", mesh=mesh, storage=path, mdns=False)  # nothing was left open
        async with opened(node):
            assert node.id == old.hex()


async def test_journal_with_the_key_of_another_node_is_refused(mesh: str, tmp_path: Path) -> None:
    seed = NodeKey.new(SystemEntropy()).seed
    create(Files(tmp_path / "a"), new_identity(NodeId(b"n" * 16), seed))
    with pytest.raises(InvalidKey, match="not that of the node"):
        await Node("ada", mesh=mesh, storage=tmp_path / "a", mdns=False).open()


async def test_key_file_that_goes_bad_while_a_node_runs_changes_nothing(
    mesh: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.key"
    zmesh_key = fresh()
    path.touch(0o600)
    path.write_text(zmesh_key.text)
    quick = zmesh.NodeOptions(key_files_every=0.02)
    ada = Node("ada", mesh=mesh, key=path, interfaces=HERE, options=quick)
    async with opened(ada):
        watching = ada.audit()
        path.chmod(0o644)
        async with asyncio.timeout(5):
            event = await anext(watching)
        assert event.kind is AuditKind.KEYS_UNUSABLE
        assert "chmod 600" in event.detail
        bob = Node("bob", mesh=mesh, key=zmesh_key, interfaces=HERE)
        async with opened(bob):
            await bob.peers.wait_for(name="ada", timeout=10)
            await until(lambda: len(list(ada.peers)) == 1)
        assert ada.statistics().audited == {AuditKind.KEYS_UNUSABLE: 1}
