"""Signed messages together with a mesh key, with rules, and with an encrypted journal."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import zmesh
from tests.nodes import QUICK
from tests.storing import SMALL, until
from zmesh import AuditKind, MeshKey, Node, NotAllowed, SignatureRefused, Storage, Trust
from zmesh.errors import UsageError
from zmesh.face.system import SystemEntropy
from zmesh.face.verifying import Verify
from zmesh.ids import NodeId
from zmesh.journal.creation import create
from zmesh.journal.files import Files
from zmesh.journal.opening import new_identity
from zmesh.security.storage_key import StorageKey

STORAGE_KEY = StorageKey(b"k" * 32)


class Mesh:
    """A mesh with a key, whose nodes find each other by address."""

    def __init__(self) -> None:
        self._key = MeshKey.new(SystemEntropy())
        self._name = uuid.uuid4().hex

    @asynccontextmanager
    async def opened(
        self,
        name: str,
        *others: Node,
        knows: Node | None = None,
        path: Path | None = None,
        sign: bool = False,
        verify: Verify = "if-signed",
        trust: Trust | None = None,
    ) -> AsyncIterator[Node]:
        dialed = others if knows is None else (*others, knows)
        known = [endpoint for other in dialed for endpoint in other.endpoints]
        storage = None if path is None else Storage(path, options=SMALL, key=STORAGE_KEY)
        node = Node(
            name, mesh=self._name, key=self._key, interfaces=["127.0.0.1"], mdns=False,
            peers=known, storage=storage, options=QUICK, sign=sign, verify=verify, trust=trust,
        )  # fmt: skip
        async with node:
            for other in others:
                await node.peers.wait_for(name=other.name, timeout=20)
                await other.peers.wait_for(name=name, timeout=20)
            yield node


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


async def resent(by: Node, to: str, message: zmesh.Message) -> int:
    """Send what somebody signed, as it was; return how many accepted it."""
    record, posting = message._record, by._at_work().posting
    return await (await posting.post(to, record, message.priority, None, None))


def is_readable(place: Path, marker: bytes) -> bool:
    """Return whether a file there tells it to whoever reads it."""
    return any(marker in path.read_bytes() for path in place.iterdir())


async def test_what_another_member_of_a_mesh_with_a_key_sends_again_is_refused(
    mesh: Mesh,
) -> None:
    async with (
        mesh.opened("ada") as ada,
        mesh.opened("bob", ada, verify="required") as bob,
        mesh.opened("eve", ada, bob) as eve,
        asyncio.timeout(30),
    ):
        audit, inbox = bob.audit(), bob.inbox()
        receipt = await ada.post("bob", "pay 5", sign=True)
        message = await anext(inbox)
        assert (message.body, message.signer) == ("pay 5", ada.id)
        assert await receipt == 1
        reading = asyncio.ensure_future(anext(inbox))
        with pytest.raises(SignatureRefused) as caught:
            await resent(eve, "bob", message)
        assert caught.value.why == "it came before"
        told = await anext(audit)
        assert (told.kind, told.peer) == (AuditKind.REPLAYED, "eve")
        assert not reading.done()
        # Of its signer itself, which this link proves, it is no replay.
        assert await resent(ada, "bob", message) == 1
        assert (await reading).signer == ada.id
        assert bob.statistics().audited == {AuditKind.REPLAYED: 1}


async def test_what_is_signed_and_stored_survives_a_restart_of_encrypted_journals(
    mesh: Mesh, tmp_path: Path
) -> None:
    async with mesh.opened("ada", path=tmp_path / "ada", sign=True) as ada:
        signer = ada.id
        await ada.post("bob", "MARK-1")
        await ada.push("MARK-jobs", "MARK-2", key="MARK-key")
    async with (
        mesh.opened("ada", path=tmp_path / "ada") as ada,
        mesh.opened("eve", ada) as eve,
        asyncio.timeout(60),
    ):
        async with (
            mesh.opened("bob", ada, eve, path=tmp_path / "bob", verify="required") as bob,
            bob.pull("MARK-jobs") as jobs,
        ):
            message, job = await anext(bob.inbox()), await anext(jobs)
            assert (message.body, message.signer) == ("MARK-1", signer)
            assert (job.body, job.signer) == ("MARK-2", signer)
            await until(lambda: ada._at_work().engine.stored_out == 0)
            assert bob.statistics().audited == {}
        assert not is_readable(tmp_path, b"MARK-")
        async with mesh.opened("bob", ada, eve, path=tmp_path / "bob") as bob:
            assert bob.statistics().replay_blocks == 2  # of the inbox, and of the queue
            reading = asyncio.ensure_future(anext(bob.inbox()))
            with pytest.raises(SignatureRefused) as caught:
                await resent(eve, "bob", message)
            assert caught.value.why == "it came before"
            reading.cancel()


RULES = """
[[rule]]
who = "b"
send = "a"
push = "open"

[[rule]]
who = "a"
pull = ">"
"""


async def test_what_is_signed_and_forbidden_is_told_as_not_allowed(mesh: Mesh) -> None:
    async with (
        mesh.opened("a", verify="required", trust=Trust({})) as a,
        mesh.opened("b", knows=a, sign=True) as b,
        asyncio.timeout(60),
    ):
        keys = {"a": a.public_key, "b": b.public_key}
        await a.reload_trust(Trust(keys, rules=RULES))
        await b.peers.wait_for(name="a", timeout=30)
        async with a.pull("open") as jobs, a.pull("closed"):
            # Rules come first: what is forbidden is not looked at, signed or not.
            for sign in (True, False):
                receipt = await b.push("closed", 1, sign=sign)
                with pytest.raises(NotAllowed) as denied:
                    await receipt
                assert (denied.value.action, denied.value.name) == ("push", "closed")
            # A signature does not make up for a rule, nor a rule for a signature.
            unsigned = await b.push("open", 2, sign=False)
            signed = await b.push("open", 3)
            job = await anext(jobs)
            assert (job.body, job.signer) == (3, b.id)
            await job.accept()
            assert await signed == 1
            with pytest.raises(SignatureRefused, match="not signed"):
                await unsigned
        audited = {AuditKind.FORBIDDEN: 2, AuditKind.BAD_SIGNATURE: 1}
        counts = a.statistics().audited
        assert {kind: counts[kind] for kind in audited} == audited


async def test_journal_from_before_node_keys_cannot_sign(tmp_path: Path) -> None:
    path = tmp_path / "old"
    create(Files(path), new_identity(NodeId(b"n" * 16), b""))
    async with Node("old", storage=path, mdns=False, key=(), sign=True) as node:
        assert node.public_key == ""
        with pytest.raises(UsageError, match="cannot sign"):
            await node.post("old", 1)
        receipt = await node.post("old", 1, sign=False, durable=False)
        assert (await anext(node.inbox())).signer is None
        assert await receipt == 1
