"""A process ends when it should and with the code it should, whatever it forgot."""

import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.transport.child import Ended, running

PRELUDE = """
import asyncio, gc, multiprocessing, os, signal, sys, time
from zmesh.errors import ForkedProcess
from zmesh.events import PathUp
from zmesh.options import WireLimits
from zmesh.transport.zeromq import ZmqTransport

def new():
    loop = asyncio.get_running_loop()
    events = []
    transport = ZmqTransport(loop, WireLimits(), on_events=events.extend)
    return transport, events, transport.open()[0]

async def busy():
    "Two transports with a path between them, and megabytes on it that nobody reads."
    alice, events, _ = new()
    bob, _, endpoint = new()
    alice.dial(1, endpoint)
    while PathUp(1) not in events:
        await asyncio.sleep(0.001)
    alice.send(1, [[bytes(60_000)]] * 1000)
    alice.send(1, [[b"large", bytes(1_000_000)]] * 100)
    alice.dial(2, "tcp://127.0.0.1:1")
    alice.probe(endpoint, 5)
    print("ready", flush=True)
    return alice, bob
"""


SECONDS_MAX = 15.0
"""It takes half of one, most of it work: ten times that where sixteen others want two processors.

What hangs at its end does so for good.
"""


def run(script: str, *, interrupt: bool = False) -> Ended:
    """Run a script to its end; with `interrupt` it gets SIGINT once it is ready."""
    with running("-c", PRELUDE + script) as child:
        assert child.line() == "ready"
        if interrupt:
            child.signal(signal.SIGINT)
        ended = child.end()
        assert ended.seconds < SECONDS_MAX
        return ended


