"""The yardstick: blocking pyzmq, DEALER to ROUTER, one message per part."""

import time
from multiprocessing.connection import Connection

import zmq

from benchmarks.processes import expect, role

HWM = 100_000
ACK_WINDOW = 1_000


def stream(count: int, body: bytes) -> float:
    """Return messages per second, unacknowledged: from the first to the last received."""
    with role(_receive, count) as (pipe, _):
        port = expect(pipe)
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.set_hwm(HWM)
            dealer.connect(f"tcp://127.0.0.1:{port}")
            for _ in range(count):
                dealer.send(body)
            return count / float(expect(pipe))


def stream_acked(count: int, body: bytes) -> float:
    """Return messages per second with one ack per message, a thousand under way."""
    with role(_acknowledge, count) as (pipe, _):
        port = expect(pipe)
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.set_hwm(HWM)
            dealer.connect(f"tcp://127.0.0.1:{port}")
            began = time.perf_counter()
            for _ in range(ACK_WINDOW):
                dealer.send(body)
            for _ in range(count - ACK_WINDOW):
                dealer.recv()
                dealer.send(body)
            for _ in range(ACK_WINDOW):
                dealer.recv()
            return count / (time.perf_counter() - began)


def request_reply(count: int, body: bytes) -> list[float]:
    """Return the sorted times of requests one at a time, in seconds."""
    with role(_echo, count) as (pipe, _):
        port = expect(pipe)
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.connect(f"tcp://127.0.0.1:{port}")
            times = []
            for _ in range(count):
                began = time.perf_counter()
                dealer.send(body)
                dealer.recv()
                times.append(time.perf_counter() - began)
            return sorted(times)


def request_reply_concurrent(count: int, body: bytes, concurrency: int) -> float:
    """Return requests per second with so many under way."""
    with role(_echo, count) as (pipe, _):
        port = expect(pipe)
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.connect(f"tcp://127.0.0.1:{port}")
            began = time.perf_counter()
            for _ in range(concurrency):
                dealer.send(body)
            for _ in range(count - concurrency):
                dealer.recv()
                dealer.send(body)
            for _ in range(concurrency):
                dealer.recv()
            return count / (time.perf_counter() - began)


def _bind(pipe: Connection, context: "zmq.Context[zmq.Socket[bytes]]") -> "zmq.Socket[bytes]":
    router = context.socket(zmq.ROUTER)
    router.set_hwm(HWM)
    pipe.send(router.bind_to_random_port("tcp://127.0.0.1"))
    return router


def _receive(pipe: Connection, count: int) -> None:
    with zmq.Context() as context, _bind(pipe, context) as router:
        router.recv_multipart()
        began = time.perf_counter()
        for _ in range(count - 1):
            router.recv_multipart()
        pipe.send(time.perf_counter() - began)


def _acknowledge(pipe: Connection, count: int) -> None:
    with zmq.Context() as context, _bind(pipe, context) as router:
        for _ in range(count):
            identity, _body = router.recv_multipart()
            router.send_multipart([identity, b""])


def _echo(pipe: Connection, count: int) -> None:
    with zmq.Context() as context, _bind(pipe, context) as router:
        for _ in range(count):
            router.send_multipart(router.recv_multipart())
