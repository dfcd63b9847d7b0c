"""MQTT: paho with mosquitto."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.scenario import (
    ACKED,
    BULK,
    CALL,
    CALLS,
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
    WINDOW,
    Scenario,
)
from benchmarks.servers import client, free_port, program, running
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
    crowded,
    go,
    leave,
)

PATIENCE_S = 30.0
ACKNOWLEDGED = frozenset((ACKED.key, KEYED.key, QUEUE.key))
CONFIG = """
listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 0
max_inflight_messages 0
"""


def _client(where: Where) -> Any:
    """Return a client that is connected, and whose thread runs."""
    mqtt = client("paho.mqtt.client", "paho-mqtt")
    connected = threading.Event()
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    made.max_inflight_messages_set(WINDOW)
    made.max_queued_messages_set(0)
    made.on_connect = lambda *_: connected.set()
    made.connect("127.0.0.1", where.port)
    made.loop_start()
    if not connected.wait(PATIENCE_S):
        raise TimeoutError("mosquitto did not answer")
    return made


def _publish(pipe: Connection, scenario: Scenario, where: Where) -> None:
    qos = 1 if scenario.key in ACKNOWLEDGED else 0
    publisher = _client(where)
    began, count = go(pipe), 0
    room = threading.Semaphore(WINDOW)  # else its queue grows without end
    if qos:
        publisher.on_publish = lambda *_: room.release()
    for body in scenario.load():
        if qos:
            room.acquire()
        publisher.publish(f"{where.name}/{KEYS[count % len(KEYS)]}", body, qos)
        count += 1
    if not scenario.is_shared:
        publisher.publish(f"{where.name}/end", END, qos)
    leave(pipe, Sent(count, began))


def _subscribe(pipe: Connection, scenario: Scenario, where: Where) -> None:
    tally, seen, subscribed = Tally(shared=scenario.is_shared), dict[str, int](), threading.Event()

    def take(_client: object, _data: object, message: Any) -> None:
        seen[message.topic] = seen.get(message.topic, 0) + 1
        tally.take(message.payload)

    subscriber = _client(where)
    subscriber.on_message = take
    subscriber.on_subscribe = lambda *_: subscribed.set()
    shared = f"$share/workers/{where.name}/#"
    topic = shared if scenario.key == QUEUE.key else f"{where.name}/#"
    subscriber.subscribe(topic, qos=1 if scenario.key in ACKNOWLEDGED else 0)
    if not subscribed.wait(PATIENCE_S):
        raise TimeoutError("mosquitto did not answer")
    pipe.send(READY)
    tally.wait()
    pipe.send(tally)


def _start(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    client("paho.mqtt.client", "paho-mqtt")
    began = go(pipe)
    _client(where)
    leave(pipe, 1000 * (time.monotonic() - began))


def _nobody(pipe: Connection, _scenario: Scenario, _where: Where) -> None:
    pipe.send(READY)


def _peers(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    crowded(pipe, lambda: _client(where))


@contextmanager
def _opened(place: Path) -> Iterator[Opened]:
    paho = client("paho.mqtt", "paho-mqtt")
    server, port = program("mosquitto", "/usr/sbin"), free_port()
    config = place / "mosquitto.conf"
    config.write_text(CONFIG.format(port=port), encoding="utf-8")
    with running([server, "-c", str(config)], place, port) as pid:
        yield Opened({"mosquitto": _version(server), "paho-mqtt": paho.__version__}, port,
                     server_pid=pid)  # fmt: skip


def _version(server: str) -> str:
    told = subprocess.run([server, "-h"], capture_output=True, text=True, check=False)  # noqa: S603
    return told.stdout.splitlines()[0].removeprefix("mosquitto version ")


_ROLES: Roles = {
    STREAM.key: Pair(_publish, _subscribe),
    ACKED.key: Pair(_publish, _subscribe),
    KEYED.key: Pair(_publish, _subscribe),
    PUBLISH_8.key: Pair(_publish, _subscribe),
    PUBLISH_64.key: Pair(_publish, _subscribe),
    QUEUE.key: Pair(_publish, _subscribe),
    LARGE.key: Pair(_publish, _subscribe),
    BULK.key: Pair(_publish, _subscribe),
    START.key: Pair(_start, _nobody),
    MEMORY.key: Crowd(_peers),
}

MQTT = System(
    "MQTT",
    "paho with mosquitto, version 5; QoS 1 with 1,000 in flight where it says acked and for the "
    "work queue, a shared subscription; else QoS 0; topics are the keys; memory is the server's; "
    "it starts with a connection",
    _ROLES,
    _opened,
    left_out={
        CALL.key: "it has no calls",
        CALLS.key: "it has no calls",
        DURABLE.key: "mosquitto does not sync",
    },
    preload=("paho.mqtt.client",),
)
