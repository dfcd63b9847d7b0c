"""Processes and machines that die: their records live on in caches, and nobody believes them."""

import asyncio
import time

import pytest

from tests.netns.residents import meet, town
from tests.netns.streams import LOST, check, streams

PORTS = pytest.mark.parametrize("port", [0, 5555], ids=["any-port", "the-same-port"])
"""Where all listen on the same port, a node finds itself at what others say of their loopback."""


@PORTS
async def test_killed_process_is_lost_at_once_and_never_believed_alive(port: int) -> None:
    async with town("a", "b", "c") as lan:
        lan["b"].ip("link set eth0 name lan0")  # so its link-local addresses name no one's else
        a, b = await lan.settle("a", "b", port=port)
        await meet(a, b)
        killed = time.monotonic()
        b.kill()
        assert (await a.tells("Left", b)).at - killed < 2.5
        [c] = await lan.settle("c", port=port)
        await meet(a, c)
        await asyncio.sleep(2)
        told = [told.kind for told in a.told if told.id == b.id]
        assert (told.count("Joined"), told[-1]) == (1, "Left")
        assert b.id not in {told.id for told in c.told}


@PORTS
async def test_restart_on_the_same_machine_is_somebody_new_who_gets_messages(port: int) -> None:
    async with town("a", "b") as lan:
        a, b = await lan.settle("a", "b", port=port)
        await meet(a, b)
        b.kill()
        [again] = await lan.settle("b", port=port)
        await asyncio.gather(meet(a, again), a.tells("Left", b))
        assert again.id != b.id
        await a.ask("send", "b", "hello", 5)
        assert await again.ask("received", "a") == ["hello"]


@PORTS
async def test_machine_that_loses_its_power_is_lost(port: int) -> None:
    async with town("a", "b") as lan:
        a, b = await lan.settle("a", "b", port=port)
        await meet(a, b)
        off = time.monotonic()
        lan["b"].pull_cable()
        b.kill()
        # A message is under way: else the silence would be noticed with the next heartbeat.
        waiting = asyncio.create_task(a.ask("send", "b", "", 20))
        assert (await a.tells("Left", b)).at - off < LOST
        waiting.cancel()


async def test_node_that_only_dials_out_is_not_taken_for_dead_while_its_cable_is_pulled() -> None:
    async with town("a", "b") as lan:
        [a] = await lan.settle("a", port=5555)
        # It listens on its own loopback, where the others find nobody but themselves.
        [b] = await lan.settle("b", interfaces=None, peers=["10.77.0.1:5555"])
        await meet(a, b)
        stream, _ = streams(a, b, 500, 0.005)
        await asyncio.sleep(0.5)
        lan["b"].pull_cable()
        await a.tells("Left", b)
        await asyncio.sleep(1.5)  # what waits for a process that is gone is given up after 1 s
        lan["b"].replug_cable()
        await check(stream, 500, b, "a")
