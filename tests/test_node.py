"""A node's life: described, opened, used where it belongs, and closed without a trace."""

import asyncio
import gc
import inspect
import os
import threading
import traceback
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.nodes import nodes, read
from zmesh import (
    Closed,
    DeliveryTimeout,
    DuplicateIdentity,
    ForkedProcess,
    InvalidOption,
    Message,
    Node,
    NotOpen,
    PeersMissing,
    PeerUnknown,
    Storage,
    UsageError,
    WrongThread,
)
from zmesh.actions import IdentityClash
from zmesh.events import PathUp
from zmesh.face.runner import Runner
from zmesh.ports import Transport

# Describing


def test_describing_a_node_does_no_io() -> None:
    descriptors = set(Path("/proc/self/fd").iterdir()) if Path("/proc/self/fd").exists() else set()
    threads = threading.active_count()
    node = Node("camera-3", peers=["localhost:5555"], seeds=["127.0.0.1:5556"])
    assert threading.active_count() == threads
    if descriptors:
        assert len(list(Path("/proc/self/fd").iterdir())) <= len(descriptors)
    assert (node.name, node.mesh) == ("camera-3", "default")
    assert repr(node) == "<Node 'camera-3' of mesh 'default'>"


def test_name_tells_machine_and_process_by_default() -> None:
    assert Node().name.endswith(f"-{os.getpid()}")


def test_environment_adds_peers_and_names_the_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMESH_MESH", "lab")
    monkeypatch.setenv("ZMESH_PEERS", "127.0.0.1:1001, 127.0.0.1:1002")
    monkeypatch.setenv("ZMESH_SEEDS", "127.0.0.1:1003")
    node = Node(peers=["127.0.0.1:1000"])
    assert node.mesh == "lab"
    assert [target.port for target in node._settings.peers] == [1000, 1001, 1002]
    assert [target.port for target in node._settings.seeds] == [1003]
    assert Node(mesh="other").mesh == "other"


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Node(""), "name"),
        (lambda: Node("a\nb"), "name"),
        (lambda: Node("x" * 2000), "name"),
        (lambda: Node(mesh=""), "mesh"),
        (lambda: Node(peers=["nowhere"]), "peers"),
        (lambda: Node(seeds=["127.0.0.1:99999"]), "seeds"),
        (lambda: Node(port=70000), "port"),
        (lambda: Node(interfaces=[]), "interfaces"),
        (lambda: Node(interfaces="eth0"), "interfaces"),
    ],
)
def test_argument_that_cannot_work_is_named(make: Callable[[], Node], named: str) -> None:
    with pytest.raises(InvalidOption, match=named):
        make()


@pytest.mark.parametrize("interfaces", [["*"], ["192.0.2.1"], ["127.0.0.1", "2001:db8::1"]])
def test_network_needs_the_word_insecure(interfaces: list[str]) -> None:
    with pytest.raises(InvalidOption, match="insecure=True"):
        Node(interfaces=interfaces)
    Node(interfaces=interfaces, insecure=True)


# Opening


async def test_unknown_peer_is_told_with_why_nobody_is_there() -> None:
    async with Node("a", mdns=False) as closed:
        [nobody] = closed.endpoints
    async with Node("b", peers=[nobody], mdns=False) as node:
        async with asyncio.timeout(10):
            assert node._assembly is not None
            while not node._assembly.engine.dial_failures():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        why = f"cannot reach {nobody} (refused, nobody listens there)"
        for use in (lambda: node.send("c", 1), lambda: node.peers.wait_for(timeout=0)):
            with pytest.raises((PeerUnknown, PeersMissing)) as caught:
                await use()
            assert why in str(caught.value)


async def test_unknown_peer_among_others_is_told_with_those() -> None:
    async with nodes("a", "b") as (a, _):
        with pytest.raises(PeerUnknown, match="known: b") as caught:
            await a.send("c", 1)
        assert caught.value.why == ""


async def test_loopback_interfaces_need_no_word() -> None:
    async with Node("a", interfaces=["127.0.0.1"], mdns=False) as node:
        assert len(node.endpoints) == 1
        assert node.endpoints[0].startswith("tcp://127.0.0.1:")


