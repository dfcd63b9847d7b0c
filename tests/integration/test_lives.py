"""Processes that die, come back, stall and leave, on loopback."""

import asyncio
import signal
import time
import uuid
from collections import Counter

import pytest

from tests.processes import Child, run
from zmesh import (
    DeliveryError,
    Joined,
    Left,
    Node,
    PeerEvent,
    PeerLost,
    PeerRestarted,
    PeerState,
    Suspected,
)

PROVIDER = "tests/integration/programs/provider.py"


async def endpoint_of(child: Child) -> str:
    endpoint = await child.line()
    assert endpoint.startswith("tcp://127.0.0.1:")
    return endpoint


async def wait_until_left(node: Node, name: str) -> None:
    async with asyncio.timeout(20):
        async for event in node.peers.watch():
            if isinstance(event, Left) and event.peer.name == name:
                return


async def test_calls_of_a_killed_provider_are_answered_by_another() -> None:
    async with Node("caller", mdns=False) as node:
        [known] = node.endpoints
        async with (
            run(PROVIDER, "one", "default", known) as one,
            run(PROVIDER, "two", "default", known),
        ):
            await node.peers.wait_for(service="hang", count=2, timeout=20)
            calls = [asyncio.create_task(node.call("hang", "one", timeout=20)) for _ in range(20)]
            await endpoint_of(one)
            for _ in range(10):  # half of them, as the least loaded is asked
                assert await one.line() == "asked one"
            done, open_calls = await asyncio.wait(calls, timeout=1)
            assert len(open_calls) == 10
            assert {call.result() for call in done} == {"two"}
            one.process.kill()
            begun = time.monotonic()
            assert {await call for call in open_calls} == {"two"}
            assert time.monotonic() - begun < 5
            left = [peer.name for peer in node.peers]
            assert left == ["two"]


async def test_messages_to_a_killed_peer_fail_by_name() -> None:
    async with (
        Node("sender", mdns=False) as node,
        run(PROVIDER, "victim", "default", *node.endpoints) as victim,
    ):
        await node.peers.wait_for(name="victim", timeout=20)
        victim.process.send_signal(signal.SIGSTOP)
        receipt = await node.post_many("victim", range(100))
        victim.process.kill()
        with pytest.raises(DeliveryError) as caught:
            await asyncio.wait_for(asyncio.ensure_future(receipt), 20)
        assert isinstance(caught.value, PeerLost | PeerRestarted)
        assert receipt.accepted + len(receipt.failures) == 100


async def test_killed_process_that_comes_back_is_joined_again() -> None:
    async with Node("watcher", mdns=False) as node:
        for _ in range(3):
            async with run(PROVIDER, "phoenix", "default", *node.endpoints) as phoenix:
                await node.peers.wait_for(name="phoenix", service="who", timeout=20)
                assert await node.call("who", timeout=10) == "phoenix"
                await node.send("phoenix", "hello", timeout=10)
                gone = asyncio.create_task(wait_until_left(node, "phoenix"))
                await asyncio.sleep(0)
                phoenix.process.kill()
                await gone
        assert list(node.peers) == []


async def test_restart_within_a_second_is_told_from_the_life_before() -> None:
    async with Node("watcher", mdns=False) as node:
        [known] = node.endpoints
        async with run(PROVIDER, "phoenix", "default", known) as first:
            [old] = await node.peers.wait_for(name="phoenix", timeout=20)
            first.process.kill()
            async with run(PROVIDER, "phoenix", "default", known):
                async with asyncio.timeout(20):
                    async for event in node.peers.watch():
                        if isinstance(event, Joined) and event.peer.id != old.id:
                            await node.send(event.peer, "hello", timeout=10)
                            break


async def test_handler_that_blocks_the_loop_is_never_lost() -> None:
    async with (
        Node("caller", mdns=False) as node,
        run(PROVIDER, "sleeper", "default", *node.endpoints),
    ):
        await node.peers.wait_for(service="block", timeout=20)
        events: list[PeerEvent] = []

        async def watch() -> None:
            events.extend([event async for event in node.peers.watch()])

        task = asyncio.create_task(watch())
        assert await node.call("block", 3, timeout=20) == "sleeper"
        assert await node.call("who", timeout=5) == "sleeper"
        await node.close()
        await task
        assert not any(isinstance(event, Left) for event in events)
        states = {event.peer.state for event in events if isinstance(event, Suspected)}
        assert states <= {PeerState.BUSY, PeerState.SUSPECT}


async def test_stopped_process_stalls_itself_alone() -> None:
    async with Node("caller", mdns=False) as node:
        [known] = node.endpoints
        async with (
            run(PROVIDER, "stopped", "default", known) as stopped,
            run(PROVIDER, "other", "default", known),
        ):
            await node.peers.wait_for(service="who", count=2, timeout=20)
            stopped.process.send_signal(signal.SIGSTOP)
            receipt = await node.post_many("stopped", range(1000))
            begun = time.monotonic()
            for number in range(200):
                await node.send("other", number, timeout=5)
            assert time.monotonic() - begun < 5
            stopped.process.send_signal(signal.SIGCONT)
            assert await asyncio.wait_for(asyncio.ensure_future(receipt), 20) == 1000


async def test_terminated_process_drains_and_loses_nothing() -> None:
    async with Node("caller", mdns=False) as node:
        [known] = node.endpoints
        async with (
            run(PROVIDER, "one", "default", known) as one,
            run(PROVIDER, "two", "default", known),
        ):
            await node.peers.wait_for(service="slow", count=2, timeout=20)
            calls = [asyncio.create_task(node.call("slow", 0.3, timeout=20)) for _ in range(40)]
            await asyncio.sleep(0.1)
            await endpoint_of(one)
            one.process.terminate()
            counts = Counter(await asyncio.gather(*calls))
            assert counts == {"one": 20, "two": 20}
            assert await one.line() == "0 0"
            status, _, error = await one.ended()
            assert (status, error) == (0, "")


async def test_processes_find_each_other_by_mdns() -> None:
    mesh = uuid.uuid4().hex
    async with run(PROVIDER, "one", mesh) as one, run(PROVIDER, "other", "another-" + mesh):
        await endpoint_of(one)
        begun = time.monotonic()
        async with Node("caller", mesh=mesh) as node:
            await node.peers.wait_for(service="who", timeout=20)
            assert await node.call("who", timeout=5) == "one"
            assert time.monotonic() - begun < 5
            await asyncio.sleep(0.3)
            assert [peer.name for peer in node.peers] == ["one"]


async def test_seed_introduces_those_it_knows() -> None:
    async with (
        Node("seed", mdns=False) as seed,
        Node("a", seeds=seed.endpoints, mdns=False) as a,
        Node("b", seeds=seed.endpoints, mdns=False) as b,
    ):
        await a.peers.wait_for(name="b", timeout=20)
        await b.peers.wait_for(name="a", timeout=20)


async def test_meshes_of_different_names_stay_apart_whatever_is_written_down() -> None:
    async with (
        Node("a", mesh="one", mdns=False) as a,
        Node("b", mesh="two", peers=a.endpoints, mdns=False) as b,
    ):
        await asyncio.sleep(0.5)
        assert list(a.peers) == list(b.peers) == []
