"""Where a node is to keep things, checked before anything is touched."""

import os
from dataclasses import replace
from pathlib import Path

from zmesh.errors import InvalidOption
from zmesh.face.storage_keys import storage_key_of
from zmesh.options import Storage


def storage_of(storage: object) -> Storage | None:
    """Return what a node was told of its storage, with paths that are absolute.

    Raises:
        InvalidOption: naming what cannot work.
        InvalidKey: what should be the storage key is none.
    """
    if storage is None:
        return None
    option = "path"  # of a Storage
    if isinstance(storage, str | os.PathLike):
        storage, option = Storage(Path(storage)) if str(storage) else storage, "storage"
    if not isinstance(storage, Storage):
        raise InvalidOption("storage", storage, "the path of a file, or a zmesh.Storage")
    key = storage_key_of(storage.key)
    path = _file(option, storage.path)
    database = storage.database
    if isinstance(database, str | os.PathLike):
        database = _file("database", database)
        if database.name.startswith(path.name) and database.parent == path.parent:
            raise InvalidOption("database", database, f"another file than those of {path.name}")
    elif database is not None and not callable(database):
        raise InvalidOption("database", database, "a path, or what returns a DB-API connection")
    return replace(storage, path=path, database=database, key=key)


def _file(option: str, path: object) -> Path:
    """Return where a path leads: two names of one file must not pass for two."""
    if not isinstance(path, str | os.PathLike) or str(path) in ("", ":memory:"):
        raise InvalidOption(option, path, "the path of a file")
    found = Path(os.path.realpath(path))
    if found.exists() and not found.is_file():
        raise InvalidOption(option, str(path), "the path of a regular file")
    if not found.parent.is_dir():
        raise InvalidOption(option, str(path), "in a directory that is there")
    return found