async def test_several_addresses_share_one_port() -> None:
    try:
        async with Node("a", interfaces=["127.0.0.1", "::1"], mdns=False) as node:
            ports = {endpoint.rpartition(":")[2] for endpoint in node.endpoints}
            assert len(ports) == 1
            if len(node.endpoints) == 2:
                async with Node("b", peers=node.endpoints[1:], mdns=False) as other:
                    await other.peers.wait_for(name="a", timeout=5)
    except InvalidOption:
        pytest.skip("no IPv6 on loopback")


async def test_interface_that_is_not_there_is_told() -> None:
    node = Node("a", interfaces=["nonesuch0"], mdns=False)
    with pytest.raises(InvalidOption, match="at least one that is up"):
        await node.open()
    with pytest.raises(Closed):
        _ = node.peers


async def test_node_that_could_not_open_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runners = []
    start = Runner.start

    def note(runner: Runner, transport: Transport) -> None:
        runners.append(runner)
        start(runner, transport)

    monkeypatch.setattr(Runner, "start", note)
    descriptors = _descriptors()
    with pytest.raises(InvalidOption, match="name"):
        await Node("x" * 500).open()  # too long to be announced
    [runner] = runners
    assert runner._timer is None
    assert _descriptors() == descriptors


async def test_port_that_is_taken_is_told() -> None:
    async with Node("a", mdns=False) as first:
        port = int(first.endpoints[0].rpartition(":")[2])
        with pytest.raises(InvalidOption, match=rf"this machine with port={port} free"):
            await Node("b", port=port, mdns=False).open()


def test_storage_and_peers_that_cannot_work_are_told_by_their_arguments() -> None:
    with pytest.raises(InvalidOption, match=r"^storage='/no/such/x\.db' cannot work"):
        Node("a", storage="/no/such/x.db")
    with pytest.raises(InvalidOption, match=r"^path='/no/such/x\.db' cannot work"):
        Node("a", storage=Storage("/no/such/x.db"))
    for option in ("peers", "seeds"):
        with pytest.raises(
            InvalidOption, match=rf"^{option}='127\.0\.0\.1:5' .* a list of host:port"
        ):
            Node("a", **{option: "127.0.0.1:5"})  # type: ignore[arg-type]


async def test_times_that_are_none_are_refused_by_all_that_wait() -> None:
    async with nodes("a", "b") as (a, _):
        wrong: list[Any] = [-1, float("nan"), "5", True]
        for timeout in wrong:
            told = r"^timeout=.* cannot work: expected seconds"
            for wait in (
                lambda value: a.send("b", 1, timeout=value),
                lambda value: a.call("x", timeout=value),
                lambda value: a.peers.wait_for(name="x", timeout=value),
                lambda value: a.publish("x", 1, min_receivers=1, timeout=value),
                lambda value: a.shared("x", timeout=value),
                lambda value: a.exchange("x", kind="direct", timeout=value),
                lambda value: a.send_file("b", "x", timeout=value),
            ):
                with pytest.raises(InvalidOption, match=told):
                    await wait(timeout)
            for begin in (a.stream, a.survey, a.fan_out):
                with pytest.raises(InvalidOption, match=told):
                    begin("x", 1, timeout=timeout)
            with pytest.raises(InvalidOption, match=r"^drain=.* cannot work: expected seconds"):
                await a.close(drain=timeout)


async def test_message_that_nobody_reads_is_told_to_have_arrived() -> None:
    async with nodes("a", "b") as (a, _):
        with pytest.raises(DeliveryTimeout, match="it was received there, but nobody has") as told:
            await a.send("b", "unread", timeout=1)
        assert told.value.has_arrived
        sent = [asyncio.create_task(a.send("b", "unread", timeout=1)) for _ in range(3)]
        for each in sent:  # they go together
            with pytest.raises(DeliveryTimeout, match="it was received there"):
                await each


async def test_message_that_is_not_there_is_not_told_to_have_arrived(tmp_path: Path) -> None:
    async with Node("a", mdns=False, storage=tmp_path / "a.journal") as a:
        with pytest.raises(DeliveryTimeout, match="it may still be handled") as told:
            await a.send("nobody", 1, timeout=0.05)
        assert not told.value.has_arrived


async def test_jobs_left_at_the_end_are_logged_by_queue_with_their_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with nodes("a") as (a,):
        for number in range(3):
            await a.push("thumbs", number)
        await a.push_many("other", [1, 2], key="k")
        await a.close()
    assert "a: message failed queue='thumbs' kind='closed' messages=3 advice=" in caplog.text
    assert "a: message failed queue='other' kind='closed' messages=2 advice=" in caplog.text
    assert "peer=''" not in caplog.text


