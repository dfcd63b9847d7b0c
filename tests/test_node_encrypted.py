"""Nodes whose journal is encrypted: what they keep is there for them, and for nobody else."""

import asyncio
import logging
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import zmesh
from tests.nodes import QUICK, read
from zmesh import Node, Storage
from zmesh.cli.main import main
from zmesh.face.storage_keys import key_in_file, storage_key_of
from zmesh.journal.files import readable_by_others
from zmesh.security.key_files import create_key_file
from zmesh.security.storage_key import StorageKey
from zmesh.security_errors import InvalidKey
from zmesh.storage_errors import StorageKeyMissing, StorageKeyWrong, StorageNotEncrypted

KEY = StorageKey(b"k" * 32)
OTHER = StorageKey(b"o" * 32)

MARKERS = (
    b"MARK-body", b"MARK-header", b"MARK-key", b"MARK-addressee", b"MARK-topic", b"MARK-retained",
    b"MARK-queue", b"MARK-job", b"MARK-service", b"MARK-request", b"MARK-map", b"MARK-name",
    b"MARK-value", b"MARK-reason", b"MARK-letter", b"MARK-subscription", b"MARK-group",
)  # fmt: skip
VISIBLE = {b"MARK-in-transaction"}
"""What the documentation says is not encrypted: the application's database, `PATH.app`."""


def node(place: Path, name: str, *known: Node, key: object = KEY) -> Node:
    peers = [endpoint for each in known for endpoint in each.endpoints]
    storage = Storage(place / name, key=key)  # type: ignore[arg-type]
    return Node(name, peers=peers, mdns=False, storage=storage, options=QUICK)


async def use_everything(a: Node, b: Node) -> None:
    """Have a node store something of every kind."""
    await a.post("MARK-addressee", "MARK-body", headers={"MARK-header": 1}, key="MARK-key")
    await a.post_many("MARK-addressee", ["MARK-body"] * 20)
    await a.publish("MARK-topic.x", "MARK-body", retain=True)
    await a.publish("MARK-topic.x", "MARK-retained", retain=True, history=2)
    await a.push("MARK-queue", "MARK-job", key="MARK-key")
    await a.call_later("MARK-service", "MARK-request")
    async with b.join("MARK-group"):
        await a.peers.wait_for(group="MARK-group", timeout=10)
        await a.fan_out("MARK-group", "MARK-body", durable=True, timeout=1)
    await (await a.shared("MARK-map")).set("MARK-name", "MARK-value")
    subscription = b.subscribe("MARK-topic.>", name="MARK-subscription", since="first")
    async with subscription:
        await asyncio.wait_for(anext(subscription), 10)
    receipt = await a.post("b", "MARK-letter")
    inbox = b.inbox(settle="manual")
    await (await asyncio.wait_for(anext(inbox), 10)).reject("MARK-reason")
    with pytest.raises(zmesh.Rejected):
        await receipt
    receipt = await a.post("b", "MARK-body")
    async with (await asyncio.wait_for(anext(inbox), 10)).transaction() as database:
        await database.execute("CREATE TABLE seen (what)")
        await database.execute("INSERT INTO seen VALUES ('MARK-in-transaction')")
    assert await asyncio.wait_for(receipt, 10) == 1


async def leave(*nodes: Node) -> None:
    """Close nodes without waiting for those whom something is for."""
    for each in nodes:
        await each.close()


def markers_in(place: Path) -> set[bytes]:
    """Return which markers any file holds."""
    files = b"".join(path.read_bytes() for path in place.iterdir())
    return {marker for marker in (*MARKERS, *VISIBLE) if marker in files}


async def test_markers_in_the_files_are_those_that_are_documented(tmp_path: Path) -> None:
    seen: set[bytes] = set()
    async with node(tmp_path, "a") as a, node(tmp_path, "b", a) as b:
        await b.peers.wait_for(count=1, timeout=10)
        await use_everything(a, b)
        a_id = a.id
        seen |= markers_in(tmp_path)  # the logs as well, while they are open
        await leave(a, b)
    assert seen | markers_in(tmp_path) == VISIBLE
    async with node(tmp_path, "a") as a:
        assert a.id == a_id
        (letter,) = a.dead_letters()
        assert (letter.body, letter.reason) == ("MARK-letter", "MARK-reason")
        assert dict((await a.shared("MARK-map")).items()) == {"MARK-name": "MARK-value"}
        assert len(a.tickets()) == 1
        async with node(tmp_path, "MARK-addressee", a) as addressee:
            messages = await asyncio.wait_for(read(addressee.inbox(), 21), 20)
            assert {message.body for message in messages} == {"MARK-body"}
            assert dict(messages[0].headers) == {"MARK-header": 1}
            await leave(addressee, a)


async def test_markers_are_found_where_nothing_is_encrypted(tmp_path: Path) -> None:
    async with (
        node(tmp_path, "a", key=None) as a,
        node(tmp_path, "b", a, key=None) as b,
    ):
        await b.peers.wait_for(count=1, timeout=10)
        await use_everything(a, b)
        seen = markers_in(tmp_path)
        await leave(a, b)
    assert seen | markers_in(tmp_path) == {*MARKERS, *VISIBLE}  # so each would be seen


async def test_key_of_a_node_is_told_with_the_file_of_its_storage_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZMESH_STORAGE_KEY", raising=False)
    async with node(tmp_path, "shop") as shop:
        id_of_shop = shop.id
    create_key_file(tmp_path / "storage.key", KEY.text)
    words = ["keys", "node", str(tmp_path / "shop")]
    assert main(words) == 1
    assert "--key-file" in capsys.readouterr().err
    assert main([*words, "--key-file", str(tmp_path / "storage.key")]) == 0
    assert id_of_shop in capsys.readouterr().out


