"""Runs programs one after the other, each in a process of its own that need not import zmesh.

`python -W error -m tests.warm` reads lines of JSON (script, place, environment, output), answers
each with the id of the process and then with its exit status. A process is forked from this one,
which has imported zmesh and done nothing else: that is most of what a short program does.
"""

import json
import os
import runpy
import sys
import threading
from importlib import import_module
from typing import Any


def main() -> None:
    """Run what is asked for until there is no more."""
    import_module("zmesh")
    assert threading.active_count() == 1, "who imports zmesh gets a thread, and none may be forked"
    while line := sys.stdin.readline():
        order = json.loads(line)
        child = os.fork()
        if not child:
            become(**order)
            return  # and the interpreter ends as after any program
        say(child)
        _, status = os.waitpid(child, 0)
        say(os.waitstatus_to_exitcode(status))


def become(script: str, place: str, environment: dict[str, str], output: str) -> Any:
    """Run a program in this process."""
    os.chdir(place)
    os.environ.update(environment)
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (written, 1), (written, 2)):
        os.dup2(source, target)
    sys.argv = [script]
    sys.path[0] = os.path.dirname(script)  # noqa: PTH120  as the interpreter does
    runpy.run_path(script, run_name="__main__")


def say(number: int) -> None:
    """Tell who asked."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
