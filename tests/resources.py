"""What a process takes of its machine, and what may be taken from it; Linux only."""

import os
import socket
import stat
from pathlib import Path

STATUS = Path("/proc/self/status")


class Memory:
    """How far the resident memory of this process rises, from now on."""

    def __init__(self) -> None:
        self._before = _kilobytes("VmRSS")
        # The kernel counts the peak anew.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    @property
    def growth(self) -> int:
        """The highest rise until now, in bytes."""
        return (_kilobytes("VmHWM") - self._before) * 1024


def _kilobytes(name: str) -> int:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)


def cut_connections() -> int:
    """Cut every TCP connection of this process, below whoever uses it; return how many."""
    cut = 0
    for name in Path("/proc/self/fd").iterdir():
        try:
            descriptor = os.dup(int(name.name))
        except OSError:
            continue  # the one that lists them
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            continue
        with socket.socket(fileno=descriptor) as connection:
            if connection.family not in {socket.AF_INET, socket.AF_INET6}:
                continue
            try:
                connection.getpeername()
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it listens, or is no connection
            cut += connection.type == socket.SOCK_STREAM
    return cut
