"""Files between real nodes on loopback: whole, resumed, refused, and every way to go wrong."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

import zmesh
from tests.nodes import nodes
from zmesh import FileOffer, Node, NodeOptions
from zmesh.face import incoming, receiving
from zmesh.face.partial_file import PartialFile
from zmesh.face.streams import Request, StreamReader
from zmesh.message import Kind, Ways

SERVICE = "zmesh.files"
MEGABYTE = 1_000_000


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    return path


def file_of(path: Path, size: int) -> bytes:
    data = os.urandom(size)
    path.write_bytes(data)
    return data


def digest(data: bytes) -> str:
    return blake2b(data, digest_size=32).hexdigest()


def names_in(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def ready(node: Node) -> None:
    await node.peers.wait_for(service=SERVICE, timeout=10)


async def gone(node: Node) -> None:
    await until(lambda: not node.peers.select(service=SERVICE))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Halfway:
    """A progress callback that tells when some of a file is there."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.told: list[int] = []
        self.reached = asyncio.Event()

    def __call__(self, written: int, _: int) -> None:
        self.told.append(written)
        if written >= self.size:
            self.reached.set()


# The good way


async def test_a_file_arrives_whole(tmp_path: Path, inbox: Path) -> None:
    data = file_of(tmp_path / "photo.jpg", 5 * MEGABYTE + 7)
    async with nodes("a", "b") as (a, b), b.receive_files(inbox) as files:
        await ready(a)
        progress = Halfway(0)
        sent = await a.send_file(
            "b", tmp_path / "photo.jpg", headers={"room": 5}, progress=progress, timeout=20
        )
        assert sent == zmesh.SentFile("photo.jpg", len(data), digest(data), 0)
        assert (inbox / "photo.jpg").read_bytes() == data
        file = await anext(files)
        assert (file.name, file.path, file.size, file.digest, file.sender, file.headers) == (
            "photo.jpg", inbox / "photo.jpg", len(data), digest(data), "a", {"room": 5},
        )  # fmt: skip
        assert file.sender_id == a.id
        assert progress.told == sorted(progress.told)
        assert progress.told[-1] == len(data)
        assert names_in(inbox) == ["photo.jpg"]


async def test_small_and_empty_files_and_names_of_ones_own(tmp_path: Path, inbox: Path) -> None:
    async with nodes("a", "b") as (a, b), b.receive_files(inbox) as files:
        await ready(a)
        [peer] = a.peers
        for size in (0, 1, 65_535, 65_536, 65_537):
            data = file_of(tmp_path / "x", size)
            await a.send_file(peer, str(tmp_path / "x"), name=f"{size} bytes", timeout=20)
            assert (inbox / f"{size} bytes").read_bytes() == data
            assert (await anext(files)).size == size


async def test_the_very_file_is_not_sent_again(tmp_path: Path, inbox: Path) -> None:
    data = file_of(tmp_path / "x", MEGABYTE)
    async with nodes("a", "b") as (a, b), b.receive_files(inbox) as files:
        await ready(a)
        await a.send_file("b", tmp_path / "x", timeout=20)
        before = b.statistics().transport.bytes_received
        sent = await a.send_file("b", tmp_path / "x", timeout=20)
        assert sent.skipped == len(data)
        assert b.statistics().transport.bytes_received - before < 20_000
        assert [(await anext(files)).size for _ in range(2)] == [len(data)] * 2
        changed = file_of(tmp_path / "x", MEGABYTE)
        assert (await a.send_file("b", tmp_path / "x", timeout=20)).skipped == 0
        assert (inbox / "x").read_bytes() == changed


async def test_a_node_sends_to_itself(tmp_path: Path, inbox: Path) -> None:
    data = file_of(tmp_path / "x", MEGABYTE)
    async with Node("a", mdns=False) as node, node.receive_files(inbox):
        await node.send_file("a", tmp_path / "x", timeout=20)
        assert (inbox / "x").read_bytes() == data


