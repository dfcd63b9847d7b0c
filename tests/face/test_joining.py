"""Inviting and joining for real: two tasks, TCP on 127.0.0.1, mDNS bound to loopback."""

import asyncio
import errno
import logging
import os
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

import zmesh
from zmesh.discovery import invitations
from zmesh.discovery.mdns import LOOPBACK
from zmesh.face import inviting
from zmesh.face.system import SystemEntropy
from zmesh.joining_errors import InvitationExpired
from zmesh.options import JoiningOptions
from zmesh.security.join_code import JoinCode
from zmesh.security.join_exchange import Exchange
from zmesh.security.join_frames import Kind, hello
from zmesh.security.key_files import read_key_file
from zmesh.security.mesh_key import MeshKey

KEY, OLD = MeshKey(b"k" * 32), MeshKey(b"o" * 32)
HERE = ["127.0.0.1"]
QUICK = JoiningOptions(pause=0.05, find_max=5.0, find_more=0.3)


def invitation(options: JoiningOptions = QUICK, *, mdns: bool = False) -> zmesh.Invitation:
    return zmesh.invite(
        mesh="cameras", key=[KEY, OLD], interfaces=HERE, mdns=mdns, options=options
    )


async def join(
    invited: zmesh.Invitation, file: Path, code: str | None = None, mesh: str | None = None
) -> zmesh.JoinedMesh:
    """Join without mDNS."""
    return await zmesh.join(
        code or invited.code, mesh=mesh, file=file, at=invited.endpoints[0], options=QUICK
    )


