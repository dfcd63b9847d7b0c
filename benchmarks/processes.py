"""Roles as separate processes: a function, its arguments, and a pipe to the one who measures."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

SPAWN = multiprocessing.get_context("spawn")
FORKSERVER = multiprocessing.get_context("forkserver")
"""As separate as the others, from a process that has done the imports: begins in milliseconds."""

PATIENCE_S = 120.0


def preload(modules: Sequence[str]) -> None:
    """Have these imported once for all roles of the fork server that follow."""
    FORKSERVER.set_forkserver_preload(list(modules))


def expect(pipe: Connection, patience_s: float = PATIENCE_S) -> Any:
    """Return what the other side sends next; fail rather than wait for ever.

    Raises:
        TimeoutError: it said nothing.
        EOFError: it ended.
    """
    if not pipe.poll(patience_s):
        raise TimeoutError(f"a benchmark process said nothing for {patience_s:.0f} s")
    return pipe.recv()


@contextmanager
def role(
    function: Callable[..., None],
    *arguments: object,
    context: SpawnContext | ForkServerContext = SPAWN,
) -> Iterator[tuple[Any, Any]]:
    """Run `function(pipe, *arguments)` in a process of its own; kill it if it does not end."""
    ours, theirs = context.Pipe()  # Connections here, though Windows calls them PipeConnections
    process = context.Process(target=function, args=(theirs, *arguments), daemon=True)
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