async def test_many_files_at_once(tmp_path: Path, inbox: Path) -> None:
    names = [f"file {number}" for number in range(20)]
    wanted = {name: file_of(tmp_path / name, 300_000) for name in names}
    async with nodes("a", "b") as (a, b), b.receive_files(inbox, concurrency=3):
        await ready(a)
        await asyncio.gather(*(a.send_file("b", tmp_path / name, timeout=20) for name in names))
    assert {name: (inbox / name).read_bytes() for name in names_in(inbox)} == wanted


async def test_a_file_to_a_whole_group(tmp_path: Path) -> None:
    data = file_of(tmp_path / "firmware", MEGABYTE)
    async with nodes("office", "one", "two") as (office, *members), AsyncExitStack() as stack:
        for node in members:
            place = tmp_path / node.name
            place.mkdir()
            await stack.enter_async_context(node.receive_files(place))
            await stack.enter_async_context(node.join("cameras"))
        await office.peers.wait_for(group="cameras", service=SERVICE, count=2, timeout=10)
        await asyncio.gather(
            *(
                office.send_file(member, tmp_path / "firmware", timeout=20)
                for member in office.members("cameras")
            )
        )
        for node in members:
            assert (tmp_path / node.name / "firmware").read_bytes() == data


async def test_a_rate_is_kept(tmp_path: Path, inbox: Path) -> None:
    file_of(tmp_path / "x", 500_000)
    async with nodes("a", "b") as (a, b), b.receive_files(inbox):
        await ready(a)
        begun = time.monotonic()
        await a.send_file("b", tmp_path / "x", rate=MEGABYTE, timeout=20)
        assert 0.35 < time.monotonic() - begun < 5  # the first tenth of a second is free
        begun = time.monotonic()
        file_of(tmp_path / "x", 300)
        await a.send_file("b", tmp_path / "x", rate=1000, timeout=20)
        assert 0.15 < time.monotonic() - begun < 5


async def test_the_loop_is_free_meanwhile(tmp_path: Path, inbox: Path) -> None:
    file_of(tmp_path / "x", 20 * MEGABYTE)
    async with nodes("a", "b") as (a, b), b.receive_files(inbox):
        await ready(a)
        sending = asyncio.create_task(a.send_file("b", tmp_path / "x", timeout=20))
        late = 0.0
        while not sending.done():
            begun = time.monotonic()
            await asyncio.sleep(0.001)
            late = max(late, time.monotonic() - begun)
        await sending
        assert late < 0.5


# Where it goes


async def test_a_function_says_where(tmp_path: Path, inbox: Path) -> None:
    offers: list[FileOffer] = []

    def where(offer: FileOffer) -> Path:
        offers.append(offer)
        return inbox / "renamed" if offer.headers else inbox

    async def later(_: FileOffer) -> str:
        await asyncio.sleep(0)
        return str(inbox / "later")

    data = file_of(tmp_path / "x", 1000)
    async with nodes("a", "b") as (a, b):
        async with b.receive_files(where):
            await ready(a)
            await a.send_file("b", tmp_path / "x", timeout=20)
            await a.send_file("b", tmp_path / "x", headers={"k": 1}, timeout=20)
        await gone(a)
        async with b.receive_files(later):
            await ready(a)
            await a.send_file("b", tmp_path / "x", timeout=20)
    assert names_in(inbox) == ["later", "renamed", "x"]
    assert all((inbox / name).read_bytes() == data for name in names_in(inbox))
    assert (offers[0].name, offers[0].size, offers[0].sender) == ("x", 1000, "a")


async def test_a_file_is_refused(tmp_path: Path, inbox: Path) -> None:
    def picky(offer: FileOffer) -> Path:
        if offer.name.endswith(".exe"):
            raise zmesh.Reject("no programs")
        if offer.name == "broken":
            raise ValueError("oops")
        return None  # type: ignore[return-value]

    for name in ("x.exe", "broken", "none"):
        file_of(tmp_path / name, 1000)
    async with nodes("a", "b") as (a, b):
        async with b.receive_files(picky):
            await ready(a)
            with pytest.raises(zmesh.FileRefused, match="no programs") as raised:
                await a.send_file("b", tmp_path / "x.exe", timeout=20)
            assert (raised.value.peer, raised.value.name) == ("b", "x.exe")
            with pytest.raises(zmesh.RemoteError, match="oops"):
                await a.send_file("b", tmp_path / "broken", timeout=20)
            with pytest.raises(zmesh.RemoteError, match="no path"):
                await a.send_file("b", tmp_path / "none", timeout=20)
        await gone(a)
        async with b.receive_files(inbox, bytes_max=999):
            await ready(a)
            with pytest.raises(zmesh.FileRefused, match="1000 bytes are over the limit of 999"):
                await a.send_file("b", tmp_path / "x.exe", timeout=20)
        assert names_in(inbox) == []


