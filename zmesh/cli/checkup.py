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
from zmesh.journal.files import claim_of
from zmesh.journal.tools import encrypted_with
from zmesh.options import NodeOptions
from zmesh.security.key_files import default_key_file, read_key_file
from zmesh.security.mesh_key import PREFIX
from zmesh.security.storage_key import StorageKey
from zmesh.security.trust_files import RULES, TrustDirectory
from zmesh.storage_errors import StorageError
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
    OPEN = "open"  # begun, and to be finished
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
    mesh: str,
    journals: Sequence[Path],
    environment: Mapping[str, str],
    now: float | None = None,
    trusts: Sequence[Path] = (),
) -> list[Finding]:
    """Return what is found, in order of weight.

    Args:
        mesh: whose key is looked for.
        journals: to be looked at beside it.
        environment: the variables.
        now: seconds since 1970; the clock's by default.
        trusts: directories of trust to be looked at as well.
    """
    now = time.time() if now is None else now
    return [
        *keys_in_use(mesh, environment),
        *key_files(mesh, environment, now),
        *storage_key(environment),
        *variables(environment),
        *(finding for path in journals for finding in journal_files(path)),
        *(finding for path in trusts for finding in trust_directory(path)),
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
        told = f"mesh {mesh!r} has none here: its nodes listen on loopback only"
        yield _well("mesh key", told + others_told(mesh, environment))
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


def others_told(mesh: str, environment: Mapping[str, str]) -> str:
    """Return which other key files there are, as the end of a sentence; empty without any."""
    default = default_key_file(mesh, environment)
    others = [] if default is None else sorted(default.parent.glob("*.key"))
    told = ", ".join(str(each) for each in others if each != default)
    return f"; there is {told}, for another mesh: name that with --mesh" if told else ""


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
    weak = [*_placed(check, path, found), *_in_repository(check, path)]
    yield from weak
    step = half_done(file)
    todo = f"`zmesh keys rotate {quote(str(path))} {step}`"
    if step and now - found.st_mtime > ROTATION_LONG_S:
        days = int((now - found.st_mtime) / 86_400)
        what = f"a rotation was begun and left half done {days} days ago: several keys count"
        yield _weak(check, what, todo)
    elif step:
        what = f"a rotation is under way: several keys count until it is finished; next is {step}"
        yield Finding(check, State.OPEN, what, f"when all machines have this file: {todo}")
    elif not weak:
        yield _well(check, "only its owner can read it")


def _placed(check: str, path: Path, found: os.stat_result) -> Iterator[Finding]:
    """Look at who owns a file, and at the directories that lead to it."""
    if os.name == "posix" and found.st_uid not in (0, os.geteuid()):
        yield _weak(check, f"it is user {found.st_uid}'s, who can change it", "own it yourself")
    for directory in path.resolve().parents:
        mode = directory.stat().st_mode
        if mode & _OTHERS_WRITE and not mode & stat.S_ISVTX:
            yield _weak(
                check,
                f"others may put another file in its place: {directory} is writable for them",
                f"`chmod go-w {quote(str(directory))}`",
            )


def _in_repository(check: str, path: Path) -> Iterator[Finding]:
    tree = next((each for each in path.resolve().parents if (each / ".git").exists()), None)
    if tree is not None:
        yield _weak(check, f"it is in a git work tree, {tree}", "keep keys out of repositories")


def storage_key(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the storage keys in the environment."""
    check = "storage key"
    text = environment.get(KEY_VARIABLE, "")
    if text.strip():
        try:
            told = StorageKey.parse(text, KEY_VARIABLE).fingerprint
        except ZmeshError as error:
            yield _weak(check, str(error), "mend it: no node with storage opens before")
        else:
            yield _well(
                check,
                f"the one with the fingerprint {told} is in the environment, and so programs get "
                "it that are started from here; in a file, with Storage(key=Path(...)), they "
                "do not",
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
    if (config := environment.get("XDG_CONFIG_HOME", "")) and not Path(config).is_absolute():
        text = f"XDG_CONFIG_HOME is {config!r}: as it is no absolute path, it counts for nothing"
        weak.append(_weak("variables", text, "make it one: keys are looked for in ~/.config"))
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
    """Look at who can read a journal and what is beside it, and whether it is encrypted."""
    check = f"journal {path}"
    if not path.exists():
        yield _weak(check, "it is not there", "give the path of a node's storage=")
        return
    if not path.is_file():
        yield _weak(check, "it is no file", "give the path of a node's storage=")
        return
    found = [each for each in sorted(path.absolute().parent.iterdir()) if _is_part(path, each)]
    exposed = [each for each in found if each.stat().st_mode & _OTHERS]
    for each in exposed:
        mode = stat.S_IMODE(each.stat().st_mode)
        what = f"others may get at {each} (mode {mode:04o}): messages, and who the node is"
        yield _weak(check, what, f"`chmod 600 {quote(str(each))}`")
    if not exposed:
        count = f"{len(found)} files" if len(found) != 1 else "file"
        yield _well(check, f"only its owner can read its {count}")
    yield _sealed(check, path)


def _sealed(check: str, path: Path) -> Finding:
    if not path.stat().st_size and claim_of(path) is None:
        return _well(check, "it is empty: no node has opened it yet")
    try:
        fingerprint = encrypted_with(path)
    except StorageError as error:
        return _weak(check, str(error), f"`zmesh journal verify {quote(str(path))}` tells more")
    if fingerprint is None:
        return _well(check, "it is not encrypted: who has its disk or a copy can read it")
    return _well(check, f"it is encrypted, with the key of the fingerprint {fingerprint}")


def trust_directory(path: Path) -> Iterator[Finding]:
    """Look at who is trusted, at what cannot be used of it, and at who may change it."""
    check = f"trust {path}"
    try:
        read = TrustDirectory(path).read()
        found = path.stat()
    except (ZmeshError, OSError) as error:
        yield _weak(check, str(error), "mend it: a node with trust= of it does not open")
        return
    for problem in read.problems:
        yield _weak(check, str(problem), "mend it: a node with trust= of it does not open")
    yield from _placed(check, path, found)
    trust = read.trust
    told = f"{len(trust)} keys are trusted, {len(trust.revoked)} revoked"
    if not (path / RULES).exists():
        yield _well(check, f"{told}; without {RULES} they may do everything")
    elif not read.problems:
        yield _well(check, f"{told}; {RULES} says what they may do")


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