async def test_use_before_opening_is_refused() -> None:
    node = Node("a", mdns=False)
    for use in (lambda: node.peers, lambda: node.id, lambda: node.endpoints, node.inbox):
        with pytest.raises(NotOpen):
            use()
    with pytest.raises(NotOpen):
        await node.send("b", 1)
    async with node:
        pass
    with pytest.raises(UsageError):
        await node.open()


async def test_id_and_endpoints_are_what_others_need() -> None:
    async with nodes("a", "b") as (a, b):
        assert len(bytes.fromhex(a.id)) == 16
        [peer] = b.peers
        assert (peer.name, peer.id, list(peer.endpoints)) == ("a", a.id, a.endpoints)
        assert b.peers.get("a") == b.peers.get(a.id)
        assert b.peers.get("nobody") is None


async def test_statistics_count_what_went_and_what_is_held() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.post_many("b", range(100))
        async with b.subscribe("x"):
            assert b.statistics().subscriptions == 1
        assert a.statistics().open_receipts == 1
        await read(b.inbox(), 100)
        await receipt
        counted = a.statistics()
        assert counted.open_receipts == counted.open_calls == counted.unread == 0
        assert counted.engine.present == 1
        assert counted.transport.packets_sent > 0
        assert counted.links[b.id].packets_sent > 0


# Closing


async def use_everything(node: Node) -> list[Callable[[], object]]:
    return [
        lambda: node.send("b", 1),
        lambda: node.post("b", 1),
        lambda: node.post_many("b", [1]),
        node.flush,
        lambda: node.call("echo"),
        lambda: node.publish("a", 1),
    ]


async def test_use_after_closing_is_refused() -> None:
    node = Node("a", mdns=False)
    async with node:
        pass
    for use in await use_everything(node):
        with pytest.raises(Closed):
            await use()  # type: ignore[misc]
    for call in (node.inbox, lambda: node.peers, lambda: node.subscribe("a"), lambda: node.id):
        with pytest.raises(Closed):
            call()
    with pytest.raises(Closed):
        node.post_nowait("b", 1)
    await node.close()


async def test_all_who_wait_are_told_that_it_closed() -> None:
    async with nodes("a", "b") as (a, b):

        @b.service("slow")
        async def slow(_: object) -> None:
            await asyncio.sleep(60)

        await a.peers.wait_for(service="slow", timeout=5)
        receipt = await a.post("b", "never read")
        loop = asyncio.create_task(read(a.inbox(), 1))
        watcher = a.peers.watch()
        watch = asyncio.create_task(_exhaust(watcher))
        under_way: list[Coroutine[Any, Any, Any]] = [
            a.call("slow"),
            a.send("b", 1),
            a.peers.wait_for(count=9),
            a.flush(),
        ]
        waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(each) for each in under_way]
        waiting.append(asyncio.ensure_future(receipt))
        await asyncio.sleep(0.05)
        await a.close()
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
        assert {type(result) for result in results} == {Closed}
        assert await asyncio.wait_for(loop, 5) == []
        await asyncio.wait_for(watch, 5)


async def _exhaust(watcher: object) -> None:
    async for _ in watcher:  # type: ignore[attr-defined]
        pass


async def test_draining_finishes_what_is_under_way() -> None:
    async with nodes("a", "b") as (a, b):
        begun, gate = asyncio.Event(), asyncio.Event()

        @b.service("slow")
        async def slow(_: object) -> str:
            begun.set()
            await gate.wait()
            return "finished"

        await a.peers.wait_for(service="slow", timeout=5)
        call = asyncio.create_task(a.call("slow"))
        await begun.wait()
        closing = asyncio.create_task(b.close(drain=5))
        await asyncio.sleep(0.05)
        assert not closing.done()
        gate.set()
        report = await closing
        assert (report.unsettled_out, report.unsettled_in) == (0, 0)
        assert await call == "finished"


async def test_handler_that_is_finished_in_the_drain_can_still_send() -> None:
    async with nodes("a", "b") as (a, b):
        begun, gate = asyncio.Event(), asyncio.Event()

        @b.service("report")
        async def report(message: Message) -> str:
            begun.set()
            await gate.wait()
            await b.send(message.sender, "finished", timeout=5)
            return "told"

        await a.peers.wait_for(service="report", timeout=5)
        reading = asyncio.create_task(read(a.inbox(), 1))
        call = asyncio.create_task(a.call("report"))
        await begun.wait()
        closing = asyncio.create_task(b.close(drain=5))
        await asyncio.sleep(0.02)
        gate.set()
        assert await call == "told"
        assert (await reading)[0].body == "finished"
        await closing
        with pytest.raises(Closed):
            await b.send("a", 1)