async def test_who_receives_no_files_is_told_of(tmp_path: Path, inbox: Path) -> None:
    file_of(tmp_path / "x", 1000)
    async with nodes("a", "b") as (a, _):
        with pytest.raises(zmesh.FileRefused, match="it receives none now"):
            await a.send_file("b", tmp_path / "x", timeout=20)
        with pytest.raises(zmesh.PeerUnknown):
            await a.send_file("c", tmp_path / "x", timeout=20)
        async with a.receive_files(inbox):
            with pytest.raises(zmesh.FileRefused, match="b does not take"):
                await a.send_file("b", tmp_path / "x", timeout=20)


async def test_what_cannot_be_saved_is_told(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_of(tmp_path / "x", 1000)
    file_of(tmp_path / "taken", 1000)
    (inbox / "taken").mkdir()
    async with nodes("a", "b") as (a, b), b.receive_files(inbox) as files:
        await ready(a)
        with pytest.raises(zmesh.FileNotSaved, match="EISDIR"):
            await a.send_file("b", tmp_path / "taken", timeout=20)

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(PartialFile, "write", full)
            with pytest.raises(zmesh.FileNotSaved, match="No space left") as raised:
                await a.send_file("b", tmp_path / "x", timeout=20)
        assert raised.value.code == "ENOSPC"
        await a.send_file("b", tmp_path / "x", timeout=20)
        assert (await anext(files)).name == "x"


# Resuming


async def test_it_goes_on_when_the_receiver_comes_back(tmp_path: Path, inbox: Path) -> None:
    data = file_of(tmp_path / "x", MEGABYTE)
    async with nodes("a") as (a,):
        progress = Halfway(300_000)
        async with Node("b", peers=a.endpoints, mdns=False) as b, b.receive_files(inbox):
            await ready(a)
            sending = asyncio.create_task(
                a.send_file("b", tmp_path / "x", rate=2 * MEGABYTE, progress=progress, timeout=20)
            )
            await progress.reached.wait()
        assert not sending.done()
        there = (inbox / ".x.zmesh-part").stat().st_size
        assert 300_000 <= there < MEGABYTE
        assert (inbox / ".x.zmesh-part").read_bytes() == data[:there]
        async with Node("b", peers=a.endpoints, mdns=False) as b, b.receive_files(inbox) as files:
            assert (await sending).skipped == there
            assert (await anext(files)).digest == digest(data)
    assert (inbox / "x").read_bytes() == data
    assert names_in(inbox) == ["x"]


async def test_it_goes_on_when_a_peer_given_as_one_comes_back(tmp_path: Path, inbox: Path) -> None:
    data = file_of(tmp_path / "x", MEGABYTE)
    async with nodes("a") as (a,):
        progress = Halfway(100_000)
        async with Node("b", peers=a.endpoints, mdns=False) as b, b.receive_files(inbox):
            await ready(a)
            [peer] = a.peers
            sending = asyncio.create_task(
                a.send_file(peer, tmp_path / "x", rate=2 * MEGABYTE, progress=progress, timeout=20)
            )
            await progress.reached.wait()
        async with Node("b", peers=a.endpoints, mdns=False) as b, b.receive_files(inbox):
            assert (await sending).skipped >= 100_000
    assert (inbox / "x").read_bytes() == data


async def test_it_goes_on_when_the_sender_comes_back(tmp_path: Path, inbox: Path) -> None:
    data = file_of(tmp_path / "x", MEGABYTE)
    async with nodes("b") as (b,), b.receive_files(inbox) as files:
        for _ in range(2):
            async with Node("a", peers=b.endpoints, mdns=False) as a:
                await ready(a)
                progress = Halfway(400_000)
                sending = asyncio.create_task(
                    a.send_file(
                        "b", tmp_path / "x", rate=2 * MEGABYTE, progress=progress, timeout=20
                    )
                )
                await progress.reached.wait()
                if progress.told[0] == 0:
                    sending.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await sending
        assert (await sending).skipped >= 400_000
        assert (await anext(files)).digest == digest(data)
    assert (inbox / "x").read_bytes() == data


async def test_a_file_that_changed_meanwhile_begins_anew(tmp_path: Path, inbox: Path) -> None:
    (inbox / ".x.zmesh-part").write_bytes(b"of another time")
    data = file_of(tmp_path / "x", MEGABYTE)
    async with nodes("a", "b") as (a, b), b.receive_files(inbox):
        await ready(a)
        assert (await a.send_file("b", tmp_path / "x", timeout=20)).skipped == 0
    assert (inbox / "x").read_bytes() == data


async def test_who_does_not_come_back_in_time(tmp_path: Path, inbox: Path) -> None:
    file_of(tmp_path / "x", MEGABYTE)
    async with nodes("a") as (a,):
        progress = Halfway(100_000)
        async with Node("b", peers=a.endpoints, mdns=False) as b, b.receive_files(inbox):
            await ready(a)
            sending = asyncio.create_task(
                a.send_file("b", tmp_path / "x", rate=MEGABYTE, progress=progress, timeout=0.5)
            )
            await progress.reached.wait()
        with pytest.raises((zmesh.PeerLost, zmesh.StreamBroken)):
            await sending


async def test_a_receiver_that_says_nothing(tmp_path: Path) -> None:
    file_of(tmp_path / "x", MEGABYTE)

    async def mute(message: zmesh.Message) -> AsyncIterator[object]:
        await asyncio.Event().wait()
        yield message

    async with nodes("a", "b") as (a, b):
        b._at_work().services.serve(SERVICE, mute, 8)
        await ready(a)
        with pytest.raises(zmesh.DeliveryTimeout, match=r"the file 'x' to b"):
            await a.send_file("b", tmp_path / "x", timeout=0.2)
        await until(lambda: b.statistics().engine.streams == 0)


# Going wrong


async def test_a_file_that_changes_while_it_is_sent(tmp_path: Path, inbox: Path) -> None:
    file_of(tmp_path / "x", MEGABYTE)
    async with nodes("a", "b") as (a, b), b.receive_files(inbox):
        await ready(a)
        progress = Halfway(100_000)
        sending = asyncio.create_task(
            a.send_file("b", tmp_path / "x", rate=2 * MEGABYTE, progress=progress, timeout=20)
        )
        await progress.reached.wait()
        with (tmp_path / "x").open("ab") as more:
            more.write(b"more")
        with pytest.raises(zmesh.FileChanged, match="changed while it was sent"):
            await sending
        await until(lambda: not b._at_work().files._receivers[0]._under_way)
        assert not (inbox / "x").exists()
        await a.send_file("b", tmp_path / "x", timeout=20)
    assert (inbox / "x").read_bytes() == (tmp_path / "x").read_bytes()


async def said(node: Node, offer: object, *parts: object) -> list[object]:
    """Offer a file as a hostile peer might, and return the answers but for `wait`."""

    async def body() -> AsyncIterator[object]:
        for part in parts:
            yield part
        await asyncio.Event().wait()

    streams = node._at_work().streams
    record = streams.outgoing.record(Kind.STREAM_CONTROL, SERVICE, offer)
    opened = streams.open(Request(record, 4, Ways.BODY | Ways.ANSWER, body()))
    answers: list[Any] = [answer async for answer in StreamReader(streams, opened, 10)]
    return [answer for answer in answers if answer != ["wait"]]


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/b", "..", ".hidden", "", "a\0", "a.zmesh-part", "x" * 300]
)
async def test_a_hostile_name_is_refused(name: str, tmp_path: Path, inbox: Path) -> None:
    async with nodes("a", "b") as (a, b), b.receive_files(inbox):
        await ready(a)
        with pytest.raises(zmesh.Rejected, match="its name cannot be taken"):
            await said(a, [name, 5], 0, b"12345", [b"digest"])
        assert names_in(inbox) == []
        assert names_in(tmp_path) == ["in"]
        with pytest.raises(zmesh.InvalidOption, match="name"):
            await a.send_file("b", tmp_path / "x", name=name)