def names_in(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


def wrong(code: str) -> str:
    return code[:-1] + ("0" if code[-1] != "0" else "2")


@asynccontextmanager
async def stranger(
    invited: zmesh.Invitation,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = invited.endpoints[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_a_device_finds_the_invitation_by_mdns_and_keeps_the_keys(tmp_path: Path) -> None:
    file = tmp_path / "new" / "cameras.key"
    async with invitation(mdns=True) as invited:
        assert invited.mdns_failure == ""
        joined = await zmesh.join(invited.code, file=file, interfaces=HERE, options=QUICK)
        guest = await invited.joined()
    assert (joined.mesh, joined.path) == ("cameras", file)
    assert joined.fingerprint == invited.fingerprint == KEY.fingerprint
    assert guest.is_saved
    assert guest.address.startswith("127.0.0.1:")
    assert joined.address == invited.endpoints[0]
    assert read_key_file(file).keys == (KEY, OLD)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_by_default_the_key_goes_where_nodes_look_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    async with invitation() as invited:
        joined = await zmesh.join(invited.code, at=invited.endpoints[0])
        assert (await invited.joined()).is_saved
    assert joined.path == tmp_path / "zmesh" / "cameras.key"
    # The device that joined can invite the next one, with nothing said of the key.
    assert zmesh.invite(mesh="cameras").fingerprint == KEY.fingerprint


async def test_a_node_on_the_device_that_joined_is_in_the_mesh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    mesh = f"joining-{os.urandom(4).hex()}"
    async with (
        zmesh.invite(mesh=mesh, key=KEY, interfaces=HERE, mdns=False) as invited,
        zmesh.Node("old", mesh=mesh, key=KEY, interfaces=HERE) as old,
    ):
        await zmesh.join(invited.code, at=invited.endpoints[0])
        async with zmesh.Node("new", mesh=mesh, interfaces=HERE) as new:
            inbox = new.inbox(settle="manual")
            await old.peers.wait_for(count=1, timeout=20)
            sending = asyncio.create_task(old.send(next(iter(old.peers)).id, "welcome"))
            message = await anext(inbox)
            assert message.body == "welcome"
            await message.accept()
            await sending


async def test_a_wrong_code_is_told_of_on_both_sides_and_in_the_audit_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with invitation() as invited:
        with pytest.raises(zmesh.WrongCode, match="compare it"):
            await join(invited, tmp_path / "a", wrong(invited.code))
        news = await anext(invited)
        assert isinstance(news, zmesh.AttemptFailed)
        assert news.attempts_left == 2
        joined = await join(invited, tmp_path / "a")
        assert joined.fingerprint == KEY.fingerprint
        told = [news async for news in invited]
        assert told == [await invited.joined()]
    [record] = [each for each in caplog.records if each.name == "zmesh.audit"]
    assert record.levelno == logging.WARNING
    assert "wrong code" in record.message
    assert news.address in record.message
    assert invited.code[4:] not in caplog.text
    assert names_in(tmp_path) == ["a"]


async def test_three_wrong_attempts_end_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with invitation() as invited:
        for _ in range(3):
            with pytest.raises(zmesh.WrongCode):
                await join(invited, tmp_path / "a", wrong(invited.code))
        with pytest.raises(zmesh.InvitationDead):
            await join(invited, tmp_path / "a")
        with pytest.raises(zmesh.InvitationDead):
            await invited.joined()
        left = [each.attempts_left async for each in invited if hasattr(each, "attempts_left")]
        assert left == [2, 1, 0]
    assert "dead after too many" in caplog.text
    assert not (tmp_path / "a").exists()


async def test_it_is_good_for_one(tmp_path: Path) -> None:
    async with invitation() as invited:
        results = await asyncio.gather(
            *(join(invited, tmp_path / name) for name in "abcd"), return_exceptions=True
        )
    joined = [each for each in results if isinstance(each, zmesh.JoinedMesh)]
    refused = [each for each in results if isinstance(each, zmesh.InvitationUsed)]
    assert (len(joined), len(refused)) == (1, 3)
    assert len(names_in(tmp_path)) == 1


async def test_it_expires(tmp_path: Path) -> None:
    async with zmesh.invite(
        mesh="cameras", key=KEY, interfaces=HERE, mdns=False, expires=0.05
    ) as invited:
        with pytest.raises(InvitationExpired):
            await invited.joined()
        with pytest.raises(InvitationExpired):
            await join(invited, tmp_path / "a")


async def test_withdrawn_it_is_gone(tmp_path: Path) -> None:
    async with invitation() as invited, stranger(invited) as (reader, _):
        waiting = asyncio.create_task(invited.joined())
        await asyncio.sleep(0)
        await invited.close()
        with pytest.raises(zmesh.Closed):
            await waiting
        assert [news async for news in invited] == []
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        with pytest.raises(zmesh.NobodyInvites, match="still waits"):
            await join(invited, tmp_path / "a")
        with pytest.raises(zmesh.UsageError, match="opened once"):
            await invited.__aenter__()


async def test_strangers_that_say_nothing_do_not_keep_the_device_out(tmp_path: Path) -> None:
    async with invitation() as invited, AsyncExitStack() as stack:
        for _ in range(QUICK.connections_max + QUICK.lingering_max + 5):
            await stack.enter_async_context(stranger(invited))
        assert len(invited._lingering) <= QUICK.lingering_max
        await join(invited, tmp_path / "a")
        assert (await invited.joined()).is_saved


async def test_strangers_that_talk_do_not_keep_the_device_out(tmp_path: Path) -> None:
    async with invitation() as invited, AsyncExitStack() as stack:
        for _ in range(5):
            reader, writer = await stack.enter_async_context(stranger(invited))
            writer.write(b"GET / HTTP/1.1\r\n\r\n" * 1000)
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        await join(invited, tmp_path / "a")
        assert (await invited.joined()).is_saved


async def test_who_vanishes_with_our_message_used_up_an_attempt(tmp_path: Path) -> None:
    async with invitation() as invited:
        async with stranger(invited) as (reader, writer):
            code = JoinCode.parse(wrong(invited.code))
            writer.write(hello(Exchange("joiner", code, SystemEntropy()).message))
            assert (await reader.read(1024))[0] == Kind.ANSWER
        news = await anext(invited)
        assert isinstance(news, zmesh.AttemptFailed)
        assert (news.why, news.attempts_left) == ("it went away", 2)
        await join(invited, tmp_path / "a")


async def test_a_relay_in_the_middle_carries_it_and_sees_no_secret(tmp_path: Path) -> None:
    seen = bytearray()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1024):
            seen.extend(data)
            writer.write(data)
        writer.close()

    async with invitation() as invited:

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with stranger(invited) as (far_reader, far_writer):
                await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            joined = await zmesh.join(invited.code, file=tmp_path / "a", at=f"127.0.0.1:{port}")
            assert (await invited.joined()).is_saved
    assert joined.fingerprint == KEY.fingerprint
    assert len(seen) == 45 + 34 + 33 + 305 + 33 + 274 + 33
    for secret in (KEY.secret, OLD.secret, b"cameras", invited.code[4:].encode()):
        assert secret not in bytes(seen)


# What the joining side finds


async def test_nobody_there(tmp_path: Path) -> None:
    options = replace(QUICK, find_max=0.3)
    with pytest.raises(zmesh.NobodyInvites, match=r"nothing by mDNS within 0\.3 s"):
        await zmesh.join("100-AAAA-AAAA", file=tmp_path / "a", interfaces=HERE, options=options)


async def test_several_with_one_nameplate(tmp_path: Path) -> None:
    async with invitation(mdns=True) as invited:
        port = int(invited.endpoints[0].rpartition(":")[2])
        info = invitations.info_of(invited.code[:3], b"abcd", HERE, port)
        async with (
            invitations.responder_on(LOOPBACK) as zeroconf,
            invitations.Announcer(zeroconf, info),
        ):
            with pytest.raises(zmesh.AmbiguousInvitation, match="--at"):
                await zmesh.join(invited.code, file=tmp_path / "a", interfaces=HERE, options=QUICK)
        # The other one said goodbye.
        joined = await zmesh.join(
            invited.code, file=tmp_path / "a", interfaces=HERE, options=QUICK
        )
    assert joined.fingerprint == KEY.fingerprint


async def test_more_invitations_of_one_nameplate_than_are_looked_at_are_several_as_well(
    tmp_path: Path,
) -> None:
    options = replace(QUICK, found_max=2, find_more=0.5)
    async with invitations.responder_on(LOOPBACK) as zeroconf, AsyncExitStack() as stack:
        for number in range(4):
            info = invitations.info_of("345", bytes([number] * 4), HERE, 9)
            await stack.enter_async_context(invitations.Announcer(zeroconf, info))
        with pytest.raises(zmesh.AmbiguousInvitation) as caught:
            await zmesh.join(
                "345-AAAA-AAAA", file=tmp_path / "a", interfaces=HERE, options=options
            )
    assert len(caught.value.endpoints) == 2


async def test_a_key_that_is_there_stays_and_the_invitation_still_waits(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("mine")
    async with invitation() as invited:
        with pytest.raises(zmesh.KeyFileExists, match="still waits"):
            await join(invited, file)
        assert file.read_text() == "mine"
        await join(invited, tmp_path / "b")


async def test_a_key_that_is_at_the_default_place_stays_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it would go is known only once the mesh is, and then there was no key yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    place = tmp_path / "zmesh" / "cameras.key"
    place.parent.mkdir()
    place.write_text("mine")
    async with invitation() as invited:
        with pytest.raises(zmesh.KeyFileExists):
            await zmesh.join(invited.code, at=invited.endpoints[0])
        place.unlink()
        joined = await zmesh.join(invited.code, at=invited.endpoints[0])
    assert joined.path == place


async def test_a_place_where_no_key_can_be_kept_leaves_the_invitation_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("no directory")
    async with invitation() as invited:
        with pytest.raises(zmesh.KeyFileError, match="cannot be written"):
            await zmesh.join(invited.code, at=invited.endpoints[0])
        await join(invited, tmp_path / "a")


async def test_another_mesh_than_the_one_wanted_is_not_joined(tmp_path: Path) -> None:
    async with invitation() as invited:
        with pytest.raises(zmesh.OtherMesh, match="cameras"):
            await join(invited, tmp_path / "a", mesh="doors")
        joined = await join(invited, tmp_path / "a", mesh="cameras")
    assert joined.mesh == "cameras"


async def test_a_key_that_cannot_be_kept_is_told_of_on_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with invitation() as invited:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(zmesh.SecurityError, match="No space left"):
            await join(invited, tmp_path / "a")
        assert not (await invited.joined()).is_saved
    assert names_in(tmp_path) == []


async def test_an_inviter_that_never_answers_is_given_up(tmp_path: Path) -> None:
    options = replace(QUICK, turn_max=0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        at = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(zmesh.InvitationBusy):
            await zmesh.join("417-AAAA-AAAA", at=at, file=tmp_path / "a", options=options)


async def test_another_service_at_the_address_is_no_invitation(tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        at = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(zmesh.InvitationBroken, match="another kind"):
            await zmesh.join("417-AAAA-AAAA", at=at, file=tmp_path / "a")


# What cannot work


def test_without_a_key_there_is_nothing_to_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("ZMESH_KEY", "ZMESH_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(zmesh.NothingToShare, match="zmesh keys new"):
        zmesh.invite(mesh="cameras")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"mesh": "m" * 256}, "mesh"),
        ({"mesh": "a\nb"}, "mesh"),
        ({"interfaces": "eth0"}, "interfaces"),
        ({"interfaces": []}, "interfaces"),
        ({"port": -1}, "port"),
        ({"expires": 0.0}, "expires"),
        ({"expires": "x"}, "expires"),
        ({"expires": True}, "expires"),
        ({"port": "x"}, "port"),
        ({"port": True}, "port"),
        ({"mesh": 5}, "mesh"),
        ({"interfaces": 5}, "interfaces"),
        ({"interfaces": [5]}, "interfaces"),
        ({"mdns": "no"}, "mdns"),
        ({"expires": float("nan")}, "expires"),
    ],
)
def test_what_cannot_work_is_named(arguments: dict[str, object], names: str) -> None:
    with pytest.raises(zmesh.InvalidOption) as caught:
        zmesh.invite(key=KEY, **arguments)  # type: ignore[arg-type]
    assert caught.value.option == names


async def test_a_port_that_is_taken_is_named() -> None:
    async with invitation() as invited:
        port = int(invited.endpoints[0].rpartition(":")[2])
        with pytest.raises(zmesh.InvalidOption, match="port"):
            await zmesh.invite(key=KEY, interfaces=HERE, port=port).__aenter__()


async def test_an_interface_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(zmesh.InvalidOption, match="interfaces"):
        await zmesh.invite(key=KEY, interfaces=["nowhere0"]).__aenter__()
    with pytest.raises(zmesh.InvalidOption, match="interfaces"):
        await zmesh.join("417-AAAA-AAAA", interfaces=["nowhere0"], file=tmp_path / "a")


async def test_a_code_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(zmesh.InvalidCode):
        await zmesh.join("417", file=tmp_path / "a")
    with pytest.raises(zmesh.InvalidCode, match="no text"):
        await zmesh.join(417, file=tmp_path / "a")  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["at", "mesh", "file", "interfaces"])
async def test_an_argument_of_another_type_is_named(option: str, tmp_path: Path) -> None:
    told: dict[str, object] = {"file": tmp_path / "a", option: 5}
    with pytest.raises(zmesh.InvalidOption) as caught:
        await zmesh.join("417-AAAA-AAAA", **told)  # type: ignore[arg-type]
    assert caught.value.option == option


async def test_without_mdns_it_can_be_joined_by_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*_: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(inviting, "responder_on", taken)
    async with invitation(mdns=True) as invited:
        assert "already in use" in invited.mdns_failure
        await join(invited, tmp_path / "a")