async def test_message_that_fails_unheard_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with nodes("a", "b") as (a, b):
        await a.post_many("b", range(10))
        await asyncio.sleep(0.02)
        await b.close()
        async with asyncio.timeout(10):
            while "a: message failed peer='b' kind='peer_lost'" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_drain_ends_in_time_and_reports_what_was_open() -> None:
    async with nodes("a", "b") as (a, _):
        receipt = await a.post_many("b", [1, 2, 3])
        report = await asyncio.wait_for(a.close(drain=0.1), 5)
        assert report.unsettled_out == 3
        with pytest.raises(Closed):
            await receipt


async def test_closing_without_a_drain_reports_what_was_open() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.post_many("b", range(5))
        await b.post_many("a", range(3))
        unread = aiter(a.inbox("manual"))
        await asyncio.wait_for(anext(unread), 5)
        await asyncio.sleep(0.05)
        report = await a.close()
        assert (report.unsettled_out, report.unsettled_in) == (5, 3)
        with pytest.raises(Closed):
            await receipt
        assert len(receipt.failures) == report.unsettled_out


async def test_messages_posted_in_the_same_turn_are_reported() -> None:
    async with nodes("a", "b") as (a, _):
        receipts = [a.post_nowait("b", number) for number in range(7)]
        report = await a.close()
        assert report.unsettled_out == 7
        assert all(receipt.failures for receipt in receipts)


async def test_close_that_ends_a_drain_reports_to_both() -> None:
    async with nodes("a", "b") as (a, _):
        receipt = await a.post_many("b", [1, 2, 3])
        draining = asyncio.create_task(a.close(drain=60))
        await asyncio.sleep(0.05)
        assert not draining.done()
        report = await asyncio.wait_for(a.close(), 5)
        assert report.unsettled_out == len(receipt.failures) == 3
        assert await asyncio.wait_for(draining, 5) == report


async def test_end_of_the_block_joins_a_drain_under_way() -> None:
    async with nodes("a", "b") as (a, b):
        node = Node("c", peers=a.endpoints, mdns=False)
        async with node:
            await node.peers.wait_for(name="b", timeout=5)
            receipt = await node.post("b", 1)
            draining = asyncio.create_task(node.close(drain=60))
            await asyncio.sleep(0)
            handling = asyncio.create_task(_read_late(b, 1.0))
        assert await receipt == 1
        assert (await draining).unsettled_out == 0
        await handling