@pytest.mark.parametrize(
    ("offer", "parts"),
    [
        (None, [0]),
        (["x"], [0]),
        (["x", -5], [0]),
        (["x", 5], [b"12345"]),
        (["x", 5], ["0"]),
        (["x", 5], [True]),
        (["x", 5], [0, "12345"]),
        (["x", 5], [0, {"a": 1}]),
        (["x", 5], [0, b"123", []]),
    ],
)
async def test_what_makes_no_sense_is_refused(
    offer: object, parts: list[object], inbox: Path
) -> None:
    async with nodes("a", "b") as (a, b), b.receive_files(inbox):
        await ready(a)
        with pytest.raises(zmesh.Rejected, match="broke the protocol"):
            await said(a, offer, *parts)
        assert not (inbox / "x").exists()


@pytest.mark.parametrize(
    "parts",
    [[0, b"12345", [b"another"]], [0, b"1234", [b""]], [0, b"123456"], [3, b"45"], [-1, b""]],
)
async def test_what_is_not_what_was_announced_is_removed(parts: list[object], inbox: Path) -> None:
    async with nodes("a", "b") as (a, b), b.receive_files(inbox) as files:
        await ready(a)
        answers = await said(a, ["x", 5], *parts)
        assert answers[-1] == ["failed", "corrupted", ""]
        assert names_in(inbox) == []
        files.close(None)
        assert [file async for file in files] == []


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([["have", 0, b""], ["failed", "corrupted", ""]], zmesh.FileCorrupted),
        ([["failed", "ENOSPC", "full"]], zmesh.FileNotSaved),
        ([["kept"]], zmesh.ProtocolError),
        ([["have", 0, b""], ["have", 0, b""]], zmesh.ProtocolError),
        ([["written", -1]], zmesh.ProtocolError),
        ([["written", 10**9]], zmesh.ProtocolError),
        ([["have", "0", b""]], zmesh.ProtocolError),
        ([5], zmesh.ProtocolError),
        ([[]], zmesh.ProtocolError),
        ([["failed", 5, 5]], zmesh.ProtocolError),
    ],
)
async def test_what_a_receiver_may_answer(
    answers: list[object], error: type[Exception], tmp_path: Path
) -> None:
    async def answer(_: zmesh.Message) -> AsyncIterator[object]:
        for word in answers:
            yield word
        await asyncio.Event().wait()

    file_of(tmp_path / "x", MEGABYTE)
    async with nodes("a", "b") as (a, b):
        b._at_work().services.serve(SERVICE, answer, 8)
        await ready(a)
        with pytest.raises(error):
            await a.send_file("b", tmp_path / "x", timeout=5)
        await until(lambda: b.statistics().engine.streams == 0)


