"""AMQP: pika's blocking connection with RabbitMQ."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.rabbitmq import serving
from benchmarks.scenario import (
    ACKED,
    BULK,
    CALL,
    CALLS,
    CALLS_AT_ONCE,
    DURABLE,
    END,
    KEYED,
    KEYS,
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
    Opened,
    Pair,
    Roles,
    Sent,
    System,
    Tally,
    Where,
    go,
    leave,
    timed_calls,
)

PREFETCH = 256
PREFETCH_SHARED = 100
TRANSIENT, PERSISTENT = 1, 2
DIRECT_REPLY = "amq.rabbitmq.reply-to"
PATIENCE_S = 30.0
CONFIRMED = frozenset((ACKED.key, KEYED.key, QUEUE.key, DURABLE.key))


def _connected(where: Where) -> Any:
    pika = client("pika", "pika")
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", where.port))


def _publish(pipe: Connection, scenario: Scenario, where: Where) -> None:
    pika, channel = client("pika", "pika"), _connected(where).channel()
    mode = PERSISTENT if scenario.key == DURABLE.key else TRANSIENT
    if scenario.key in CONFIRMED:
        channel.confirm_delivery()
    exchange = where.name if scenario.broadcast else ""
    properties = [pika.BasicProperties(delivery_mode=mode, headers={"key": key}) for key in KEYS]
    began, count = go(pipe), 0
    for body in scenario.load():
        channel.basic_publish(exchange, where.name, body, properties[count % len(KEYS)])
        count += 1
    if not scenario.is_shared:
        channel.basic_publish(exchange, where.name, END, properties[0])
    leave(pipe, Sent(count, began))


def _consume(pipe: Connection, scenario: Scenario, where: Where) -> None:
    channel, tally, seen = (
        _connected(where).channel(),
        Tally(shared=scenario.is_shared),
        dict[str, int](),
    )
    acknowledges = scenario.key in CONFIRMED
    if scenario.broadcast:
        channel.exchange_declare(where.name, "fanout")
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, where.name)
    else:
        queue = where.name
        channel.queue_declare(queue, durable=scenario.key == DURABLE.key)
    if acknowledges:
        count = PREFETCH if not scenario.is_shared else PREFETCH_SHARED
        channel.basic_qos(prefetch_count=count)
    pipe.send(READY)
    coming = channel.consume(queue, auto_ack=not acknowledges, inactivity_timeout=0.2)
    for method, properties, body in coming:
        if method is not None:
            key = properties.headers["key"]
            seen[key] = seen.get(key, 0) + 1
            if acknowledges:
                channel.basic_ack(method.delivery_tag)
            tally.take(body)
        if tally.is_over or tally.is_idle():
            break
    pipe.send(tally)


def _echo(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    channel = _connected(where).channel()
    channel.queue_declare(where.name)

    def answer(of: Any, _method: object, properties: Any, body: bytes) -> None:
        of.basic_publish("", properties.reply_to, body)

    channel.basic_consume(where.name, answer, auto_ack=True)
    pipe.send(READY)
    channel.start_consuming()


class _Caller:
    """Calls by direct reply-to."""

    def __init__(self, where: Where) -> None:
        self._name = where.name
        self._properties = client("pika", "pika").BasicProperties(reply_to=DIRECT_REPLY)
        self._connection = _connected(where)
        self._channel = self._connection.channel()
        self._answers = 0
        self._channel.basic_consume(DIRECT_REPLY, self._on_answer, auto_ack=True)

    def _on_answer(self, *_: object) -> None:
        self._answers += 1

    def ask(self, body: bytes) -> None:
        self._channel.basic_publish("", self._name, body, self._properties)

    def wait(self, answers: int) -> None:
        while self._answers < answers:
            self._connection.process_data_events(time_limit=PATIENCE_S)

    def call(self, body: bytes) -> None:
        answers = self._answers + 1
        self.ask(body)
        self.wait(answers)


def _call(pipe: Connection, scenario: Scenario, where: Where) -> None:
    caller = _Caller(where)
    caller.call(b"hello")
    go(pipe)
    leave(pipe, timed_calls(scenario, caller.call))


def _call_at_once(pipe: Connection, scenario: Scenario, where: Where) -> None:
    caller = _Caller(where)
    began, count = go(pipe), 0
    for body in scenario.load():
        caller.wait(count - CALLS_AT_ONCE + 1)
        caller.ask(body)
        count += 1
    caller.wait(count)
    leave(pipe, Sent(count, began, time.monotonic()))


def _start(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    client("pika", "pika")
    began = go(pipe)
    _Caller(where).call(b"")
    leave(pipe, 1000 * (time.monotonic() - began))


@contextmanager
def _opened(place: Path) -> Iterator[Opened]:
    client("pika", "pika")
    with serving(place) as (port, pid):
        connection = _connected(Where("", port, place))
        told = str(connection._impl.server_properties["version"])  # noqa: SLF001  # has no other name
        connection.close()
        yield Opened({"rabbitmq-server": told, "pika": version("pika")}, port, server_pid=pid)


_ROLES: Roles = {
    STREAM.key: Pair(_publish, _consume),
    ACKED.key: Pair(_publish, _consume),
    KEYED.key: Pair(_publish, _consume),
    CALL.key: Pair(_call, _echo),
    CALLS.key: Pair(_call_at_once, _echo),
    PUBLISH_8.key: Pair(_publish, _consume),
    PUBLISH_64.key: Pair(_publish, _consume),
    QUEUE.key: Pair(_publish, _consume),
    DURABLE.key: Pair(_publish, _consume),
    LARGE.key: Pair(_publish, _consume),
    BULK.key: Pair(_publish, _consume),
    START.key: Pair(_start, _echo),
}

AMQP = System(
    "RabbitMQ",
    "pika's `BlockingConnection`; where it says acked, durable, and for the work queue it waits "
    "for each confirm, and consumers acknowledge each (prefetch 256, 100 where four share the "
    "work); persistent messages in a durable queue where it says durable; calls by direct "
    "reply-to",
    _ROLES,
    _opened,
    left_out={MEMORY.key: "the server's goes up and down by more than peers take"},
    preload=("pika",),
)
