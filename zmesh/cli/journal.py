"""`zmesh journal`: what a node keeps on disk, looked at and looked after without the node."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from zmesh.errors import UsageError
from zmesh.face.storage_keys import (
    KEY_VARIABLE,
    NEW_KEY_VARIABLE,
    key_by,
    key_in_environment,
    key_in_file,
)
from zmesh.journal import tools
from zmesh.journal.conversion import convert
from zmesh.security.storage_key import StorageKey

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


def add_journal(commands: "Commands") -> None:
    """Add the command to a parser; its options have `run`."""
    journal = commands.add_parser(
        "journal",
        help="look at what a node keeps on disk, check it, copy it, make it smaller",
        description="Look at a journal, whether or not its node runs; compacting it, and what "
        "changes its key, need it to be closed. What is encrypted is looked at without its key.",
    )
    verbs = journal.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, run, text in (
        ("status", _status, "tell what is in it"),
        ("verify", _verify, "look at every row; exit with 1 where something is damaged"),
        ("backup", _backup, "copy it to a new file, under another journal id"),
        ("compact", _compact, "give its free space back to the system"),
        ("encrypt", _encrypt, "write it anew, encrypted with the storage key"),
        ("decrypt", _decrypt, "write it anew, as it is without a storage key"),
        ("rekey", _rekey, "write it anew, encrypted with another storage key"),
    ):
        verb = verbs.add_parser(name, help=text, description=text.capitalize() + ".")
        verb.add_argument("path", type=Path, metavar="PATH", help="the journal")
        if name == "backup":
            verb.add_argument("target", type=Path, metavar="TARGET", help="the new file")
        if name in {"verify", "encrypt", "decrypt", "rekey"}:
            _add_key(verb, "--key-file", KEY_VARIABLE, "the storage key")
        if name == "rekey":
            _add_key(verb, "--new-key-file", NEW_KEY_VARIABLE, "the one in its place")
        verb.add_argument("--json", action="store_true", help="print one line of JSON and no more")
        verb.set_defaults(run=run)


def _add_key(verb: argparse.ArgumentParser, name: str, variable: str, what: str) -> None:
    text = f"a file with {what}; else {variable}"
    verb.add_argument(name, type=Path, metavar="FILE", help=text)


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
    key = key_by(options.key_file)
    problems = tools.verify(options.path, key)
    closed = None if problems or key else tools.encrypted_with(options.path)
    if options.json:
        told = {"sound": not problems, "opened": not closed, "problems": problems}
        print(json.dumps({"path": str(options.path)} | told))
    elif closed is not None:
        print(
            f"{options.path} is sound as far as can be told without its storage key (the one with "
            f"the fingerprint {closed}): what is encrypted was not opened; give --key-file, or "
            f"{KEY_VARIABLE}"
        )
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


def _encrypt(options: argparse.Namespace) -> int:
    return _convert(options, None, _key(options.key_file, KEY_VARIABLE, "--key-file"))


def _decrypt(options: argparse.Namespace) -> int:
    return _convert(options, _key(options.key_file, KEY_VARIABLE, "--key-file"), None)


def _rekey(options: argparse.Namespace) -> int:
    old = _key(options.key_file, KEY_VARIABLE, "--key-file")
    return _convert(options, old, _key(options.new_key_file, NEW_KEY_VARIABLE, "--new-key-file"))


def _key(path: Path | None, variable: str, option: str) -> StorageKey:
    key = key_in_environment(variable) if path is None else key_in_file(path)
    if key is None:
        raise UsageError(f"which key? give {option} FILE, or its text in {variable}")
    return key


def _convert(options: argparse.Namespace, old: StorageKey | None, new: StorageKey | None) -> int:
    size = convert(options.path, old, new)
    key = None if new is None else new.fingerprint
    if options.json:
        print(json.dumps({"path": str(options.path), "size": size, "key": key}))
    else:
        state = "not encrypted" if key is None else f"encrypted with the key {key}"
        print(f"{options.path}: {state}, {size:,} bytes")
    return 0
