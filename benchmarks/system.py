"""What a system is to the harness, and how two or more of its processes make one figure."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.processes import FORKSERVER, expect, role
from benchmarks.scenario import END, FEW_PEERS, MORE_PEERS, Better, Scenario
from benchmarks.servers import free_port
from benchmarks.turns import fresh_name

PATIENCE_S = 60.0
IDLE_S = 5.0
"""After so long without a message a receiver takes it that no more come."""

IDLE_SHARED_S = 1.0
"""The same where several share what comes, so that nobody is told which is the last."""

FIRST_WITHIN_S = 20.0
"""The same for the first message: what is measured begins meanwhile."""

SETTLED_S = 0.5
"""Before memory is looked at."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where the processes of one measurement meet.

    Attributes:
        name: new with each measurement: of a mesh, a topic, a queue.
        port: a free one of loopback, or that of the system's server.
        place: a directory of this measurement alone.
        server_pid: the process that serves all peers, where there is a server.
        secret: what the system encrypts with, if it does.
    """

    name: str
    port: int
    place: Path
    server_pid: int = 0
    secret: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """What a sender did: bodies, from when (by the monotonic clock of this machine).

    `ended_s` is when all were acknowledged; None where it does not learn that.
    """

    count: int
    began_s: float
    ended_s: float | None = None


class Tally:
    """What a receiver got."""

    def __init__(self, *, shared: bool = False) -> None:
        self._idle_s = IDLE_SHARED_S if shared else IDLE_S
        self.count = 0
        self.last_s = 0.0
        self.is_over = False
        self._since_s = time.monotonic()

    def take(self, body: bytes) -> None:
        """Count a message, or see that it was the last."""
        if len(body) == len(END) and body == END:
            self.is_over = True
        else:
            self.count += 1
            self.last_s = time.monotonic()

    def is_idle(self) -> bool:
        """Tell whether nothing came for long, so that nothing more is waited for."""
        silent_since_s = (
            self.last_s + self._idle_s if self.count else self._since_s + FIRST_WITHIN_S
        )
        return time.monotonic() > silent_since_s

    def wait(self) -> None:
        """Wait until the last message, or none for long, while others take them."""
        while not (self.is_over or self.is_idle()):
            time.sleep(0.01)


Role = Callable[[Connection, Scenario, Where], None]
"""Runs in a process of its own.

A receiver (or server) sends READY, then its `Tally` when all came, if its sender does not learn
that; its process ends when the measurement does. A sender sends READY when all receivers can be
reached, waits for GO (`go`), and leaves (`leave`) with a `Sent`, or the figure itself.
"""


class RoleFailed(Exception):
    """What a role raised, as text."""


READY = "ready"
GO = "go"


@dataclass(frozen=True, slots=True)
class Pair:
    """A sender and its receivers."""

    send: Role
    receive: Role
    sender_first: bool = (
        False  # it listens: then it sends READY twice, the first time when it does
    )


@dataclass(frozen=True, slots=True)
class Crowd:
    """Peers that are idle, in one process, and the one whose memory they take.

    `peers` sends READY for `FEW_PEERS`, waits for GO, and sends READY for `MORE_PEERS` more
    (`crowded`). `hub` says which process it is (`be_hub`); None where it is the server.
    """

    peers: Role
    hub: Role | None = None


Roles = Mapping[str, Pair | Crowd]
"""What a system does in which scenario, by the scenario's key."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A system that is ready to be measured."""

    versions: Mapping[str, str]
    port: int = 0
    ports: Mapping[str, int] = field(default_factory=dict)  # by scenario, where it is another
    server_pid: int = 0
    secret: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class System:
    """One of those that are compared: each file of `benchmarks.systems` has one or two.

    Attributes:
        name: what it is called.
        about: how it is set, for the table's notes.
        roles: what it does.
        opened: starts what it needs, in a directory that exists; raises `Absent`.
        left_out: scenarios it is not asked for, and a word why.
        yardstick: the system that its figures are ratios to.
        preload: modules that its processes import, and may be imported before a fork.
    """

    name: str
    about: str
    roles: Roles
    opened: Callable[[Path], AbstractContextManager[Opened]]
    left_out: Mapping[str, str] = field(default_factory=dict)
    yardstick: str = "bare pyzmq"
    preload: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure in the scenario's unit, and which part of what was sent did not arrive."""

    value: float
    lost: float = 0.0


def measure(system: System, opened: Opened, scenario: Scenario, place: Path) -> Measured:
    """Do a scenario once, in new processes.

    Raises:
        RoleFailed: one of them raised an exception.
        TimeoutError: one of them said nothing for a minute.
        EOFError: one of them ended.
    """
    place.mkdir(parents=True)
    port = opened.ports.get(scenario.key) or opened.port or free_port()
    where = Where(fresh_name(), port, place, opened.server_pid, opened.secret)
    doing = system.roles[scenario.key]
    if isinstance(doing, Crowd):
        return _crowd(doing, scenario, where)
    return _pair(doing, scenario, where)