async def test_a_receiver_that_claims_much_gets_the_file_from_its_beginning(
    tmp_path: Path,
) -> None:
    got: list[object] = []

    async def claim(message: zmesh.Message) -> AsyncIterator[object]:
        yield ["have", 2**60, b"?"]
        async for part in message.parts:
            got.append(part)
            if isinstance(part, list):
                break
        yield ["kept"]

    data = file_of(tmp_path / "x", 1000)
    async with nodes("a", "b") as (a, b):
        b._at_work().services.serve(SERVICE, claim, 8)
        await ready(a)
        assert (await a.send_file("b", tmp_path / "x", timeout=5)).skipped == 0
    assert got == [0, data, [bytes.fromhex(digest(data))]]


# Several at once, and ends


async def test_senders_of_one_name_take_turns(tmp_path: Path, inbox: Path) -> None:
    datas = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        datas.append(file_of(tmp_path / place / "x", 500_000))
    async with nodes("a", "b", "c") as (a, b, c), b.receive_files(inbox) as files:
        await asyncio.gather(ready(a), ready(c))
        await asyncio.gather(
            a.send_file("b", tmp_path / "one" / "x", rate=2 * MEGABYTE, timeout=20),
            c.send_file("b", tmp_path / "two" / "x", rate=2 * MEGABYTE, timeout=20),
        )
        got = [(await anext(files)).digest for _ in range(2)]
        assert sorted(got) == sorted(map(digest, datas))
        assert digest((inbox / "x").read_bytes()) == got[-1]


