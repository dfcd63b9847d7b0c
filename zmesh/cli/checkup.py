"""What `zmesh doctor` looks at: keys, journals, the environment and the machine.

Each check returns findings. One that is weak says what to do; nothing here changes anything.
"""

import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import Final

import zmq

from zmesh.cli.rotation import half_done
from zmesh.discovery.static import targets
from zmesh.errors import ZmeshError
from zmesh.face.key_sources import key_sources
from zmesh.face.storage_keys import KEY_VARIABLE, NEW_KEY_VARIABLE
from zmesh.options import NodeOptions
from zmesh.security.key_files import default_key_file, read_key_file
from zmesh.security.mesh_key import PREFIX
from zmesh.security.storage_key import StorageKey
from zmesh.transport.sockets import LIBZMQ_MIN

VARIABLES: Final = {
    "ZMESH_KEY", "ZMESH_KEY_FILE", "ZMESH_MESH", "ZMESH_PEERS", "ZMESH_SEEDS", KEY_VARIABLE,
    NEW_KEY_VARIABLE,
}  # fmt: skip

DESCRIPTORS_FEW: Final = 1024
"""Two a peer and some for files: below this a mesh of some hundred nodes gets into trouble."""

ROTATION_LONG_S: Final = 86_400.0
"""A rotation takes as long as copying a file; after a day it was forgotten."""

_OTHERS: Final = 0o066
_OTHERS_WRITE: Final = 0o022


class State(StrEnum):
    """How something is."""

    WELL = "well"
    WEAK = "weak"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    check: str
    state: State
    what: str
    todo: str = ""


def _well(check: str, what: str) -> Finding:
    return Finding(check, State.WELL, what)


def _weak(check: str, what: str, todo: str) -> Finding:
    return Finding(check, State.WEAK, what, todo)


def checkup(
    mesh: str, journals: Sequence[Path], environment: Mapping[str, str], now: float | None = None
) -> list[Finding]:
    """Return what is found, in order of weight.

    Args:
        mesh: whose key is looked for.
        journals: to be looked at beside it.
        environment: the variables.
        now: seconds since 1970; the clock's by default.
    """
    now = time.time() if now is None else now
    return [
        *keys_in_use(mesh, environment),
        *key_files(mesh, environment, now),
        *storage_key(environment),
        *variables(environment),
        *(finding for path in journals for finding in journal_files(path)),
        libzmq(has_curve=bool(zmq.has("curve")), version=zmq.zmq_version_info()),
        descriptors(descriptor_limit()),
        _well("clock", "clocks need not agree: nothing is decided by the time of two machines"),
    ]


