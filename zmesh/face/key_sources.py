"""Where the mesh keys of a node come from: its argument, the environment, or a file by default."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zmesh.errors import InvalidOption
from zmesh.security.key_files import KEYS_MAX, Stamp, default_key_file, read_key_file, stamp_of
from zmesh.security.mesh_key import PREFIX, MeshKey
from zmesh.security_errors import InvalidKey

KeyArgument = str | os.PathLike[str] | MeshKey | Sequence[str | os.PathLike[str] | MeshKey]

_EXPECTED: Final = "a key's text, the pathlib.Path of a key file, a MeshKey, or a list of these"


@dataclass(frozen=True, slots=True)
class ReadKeys:
    """The keys as they were at one moment, the primary one first."""

    keys: tuple[MeshKey, ...] = ()
    stamps: tuple[Stamp | None, ...] = ()  # of the files, in order


@dataclass(frozen=True, slots=True)
class KeySources:
    """Keys that were given, and files that have some, in order."""

    parts: tuple[MeshKey | Path, ...] = ()
    told_by: str = ""  # how the user gave them, for messages

    @property
    def files(self) -> tuple[Path, ...]:
        """The files among them."""
        return tuple(each for each in self.parts if isinstance(each, Path))

    def stamps(self) -> tuple[Stamp | None, ...]:
        """Return what the files look like from outside. Blocks."""
        return tuple(map(stamp_of, self.files))

    def read(self) -> ReadKeys:
        """Return the keys as they are now. Blocks.

        Raises:
            SecurityError: of the kind that tells which file or line cannot be used, and why.
            InvalidOption: there are too many.
        """
        keys: dict[MeshKey, None] = {}
        stamps: list[Stamp | None] = []
        for part in self.parts:
            if isinstance(part, MeshKey):
                keys[part] = None
            else:
                file = read_key_file(part)
                stamps.append(file.stamp)
                keys |= dict.fromkeys(file.keys)
        if len(keys) > KEYS_MAX:
            raise InvalidOption("key", f"{len(keys)} keys", f"at most {KEYS_MAX}")
        return ReadKeys(tuple(keys), tuple(stamps))


NO_KEYS: Final = KeySources()
"""Where a node without mesh key has it from."""


def key_sources(key: KeyArgument | None, mesh: str, environment: Mapping[str, str]) -> KeySources:
    """Return where a node's keys come from; nowhere, where it has none.

    Args:
        key: what the node was given. Without it `ZMESH_KEY` counts, then `ZMESH_KEY_FILE`, then
            the default file of the mesh, where there is one; an empty list is no key at all.
        mesh: the name of the mesh.
        environment: the variables.

    Raises:
        InvalidOption: the argument is none of these.
        InvalidKey: a text is no key.
    """
    if key is not None:
        items: Sequence[object] = [key]
        if isinstance(key, Sequence) and not isinstance(key, str | bytes | bytearray):
            items = key
        return KeySources(tuple(_part(each) for each in items), "key=")
    if texts := environment.get("ZMESH_KEY", "").split():
        return KeySources(tuple(MeshKey.parse(each, "ZMESH_KEY") for each in texts), "ZMESH_KEY")
    if path := environment.get("ZMESH_KEY_FILE", ""):
        return KeySources((Path(path),), "ZMESH_KEY_FILE")
    default = default_key_file(mesh, environment)
    if default is not None and stamp_of(default) is not None:
        return KeySources((default,), str(default))
    return NO_KEYS


def _part(item: object) -> MeshKey | Path:
    if isinstance(item, MeshKey):
        return item
    if isinstance(item, str):
        if not item.strip().startswith(PREFIX):
            why = f"a mesh key begins with {PREFIX!r}; a key file is given as its pathlib.Path"
            raise InvalidKey("key=", why)
        return MeshKey.parse(item, "key=")
    if isinstance(item, os.PathLike):
        return Path(item)
    # What it is does not go into the error: it may be a key all the same.
    raise InvalidOption("key", type(item), _EXPECTED)