async def test_another_process_that_has_the_file_is_waited_for(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "LOOK_EVERY", 0.02)
    data = file_of(tmp_path / "x", 1000)
    other = PartialFile(inbox / "x", 1000)
    assert other.take()
    async with nodes("a", "b") as (a, b), b.receive_files(inbox):
        await ready(a)
        sending = asyncio.create_task(a.send_file("b", tmp_path / "x", timeout=20))
        await asyncio.sleep(0.1)
        assert not sending.done()
        other.close()
        await sending
    assert (inbox / "x").read_bytes() == data


async def test_a_sender_that_falls_silent_holds_up_nobody(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (incoming, receiving):
        monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(receiving, "SILENT", 0.2)
    data = file_of(tmp_path / "x", 1000)
    async with nodes("a", "b") as (a, b), b.receive_files(inbox, concurrency=2):
        await ready(a)
        hostile = [asyncio.create_task(said(a, [name, 1000], 0, b"1")) for name in ("x", "y")]
        await until(lambda: len(names_in(inbox)) == 2)
        await a.send_file("b", tmp_path / "x", timeout=20)
        assert (inbox / "x").read_bytes() == data
        with pytest.raises(zmesh.StreamBroken):
            await hostile[0]
        file_of(tmp_path / "z", 1000)
        assert not hostile[1].done()
        hostile[1].cancel()


async def test_a_sender_that_is_cancelled_leaves_no_trace_but_what_came(
    tmp_path: Path, inbox: Path
) -> None:
    file_of(tmp_path / "x", MEGABYTE)
    async with nodes("a", "b") as (a, b), b.receive_files(inbox) as files:
        await ready(a)
        before = descriptors()
        progress = Halfway(100_000)
        sending = asyncio.create_task(
            a.send_file("b", tmp_path / "x", rate=2 * MEGABYTE, progress=progress, timeout=20)
        )
        await progress.reached.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await until(lambda: not files._under_way)
        assert names_in(inbox) == [".x.zmesh-part"]
        await until(lambda: descriptors() == before)


async def test_what_progress_raises_ends_the_file(tmp_path: Path, inbox: Path) -> None:
    def stop(*_: object) -> None:
        raise LookupError("enough")

    file_of(tmp_path / "x", MEGABYTE)
    async with nodes("a", "b") as (a, b):
        async with b.receive_files(inbox) as files:
            await ready(a)
            with pytest.raises(LookupError):
                await a.send_file("b", tmp_path / "x", progress=stop, timeout=20)
            await until(lambda: not files._under_way)
        await gone(a)
        async with b.receive_files(inbox, progress=stop):
            await ready(a)
            with pytest.raises(zmesh.RemoteError, match="enough"):
                await a.send_file("b", tmp_path / "x", timeout=20)


async def test_progress_of_what_comes(tmp_path: Path, inbox: Path) -> None:
    told: list[tuple[str, int]] = []
    file_of(tmp_path / "x", MEGABYTE)
    async with nodes("a", "b") as (a, b):
        progress = lambda offer, written: told.append((offer.name, written))  # noqa: E731
        async with b.receive_files(inbox, progress=progress):
            await ready(a)
            await a.send_file("b", tmp_path / "x", timeout=20)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (("x", 0), ("x", MEGABYTE))


async def test_closing_the_sender_ends_its_files(tmp_path: Path, inbox: Path) -> None:
    file_of(tmp_path / "x", MEGABYTE)
    async with nodes("a", "b") as (a, b), b.receive_files(inbox) as files:
        await ready(a)
        progress = Halfway(100_000)
        sending = asyncio.create_task(
            a.send_file("b", tmp_path / "x", rate=MEGABYTE, progress=progress, timeout=20)
        )
        await progress.reached.wait()
        await a.close()
        with pytest.raises(zmesh.Closed):
            await sending
        await until(lambda: not files._under_way)
        with pytest.raises(zmesh.Closed):
            await a.send_file("b", tmp_path / "x")


async def test_closing_the_receiver_ends_its_loop(tmp_path: Path, inbox: Path) -> None:
    file_of(tmp_path / "x", MEGABYTE)
    async with nodes("a", "b") as (a, b):
        progress = Halfway(100_000)
        async with b.receive_files(inbox) as files:
            await ready(a)
            sending = asyncio.create_task(
                a.send_file("b", tmp_path / "x", rate=MEGABYTE, progress=progress, timeout=0.5)
            )
            await progress.reached.wait()
            reading = asyncio.ensure_future(anext(files))
            await asyncio.sleep(0)
            with pytest.raises(zmesh.UsageError, match="another task"):
                await anext(files)
            await b.close()
            with pytest.raises(StopAsyncIteration):
                await reading
            assert files._under_way == {}
        with pytest.raises((zmesh.PeerLost, zmesh.StreamBroken)):
            await sending
        assert 100_000 <= (inbox / ".x.zmesh-part").stat().st_size < MEGABYTE


async def test_what_nobody_reads_is_counted(tmp_path: Path, inbox: Path) -> None:
    options = NodeOptions(files_unread_max=2)
    async with nodes("a", "b", options=options) as (a, b), b.receive_files(inbox) as files:
        await ready(a)
        for number in range(5):
            file_of(tmp_path / str(number), 10)
            await a.send_file("b", tmp_path / str(number), timeout=20)
        assert files.missed == 3
        assert [(await anext(files)).name for _ in range(2)] == ["3", "4"]


async def test_one_receiver_at_a_time(tmp_path: Path, inbox: Path) -> None:
    async with Node("a", mdns=False) as node:
        with pytest.raises(zmesh.InvalidOption, match="a directory that is there"):
            async with node.receive_files(tmp_path / "none"):
                pass
        files = node.receive_files(inbox)
        async with files:
            with pytest.raises(zmesh.UsageError, match="receives files already"):
                async with node.receive_files(inbox):
                    pass
        with pytest.raises(zmesh.UsageError, match="one block"):
            async with files:
                pass
        async with node.receive_files(inbox):
            pass
        late = node.receive_files(inbox)
    with pytest.raises(zmesh.Closed):
        async with late:
            pass


async def test_wrong_arguments_are_told_at_once(tmp_path: Path, inbox: Path) -> None:
    file_of(tmp_path / "x", 10)
    async with nodes("a", "b") as (a, b), b.receive_files(inbox):
        await ready(a)
        sends: list[dict[str, Any]] = [
            {"rate": 0}, {"rate": "fast"}, {"timeout": "1"}, {"priority": 10}, {"name": 5},
            {"headers": {"k": []}},
        ]  # fmt: skip
        for wrong in sends:
            [option] = wrong
            with pytest.raises(zmesh.InvalidOption, match=option):
                await a.send_file("b", tmp_path / "x", **wrong)
        with pytest.raises(zmesh.InvalidOption, match="to"):
            await a.send_file(5, tmp_path / "x")  # type: ignore[arg-type]
        with pytest.raises(zmesh.InvalidOption, match="regular file"):
            await a.send_file("b", tmp_path, name="x")
        with pytest.raises(FileNotFoundError):
            await a.send_file("b", tmp_path / "none")
        receives: list[dict[str, Any]] = [
            {"bytes_max": -1},
            {"bytes_max": 0.5},
            {"concurrency": 0},
        ]
        for wrong in receives:
            [option] = wrong
            with pytest.raises(zmesh.InvalidOption, match=option):
                a.receive_files(inbox, **wrong)
        with pytest.raises(zmesh.InvalidOption, match="where"):
            a.receive_files(5)  # type: ignore[arg-type]
        with pytest.raises(zmesh.InvalidOption, match=r"zmesh\."):
            a.service("zmesh.files")