async def test_wrong_keys_are_told(tmp_path: Path) -> None:
    async with node(tmp_path, "a"):
        pass
    async with node(tmp_path, "plain", key=None):
        pass
    for name, key, error in (
        ("a", OTHER, StorageKeyWrong), ("a", None, StorageKeyMissing),
        ("plain", KEY, StorageNotEncrypted),
    ):  # fmt: skip
        with pytest.raises(error):
            await node(tmp_path, name, key=key).__aenter__()


# Where the key comes from


def test_key_is_text_or_a_file_or_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZMESH_STORAGE_KEY", raising=False)
    assert storage_key_of(None) is None
    assert storage_key_of(KEY) == storage_key_of(KEY.text) == KEY
    file = tmp_path / "key"
    file.write_text(f"\n# of the shop\n{KEY.text}\n")
    file.chmod(0o600)
    assert storage_key_of(file) == KEY
    monkeypatch.setenv("ZMESH_STORAGE_KEY", OTHER.text)
    assert storage_key_of(None) == OTHER
    assert storage_key_of(file) == KEY
    monkeypatch.setenv("ZMESH_STORAGE_KEY", "")
    assert storage_key_of(None) is None
    monkeypatch.setenv("ZMESH_STORAGE_KEY", "nonsense")
    with pytest.raises(InvalidKey, match="ZMESH_STORAGE_KEY"):
        storage_key_of(None)


def test_key_file_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with pytest.raises(zmesh.NoKeyFile, match="keys new --storage"):
        key_in_file(file)
    with pytest.raises(zmesh.KeyFileError, match="is a directory"):
        key_in_file(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(zmesh.KeyFileError, match="pipe"):  # and nobody waits for its other end
        key_in_file(tmp_path / "pipe")
    file.touch(0o600)
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidKey, match="no text"):
        key_in_file(file)
    file.write_bytes(b"#" * 70_000)
    with pytest.raises(zmesh.KeyFileError, match="over 65,536 bytes"):
        key_in_file(file)
    for text, why in (("", "0 lines"), (f"{KEY.text}\n{OTHER.text}", "2 lines"), ("x", "zms1")):
        file.write_text(text)
        file.chmod(0o600)
        with pytest.raises(InvalidKey, match=why):
            key_in_file(file)
    file.write_text(KEY.text)
    file.chmod(0o640)
    with pytest.raises(zmesh.KeyFileExposed, match="chmod 600"):
        key_in_file(file)


@pytest.mark.parametrize("key", [7, b"zms1.", KEY.secret])
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path, key: object) -> None:
    with pytest.raises(zmesh.InvalidOption) as caught:
        node(tmp_path, "a", key=key)
    assert repr(key) not in str(caught.value)
    assert repr(type(key)) in str(caught.value)


def test_path_of_a_key_file_as_a_text_is_told_what_to_give() -> None:
    with pytest.raises(InvalidKey, match=r"begins with 'zms1\.'; a key file .* pathlib\.Path"):
        storage_key_of("keys/storage.key")


def test_storage_does_not_tell_its_key(tmp_path: Path) -> None:
    assert KEY.text not in repr(Storage(tmp_path / "a", key=KEY.text))


# Modes


@contextmanager
def umask(mask: int) -> Iterator[None]:
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)


def modes(place: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}


@pytest.mark.parametrize("mask", [0, 0o022])
async def test_every_file_of_a_node_is_for_its_owner_alone(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        async with node(tmp_path, "a") as a, node(tmp_path, "b", a) as b:
            await b.peers.wait_for(count=1, timeout=10)
            await use_everything(a, b)
            found = modes(tmp_path)
            await leave(a, b)
        found |= modes(tmp_path)
    assert found.keys() >= {
        "a", "a-wal", "a-shm", "a.lock", "a.reserve", "b.app", "b.app-wal", "b.app-shm",
    }  # fmt: skip
    assert set(found.values()) == {0o600}, found
    assert readable_by_others(tmp_path / "a") == []


async def test_journal_that_others_may_read_is_opened_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(tmp_path, "a b"):
        pass
    assert not caplog.records
    (tmp_path / "a b").chmod(0o644)
    (tmp_path / "a b.damaged-1").touch(0o640)
    (tmp_path / "a b.app").touch(0o604)
    with caplog.at_level(logging.WARNING, "zmesh"):
        async with node(tmp_path, "a b"):
            pass
    (record,) = [each for each in caplog.records if "others may read" in each.message]
    assert f"chmod 600 '{tmp_path}/a b'" in record.message
    exposed = [f"a b{suffix}" for suffix in ("", ".app", ".damaged-1")]
    assert [each.name for each in readable_by_others(tmp_path / "a b")] == exposed
    assert readable_by_others(tmp_path / "none") == []


async def test_database_of_the_application_has_the_mode_the_application_gives(
    tmp_path: Path,
) -> None:
    with closing(sqlite3.connect(tmp_path / "orders.db")) as database:
        database.execute("CREATE TABLE orders (number)")
    (tmp_path / "orders.db").chmod(0o640)
    storage = Storage(tmp_path / "a", database=tmp_path / "orders.db")
    async with Node("a", mdns=False, storage=storage):
        pass
    assert modes(tmp_path)["orders.db"] == 0o640
