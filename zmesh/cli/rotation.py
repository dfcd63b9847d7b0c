"""The steps of a change of mesh keys, on one key file.

    [old]  -- add -->  [old, new]  -- promote -->  [new, old]  -- drop -->  [new]

Every node has to have taken one step before any takes the next. A comment in the file says which
was the last, because [old, new] and [new, old] look alike.
"""

from dataclasses import dataclass
from typing import Final, Literal

from zmesh.errors import UsageError
from zmesh.security.key_files import KeyFile
from zmesh.security.mesh_key import MeshKey

Step = Literal["add", "promote", "drop"]

STEPS: Final = ("add", "promote", "drop")

_MARK: Final = "# rotation: "
_ADDED: Final = _MARK + "added "
_PROMOTED: Final = _MARK + "promoted "

_EVERYWHERE: Final = "when all machines of the mesh have this file and their nodes have read it"


@dataclass(frozen=True, slots=True)
class Rotated:
    """A key file after a step."""

    keys: tuple[MeshKey, ...]
    text: str
    advice: str
    next_step: str | None


def rotated(
    file: KeyFile, step: str, key: MeshKey | None = None, *, force: bool = False
) -> Rotated:
    """Return a key file after one more step.

    Args:
        file: as it is.
        step: one of `STEPS`.
        key: to be added, with "add".
        force: whether to drop although nothing says that the other key was promoted.

    Raises:
        UsageError: it is not the turn of this step.
    """
    if step == "add":
        return _added(file, key)
    if len(file.keys) < 2:
        raise UsageError(f"{file.path} has one key: there is nothing to {step}; begin with add")
    return _promoted(file) if step == "promote" else _dropped(file, force=force)


def half_done(file: KeyFile) -> str:
    """Return which step is next where a rotation is under way; empty where none is."""
    if len(file.keys) < 2:
        return ""
    return "drop" if _marked(file, _PROMOTED) else "promote"


def _added(file: KeyFile, key: MeshKey | None) -> Rotated:
    if len(file.keys) > 1:
        raise UsageError(
            f"{file.path} has {len(file.keys)} keys: a rotation is under way; promote, then drop"
        )
    if key is None or key in file.keys:
        raise UsageError(f"{file.path} has this key already: add another")
    advice = (
        "Copy this file to all machines of the mesh; their nodes read it within a second or so. "
        f"Then promote the new key, {key.fingerprint}, {_EVERYWHERE}."
    )
    return _after(file, (*file.keys, key), f"{_ADDED}{key.fingerprint}", advice, "promote")


def _promoted(file: KeyFile) -> Rotated:
    if _marked(file, _PROMOTED):
        raise UsageError(f"{file.path} has its new key promoted already: drop is next")
    key = file.keys[-1]
    advice = (
        f"Copy this file to all machines of the mesh again. Then drop the old key, {_EVERYWHERE}."
    )
    keys = (key, *file.keys[:-1])
    return _after(file, keys, f"{_PROMOTED}{key.fingerprint}", advice, "drop")


def _dropped(file: KeyFile, *, force: bool) -> Rotated:
    key, *others = file.keys
    if not force and not _marked(file, f"{_PROMOTED}{key.fingerprint}"):
        raise UsageError(
            f"{file.path} was not promoted by this command, so the new key may be one of those to "
            f"drop ({', '.join(each.fingerprint for each in others)}): promote first, or --force"
        )
    advice = (
        f"Copy this file to all machines of the mesh. Who has only "
        f"{', '.join(each.fingerprint for each in others)} is out now."
    )
    return _after(file, (key,), "", advice, None)


def _after(
    file: KeyFile, keys: tuple[MeshKey, ...], mark: str, advice: str, next_step: str | None
) -> Rotated:
    lines = file.with_keys(keys).splitlines()
    kept = [line for line in lines if not line.startswith(_MARK)]
    return Rotated(keys, "\n".join([*([mark] if mark else []), *kept]) + "\n", advice, next_step)


def _marked(file: KeyFile, mark: str) -> bool:
    return any(line.startswith(mark) for line in file.lines)
