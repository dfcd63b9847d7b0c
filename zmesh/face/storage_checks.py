"""Where a node is to keep things, checked before anything is touched."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

from zmesh.errors import InvalidOption
from zmesh.face.checks import is_seconds
from zmesh.face.storage_keys import storage_key_of
from zmesh.options import JournalOptions, Retention, Storage

_MODES: Final = {
    "synchronous": ("full", "normal"),
    "when_full": ("raise", "wait", "drop_oldest"),
}


def storage_of(storage: object) -> Storage | None:
    """Return what a node was told of its storage, with paths that are absolute.

    Raises:
        InvalidOption: naming what cannot work.
        InvalidKey: what should be the storage key is none.
    """
    if storage is None:
        return None
    if isinstance(storage, str | os.PathLike):
        storage = Storage(Path(storage)) if str(storage) else storage
    if not isinstance(storage, Storage):
        raise InvalidOption("storage", storage, "the path of a file, or a zmesh.Storage")
    for option, allowed in _MODES.items():
        value = getattr(storage, option)
        if value not in allowed:
            raise InvalidOption(option, value, " or ".join(map(repr, allowed)))
    _check_options(storage.options)
    _check_retention(storage.retention)
    key = storage_key_of(storage.key)
    path = _file("path", storage.path)
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


def _check_options(options: object) -> None:
    if not isinstance(options, JournalOptions):
        raise InvalidOption("options", options, "a zmesh.JournalOptions")
    for field in fields(options):
        value, name = getattr(options, field.name), field.name
        if name == "retry_full":
            if not (is_seconds(value) and value > 0):
                raise InvalidOption(name, value, "seconds above 0")
        elif type(value) is not int or value <= 0:
            raise InvalidOption(name, value, "a whole number above 0")


def _check_retention(retention: object) -> None:
    if not isinstance(retention, Retention):
        raise InvalidOption("retention", retention, "a zmesh.Retention")
    age = retention.age
    if age is not None and not (is_seconds(age) and age > 0):
        raise InvalidOption("age", age, "seconds above 0, or None for no bound")
    for name in ("count", "size"):
        value = getattr(retention, name)
        if value is not None and (type(value) is not int or value <= 0):
            raise InvalidOption(name, value, "a whole number above 0, or None for no bound")
