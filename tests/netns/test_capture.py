"""What can be read of two nodes by who sits beside them on the network: nothing, with a key.

The nodes say words that are found wherever they are readable; a run without a key shows that they
are found where nothing is encrypted.
"""

import asyncio
import json
import os
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from zeroconf._dns import DNSAddress, DNSPointer, DNSRecord, DNSService, DNSText
from zeroconf._protocol.incoming import DNSIncoming

from tests.discovery.waiting import until
from tests.netns.captures import Capture
from tests.netns.confidants import NAMES, WORDS
from tests.netns.lan import Lan, Machine
from tests.processes import ROOT
from zmesh.discovery.records import SERVICE
from zmesh.ids import NODE_ID_BYTES
from zmesh.security.mesh_key import MeshKey

WITHIN = 60.0


@asynccontextmanager
async def inside(machine: Machine, *command: str) -> AsyncIterator[Process]:
    """Run a program on a machine until the end of the block, and see that it ends well."""
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", machine.namespace, *command,
        stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT, limit=1 << 26,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        yield process
        if process.returncode is None and process.stdin is not None:
            process.stdin.close()
        _, errors = await asyncio.wait_for(process.communicate(), WITHIN)
        assert process.returncode == 0, errors.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        # The transport would otherwise close with the loop, and warn.
        process._transport.close()  # type: ignore[attr-defined]


async def line(process: Process) -> bytes:
    assert process.stdout is not None
    said = await asyncio.wait_for(process.stdout.readline(), WITHIN)
    if not said:
        assert process.stderr is not None
        raise AssertionError((await process.stderr.read()).decode())
    return said


@asynccontextmanager
async def talk(lan: Lan, place: Path, settings: dict[str, Any]) -> AsyncIterator[None]:
    """Have two nodes tell each other all there is to tell."""
    async with AsyncExitStack() as stack:
        running = {}
        for role in ("ada", "bob"):
            told = [role, str(place / role), json.dumps(settings)]
            program = (sys.executable, "-W", "error", "-m", "tests.netns.confidants", *told)
            running[role] = await stack.enter_async_context(inside(lan[role], *program))
        assert await line(running["bob"]) == b"done\n"
        yield


@dataclass
class Overheard:
    """What an eavesdropper got, and another one with Wireshark where that is installed."""

    capture: Capture
    tshark: Path | None


async def overhear(place: Path, **settings: Any) -> Overheard:
    """Listen on a node's interface while it talks with another one."""
    with Lan("ada", "bob") as lan:
        async with AsyncExitStack() as stack:
            sniffer = await stack.enter_async_context(
                inside(lan["ada"], sys.executable, "-m", "tests.netns.sniffer", "eth0")
            )
            assert sniffer.stdout is not None
            await asyncio.wait_for(sniffer.stdout.readexactly(4), WITHIN)
            written = asyncio.create_task(sniffer.stdout.read())
            file = await shark(stack, lan["ada"], place) if shutil.which("tshark") else None
            async with talk(lan, place, {"stores": False, **settings}):
                pass
            assert sniffer.stdin is not None
            sniffer.stdin.close()
            capture = Capture.read(await asyncio.wait_for(written, WITHIN))
    assert len(capture.streams) >= 2, "they did not talk here"
    return Overheard(capture, file)


async def shark(stack: AsyncExitStack, machine: Machine, place: Path) -> Path:
    """Have `tshark` listen until the end of the stack; return the file that it writes."""
    file = place / "capture.pcap"
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", machine.namespace,
        "tshark", "-q", "-i", "eth0", "-s", "0", "-w", str(file),
        stdout=PIPE, stderr=PIPE,
    )  # fmt: skip

    async def end() -> None:
        process.terminate()
        await process.communicate()
        process._transport.close()  # type: ignore[attr-defined]

    stack.push_async_callback(end)
    await until(file.exists, WITHIN)  # it creates the file when it begins
    return file


IN_THE_OPEN: dict[str, Any] = {"insecure": True, "interfaces": ["*"]}
ALL_WORDS = {*WORDS.values(), *NAMES.values()}


@pytest.mark.parametrize("stores", [False, True], ids=["memory", "storage"])
async def test_with_a_key_nothing_can_be_read(tmp_path: Path, stores: bool) -> None:
    key = MeshKey(os.urandom(32))
    heard = await overhear(tmp_path, key=key.text, stores=stores)
    capture = heard.capture
    assert capture.shown(ALL_WORDS) == set()
    assert not capture.shows(key.text.encode())
    for secret in (key.secret, key.server_pair().secret):
        assert not capture.shows(secret)
    check_announcements(capture, key, set())


