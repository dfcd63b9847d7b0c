"""The yardstick: blocking pyzmq, one message per part, as one would write it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import zmq

from benchmarks.scenario import (
    ACKED,
    ACKED_1K,
    ACKED_ONE_WAY,
    BULK,
    CALL,
    CALLS,
    CALLS_AT_ONCE,
    DURABLE,
    ENCRYPTED,
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

HWM = 100_000
JOBS_EACH = 100
"""Jobs that a worker of the queue has at once."""

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]


def _socket(context: Context, kind: int, where: Where, *, binds: bool) -> Socket:
    socket = context.socket(kind)
    socket.set_hwm(HWM)
    socket.linger = 0
    if where.secret:
        public, secret = where.secret
        if binds:
            socket.curve_server = True
            socket.curve_secretkey = secret
        else:
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.curve_serverkey = public
    if kind == zmq.SUB:
        socket.subscribe(b"")
    if kind == zmq.XPUB:
        socket.setsockopt(zmq.XPUB_NODROP, 1)
        socket.setsockopt(zmq.XPUB_VERBOSER, 1)
    if binds:
        socket.bind(f"tcp://127.0.0.1:{where.port}")
    else:
        socket.connect(f"tcp://127.0.0.1:{where.port}")
    return socket


def _dealer(where: Where) -> Socket:
    """Return a connected DEALER: a first message was answered."""
    dealer = _socket(zmq.Context(), zmq.DEALER, where, binds=False)
    dealer.send(b"hello")
    dealer.recv()
    return dealer


def _router(pipe: Connection, where: Where) -> Socket:
    """Return a ROUTER that has answered a first message."""
    router = _socket(zmq.Context(), zmq.ROUTER, where, binds=True)
    pipe.send(READY)
    router.send_multipart(router.recv_multipart())
    return router


# Streams


def _send(pipe: Connection, scenario: Scenario, where: Where) -> None:
    dealer = _dealer(where)
    began, count = go(pipe), 0
    for body in scenario.load():
        dealer.send(body)
        count += 1
    dealer.send(END)
    leave(pipe, Sent(count, began))


def _receive(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    router, tally = _router(pipe, where), Tally()
    while not tally.is_over:
        _, body = router.recv_multipart()
        tally.take(body)
    pipe.send(tally)


def _send_acked(pipe: Connection, scenario: Scenario, where: Where) -> None:
    dealer = _dealer(where)
    _with_acks(pipe, scenario, dealer, dealer.send)


def _send_keyed(pipe: Connection, scenario: Scenario, where: Where) -> None:
    dealer = _dealer(where)
    keys = [key.encode() for key in KEYS]
    turn = 0

    def send(body: bytes) -> None:
        nonlocal turn
        turn += 1
        dealer.send_multipart([keys[turn % len(keys)], body])

    _with_acks(pipe, scenario, dealer, send)


def _with_acks(
    pipe: Connection, scenario: Scenario, dealer: Socket, send: Callable[[bytes], object]
) -> None:
    began, count = go(pipe), 0
    for body in scenario.load():
        if count >= WINDOW:
            dealer.recv()
        send(body)
        count += 1
    for _ in range(min(count, WINDOW)):
        dealer.recv()
    leave(pipe, Sent(count, began, time.monotonic()))


def _acknowledge(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    router = _router(pipe, where)
    while True:
        identity, _body = router.recv_multipart()
        router.send_multipart([identity, b""])


def _handle(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    router = _router(pipe, where)
    seen: dict[bytes, int] = {}
    while True:
        identity, key, _body = router.recv_multipart()
        seen[key] = seen.get(key, 0) + 1
        router.send_multipart([identity, b""])


# Calls


def _call(pipe: Connection, scenario: Scenario, where: Where) -> None:
    dealer = _dealer(where)

    def call(body: bytes) -> None:
        dealer.send(body)
        dealer.recv()

    go(pipe)
    leave(pipe, timed_calls(scenario, call))


def _call_at_once(pipe: Connection, scenario: Scenario, where: Where) -> None:
    dealer = _dealer(where)
    began, count = go(pipe), 0
    for body in scenario.load():
        if count >= CALLS_AT_ONCE:
            dealer.recv()
        dealer.send(body)
        count += 1
    for _ in range(min(count, CALLS_AT_ONCE)):
        dealer.recv()
    leave(pipe, Sent(count, began, time.monotonic()))


def _echo(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    router = _socket(zmq.Context(), zmq.ROUTER, where, binds=True)
    pipe.send(READY)
    while True:
        router.send_multipart(router.recv_multipart())


def _start(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    began = go(pipe)
    _dealer(where)
    leave(pipe, 1000 * (time.monotonic() - began))


# Publishing, and the work queue


def _publish(pipe: Connection, scenario: Scenario, where: Where) -> None:
    publisher = _socket(zmq.Context(), zmq.XPUB, where, binds=True)
    pipe.send(READY)
    for _ in range(scenario.receivers):
        publisher.recv()  # a subscription
    began, count = go(pipe), 0
    for body in scenario.load():
        publisher.send(body)
        count += 1
    publisher.send(END)
    leave(pipe, Sent(count, began))


def _subscribe(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    subscriber, tally = _socket(zmq.Context(), zmq.SUB, where, binds=False), Tally()
    pipe.send(READY)
    while not tally.is_over:
        tally.take(subscriber.recv())
    pipe.send(tally)


def _share_out(pipe: Connection, scenario: Scenario, where: Where) -> None:
    router = _socket(zmq.Context(), zmq.ROUTER, where, binds=True)
    pipe.send(READY)
    workers = [router.recv_multipart()[0] for _ in range(scenario.receivers)]
    idle = workers * JOBS_EACH
    began, count, answered = go(pipe), 0, 0
    for body in scenario.load():
        if idle:
            worker = idle.pop()
        else:
            worker = router.recv_multipart()[0]
            answered += 1
        router.send_multipart([worker, body])
        count += 1
    while answered < count:
        router.recv_multipart()
        answered += 1
    leave(pipe, Sent(count, began, time.monotonic()))


def _work(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    dealer = _socket(zmq.Context(), zmq.DEALER, where, binds=False)
    dealer.send(b"ready")
    pipe.send(READY)
    while True:
        dealer.recv()
        dealer.send(b"")


# Memory


def _hub(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    router = _socket(zmq.Context(), zmq.ROUTER, where, binds=True)
    be_hub(pipe)
    while True:
        router.send_multipart(router.recv_multipart())


def _peers(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    crowded(pipe, lambda: _dealer(where))


@contextmanager
def _opened(_place: Path) -> Iterator[Opened]:
    yield Opened({"pyzmq": zmq.__version__, "libzmq": zmq.zmq_version()})


@contextmanager
def _opened_curve(_place: Path) -> Iterator[Opened]:
    yield Opened(
        {"pyzmq": zmq.__version__, "libzmq": zmq.zmq_version()}, secret=zmq.curve_keypair()
    )


_ROLES: Roles = {
    STREAM.key: Pair(_send, _receive),
    ACKED.key: Pair(_send_acked, _acknowledge),
    ACKED_ONE_WAY.key: Pair(_send, _receive),
    ACKED_1K.key: Pair(_send, _receive),
    KEYED.key: Pair(_send_keyed, _handle),
    CALL.key: Pair(_call, _echo),
    CALLS.key: Pair(_call_at_once, _echo),
    PUBLISH_8.key: Pair(_publish, _subscribe, sender_first=True),
    PUBLISH_64.key: Pair(_publish, _subscribe, sender_first=True),
    QUEUE.key: Pair(_share_out, _work, sender_first=True),
    DURABLE.key: Pair(_send_acked, _acknowledge),
    LARGE.key: Pair(_send, _receive),
    BULK.key: Pair(_send, _receive),
    START.key: Pair(_start, _echo),
    MEMORY.key: Crowd(_peers, _hub),
}

BARE = System(
    "bare pyzmq",
    "blocking DEALER to ROUTER, XPUB to SUB (which waits for slow subscribers); a message a "
    "part, an empty part as the acknowledgement of each, 1,000 under way (100 a worker); what is "
    "durable elsewhere is in memory here",
    _ROLES,
    _opened,
    preload=("zmq",),
)

BARE_CURVE = System(
    "bare pyzmq, CURVE",
    "the same, encrypted",
    {scenario.key: _ROLES[scenario.key] for scenario in ENCRYPTED},
    _opened_curve,
    yardstick="bare pyzmq, CURVE",
)
