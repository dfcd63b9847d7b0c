"""RabbitMQ: a durable queue, persistent messages, publisher confirms, acknowledged by hand."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.processes import expect, role
from benchmarks.servers import client, free_port, program, running
from benchmarks.turns import END, Measure, Rates, for_seconds, fresh_name

CONFIRMED = "RabbitMQ: pika, a confirm each"
END_TO_END = "RabbitMQ: pika, a confirm each, consumed"

PREFETCH = 256
PERSISTENT = 2


@contextmanager
def measures(place: Path, notes: list[str]) -> Iterator[list[Measure]]:
    """Run a server and the name service it needs, and give what is measured on it."""
    client("pika", "pika")
    with serving(place) as (port, _):
        queues = _Queues(port)
        notes.append(f"rabbitmq-server {queues.version()}, pika {version('pika')}")
        yield [queues.confirmed, queues.end_to_end]


@contextmanager
def serving(place: Path) -> Iterator[tuple[int, int]]:
    """Run a server and the name service it needs; yield port and pid."""
    # Where Debian has the program itself; the one on its PATH changes to a user of its own.
    server = program("rabbitmq-server", "/usr/lib/rabbitmq/bin")
    names, port = free_port(), free_port()
    epmd = [program("epmd"), "-port", str(names), "-address", "127.0.0.1"]
    place.mkdir(parents=True, exist_ok=True)
    config = place / "rabbitmq.conf"
    config.write_text(f"listeners.tcp.default = 127.0.0.1:{port}\nlog.console = true\n")
    (place / "plugins").write_text("[].\n")
    # It opens a socket for syslog, used or not; by default on all addresses.
    advanced = place / "advanced.config"
    advanced.write_text("[{syslog, [{protocol, {rfc5424, udp, [{ip, {127,0,0,1}}]}}]}].\n")
    environment = {
        "HOME": str(place),  # of its cookie
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"{fresh_name()}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(advanced),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(place / "data"),
        "RABBITMQ_LOG_BASE": str(place / "logs"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(place / "pid"),
        "RABBITMQ_ALLOW_INPUT": "yes",  # the script becomes the server, which ends with its pid
        "RABBITMQ_SERVER_START_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
    }
    with (
        running(epmd, place / "epmd", names),
        running([server], place, port, environment) as pid,
    ):
        yield port, pid


class _Queues:
    def __init__(self, port: int) -> None:
        self._port = port

    def version(self) -> str:
        with _connected(self._port) as connection:
            properties = connection._impl.server_properties  # noqa: SLF001  # has no other name
            return str(properties["version"])

    def confirmed(self, body: bytes, seconds: float) -> Rates:
        with _connected(self._port) as connection, _queue(connection, fresh_name()) as channel:
            began = time.perf_counter()
            count = channel.publish_for(body, seconds)
            return {CONFIRMED: count / (time.perf_counter() - began)}

    def end_to_end(self, body: bytes, seconds: float) -> Rates:
        name = fresh_name()
        with (
            _connected(self._port) as connection,
            _queue(connection, name) as channel,
            role(_consume, self._port, name) as (pipe, _),
        ):
            expect(pipe)
            began = time.perf_counter()
            count = channel.publish_for(body, seconds)
            channel.publish(END)
            expect(pipe)
            return {END_TO_END: count / (time.perf_counter() - began)}


class _Channel:
    """A channel that publishes to one queue, and waits for the confirm of each."""

    def __init__(self, channel: Any, name: str) -> None:
        pika = client("pika", "pika")
        self._channel = channel
        self._name = name
        self._properties = pika.BasicProperties(delivery_mode=PERSISTENT)
        channel.confirm_delivery()
        channel.queue_declare(name, durable=True)

    def publish(self, body: bytes) -> None:
        self._channel.basic_publish("", self._name, body, self._properties, mandatory=True)

    def publish_for(self, body: bytes, seconds: float) -> int:
        count = 0
        for _ in for_seconds(seconds):
            self.publish(body)
            count += 1
        return count


def _connected(port: int) -> Any:
    pika = client("pika", "pika")
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))


@contextmanager
def _queue(connection: Any, name: str) -> Iterator[_Channel]:
    channel = connection.channel()
    yield _Channel(channel, name)
    channel.queue_delete(name)


def _consume(pipe: Connection, port: int, name: str) -> None:
    with _connected(port) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=PREFETCH)
        pipe.send("ready")
        for method, _, body in channel.consume(name):
            channel.basic_ack(method.delivery_tag)
            if body == END:
                channel.close()  # answered once the acknowledgements before it were taken
                pipe.send("done")
                return
