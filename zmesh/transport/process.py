"""Which process this is, known without a system call: it is asked with every packet."""

import os


class ThisProcess:
    """The process this code runs in."""

    pid = os.getpid()


def _on_fork() -> None:
    ThisProcess.pid = os.getpid()


if hasattr(os, "register_at_fork"):  # everywhere but on Windows, which cannot fork
    os.register_at_fork(after_in_child=_on_fork)
