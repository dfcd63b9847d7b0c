"""DDS: Cyclone DDS, reliable, over loopback without multicast.

Its sockets listen on all addresses, whatever interface it is given, so its processes are in a
network namespace that has loopback alone.
"""

import ctypes
import os
import subprocess
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
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
    LARGE,
    MEMORY,
    PUBLISH_8,
    PUBLISH_64,
    QUEUE,
    START,
    STREAM,
    Scenario,
)
from benchmarks.servers import Absent, client, program
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
)

DOMAINS = 100
PATIENCE_S = 30.0
CONFIG = """
<CycloneDDS><Domain id="any">
<General><Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex>
<MaxAutoParticipantIndex>{participants}</MaxAutoParticipantIndex>
<Peers><Peer address="127.0.0.1"/></Peers></Discovery>
</Domain></CycloneDDS>
"""


CLONE_NEWNET = 0x40000000


@contextmanager
def _namespace() -> Iterator[int]:
    """Yield a process in a network namespace of its own, until the end of the block."""
    unshare, ip = program("unshare"), program("ip", "/usr/sbin", "/sbin")
    command = [unshare, "--net", "sh", "-c", f"{ip} link set lo up && echo up && exec cat"]
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as holder:  # ends with its standard input
        assert holder.stdin is not None
        assert holder.stdout is not None
        if holder.stdout.readline() != b"up\n":
            raise Absent("it listens on all addresses, and only root can keep it on loopback")
        try:
            yield holder.pid
        finally:
            holder.stdin.close()


def _enter(pid: int) -> None:
    """Go to the network namespace of a process, with all threads that are started from here."""
    library = ctypes.CDLL(None, use_errno=True)
    where = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if library.setns(where, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot enter the network namespace")
    finally:
        os.close(where)


class _Bus:
    """A participant, the topic of this measurement, and how both are set."""

    def __init__(self, scenario: Scenario, where: Where) -> None:
        _enter(where.server_pid)
        os.environ["CYCLONEDDS_URI"] = CONFIG.format(participants=scenario.receivers + 8)
        core = client("cyclonedds.core", "cyclonedds")
        util = client("cyclonedds.util", "cyclonedds")
        domain = client("cyclonedds.domain", "cyclonedds")
        topic = client("cyclonedds.topic", "cyclonedds")
        policy = core.Policy
        self.qos = core.Qos(
            policy.Reliability.Reliable(util.duration(seconds=30)), policy.History.KeepAll
        )
        self.participant = domain.DomainParticipant(where.port % DOMAINS)
        name = where.name.replace("-", "_")
        self.body_type = _body_type()
        self.topic = topic.Topic(self.participant, name, self.body_type, qos=self.qos)

    def writer(self) -> Any:
        return client("cyclonedds.pub", "cyclonedds").DataWriter(
            self.participant, self.topic, qos=self.qos
        )

    def reader(self) -> Any:
        return client("cyclonedds.sub", "cyclonedds").DataReader(
            self.participant, self.topic, qos=self.qos
        )


def _body_type() -> Any:
    """Return a type with a sequence of octets; it cannot be written down without the package."""
    octets = client("cyclonedds.idl.types", "cyclonedds")
    fields = {"__annotations__": {"data": octets.sequence[octets.uint8]}, "__module__": __name__}
    bases = (client("cyclonedds.idl", "cyclonedds").IdlStruct,)
    return dataclass(types.new_class("Body", bases, exec_body=lambda space: space.update(fields)))


def _wait_for(writer: Any, receivers: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while len(writer.get_matched_subscriptions()) < receivers:
        if time.monotonic() > until:
            raise TimeoutError("not all readers are there")
        time.sleep(0.01)


def _publish(pipe: Connection, scenario: Scenario, where: Where) -> None:
    bus = _Bus(scenario, where)
    writer = bus.writer()
    _wait_for(writer, scenario.receivers)
    began, count = go(pipe), 0
    for body in scenario.load():
        writer.write(bus.body_type(body))
        count += 1
    writer.write(bus.body_type(END))
    leave(pipe, Sent(count, began))


def _subscribe(pipe: Connection, scenario: Scenario, where: Where) -> None:
    bus, tally = _Bus(scenario, where), Tally()
    core = client("cyclonedds.core", "cyclonedds")
    util = client("cyclonedds.util", "cyclonedds")
    reader = bus.reader()
    waiting = core.WaitSet(bus.participant)
    waiting.attach(core.ReadCondition(reader, core.SampleState.Any | core.ViewState.Any
                                      | core.InstanceState.Any))  # fmt: skip
    pipe.send(READY)
    while not (tally.is_over or tally.is_idle()):
        waiting.wait(util.duration(milliseconds=200))
        for sample in reader.take(N=256):
            tally.take(bytes(sample.data))
    pipe.send(tally)


@contextmanager
def _opened(_place: Path) -> Iterator[Opened]:
    client("cyclonedds", "cyclonedds")
    with _namespace() as pid:
        yield Opened({"cyclonedds": version("cyclonedds")}, server_pid=pid)


_ROLES: Roles = {each.key: Pair(_publish, _subscribe) for each in (STREAM, PUBLISH_8, LARGE, BULK)}

DDS = System(
    "Cyclone DDS",
    "reliable, keeps all, over loopback without multicast, in a network namespace that has no "
    "other interface; bodies are sequences of octets",
    _ROLES,
    _opened,
    left_out={
        **{each.key: "its writers are not told of each" for each in (ACKED, KEYED)},
        **{each.key: "it has no calls" for each in (CALL, CALLS, START)},
        PUBLISH_64.key: "65 participants on one machine end in errors of its binding",
        QUEUE.key: "it has none",
        DURABLE.key: "it keeps nothing on disk",
        MEMORY.key: "peers are participants of one domain, not of a hub",
    },
)