def _pair(pair: Pair, scenario: Scenario, where: Where) -> Measured:
    with ExitStack() as stack:
        sender: Connection | None = None
        if pair.sender_first:
            sender = _begun(stack, pair.send, scenario, where)
            _expect(sender)
        receivers = []
        for number in range(scenario.receivers):
            own = replace(where, place=where.place / f"receiver-{number}")
            receivers.append(_begun(stack, _Received(pair.receive), scenario, own))
        for receiver in receivers:
            _expect(receiver)
        if sender is None:
            sender = _begun(stack, pair.send, scenario, where)
        _expect(sender)
        sender.send(GO)
        answer = _expect(sender)
        if not isinstance(answer, Sent):
            return Measured(float(answer))
        if answer.ended_s is not None:
            took_s = answer.ended_s - answer.began_s
            return Measured(scenario.value(answer.count * scenario.copies, took_s))
        return received(scenario, answer, [_expect(each) for each in receivers])


def received(scenario: Scenario, sent: Sent, tallies: Sequence[Tally]) -> Measured:
    """Return what receivers make of what was sent."""
    count = sum(tally.count for tally in tallies)
    if not count:
        return Measured(0.0, 1.0)
    took_s = max(tally.last_s for tally in tallies) - sent.began_s
    lost = 1 - count / (sent.count * scenario.copies)
    return Measured(scenario.value(count, took_s), max(lost, 0.0))


def _crowd(crowd: Crowd, scenario: Scenario, where: Where) -> Measured:
    with ExitStack() as stack:
        pid = where.server_pid
        if crowd.hub is not None:
            pid = _expect(_begun(stack, _Received(crowd.hub), scenario, where))
        peers = _begun(stack, crowd.peers, scenario, where)
        _expect(peers)
        time.sleep(SETTLED_S)
        before = resident_kib(pid)
        peers.send(GO)
        _expect(peers)
        time.sleep(SETTLED_S)
        return Measured((resident_kib(pid) - before) / MORE_PEERS)


def _begun(stack: ExitStack, function: Role, scenario: Scenario, where: Where) -> Connection:
    where.place.mkdir(parents=True, exist_ok=True)
    pipe: Connection
    pipe, _ = stack.enter_context(role(_run, function, scenario, where, context=FORKSERVER))
    return pipe


def _expect(pipe: Connection) -> Any:
    said = expect(pipe, PATIENCE_S)
    if isinstance(said, RoleFailed):
        raise said
    return said


def _run(pipe: Connection, function: Role, scenario: Scenario, where: Where) -> None:
    logging.disable(logging.CRITICAL)
    try:
        function(pipe, scenario, where)
    except BaseException as error:  # noqa: BLE001  # the one who measures is told
        text = " ".join(str(error).split())[:200]
        pipe.send(RoleFailed(f"{type(error).__name__}: {text}"))
    os._exit(0)  # nothing is waited for, whatever threads and sockets a client library has


@dataclass(frozen=True, slots=True)
class _Received:
    """The role of a receiver, whose process ends with its pipe whatever it does just then."""

    role: Role

    def __call__(self, pipe: Connection, scenario: Scenario, where: Where) -> None:
        threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
        self.role(pipe, scenario, where)
        threading.Event().wait()


def _end_with(pipe: Connection) -> None:
    wait_for_end(pipe)
    os._exit(0)


def resident_kib(pid: int) -> int:
    """Return the memory a process has resident now."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


# What roles are made of


def go(pipe: Connection) -> float:
    """Say that all is ready, wait for the word to begin, and return the time."""
    pipe.send(READY)
    expect(pipe, PATIENCE_S)
    return time.monotonic()


def wait_for_end(pipe: Connection) -> None:
    """Wait until the one who measures has closed the pipe."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        return


def leave(pipe: Connection, answer: Sent | float) -> None:
    """End the role of a sender with what it did; its connections stay until all are done."""
    pipe.send(answer)
    wait_for_end(pipe)
    os._exit(0)


def median_us(times: Sequence[float]) -> float:
    """Return the median of times in seconds, in microseconds."""
    return 1e6 * sorted(times)[len(times) // 2]


def timed_calls(scenario: Scenario, call: Callable[[bytes], object]) -> float:
    """Return the median time of blocking calls, in microseconds."""
    times = []
    for body in scenario.load():
        began = time.perf_counter()
        call(body)
        times.append(time.perf_counter() - began)
    return median_us(times)


def crowded(pipe: Connection, open_one: Callable[[], object]) -> None:
    """Be the peers of a `Crowd`: open some, and more on the word; keep them until the end."""
    peers = [open_one() for _ in range(FEW_PEERS)]
    go(pipe)
    peers += [open_one() for _ in range(MORE_PEERS)]
    pipe.send(READY)
    wait_for_end(pipe)
    del peers


def be_hub(pipe: Connection) -> None:
    """Say that this is the process whose memory peers take."""
    pipe.send(os.getpid())


@contextmanager
def nothing(_place: Path) -> Iterator[Opened]:
    """Open a system that needs no server and has no version."""
    yield Opened({})


def is_better(scenario: Scenario, ratio: float, than: float) -> bool:
    """Tell whether a ratio is better than another."""
    return ratio > than if scenario.better is Better.HIGHER else ratio < than
