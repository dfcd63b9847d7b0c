"""zmesh between two durable nodes: both keep a journal, and the consumer reads its inbox."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmesh
from benchmarks import nodes
from benchmarks.turns import Measure, Rates, best_of, for_seconds, fresh_name

ACCEPTED = "zmesh: post_many"
END_TO_END = "zmesh: post_many, until its receipts"
ONE = "zmesh: post, one at a time"
ALONE = "zmesh: post, one at a time, to nobody who is there"
TOGETHER = "zmesh: post, 64 callers one at a time"

BATCHES = (1_000, 5_000, 20_000)
CALLERS = 64
SEARCH_S = 0.2


@contextmanager
def measures(place: Path, notes: list[str]) -> Iterator[list[Measure]]:
    """Give what is measured; each measurement has nodes and journals of its own."""
    place.mkdir(parents=True)
    notes.append(f"zmesh {zmesh.__version__}")
    nodes = _Nodes(place, notes)
    yield [nodes.stream, nodes.one_by_one, nodes.alone, nodes.together]


class _Nodes:
    def __init__(self, place: Path, notes: list[str]) -> None:
        self._place = place
        self._notes = notes
        self._best: dict[int, int] = {}  # by length of body

    def stream(self, body: bytes, seconds: float) -> Rates:
        return self._stream(body, seconds, self._batch(body))

    def one_by_one(self, body: bytes, seconds: float) -> Rates:
        async def produce(node: zmesh.Node) -> Rates:
            return {ONE: await _posted(node, body, seconds)}

        return self._beside(produce, body)

    def alone(self, body: bytes, seconds: float) -> Rates:
        """Measure the sender's own part: nothing is sent, and nobody shares cores and disk."""

        async def produce(place: Path) -> Rates:
            async with zmesh.Node("producer", mesh=fresh_name(), key=(), storage=place) as node:
                return {ALONE: await _posted(node, body, seconds)}

        with tempfile.TemporaryDirectory(dir=self._place) as name:
            return asyncio.run(produce(Path(name) / "producer"))

    def together(self, body: bytes, seconds: float) -> Rates:
        async def produce(node: zmesh.Node) -> Rates:
            count, began = 0, time.perf_counter()

            async def call() -> None:
                nonlocal count
                for _ in for_seconds(seconds):
                    await node.post("consumer", body)
                    count += 1

            async with asyncio.TaskGroup() as callers:
                for _ in range(CALLERS):
                    callers.create_task(call())
            return {TOGETHER: count / (time.perf_counter() - began)}

        return self._beside(produce, body)

    def _stream(self, body: bytes, seconds: float, batch: int) -> Rates:
        async def produce(node: zmesh.Node) -> Rates:
            bodies = [body] * batch
            began = time.perf_counter()
            receipts = [await node.post_many("consumer", bodies) for _ in for_seconds(seconds)]
            accepted_s = time.perf_counter() - began
            for receipt in receipts:
                await receipt
            count = batch * len(receipts)
            return {
                ACCEPTED: count / accepted_s,
                END_TO_END: count / (time.perf_counter() - began),
            }

        return self._beside(produce, body)

    def _batch(self, body: bytes) -> int:
        """Return how many bodies at once are the fastest here, looked for once."""

        def measure(batch: int) -> float:
            return self._stream(body, SEARCH_S, batch)[ACCEPTED]

        if len(body) not in self._best:
            batch = self._best[len(body)] = best_of(BATCHES, measure)
            self._notes.append(f"zmesh: {batch:,} bodies a post_many for {len(body)} bytes")
        return self._best[len(body)]

    def _beside(self, produce: Callable[[zmesh.Node], Awaitable[Rates]], body: bytes) -> Rates:
        async def met(node: zmesh.Node) -> Rates:
            await node.peers.wait_for(name="consumer", timeout=10)
            await node.send("consumer", body)
            rates = await produce(node)
            await node.flush()
            return rates

        with tempfile.TemporaryDirectory(dir=self._place) as name:
            rates: Any = nodes.beside(met, nodes.consume, Path(name))
            _check_journals(Path(name))
        return dict(rates)


async def _posted(node: zmesh.Node, body: bytes, seconds: float) -> float:
    """Return how many messages a second are on disk, each waited for."""
    count, began = 0, time.perf_counter()
    for _ in for_seconds(seconds):
        await node.post("consumer", body)
        count += 1
    return count / (time.perf_counter() - began)


def _check_journals(place: Path) -> None:
    """Raise where nodes kept nothing: their speed would be that of memory."""
    for name in ("producer", "consumer"):
        if not (place / name).is_file():
            raise RuntimeError(f"the {name} kept no journal: nothing durable was measured")
