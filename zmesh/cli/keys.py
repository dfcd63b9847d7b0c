"""`zmesh keys`: make the key of a mesh, look at it, change it; and tell a node by its own."""

import argparse
import json
import os
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from zmesh.cli.checkup import others_told
from zmesh.cli.rotation import STEPS, rotated
from zmesh.errors import UsageError
from zmesh.face.key_sources import key_sources
from zmesh.face.settings import MESH_DEFAULT
from zmesh.face.storage_keys import key_by
from zmesh.face.system import SystemEntropy
from zmesh.journal import tools
from zmesh.security.key_files import (
    create_key_file,
    default_key_file,
    read_key_file,
    replace_key_file,
    text_of,
)
from zmesh.security.mesh_key import MeshKey
from zmesh.security.node_key import NodeKey, to_text
from zmesh.security.storage_key import StorageKey

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


def add_keys(commands: "Commands") -> None:
    """Add the command to a parser; its options have `run`."""
    keys = commands.add_parser(
        "keys",
        help="make, look at and change mesh keys; tell the key of a node",
        description="A mesh key lets nodes talk over a network, encrypted, and keeps out who has "
        "none. All nodes of a mesh have the same.",
    )
    verbs = keys.add_subparsers(dest="verb", required=True, metavar="VERB")
    new = _verb(verbs, "new", _new, "make a key, in a file that only you can read")
    _add_place(new)
    new.add_argument("--stdout", action="store_true", help="print the key, and write no file")
    new.add_argument(
        "--storage", action="store_true", help="a key that encrypts journals, and no mesh key"
    )
    show = _verb(verbs, "show", _show, "tell which keys a node would use, by their fingerprints")
    _add_place(show)
    show.add_argument("--reveal", action="store_true", help="print the keys themselves as well")
    rotate = _verb(verbs, "rotate", _rotate, "take one step of a change of keys")
    rotate.add_argument("path", type=Path, metavar="FILE", help="the key file")
    rotate.add_argument(
        "step", choices=STEPS, metavar="STEP", help="add a key, promote it, drop those of before"
    )
    rotate.add_argument(
        "--stdin", action="store_true", help="add the key that standard input has, not a new one"
    )
    rotate.add_argument(
        "--force", action="store_true", help="drop although this file was not promoted here"
    )
    node = _verb(verbs, "node", _node, "tell the public key and the id of a node by its journal")
    node.add_argument("path", type=Path, metavar="PATH", help="the journal")
    text = "a file with its storage key; else ZMESH_STORAGE_KEY"
    node.add_argument("--key-file", type=Path, metavar="FILE", help=text)


def _verb(verbs: "Commands", name: str, run: object, text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text.capitalize() + ".")
    verb.add_argument("--json", action="store_true", help="print one line of JSON and no more")
    verb.set_defaults(run=run)
    return verb


