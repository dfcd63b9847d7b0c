"""`zmesh journal`: what a node keeps on disk, looked at and looked after without the node."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from zmesh.journal import tools

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


def add_journal(commands: "Commands") -> None:
    """Add the command to a parser; its options have `run`."""
    journal = commands.add_parser(
        "journal",
        help="look at what a node keeps on disk, check it, copy it, make it smaller",
        description="Look at a journal, whether or not its node runs; only compacting needs it "
        "to be closed.",
    )
    verbs = journal.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, run, text in (
        ("status", _status, "tell what is in it"),
        ("verify", _verify, "look at every row; exit with 1 where something is damaged"),
        ("backup", _backup, "copy it to a new file, under another journal id"),
        ("compact", _compact, "give its free space back to the system"),
    ):
        verb = verbs.add_parser(name, help=text, description=text.capitalize() + ".")
        verb.add_argument("path", type=Path, metavar="PATH", help="the journal")
        if name == "backup":
            verb.add_argument("target", type=Path, metavar="TARGET", help="the new file")
        verb.add_argument("--json", action="store_true", help="print one line of JSON and no more")
        verb.set_defaults(run=run)


def _status(options: argparse.Namespace) -> int:
    found = asdict(tools.status(options.path))
    if options.json:
        print(json.dumps(found))
        return 0
    for name, value in found.items():
        told = value
        if isinstance(value, dict):
            told = ", ".join(f"{count:,} {kind}" for kind, count in value.items()) or "none"
        elif isinstance(value, list):
            told = ", ".join(value) or "none"
        elif isinstance(value, bool):
            told = "yes" if value else "no"
        elif isinstance(value, int):
            told = f"{value:,}"
        print(f"{name.replace('_', ' '):14} {'-' if told is None else told}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    problems = tools.verify(options.path)
    if options.json:
        print(json.dumps({"path": str(options.path), "sound": not problems, "problems": problems}))
    else:
        print("\n".join(problems) or f"{options.path} is sound")
    return 1 if problems else 0


def _backup(options: argparse.Namespace) -> int:
    size = tools.backup(options.path, options.target)
    if options.json:
        print(json.dumps({"path": str(options.path), "target": str(options.target), "size": size}))
    else:
        print(f"{options.target}: {size:,} bytes")
    return 0


def _compact(options: argparse.Namespace) -> int:
    before, after = tools.compact(options.path)
    if options.json:
        print(json.dumps({"path": str(options.path), "before": before, "after": after}))
    else:
        print(f"{options.path}: {before:,} bytes before, {after:,} now")
    return 0
