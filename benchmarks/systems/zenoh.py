"""Zenoh: peers that are connected to each other, without a router."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.scenario import (
    ACKED,
    BULK,
    CALL,
    CALLS,
    CALLS_AT_ONCE,
    DURABLE,
    END,
    KEYED,
    LARGE,
    MEMORY,
    PUBLISH_8,
    PUBLISH_64,
    QUEUE,
    START,
    STREAM,
    Scenario,
)
from benchmarks.servers import client
from benchmarks.system import (
    READY,
    Crowd,
    Opened,
    Pair,
    Roles,
    Sent,
    System,
    Tally,
    Where,
    be_hub,
    crowded,
    go,
    leave,
    timed_calls,
)

PATIENCE_S = 30.0
TOPIC = "bench/topic"
SERVICE = "bench/service"


def _session(where: Where, *, listens: bool) -> Any:
    zenoh = client("zenoh", "eclipse-zenoh")
    config = zenoh.Config()
    address = json.dumps([f"tcp/127.0.0.1:{where.port}"])
    config.insert_json5("mode", '"peer"' if listens else '"client"')
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("transport/shared_memory/enabled", "false")  # others go by loopback
    config.insert_json5("listen/endpoints", address if listens else "[]")
    config.insert_json5("connect/endpoints", "[]" if listens else address)
    return zenoh.open(config)


def _publish(pipe: Connection, scenario: Scenario, where: Where) -> None:
    zenoh, session = client("zenoh", "eclipse-zenoh"), _session(where, listens=True)
    publisher = session.declare_publisher(
        TOPIC,
        congestion_control=zenoh.CongestionControl.BLOCK,
        reliability=zenoh.Reliability.RELIABLE,
    )
    pipe.send(READY)  # it listens
    until = time.monotonic() + PATIENCE_S
    while not publisher.matching_status.matching and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)  # it tells that somebody is there, not how many
    began, count = go(pipe), 0
    for body in scenario.load():
        publisher.put(body)
        count += 1
    publisher.put(END)
    leave(pipe, Sent(count, began))


def _subscribe(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    tally, session = Tally(), _session(where, listens=False)

    def take(sample: Any) -> None:
        tally.take(sample.payload.to_bytes())

    subscriber = session.declare_subscriber(TOPIC, take)
    pipe.send(READY)
    tally.wait()
    pipe.send(tally)
    threading.Event().wait()
    del subscriber


def _echo(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    session = _session(where, listens=True)
    queryable = session.declare_queryable(
        SERVICE, lambda query: query.reply(SERVICE, query.payload.to_bytes())
    )
    pipe.send(READY)
    threading.Event().wait()
    del queryable


def _caller(where: Where) -> Any:
    """Return a session, a call on which was answered."""
    session = _session(where, listens=False)
    until = time.monotonic() + PATIENCE_S
    while not list(session.get(SERVICE, payload=b"")):
        if time.monotonic() > until:
            raise TimeoutError("no queryable answered")
    return session


def _call(pipe: Connection, scenario: Scenario, where: Where) -> None:
    session = _caller(where)

    def call(body: bytes) -> None:
        for _ in session.get(SERVICE, payload=body):
            pass

    go(pipe)
    leave(pipe, timed_calls(scenario, call))


def _call_at_once(pipe: Connection, scenario: Scenario, where: Where) -> None:
    session = _caller(where)
    room = threading.Semaphore(CALLS_AT_ONCE)
    began, count = go(pipe), 0
    for body in scenario.load():
        room.acquire()
        session.get(SERVICE, lambda _: room.release(), payload=body)
        count += 1
    for _ in range(CALLS_AT_ONCE):
        room.acquire()
    leave(pipe, Sent(count, began, time.monotonic()))


def _start(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    client("zenoh", "eclipse-zenoh")
    began = go(pipe)
    _caller(where)
    leave(pipe, 1000 * (time.monotonic() - began))


def _hub(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    session = _session(where, listens=True)
    be_hub(pipe)
    threading.Event().wait()
    session.close()


def _peers(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    crowded(pipe, lambda: _session(where, listens=False))


@contextmanager
def _opened(_place: Path) -> Iterator[Opened]:
    client("zenoh", "eclipse-zenoh")
    yield Opened({"eclipse-zenoh": version("eclipse-zenoh")})


_ROLES: Roles = {
    STREAM.key: Pair(_publish, _subscribe, sender_first=True),
    CALL.key: Pair(_call, _echo),
    CALLS.key: Pair(_call_at_once, _echo),
    PUBLISH_8.key: Pair(_publish, _subscribe, sender_first=True),
    PUBLISH_64.key: Pair(_publish, _subscribe, sender_first=True),
    LARGE.key: Pair(_publish, _subscribe, sender_first=True),
    BULK.key: Pair(_publish, _subscribe, sender_first=True),
    START.key: Pair(_start, _echo),
    MEMORY.key: Crowd(_peers, _hub),
}

ZENOH = System(
    "Zenoh",
    "eclipse-zenoh; clients of one peer over TCP, no multicast, no shared memory, reliable, "
    "congestion control that blocks; calls are queries",
    _ROLES,
    _opened,
    left_out={
        **{key.key: "it acknowledges nothing end to end" for key in (ACKED, KEYED)},
        QUEUE.key: "it has none",
        DURABLE.key: "its core keeps nothing",
    },
)