def _add_place(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--mesh", metavar="NAME", help=f"ZMESH_MESH or {MESH_DEFAULT!r} by default")
    verb.add_argument("--file", type=Path, metavar="PATH", help="that of the mesh by default")


def _mesh(options: argparse.Namespace) -> str:
    return options.mesh or os.environ.get("ZMESH_MESH") or MESH_DEFAULT


def _new(options: argparse.Namespace) -> int:
    if options.stdout and options.file:
        raise UsageError("--stdout writes no file: leave --file, or --stdout")
    if options.storage:
        return _new_storage_key(options)
    mesh, key = _mesh(options), MeshKey.new(SystemEntropy())
    if options.stdout:
        told = {"mesh": mesh, "key": key.text, "fingerprint": key.fingerprint}
        print(json.dumps(told) if options.json else key.text)
        return 0
    path = options.file or default_key_file(mesh, os.environ)
    if path is None:
        raise UsageError("there is no home directory to keep the key in: give --file or --stdout")
    # What nodes look for by its name is for that mesh; another file for any that is told of it.
    named = bool(options.mesh or not options.file)
    note = f"mesh key of {mesh!r}, for zmesh" if named else "mesh key, for zmesh"
    create_key_file(path, text_of([key], f"{note}; keep it secret"))
    if options.json:
        print(json.dumps({"mesh": mesh, "path": str(path), "fingerprint": key.fingerprint}))
    else:
        print(f"{path}: a new key, {key.fingerprint}")
        machines = f"of mesh {mesh!r}" if named else "of one mesh, whatever its name,"
        print(f"Copy it to the other machines {machines} as it is, by a way that is safe.")
        if options.file:
            print(f"Nodes read it with ZMESH_KEY_FILE={path}")
    return 0


def _new_storage_key(options: argparse.Namespace) -> int:
    if options.mesh:
        raise UsageError("a storage key is of no mesh: leave --mesh, or --storage")
    key, path = StorageKey.new(SystemEntropy()), options.file
    if options.stdout:
        told = {"key": key.text, "fingerprint": key.fingerprint}
        print(json.dumps(told) if options.json else key.text)
        return 0
    if path is None:
        raise UsageError("nodes look nowhere for a storage key by themselves: --file or --stdout")
    create_key_file(path, f"# storage key, for zmesh; keep it secret, and a copy\n{key.text}\n")
    if options.json:
        print(json.dumps({"path": str(path), "fingerprint": key.fingerprint}))
        return 0
    print(f"{path}: a new storage key, {key.fingerprint}")
    print("Keep a copy elsewhere: nobody can read what it encrypts without it.")
    print(f"Nodes take it by zmesh.Storage(..., key=pathlib.Path({str(path)!r})); a journal that")
    print(f"is there gets it by `zmesh journal encrypt PATH --key-file {quote(str(path))}`.")
    return 0


def _show(options: argparse.Namespace) -> int:
    mesh = _mesh(options)
    sources = key_sources(options.file, mesh, os.environ)
    keys = sources.read().keys
    places = [str(each) for each in sources.files] or [sources.told_by]
    shown = [
        {"fingerprint": key.fingerprint, "primary": not at, "mdns": key.tag(mesh).hex()}
        | ({"key": key.text} if options.reveal else {})
        for at, key in enumerate(keys)
    ]
    if options.json:
        print(json.dumps({"mesh": mesh, "from": places if keys else [], "keys": shown}))
    elif not keys:
        others = others_told(mesh, os.environ)
        print(f"mesh {mesh!r} has no key here: its nodes listen on loopback only{others}")
    else:
        print(f"mesh {mesh!r}, from {', '.join(places)}:")
        for each in shown:
            use = "used" if each["primary"] else "accepted"
            print(f"{each['fingerprint']} {use:8} {each.get('key', '')}".rstrip())
    return 0 if keys else 1


def _rotate(options: argparse.Namespace) -> int:
    if options.stdin and options.step != "add":
        raise UsageError("--stdin has a key to add: use it with add")
    file = read_key_file(options.path)
    key = None
    if options.step == "add":
        key = MeshKey.parse(sys.stdin.read(), "standard input") if options.stdin else _fresh()
    after = rotated(file, options.step, key, force=options.force)
    replace_key_file(options.path, after.text)
    fingerprints = [each.fingerprint for each in after.keys]
    if options.json:
        told = {"path": str(options.path), "keys": fingerprints, "next": after.next_step}
        print(json.dumps(told))
    else:
        print(f"{options.path}: {', '.join(fingerprints)}")
        print(after.advice)
    return 0


def _fresh() -> MeshKey:
    return MeshKey.new(SystemEntropy())


def _node(options: argparse.Namespace) -> int:
    identity = tools.identity(options.path, key_by(options.key_file))
    key = to_text(NodeKey.of(identity.seed).public) if identity.seed else None
    if options.json:
        print(json.dumps({"path": str(options.path), "node": identity.node.hex(), "key": key}))
    else:
        print(f"node {identity.node.hex()}")
        print(f"key  {key or 'none: the journal is from before nodes had keys'}")
    return 0 if key else 1