async def test_with_a_key_names_are_read_where_they_are_announced(tmp_path: Path) -> None:
    key = MeshKey(os.urandom(32))
    heard = await overhear(tmp_path, key=key.text, announce="name")
    assert heard.capture.shown(ALL_WORDS) == set(NAMES.values())
    check_announcements(heard.capture, key, set(NAMES.values()))


async def test_without_a_key_everything_can_be_read(tmp_path: Path) -> None:
    heard = await overhear(tmp_path, **IN_THE_OPEN)
    assert heard.capture.shown(ALL_WORDS) == ALL_WORDS


async def test_wireshark_reads_no_more_than_that(tmp_path: Path) -> None:
    if not shutil.which("tshark"):
        pytest.skip("tshark is not installed")
    key = MeshKey(os.urandom(32))
    for place, settings, expected in (
        (tmp_path / "key", {"key": key.text}, set()),
        (tmp_path / "plain", IN_THE_OPEN, {WORDS["body"], NAMES["ada"]}),
    ):
        place.mkdir()
        heard = await overhear(place, **settings)
        assert heard.tshark is not None
        text = await dissected(heard.tshark)
        assert "Multicast Domain Name System" in text
        assert "TCP payload" in text
        written = await asyncio.to_thread(heard.tshark.read_bytes)
        seen = {word for word in ALL_WORDS if word in text or word.encode() in written}
        assert seen >= expected
        assert expected or not seen


async def dissected(file: Path) -> str:
    """Return all that Wireshark can make of a capture."""
    process = await asyncio.create_subprocess_exec(
        "tshark", "-r", str(file), "-V", stdout=PIPE, stderr=PIPE
    )
    out, errors = await asyncio.wait_for(process.communicate(), WITHIN)
    process._transport.close()  # type: ignore[attr-defined]
    assert process.returncode == 0, errors.decode()
    return out.decode("utf-8", "replace")


# What mDNS may say: the list of docs/discovery.md


def check_announcements(capture: Capture, key: MeshKey, names: set[str]) -> None:
    """Check that nothing is announced but what the documentation lists."""
    said = list(capture.mdns())
    answers = [record for each in said for record in each.answers()]
    assert {type(record) for record in answers} == {DNSPointer, DNSService, DNSAddress, DNSText}
    for record in answers:
        check_record(record)
    told = [entries_of(record) for record in answers if isinstance(record, DNSText)]
    tag = key.tag("default").hex()
    for entries in told:
        assert entries.keys() - {"name"} == {"txtvers", "v", "id", "mesh"}
        assert (entries["txtvers"], entries["v"], entries["mesh"]) == ("1", "1", tag)
        assert is_id(entries["id"])
    assert {entries["name"] for entries in told if "name" in entries} == names
    check_questions(said)


def check_record(record: DNSRecord) -> None:
    """Check that a record has nothing of the machine in it, but addresses and ports."""
    if isinstance(record, DNSPointer):
        assert record.name == SERVICE
        assert is_id(record.alias.removesuffix(f".{SERVICE}"))
    elif isinstance(record, DNSService):
        assert is_id(record.name.removesuffix(f".{SERVICE}"))
        assert is_id(record.server.removesuffix(".local."))
    elif isinstance(record, DNSAddress):
        assert is_id(record.name.removesuffix(".local."))
        assert not ip_address(record.address).is_loopback
    else:
        assert is_id(record.name.removesuffix(f".{SERVICE}"))


def check_questions(said: list[DNSIncoming]) -> None:
    """Check that others are asked for nothing but what is announced."""
    for question in (question for each in said for question in each.questions):
        name = question.name.removesuffix(SERVICE).removesuffix(".").removesuffix(".local")
        assert not name or is_id(name), question


def is_id(text: str) -> bool:
    return len(bytes.fromhex(text)) == NODE_ID_BYTES and text == text.lower()


def entries_of(record: DNSText) -> dict[str, str]:
    """Return the entries of a TXT record (RFC 6763 section 6)."""
    entries = {}
    at = 0
    while at < len(record.text):
        size = record.text[at]
        name, _, value = record.text[at + 1 : at + 1 + size].decode().partition("=")
        entries[name] = value
        at += 1 + size
    return entries