def keys_in_use(mesh: str, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look for the keys that a node of the mesh would use."""
    try:
        sources = key_sources(None, mesh, environment)
        keys = sources.read().keys
    except ZmeshError as error:
        yield _weak("mesh key", str(error), "no node of the mesh opens before this is mended")
        return
    if not keys:
        yield _well("mesh key", f"mesh {mesh!r} has none here: its nodes listen on loopback only")
        return
    told = ", ".join(key.fingerprint for key in keys)
    yield _well("mesh key", f"mesh {mesh!r} has {told}, from {sources.told_by}")
    if sources.told_by == "ZMESH_KEY":
        yield _weak(
            "mesh key",
            "the key is in the environment: programs that are started from here get it too, and "
            "it shows in what they report when they crash",
            "keep it in a file: `zmesh keys new`, or ZMESH_KEY_FILE",
        )


def key_files(mesh: str, environment: Mapping[str, str], now: float) -> Iterator[Finding]:
    """Look at the key files of all meshes, where they are by default and where variables say."""
    default = default_key_file(mesh, environment)
    found = [] if default is None else sorted(default.parent.glob("*.key"))
    if told := environment.get("ZMESH_KEY_FILE"):
        found.append(Path(told))
    for path in dict.fromkeys(found):
        yield from key_file(path, now)


def key_file(path: Path, now: float) -> Iterator[Finding]:
    """Look at one key file."""
    check = f"key file {path}"
    try:
        file = read_key_file(path)
        found = path.stat()
    except (ZmeshError, OSError) as error:
        yield _weak(check, str(error), "mend it: nodes that look for this file do not open")
        return
    weak = list(_placed(check, path, found))
    yield from weak
    step = half_done(file)
    if step and now - found.st_mtime > ROTATION_LONG_S:
        days = int((now - found.st_mtime) / 86_400)
        yield _weak(
            check,
            f"a rotation was begun and left half done {days} days ago: several keys count",
            f"`zmesh keys rotate {quote(str(path))} {step}`",
        )
    elif not weak:
        under_way = f"; a rotation is under way, next is {step}" if step else ""
        yield _well(check, f"only its owner can read it{under_way}")


def _placed(check: str, path: Path, found: os.stat_result) -> Iterator[Finding]:
    """Look at who owns a file, and at the directories that lead to it."""
    if os.name == "posix" and found.st_uid not in (0, os.geteuid()):
        yield _weak(check, f"it is user {found.st_uid}'s, who can change it", "own it yourself")
    real = path.resolve()
    for directory in real.parents:
        mode = directory.stat().st_mode
        if mode & _OTHERS_WRITE and not mode & stat.S_ISVTX:
            yield _weak(
                check,
                f"others may put another file in its place: {directory} is writable for them",
                f"`chmod go-w {quote(str(directory))}`",
            )
    tree = next((each for each in real.parents if (each / ".git").exists()), None)
    if tree is not None:
        yield _weak(check, f"it is in a git work tree, {tree}", "keep keys out of repositories")


def storage_key(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the storage keys in the environment, which is where they are weakest."""
    check = "storage key"
    text = environment.get(KEY_VARIABLE, "")
    if text.strip():
        try:
            told = StorageKey.parse(text, KEY_VARIABLE).fingerprint
        except ZmeshError as error:
            yield _weak(check, str(error), "mend it: no node with storage opens before")
        else:
            yield _weak(
                check,
                f"{told} is in the environment: programs that are started from here get it too, "
                "and it shows in what they report when they crash",
                "keep it in a file: `zmesh keys new --storage --file`, and Storage(key=Path(...))",
            )
    if environment.get(NEW_KEY_VARIABLE, "").strip():
        what = f"{NEW_KEY_VARIABLE} is set: only `zmesh journal rekey` looks at it"
        yield _weak(check, what, f"unset it, and make it {KEY_VARIABLE} where that was done")


def variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look for variables that mean nothing, or not what they seem to."""
    told = {name: value for name, value in environment.items() if name.startswith("ZMESH_")}
    weak = []
    for name in sorted(set(told) - VARIABLES):
        known = ", ".join(sorted(VARIABLES))
        weak.append(_weak("variables", f"{name} means nothing", f"there are {known}"))
    if told.get("ZMESH_KEY") and told.get("ZMESH_KEY_FILE"):
        text = "ZMESH_KEY and ZMESH_KEY_FILE are both set: the former counts alone"
        weak.append(_weak("variables", text, "unset one of them"))
    if told.get("ZMESH_KEY_FILE", "").startswith(PREFIX):
        text = "ZMESH_KEY_FILE has a key and no path"
        weak.append(_weak("variables", text, "write the key to a file, and change it: paths show"))
    weak += [
        _weak("variables", f"{name} is {told[name]!r}: no text of printable characters", "mend it")
        for name in ("ZMESH_MESH",)
        if re.search(r"[\x00-\x1f\x7f]", told.get(name, ""))
    ]
    for name in ("ZMESH_PEERS", "ZMESH_SEEDS"):
        try:
            targets(name, told.get(name, ""), NodeOptions().candidates_max // 2)
        except ZmeshError as error:
            weak.append(_weak("variables", str(error), "mend it: no node opens before"))
    yield from weak or [_well("variables", ", ".join(sorted(told)) or "none is set")]


def journal_files(path: Path) -> Iterator[Finding]:
    """Look at who can read a journal and what is beside it."""
    check = f"journal {path}"
    if not path.exists():
        yield _weak(check, "it is not there", "give the path of a node's storage=")
        return
    found = [each for each in sorted(path.absolute().parent.iterdir()) if _is_part(path, each)]
    exposed = [each for each in found if each.stat().st_mode & _OTHERS]
    for each in exposed:
        mode = stat.S_IMODE(each.stat().st_mode)
        what = f"others may get at {each} (mode {mode:04o}): messages, and who the node is"
        yield _weak(check, what, f"`chmod 600 {quote(str(each))}`")
    if not exposed:
        yield _well(check, f"only its owner can read its {len(found)} files")


def _is_part(path: Path, found: Path) -> bool:
    if not found.name.startswith(path.name) or not found.is_file():
        return False
    rest = found.name.removeprefix(path.name)
    return not rest or rest[0] in "-."


def libzmq(*, has_curve: bool, version: tuple[int, int, int]) -> Finding:
    """Look at the library below."""
    told = f"libzmq {'.'.join(map(str, version))}"
    todo = "install pyzmq from its wheel: pip install --upgrade 'pyzmq>=27'"
    if not has_curve:
        return _weak("libzmq", f"{told} was built without CURVE: nothing can be encrypted", todo)
    if version < LIBZMQ_MIN:
        return _weak("libzmq", f"{told} is too old: before 4.3.5 it can be overrun", todo)
    return _well("libzmq", f"{told} with CURVE")


def descriptor_limit() -> int | None:
    """Return how many descriptors a process may have; None without bound, or where unknown."""
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def descriptors(limit: int | None) -> Finding:
    """Look at the limit of descriptors, which strangers use up first."""
    if limit is not None and limit < DESCRIPTORS_FEW:
        what = f"a process may open {limit:,} files and connections only"
        return _weak("descriptors", what, f"raise the limit: `ulimit -n {8 * DESCRIPTORS_FEW}`")
    told = "without bound" if limit is None else f"{limit:,}"
    return _well("descriptors", f"the limit of files and connections is {told}")
