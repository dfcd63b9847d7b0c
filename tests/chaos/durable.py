"""A producer and a consumer with storage, each killed with SIGKILL again and again.

`python -m tests.chaos.durable --messages 1000000 --kills 1000` prints a line of JSON, and fails
where a message is lost, has its effect twice, overtakes one of its key, or a journal is unsound
after a kill. `--messages 3000 --kills 8` takes seconds.

The producer writes a number to a log of its own once a message is on disk; the consumer writes
each to a database in the message's transaction. The judge knows nothing but that log and that
database. A producer that was killed goes on at the next thousand, because it cannot know what was
stored of the last: such numbers may have an effect, and have one at most.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import zmesh
from tests.processes import Child, run, say
from zmesh.journal.tools import verify

PROGRAM = "tests/chaos/durable.py"
KEYS = 8
BATCH = 25
OUT_MAX = 2000
"""Messages without outcome, of one life: what it does not wait for, another life goes on with."""
GAP = 1000
PATIENCE_S = 300.0

Figures = dict[str, Any]


def storage(place: str, name: str) -> zmesh.Storage:
    """Return where a side keeps what it must not forget."""
    database = f"{place}/effects.db" if name == "consumer" else None
    return zmesh.Storage(f"{place}/{name}.journal", database=database)


# The producer


async def produce(place: str, port: str, other: str, seed: str, until: str) -> None:
    """Post numbers from where the log ends, until there are enough in it."""
    chance = random.Random(seed)
    path = Path(place) / "sent.log"
    numbers = _logged(path)
    following = (max(numbers) // GAP + 1) * GAP if numbers else 0
    left = int(until) - len(numbers)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    kept = storage(place, "producer")
    async with zmesh.Node(
        "producer", mdns=False, port=int(port), peers=[other], storage=kept
    ) as node:
        say("ready")
        receipts: list[zmesh.Receipt] = []
        while left > 0:
            key = chance.randrange(KEYS)
            count = min(left, chance.randint(1, BATCH))
            bodies = [[following + at, key] for at in range(count)]
            if count == 1:
                receipts.append(await node.post("consumer", bodies[0], key=f"k{key}"))
            else:
                receipts.append(await node.post_many("consumer", bodies, key=f"k{key}"))
            os.write(log, b"".join(b"%d %d\n" % (number, key) for number, key in bodies))
            following += count
            left -= count
            receipts = [receipt for receipt in receipts if not receipt.done]
            while sum(receipt.expected - receipt.accepted for receipt in receipts) > OUT_MAX:
                await receipts.pop(0)
        say("sent")
        while node.statistics().engine.stored_out:  # noqa: ASYNC110  # of earlier lives as well
            await asyncio.sleep(0.05)
        say("done")
        await asyncio.sleep(PATIENCE_S)  # until it is killed


def _logged(path: Path) -> list[int]:
    if not path.exists():
        return []
    return [int(line.split()[0]) for line in path.read_bytes().split(b"\n")[:-1]]


# The consumer


async def consume(place: str, port: str, other: str) -> None:
    """Write each number once."""
    kept = storage(place, "consumer")
    async with zmesh.Node(
        "consumer", mdns=False, port=int(port), peers=[other], storage=kept
    ) as node:
        say("ready")
        async for message in node.inbox():
            async with message.transaction() as db:
                await db.execute("INSERT INTO effects (number, key) VALUES (?, ?)", message.body)


# The judge, who kills them


class Side:
    """One of the two, in its lives."""

    def __init__(self, place: Path, name: str, port: int, other: int) -> None:
        self._place = place
        self._verb = "produce" if name == "producer" else "consume"
        self._arguments = (str(place), str(port), f"127.0.0.1:{other}")
        self.name = name
        self.kills = 0
        self.unsound = 0

    async def live(self, opens_s: float, works_s: float, *more: str) -> str:
        """Live until it says that it is done, or so long; be killed, and return the last word.

        It has `opens_s` to get ready, and `works_s` from then on.
        """
        word = "nothing"
        async with run(PROGRAM, self._verb, *self._arguments, *more) as child:
            try:
                word = await self._word(child, opens_s)
                until = asyncio.get_running_loop().time() + works_s
                while word != "done":
                    left = until - asyncio.get_running_loop().time()
                    word = await self._word(child, left)
            except TimeoutError:
                pass
            child.process.kill()
            await child.process.wait()
        self.kills += 1
        journal = self._place / f"{self.name}.journal"
        if await asyncio.to_thread(journal.exists):
            self.unsound += bool(await asyncio.to_thread(verify, journal))
        return word

    async def _word(self, child: Child, seconds: float) -> str:
        word = await child.line(seconds)
        if not word:
            _, _, error = await child.ended()
            raise AssertionError(f"the {self.name} ended: {error}")
        return word


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


async def main(messages: int, kills: int, seed: int = 1, longest_s: float = 1.5) -> Figures:
    """Let both work and die, until everything has its effect."""
    place = Path(tempfile.mkdtemp(prefix="zmesh-"))
    try:
        with closing(sqlite3.connect(place / "effects.db")) as database:
            database.execute(
                "CREATE TABLE effects (at INTEGER PRIMARY KEY, number INTEGER, key INTEGER)"
            )
        begun = time.monotonic()
        producer, consumer = free_ports(2)
        sides = (
            Side(place, "producer", producer, consumer),
            Side(place, "consumer", consumer, producer),
        )
        chance = random.Random(seed)
        await let_live_and_die(sides, messages, kills, chance, longest_s)
        seconds = time.monotonic() - begun
        figures = await asyncio.to_thread(judge, place)
        return {
            "program": "durable",
            **figures,
            "kills_of_producer": sides[0].kills,
            "kills_of_consumer": sides[1].kills,
            "unsound": sum(side.unsound for side in sides),
            "seconds": round(seconds, 1),
        }
    finally:
        await asyncio.to_thread(shutil.rmtree, place)


async def let_live_and_die(
    sides: tuple[Side, Side], messages: int, kills: int, chance: random.Random, longest_s: float
) -> None:
    """Kill each so many times, then let both be until the producer is done."""
    producer, consumer = sides

    def times() -> tuple[float, float]:
        """Return how long the next life may take to open, and to work."""
        if min(producer.kills, consumer.kills) >= kills:
            return PATIENCE_S, PATIENCE_S
        return chance.choice((chance.uniform(0.1, 1.0), 20.0)), chance.uniform(0.0, longest_s)

    async def consume_on() -> None:
        while True:
            await consumer.live(*times())

    consuming = asyncio.create_task(consume_on())
    try:
        while True:
            is_last = min(producer.kills, consumer.kills) >= kills
            # What is to be sent is spread over the lives to come.
            share = messages * (producer.kills + 1) // (kills + 1)
            until = str(messages if producer.kills >= kills else share)
            word = await producer.live(*times(), str(chance.random()), until)
            if consuming.done():
                consuming.result()  # it raised
            if is_last and word == "done":
                return
    finally:
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)


def judge(place: Path) -> Figures:
    """Return what there is to say, of the log and the effects alone."""
    sent = [
        tuple(map(int, line.split()))
        for line in (place / "sent.log").read_bytes().split(b"\n")[:-1]
    ]
    with closing(sqlite3.connect(place / "effects.db")) as database:
        effects = database.execute("SELECT number, key FROM effects ORDER BY at").fetchall()
    counts: dict[int, int] = defaultdict(int)
    last: dict[int, int] = {}
    overtaken = 0
    for number, key in effects:
        counts[number] += 1
        overtaken += number < last.get(key, -1)
        last[key] = number
    return {
        "sent": len(sent),
        "effects": len(effects),
        "lost": sum(number not in counts for number, _ in sent),
        "twice": sum(count > 1 for count in counts.values()),
        "overtaken": overtaken,
        "stored_and_not_told": len(counts) - sum(number in counts for number, _ in sent),
    }


def ok(figures: Figures) -> bool:
    """Return whether every promise was kept."""
    broken = ("lost", "twice", "overtaken", "unsound")
    return figures["sent"] > 0 and not any(figures[each] for each in broken)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "produce":
        asyncio.run(produce(*sys.argv[2:]))
    elif len(sys.argv) > 1 and sys.argv[1] == "consume":
        asyncio.run(consume(*sys.argv[2:]))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--messages", type=int, default=1_000_000)
        parser.add_argument("--kills", type=int, default=1000, help="of each side")
        parser.add_argument("--seed", type=int, default=1)
        told = parser.parse_args()
        result = asyncio.run(main(told.messages, told.kills, told.seed))
        result["ok"] = ok(result)
        say(json.dumps(result))
        sys.exit(not result["ok"])
