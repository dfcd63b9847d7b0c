"""`zmesh trust` and `zmesh rules`: who gets a link, who no more, and what a rule says."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zmesh.errors import UsageError
from zmesh.security import node_key
from zmesh.security.rules import Action, Rules
from zmesh.security.trust import KEY_REVOKED, check_name
from zmesh.security.trust_files import REVOKED, RULES, SUFFIX, TrustDirectory, TrustRead, read_key
from zmesh.security_errors import InvalidTrust

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


def add_trust(commands: "Commands") -> None:
    """Add the command to a parser; its options have `run`."""
    trust = commands.add_parser(
        "trust",
        help="list, add and revoke the keys of nodes that get a link",
        description="A directory of trust holds a file NAME.pub for each node, with its public "
        "key. Nodes with trust=DIR look at it again once a second.",
    )
    verbs = trust.add_subparsers(dest="verb", required=True, metavar="VERB")
    _verb(verbs, "list", _list, "tell whose keys are trusted, and whose were revoked")
    add = _verb(verbs, "add", _add, "trust a key under a name")
    add.add_argument("name", metavar="NAME", help="what rules call it")
    add.add_argument("key", metavar="KEY", help="its public key, from `zmesh keys node PATH`")
    revoke = _verb(verbs, "revoke", _revoke, "trust a key no more; its node loses its links")
    revoke.add_argument("name", metavar="NAME", help="what rules call it")


def add_rules(commands: "Commands") -> None:
    """Add the command to a parser; its options have `run`."""
    rules = commands.add_parser(
        "rules",
        help="check rules, and ask what they allow",
        description="Rules say what each node may do to others.",
    )
    verbs = rules.add_subparsers(dest="verb", required=True, metavar="VERB")
    check = verbs.add_parser(
        "check",
        help="check a file of rules, or tell what it says of one action",
        description="Check a file of rules against the keys beside it. With --node, --action "
        "and --name tell the decision and the rule that makes it; exit with 1 where it is no.",
    )
    check.add_argument("file", type=Path, metavar="FILE", help=f"{RULES}, in its directory")
    check.add_argument("--node", metavar="NAME", help="who does it, by the name of its key")
    check.add_argument("--action", choices=[str(action) for action in Action], help="what it does")
    check.add_argument("--name", metavar="NAME", help="the service, topic, queue, group or node")
    check.add_argument("--json", action="store_true", help="print one line of JSON and no more")
    check.set_defaults(run=_check)


def _verb(verbs: "Commands", name: str, run: object, text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text.capitalize() + ".")
    verb.add_argument("directory", type=Path, metavar="DIR", help="the directory of trust")
    verb.add_argument("--json", action="store_true", help="print one line of JSON and no more")
    verb.set_defaults(run=run)
    return verb


def _list(options: argparse.Namespace) -> int:
    read = TrustDirectory(options.directory).read()
    told = [
        {
            "name": name,
            "key": node_key.to_text(key),
            "node": node_key.node_id_of(key).hex(),
            "revoked": key in read.trust.revoked,
        }
        for name, key in read.trust.keys.items()
    ]
    listed = set(read.trust.keys.values())
    called = {key: name for name, key in read.revoked_names.items()}
    told += [
        {
            "name": called.get(key), "key": node_key.to_text(key),
            "node": node_key.node_id_of(key).hex(), "revoked": True,
        }
        for key in sorted(read.trust.revoked - listed)
    ]  # fmt: skip
    problems = [str(problem) for problem in read.problems]
    if options.json:
        print(json.dumps({"keys": told, "problems": problems}))
    else:
        for each in told:
            state = "revoked" if each["revoked"] else "trusted"
            print(f"{state}  {each['name'] or '-':20} {each['node']}  {each['key']}")
        print("\n".join(problems or [f"{len(read.trust)} keys are trusted"]))
    return 1 if problems else 0


def _add(options: argparse.Namespace) -> int:
    check_name(options.name, "NAME")
    public = node_key.from_text(options.key, "KEY")
    directory: Path = options.directory
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is no directory: trust is a directory of keys")
    with _writing(directory):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    if why := _why_not(directory, options.name, public):
        raise UsageError(why)
    path = directory / f"{options.name}{SUFFIX}"
    with _writing(path):
        _write(path, node_key.to_text(public))
    _tell(options, path, f"{options.name} is trusted")
    return 0


def _why_not(directory: Path, name: str, public: bytes) -> str:
    """Return why a key cannot be added under a name, and what to do; "" where it can."""
    read = TrustDirectory(directory).read()
    trust = read.trust
    if public in trust.revoked:
        return f"this key is revoked in {directory}: remove it there first"
    path, place = directory / f"{name}{SUFFIX}", directory / REVOKED
    for other, key in trust.keys.items():
        if key == public and other != name:
            return (
                f"{directory} has this key already, as {other}: to call it {name}, rename "
                f"{directory / (other + SUFFIX)} to {path.name}, and {other} in the rules"
            )
    if name in read.revoked_names:
        old = _free_name(read, name) + SUFFIX
        return (
            f"the name {name} is revoked by {place / path.name}, whatever key has it: take "
            f"another name, or free this one by renaming that file to {old}, which goes on "
            "revoking the key in it"
        )
    held = trust.keys.get(name)
    if held == public:
        return f"{directory} has this key of {name} already"
    if held in trust.revoked:  # by a list
        return f"the revoked key of {name} is still in {path}: remove that file first"
    if held is not None:
        return f"{directory} has another key of {name} already: revoke it first"
    return ""


def _free_name(read: TrustRead, name: str) -> str:
    """Return what a revoked key may be called that nobody else is called."""
    taken = read.trust.keys.keys() | read.revoked_names.keys()
    names = (f"{name}-old{number or ''}" for number in range(len(taken) + 1))
    return next(each for each in names if each not in taken)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = str(error.filename or path)
        raise InvalidTrust(where, f"it cannot be written: {error.strerror}") from error


def _revoke(options: argparse.Namespace) -> int:
    """Move the file of a key, so that rules may go on naming it."""
    check_name(options.name, "NAME")
    directory: Path = options.directory
    path = directory / f"{options.name}{SUFFIX}"
    with _writing(path):
        target, text = _move(path)
    _tell(options, target, f"{options.name} is revoked{text}")
    return 0


def _move(path: Path) -> tuple[Path, str]:
    """Revoke the key in a file; return where that is told now, and what there is to say of it."""
    if not path.exists():
        raise UsageError(f"{path.parent} has no key of {path.stem}")
    place = path.parent / REVOKED
    target = place / path.name
    if place.exists() and not place.is_dir():
        line = f"{node_key.to_text(read_key(path))} {path.stem}"
        try:
            lines = place.read_text(encoding="utf-8").rstrip("\n")
        except UnicodeDecodeError as error:
            raise InvalidTrust(str(place), "it is no UTF-8") from error
        _write(place, f"{lines}\n{line}" if lines else line)
        return place, "; its file stays, so rules may name it"
    if target.exists():  # which must not be lost: the key in it would be revoked no more
        old = _free_name(TrustDirectory(path.parent).read(), path.stem) + SUFFIX
        raise UsageError(
            f"{path.stem} is revoked already, by {target}; to revoke the key in {path} too, "
            f"rename that file to {old} first"
        )
    place.mkdir(mode=0o755, exist_ok=True)
    path.replace(target)
    return target, ""


def _write(path: Path, text: str) -> None:
    """Write a file so that nobody ever reads half of it."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text + "\n", encoding="utf-8")
    draft.replace(path)