async def _read_late(node: Node, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await read(node.inbox(), 1)


async def test_closing_again_reports_the_same() -> None:
    async with nodes("a", "b") as (a, _):
        await a.post_many("b", [1, 2, 3])
        assert await a.close(drain=0.01) == await a.close() == await a.close(drain=1)


async def test_node_that_broke_reports_what_was_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes("a", "b") as (a, _):
        await a.post_many("b", [1, 2, 3])
        assert a._assembly is not None
        monkeypatch.setattr(a._assembly.engine, "_on_event", _bug)
        a._assembly.runner.news([PathUp(99)])
        assert (await asyncio.wait_for(a.close(drain=1), 5)).unsettled_out == 3


async def test_closing_twice_at_once_is_harmless() -> None:
    async with nodes("a", "b") as (a, _):
        await asyncio.gather(a.close(), a.close(drain=0.1))


async def test_nothing_is_left_after_closing() -> None:
    async def use() -> None:
        async with nodes("a", "b") as (a, b), Node("c", mesh="left") as c:

            @b.service("work")
            def work(_: object) -> int:
                return 1

            await a.peers.wait_for(service="work", timeout=5)
            await asyncio.gather(*(a.call("work") for _ in range(20)))
            await (await a.publish("x", 1))
            assert c.endpoints

    await use()
    gc.collect()
    await asyncio.sleep(0.05)
    tasks, threads = asyncio.all_tasks(), threading.enumerate()
    descriptors = _descriptors()
    await use()
    await use()
    gc.collect()
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == tasks
    assert threading.enumerate() == threads
    assert _descriptors() == descriptors


def _descriptors() -> int:
    path = Path("/proc/self/fd")
    return len(list(path.iterdir())) if path.exists() else 0


async def test_cancelled_closing_goes_on() -> None:
    node = await Node("a", mdns=False).open()
    task = asyncio.create_task(node.close(drain=0.2))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert node._assembly is not None
    async with asyncio.timeout(5):
        while node._assembly._transport is None or node._assembly._transport._is_open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_node_that_was_never_closed_is_told() -> None:
    async def forget() -> None:
        await Node("forgotten", mdns=False).open()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(forget())
        gc.collect()
    assert any("'forgotten'" in str(each.message) for each in caught)


# Where it belongs


async def test_sixteen_other_threads_are_refused_and_do_no_harm() -> None:
    async with nodes("a", "b") as (a, b):
        errors: list[BaseException] = []

        def misuse() -> None:
            for _ in range(50):
                for use in (lambda: a.peers, lambda: a.post_nowait("b", 1), a.inbox):
                    try:
                        use()
                    except WrongThread as error:
                        errors.append(error)
            try:
                asyncio.run(a.send("b", 1))
            except WrongThread as error:
                errors.append(error)

        threads = [threading.Thread(target=misuse) for _ in range(16)]
        for thread in threads:
            thread.start()
        reading = asyncio.create_task(read(b.inbox(), 200))
        for number in range(200):
            await a.send("b", number)
        assert [message.body for message in await reading] == list(range(200))
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert len(errors) == 16 * 151


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_child_of_a_fork_is_refused_and_does_no_harm() -> None:
    async with nodes("a", "b") as (a, b):
        child = os.fork()
        if not child:
            os._exit(_in_child(a))
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        reading = asyncio.create_task(read(b.inbox(), 1))
        await a.send("b", "still here", timeout=5)
        await reading


def _in_child(node: Node) -> int:
    """Use the node of the parent; return 0 where that was refused as it should be."""
    try:
        for use in (lambda: node.peers, node.inbox, lambda: node.post_nowait("b", 1)):
            try:
                use()
            except ForkedProcess as error:
                if error.owner_pid != os.getppid():
                    return 2
            else:
                return 3
    except BaseException:  # noqa: BLE001  # the child must not run the parent's tests
        traceback.print_exc()
        return 4
    return 0


# When it breaks


async def test_bug_in_the_engine_closes_the_node_and_hangs_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with nodes("a", "b") as (a, _):
        waiting = [
            asyncio.create_task(coroutine)
            for coroutine in (a.send("b", 1), a.peers.wait_for(count=9), read(a.inbox(), 1))
        ]
        await asyncio.sleep(0.05)
        assert a._assembly is not None
        monkeypatch.setattr(a._assembly.engine, "_on_event", _bug)
        a._assembly.runner.news([PathUp(99)])
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
        assert {type(result) for result in results} == {Closed}
        with pytest.raises(Closed, match="internal error"):
            await a.send("b", 1)
        assert "internal error while handling PathUp" in caplog.text
        await asyncio.wait_for(a.close(drain=1), 5)


def _bug(_: object) -> None:
    raise KeyError("a bug")


async def test_clash_of_identities_closes_the_node(caplog: pytest.LogCaptureFixture) -> None:
    async with nodes("a", "b") as (a, _):
        waiting = asyncio.create_task(a.send("b", 1))
        await asyncio.sleep(0)
        assert a._assembly is not None
        a._assembly.perform(IdentityClash("tcp://127.0.0.1:1", fenced=False))
        with pytest.raises(Closed, match="alive twice"):
            await asyncio.wait_for(waiting, 5)
        with pytest.raises(DuplicateIdentity, match=a._assembly.id.hex()):
            await a.send("b", 1)
        assert "alive twice" in caplog.text


# Telling


async def test_lone_node_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("zmesh.face.assembly.ALONE_AFTER", 0.05)
    async with Node("a", mesh="lonely", mdns=False):
        await asyncio.sleep(0.1)
    assert "a: no peers in mesh 'lonely'" in caplog.text


async def test_unknown_peer_is_an_error_that_names_those_known() -> None:
    async with nodes("a", "b") as (a, _):
        with pytest.raises(PeerUnknown, match="known: b"):
            await a.send("c", 1)


def test_signature_of_a_node_shows_no_options_that_are_as_by_default() -> None:
    assert "options: zmesh.options.NodeOptions = NodeOptions(), " in str(inspect.signature(Node))
