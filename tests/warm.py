"""Runs Python programs, each in a process of its own that need not import zmesh.

`python -W error tests/warm.py FD` reads orders from a Unix socket and forks itself for each: it
has imported zmesh and done nothing else, and that is most of what a short program does. In the
fork there is no thread, no loop and no ZeroMQ context, and the frames below the program do not
catch what it raises, so it ends as it would by itself. `tests.processes.run` gives the orders.
"""

import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Order:
    """A program to run."""

    arguments: list[str]  # as for `python`: a script, `-m` and a module, or `-c` and a text
    place: str
    environment: dict[str, str]
    namespace: str | None  # of the network, by its name for `ip netns`


def send(control: socket.socket, order: dict[str, object], files: list[int]) -> None:
    """Order a program that gets these as standard input, output and error, and tells the fourth.

    What it tells is a line with its id, and once it has ended another with its exit status.
    """
    text = json.dumps(order).encode()
    socket.send_fds(control, [len(text).to_bytes(LENGTH_BYTES, "big")], files)
    control.sendall(text)


class Server:
    """The process that forks."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._reports: dict[int, int] = {}  # files, by the ids of those who run
        self._woken, self._wakes = socket.socketpair()
        for end in (self._woken, self._wakes):
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()
        for readable in (control, self._woken):
            self._selector.register(readable, selectors.EVENT_READ)

    def serve(self) -> Order | None:
        """Return an order in the process that is to run it; at last None in this one."""
        signal.set_wakeup_fd(self._wakes.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # who orders ends us
        while True:
            ready = {key.fileobj for key, _ in self._selector.select()}
            if self._woken in ready:
                self._bury()
            if self._control in ready:
                length, files, _, _ = socket.recv_fds(self._control, LENGTH_BYTES, 4)
                if not length:
                    self._end()
                    return None
                order = self._fork(self._read(int.from_bytes(length, "big")), files)
                if order is not None:
                    return order

    def _read(self, length: int) -> Order:
        text = b""
        while len(text) < length:
            text += self._control.recv(length - len(text))
        return Order(**json.loads(text))

    def _fork(self, order: Order, files: list[int]) -> Order | None:
        *standard, report = files
        if not (child := os.fork()):
            self._forget()
            os.close(report)
            for number, file in enumerate(standard):
                os.dup2(file, number)
                os.close(file)
            return order
        for file in standard:
            os.close(file)
        self._reports[child] = report
        self._tell(child, child)
        return None

    def _forget(self) -> None:
        """Leave to a fork nothing that is ours."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._selector.close()
        for ours in (self._control, self._woken, self._wakes):
            ours.close()
        for report in self._reports.values():
            os.close(report)

    def _bury(self) -> None:
        self._woken.recv(4096)
        for child in list(self._reports):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                self._tell(child, os.waitstatus_to_exitcode(status))
                os.close(self._reports.pop(child))

    def _tell(self, child: int, number: int) -> None:
        with suppress(BrokenPipeError):  # who ordered it waits no more
            os.write(self._reports[child], f"{number}\n".encode())

    def _end(self) -> None:
        for child in self._reports:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self._forget()


def become(order: Order) -> None:
    """Run a program in this process."""
    os.chdir(order.place)
    os.environ.clear()
    os.environ.update(order.environment)
    if order.namespace is not None:
        _enter(order.namespace)
    what, *arguments = order.arguments
    if what == "-m":
        sys.argv = arguments
        sys.path[0] = order.place
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        return
    module = sys.modules["__main__"] = ModuleType("__main__")
    if what == "-c":
        text, *arguments = arguments
        name = "<string>"
        sys.path[0] = ""
    else:
        path = Path(what).resolve()
        text, name = path.read_text(encoding="utf-8"), str(path)
        module.__file__ = name
        sys.path[0] = str(path.parent)
    sys.argv = [what, *arguments]
    exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  a test's own program


def _enter(namespace: str) -> None:
    import ctypes  # noqa: PLC0415  where network namespaces are

    with (Path("/run/netns") / namespace).open("rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x4000_0000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns", namespace)


def main() -> None:
    """Run what is ordered until who orders is gone."""
    import_module("zmesh")
    assert threading.active_count() == 1, "who imports zmesh gets a thread, and none may be forked"
    gc.collect()
    gc.freeze()
    order = Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    if order is not None:
        become(order)  # and the interpreter ends as after any program


if __name__ == "__main__":
    main()
