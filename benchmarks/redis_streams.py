"""Redis streams with an append-only file that is synced before each answer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.processes import expect, role
from benchmarks.servers import client, free_port, program, running
from benchmarks.turns import END, Measure, Rates, best_of, for_seconds, fresh_name

ONE = "Redis: XADD, one at a time"
PIPELINED = "Redis: XADD, pipelined"
END_TO_END = "Redis: XADD pipelined, XREADGROUP, XACK"

PIPELINES = (16, 64, 256, 1024)
READ_COUNT = 1_000
SEARCH_S = 0.2
GROUP = "group"


@contextmanager
def serving(place: Path, *, durable: bool) -> Iterator[tuple[int, int]]:
    """Run a server, whose data is synced before it answers or in memory; yield port and pid."""
    port = free_port()
    options = {
        "bind": "127.0.0.1", "port": str(port), "dir": str(place), "daemonize": "no", "save": "",
        "appendonly": "yes" if durable else "no", "appendfsync": "always",
        "auto-aof-rewrite-percentage": "0",  # no rewriting of the file while it is measured
    }  # fmt: skip
    command = [program("redis-server")]
    for name, value in options.items():
        command += [f"--{name}", value]
    with running(command, place, port) as pid:
        yield port, pid


@contextmanager
def measures(place: Path, notes: list[str]) -> Iterator[list[Measure]]:
    """Run a server, and give what is measured on it."""
    redis = client("redis", "redis")
    with serving(place, durable=True) as (port, _), redis.Redis(port=port) as connection:
        notes.append(
            f"redis-server {connection.info()['redis_version']}, redis-py {redis.__version__}"
        )
        streams = _Streams(connection, port, notes)
        yield [streams.one_by_one, streams.pipelined, streams.end_to_end]


class _Streams:
    def __init__(self, redis: Any, port: int, notes: list[str]) -> None:
        self._redis = redis
        self._port = port
        self._notes = notes
        self._best: dict[int, int] = {}  # by length of body

    def one_by_one(self, body: bytes, seconds: float) -> Rates:
        name, count = fresh_name(), 0
        began = time.perf_counter()
        for _ in for_seconds(seconds):
            self._redis.xadd(name, {"body": body})
            count += 1
        took = time.perf_counter() - began
        self._redis.delete(name)
        return {ONE: count / took}

    def pipelined(self, body: bytes, seconds: float) -> Rates:
        name, batch = fresh_name(), self._batch(body)
        began = time.perf_counter()
        count = self._produce(name, body, batch, seconds)
        took = time.perf_counter() - began
        self._redis.delete(name)
        return {PIPELINED: count / took}

    def end_to_end(self, body: bytes, seconds: float) -> Rates:
        name, batch = fresh_name(), self._batch(body)
        self._redis.xgroup_create(name, GROUP, mkstream=True)
        with role(_consume, self._port, name) as (pipe, _):
            expect(pipe)
            began = time.perf_counter()
            count = self._produce(name, body, batch, seconds)
            self._redis.xadd(name, {"body": END})
            expect(pipe)
            took = time.perf_counter() - began
        self._redis.delete(name)
        return {END_TO_END: count / took}

    def _produce(self, name: str, body: bytes, batch: int, seconds: float) -> int:
        count = 0
        for _ in for_seconds(seconds):
            pipeline = self._redis.pipeline(transaction=False)
            for _ in range(batch):
                pipeline.xadd(name, {"body": body})
            pipeline.execute()
            count += batch
        return count

    def _batch(self, body: bytes) -> int:
        """Return the length of pipeline that is the fastest here, looked for once."""

        def measure(batch: int) -> float:
            name = fresh_name()
            began = time.perf_counter()
            count = self._produce(name, body, batch, SEARCH_S)
            took = time.perf_counter() - began
            self._redis.delete(name)
            return count / took

        if len(body) not in self._best:
            batch = self._best[len(body)] = best_of(PIPELINES, measure)
            self._notes.append(f"Redis: pipelines of {batch} for {len(body)} bytes")
        return self._best[len(body)]


def _consume(pipe: Connection, port: int, name: str) -> None:
    with client("redis", "redis").Redis(port=port) as redis:
        pipe.send("ready")
        while True:
            answer = redis.xreadgroup(GROUP, "one", {name: ">"}, count=READ_COUNT, block=1_000)
            for _, entries in answer:
                redis.xack(name, GROUP, *(number for number, _ in entries))
                if entries[-1][1][b"body"] == END:
                    pipe.send("done")
                    return
