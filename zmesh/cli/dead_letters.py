"""`zmesh dead-letters`: what nobody could handle, looked at, sent back, thrown away."""

import argparse
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from zmesh.errors import UsageError, ZmeshError
from zmesh.face.storage_keys import key_by
from zmesh.journal import dead_letters as tools
from zmesh.patterns.letters import DeadLetter
from zmesh.storage_errors import NoDeadLetter

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


def add_dead_letters(commands: "Commands") -> None:
    """Add the command to a parser; its options have `run`."""
    letters = commands.add_parser(
        "dead-letters",
        help="look at stored messages that nobody could handle, send them back, throw them away",
        description="Work on the dead letters in a node's journal. Looking at them works beside "
        "the node; the rest needs it to be closed. Of a journal that is encrypted they need the "
        "storage key, by --key-file or in ZMESH_STORAGE_KEY.",
    )
    verbs = letters.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, run, text in (
        ("list", _list, "tell what there is, a line each"),
        ("show", _show, "tell all of some: every attempt, headers and body"),
        ("requeue", _requeue, "send some back to where they were for, their attempts anew"),
        ("purge", _purge, "throw some away for good"),
    ):
        verb = verbs.add_parser(name, help=text, description=text.capitalize() + ".")
        verb.add_argument("path", type=Path, metavar="PATH", help="the journal")
        verb.add_argument("ids", type=int, nargs="*", metavar="ID", help="which")
        verb.add_argument("--reason", metavar="REGEX", help="those whose reason has a match")
        verb.add_argument("--all", action="store_true", help="all there are")
        verb.add_argument(
            "--key-file", type=Path, metavar="FILE",
            help="a file with the storage key; else ZMESH_STORAGE_KEY",
        )  # fmt: skip
        verb.add_argument("--json", action="store_true", help="print one line of JSON and no more")
        verb.set_defaults(run=run)


def _chosen(options: argparse.Namespace, *, by_default: bool = False) -> list[DeadLetter]:
    """Return the letters that the arguments name."""
    if not (by_default or options.ids or options.reason or options.all):
        raise UsageError("which dead letters? give their ids, --reason or --all")
    if options.all and (options.ids or options.reason):
        raise UsageError("--all is all of them: leave the ids and --reason, or --all")
    letters = tools.dead_letters(options.path, key_by(options.key_file))
    if options.ids:
        by_id = {letter.id: letter for letter in letters}
        missing = [each for each in options.ids if each not in by_id]
        if missing:
            raise NoDeadLetter(missing[0])
        letters = [by_id[each] for each in dict.fromkeys(options.ids)]
    if options.reason:
        try:
            pattern = re.compile(options.reason)
        except re.error as error:
            raise UsageError(f"--reason is no regular expression: {error}") from error
        letters = [letter for letter in letters if pattern.search(letter.reason)]
    return letters


def _list(options: argparse.Namespace) -> int:
    letters = _chosen(options, by_default=True)
    if options.json:
        print(json.dumps([_summary(letter) for letter in letters]))
        return 0
    for each in letters:
        print(
            f"{each.id:6} {_time(each.died_ms)} {each.destination_kind} {each.destination}, "
            f"{each.attempts} attempt{'' if each.attempts == 1 else 's'}: {each.reason}"
        )
    return 0


def _show(options: argparse.Namespace) -> int:
    shown = [_details(letter) for letter in _chosen(options)]
    if options.json:
        print(json.dumps(shown))
        return 0
    for each in shown:
        for name, value in each.items():
            if name == "history":
                for attempt in value:  # type: ignore[attr-defined]
                    print(f"{'attempt':12} {attempt['at']} {attempt['reason']}")
            elif value not in (None, {}):
                print(f"{name.replace('_', ' '):12} {value}")
        print()
    return 0


def _requeue(options: argparse.Namespace) -> int:
    ids = [letter.id for letter in _chosen(options)]
    tools.requeue(options.path, ids, key_by(options.key_file))
    return _tell(options, "requeued", ids)


def _purge(options: argparse.Namespace) -> int:
    ids = [letter.id for letter in _chosen(options)]
    tools.purge(options.path, ids, key_by(options.key_file))
    return _tell(options, "purged", ids)


def _tell(options: argparse.Namespace, done: str, ids: list[int]) -> int:
    if options.json:
        print(json.dumps({"path": str(options.path), done: ids}))
    else:
        print(f"{options.path}: {len(ids)} {done}")
    return 0


def _summary(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "kind": letter.destination_kind,
        "destination": letter.destination,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "stored": _time(letter.stored_ms),
        "died": _time(letter.died_ms),
        "peer": letter.peer.hex(),
        "key": letter.key,
    }


def _details(letter: DeadLetter) -> dict[str, object]:
    history = [{"at": _time(each.at_ms), "reason": each.reason} for each in letter.history]
    headers = {name: _plain(value) for name, value in letter.headers.items()}
    return _summary(letter) | {"history": history, "headers": headers, "body": _body(letter)}


def _body(letter: DeadLetter) -> object:
    try:
        return _plain(letter.body)
    except ZmeshError:
        return repr(bytes(letter.record[2]))


def _plain(value: object) -> object:
    """Return a value as JSON can carry it; as Python writes it where it cannot."""
    if isinstance(value, bytes):
        return repr(value)
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return repr(value)
    return value


def _time(at_ms: int) -> str | None:
    if not at_ms:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