def _tell(options: argparse.Namespace, path: Path, text: str) -> None:
    print(json.dumps({"name": options.name, "path": str(path)}) if options.json else text)


def _check(options: argparse.Namespace) -> int:
    asked = (options.node, options.action, options.name)
    if None in asked and any(each is not None for each in asked):
        raise UsageError("--node, --action and --name go together")
    path: Path = options.file
    beside = TrustDirectory(path.parent).read_keys()
    if beside.problems:
        raise beside.problems[0]
    names = sorted(beside.trust.keys.keys() | beside.revoked_names.keys())
    revoked = [name for name in names if beside.is_revoked(name)]
    trusted = [name for name in names if name not in revoked]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTrust(str(path), f"it cannot be read: {error}") from error
    rules = Rules.parse(text, names, path.name)
    if options.node is None:
        told = f"{path} is sound: {len(rules.rules)} rules for {len(trusted)} keys"
        told += f"; {len(revoked)} more are revoked" if revoked else ""
        found = {"rules": len(rules.rules), "keys": trusted, "revoked": revoked}
        print(json.dumps(found) if options.json else told)
        return 0
    if options.node not in names:
        raise UsageError(f"there is no key {options.node!r} beside {path}")
    if options.node in revoked:
        decision = KEY_REVOKED
    else:
        decision = rules.judge(options.node, Action(options.action), options.name)
    if options.json:
        print(json.dumps({"allowed": decision.allowed, "rule": decision.rule}))
    else:
        print(f"{'allowed' if decision.allowed else 'denied'}: {decision.rule}")
    return 0 if decision.allowed else 1