ENDINGS = {
    "closed": ("async def main():\n    for each in await busy(): each.close()", 0),
    "forgotten": ("async def main():\n    await busy()", 0),
    "forgotten while referenced": (
        "async def main():\n    global kept\n    kept = await busy()",
        0,
    ),
    "exit code": ("async def main():\n    kept = await busy()\n    sys.exit(3)", 3),
    "exception": ("async def main():\n    kept = await busy()\n    raise ValueError", 1),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_process_ends_with_its_own_code(ending: str) -> None:
    script, code = ENDINGS[ending]
    ended = run(script + "\nasyncio.run(main())")
    assert ended.code == code, ended.errors


def test_a_closed_transport_ends_without_a_word() -> None:
    ended = run(
        "import warnings; warnings.simplefilter('error')\n"
        + ENDINGS["closed"][0]
        + "\nasyncio.run(main())"
    )
    assert (ended.code, ended.output, ended.errors) == (0, "", "")


def test_collecting_what_was_forgotten_does_not_hang() -> None:
    ended = run("asyncio.run(busy())\ngc.collect()\nprint('collected')")
    assert (ended.code, ended.output) == (0, "collected\n"), ended.errors


@pytest.mark.parametrize("closes", [True, False])
def test_interrupt_ends_the_process(closes: bool) -> None:
    ended = run(
        f"""
async def main():
    kept = await busy()
    try:
        await asyncio.sleep(30)
    finally:
        if {closes}:
            for each in kept: each.close()
asyncio.run(main())
""",
        interrupt=True,
    )
    assert ended.code == -signal.SIGINT, ended.errors
    assert "KeyboardInterrupt" in ended.errors


def test_interrupt_without_asyncio_run_ends_the_process() -> None:
    ended = run(
        """
loop = asyncio.new_event_loop()
kept = loop.run_until_complete(busy())
async def work():
    while True:
        for each in kept: each.probe("tcp://127.0.0.1:1", 1)
        await asyncio.sleep(0)
loop.run_until_complete(work())
""",
        interrupt=True,
    )
    assert ended.code == -signal.SIGINT, ended.errors


LATE = """
import atexit

async def late():
    alice, events, _ = new()
    bob, _, endpoint = new()
    alice.dial(1, endpoint)
    while PathUp(1) not in events:
        await asyncio.sleep(0.001)
    alice.send(1, [[b"large", bytes(1_000_000)]])
    while not bob.statistics().packets_received:
        await asyncio.sleep(0.001)
    for each in (alice, bob): each.close()
    print("late", flush=True)

async def main():
    for each in await busy(): each.close()

atexit.register(lambda: asyncio.run(late()))  # pyzmq has ended by then
asyncio.run(main())
"""


def test_large_parts_can_be_sent_while_the_process_ends() -> None:
    ended = run(LATE)
    assert (ended.code, ended.output, ended.errors) == (0, "late\n", "")


FORK = """
async def main():
    alice, bob = await busy()
    spare = ZmqTransport(asyncio.get_running_loop(), WireLimits(), on_events=print)
    pid = os.fork()
    if pid == 0:
        calls = [
            lambda: alice.send(1, [[b"x"]]), lambda: alice.send(b"bob", [[b"x"]]),
            lambda: alice.dial(3, "tcp://127.0.0.1:1"), lambda: alice.hang_up(1),
            lambda: alice.probe("tcp://127.0.0.1:1", 1), spare.open,
        ]
        for call in calls:
            try:
                call()
                print("nothing raised", flush=True)
            except ForkedProcess as error:
                assert (error.owner_pid, error.pid) == (os.getppid(), os.getpid())
        CHILD
    _, status = os.waitpid(pid, 0)
    print("child", os.waitstatus_to_exitcode(status), flush=True)
    while bob.statistics().packets_received < 1000:  # the parent's are unharmed
        await asyncio.sleep(0.01)
    print("all received", flush=True)
    for each in (alice, bob): each.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("closes", [True, False])
def test_forked_child_is_told_and_harms_nobody(closes: bool) -> None:
    child = "alice.close(); bob.close(); gc.collect(); sys.exit(5)" if closes else "sys.exit(5)"
    ended = run(FORK.replace("CHILD", child))
    assert (ended.code, ended.output) == (0, "child 5\nall received\n"), ended.errors


CHILDREN = """
def serve(connection):
    async def main():
        alice, bob = await busy()
        while bob.statistics().packets_received < 1000:
            await asyncio.sleep(0.01)
        for each in (alice, bob): each.close()
    asyncio.run(main())
    connection.send("served")

async def main():
    kept = await busy()
    context = multiprocessing.get_context(METHOD)
    ours, theirs = context.Pipe()
    child = context.Process(target=serve, args=(theirs,))
    child.start()
    assert ours.poll(20)
    print(ours.recv(), flush=True)
    child.join(20)
    print(child.exitcode, flush=True)
    for each in kept: each.close()

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_child_process_has_transports_of_its_own(method: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"  # a file, as spawned children import it
    script.write_text(PRELUDE + CHILDREN.replace("METHOD", repr(method)), encoding="utf-8")
    with running(str(script)) as child:
        ended = child.end()
    assert ended.code == 0, ended.errors
    assert ended.output.split() == ["ready", "ready", "served", "0"]


EXHAUSTED = """
import resource, socket, threading, zmq
from zmesh.options import TransportOptions

async def main():
    traces = []
    options = TransportOptions(watchdog_interval=0.1, handshake_timeout=1.0)
    transport = ZmqTransport(asyncio.get_running_loop(), WireLimits(), options=options,
        on_events=lambda _: None, on_trace=lambda trace: traces.append(trace.name))
    endpoint = transport.open()[0]
    print("ready", flush=True)
    host, port = "127.0.0.1", int(endpoint.rpartition(":")[2])
    used = os.dup(0); os.close(used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, used + 40))
    hogged = []  # by the program itself: of strangers the transport lets in no more than fit
    try:
        while True: hogged.append(os.dup(0))
    except OSError: pass
    print(port, flush=True)
    async def until(name):
        while name not in traces: await asyncio.sleep(0.01)
    await asyncio.wait_for(until("listening_suspended"), 10)
    spent = time.process_time()
    await asyncio.sleep(0.3)
    print("busy" if time.process_time() - spent > 0.15 else "idle", flush=True)
    for each in hogged: os.close(each)
    await asyncio.wait_for(until("listening_resumed"), 10)
    print("resumed", flush=True)
    transport.close()
asyncio.run(main())
"""


def test_no_descriptors_left_costs_no_processor_and_is_over_once_there_are() -> None:
    with running("-c", PRELUDE + EXHAUSTED) as child, ExitStack() as connections:
        assert child.line() == "ready"
        port = int(child.line())
        for _ in range(60):  # they wait in the backlog
            connection = socket.create_connection(("127.0.0.1", port), timeout=5)
            connections.enter_context(connection)
        assert child.line() == "idle"
        connections.close()
        ended = child.end()
    assert (ended.code, ended.output) == (0, "resumed\n"), ended.errors
