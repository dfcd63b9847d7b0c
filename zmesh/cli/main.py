"""`zmesh`: on a terminal what the API does in code."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import zmesh
from zmesh.cli.bench.command import add_bench
from zmesh.cli.dead_letters import add_dead_letters
from zmesh.cli.doctor import add_doctor
from zmesh.cli.joining import add_invite, add_join
from zmesh.cli.journal import add_journal
from zmesh.cli.keys import add_keys
from zmesh.cli.trust import add_rules, add_trust
from zmesh.errors import UsageError, ZmeshError

PIPE_CLOSED: Final = 141
"""The exit code where nobody reads the output any more: 128 and SIGPIPE, as other tools end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0 well, 1 not well, 2 for wrong usage."""
    try:
        try:
            return _run(arguments)
        finally:
            print(end="", flush=True)  # or else it fails when Python ends
    except BrokenPipeError:
        # What is left in the buffer must go somewhere when Python ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return PIPE_CLOSED


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except UsageError as error:
        print(f"zmesh: {error}", file=sys.stderr)
        return 2
    except ZmeshError as error:
        print(f"zmesh: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zmesh", description="Brokerless, reliable messaging for services on a LAN."
    )
    parser.add_argument("--version", action="version", version=f"zmesh {zmesh.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="watch processes find each other, work, lose one, and lose nothing",
        description="Start a coordinator and three workers as separate processes on loopback, "
        "which find each other by mDNS; have them analyse every file of a directory, kill one "
        "with SIGKILL half-way, start another, and compare every result with one computed "
        "serially.",
    )
    demo.add_argument(
        "--tree", type=Path, help="the directory (default: Python's standard library)"
    )
    demo.add_argument("--json", action="store_true", help="print one line of JSON and no more")
    demo.set_defaults(run=_demo)
    add_bench(commands)
    add_invite(commands)
    add_join(commands)
    add_journal(commands)
    add_dead_letters(commands)
    add_keys(commands)
    add_doctor(commands)
    add_trust(commands)
    add_rules(commands)
    return parser


def _demo(options: argparse.Namespace) -> int:
    try:
        from zmesh.cli.demo.coordinator import run  # noqa: PLC0415  # rich is an extra
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the demo needs {error.name}: install it with pip install 'zmesh[cli]'"
        ) from error
    return run(options.tree, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
