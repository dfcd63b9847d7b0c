"""Roles as separate processes: a function, its arguments, and a pipe to the one who measures."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")
PATIENCE_S = 120.0


def expect(pipe: Connection) -> Any:
    """Return what the other side sends next; fail rather than wait for ever."""
    if not pipe.poll(PATIENCE_S):
        raise TimeoutError("a benchmark process said nothing for two minutes")
    return pipe.recv()


@contextmanager
def role(function: Callable[..., None], *arguments: object) -> Iterator[tuple[Any, Any]]:
    """Run `function(pipe, *arguments)` in a process of its own; kill it if it does not end."""
    ours, theirs = CONTEXT.Pipe()  # Connections here, though Windows calls them PipeConnections
    process = CONTEXT.Process(target=function, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours, process
    finally:
        ours.close()
        process.join(5.0)
        if process.is_alive():
            process.kill()
            process.join()
