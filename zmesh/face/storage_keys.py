"""Where the storage key comes from: an argument, a file, the environment."""

import os
from pathlib import Path
from typing import Final

from zmesh.errors import InvalidOption
from zmesh.security.key_files import read_private
from zmesh.security.storage_key import STORAGE_PREFIX, StorageKey
from zmesh.security_errors import InvalidKey, NoKeyFile

KEY_VARIABLE: Final = "ZMESH_STORAGE_KEY"
NEW_KEY_VARIABLE: Final = "ZMESH_STORAGE_KEY_NEW"
"""In the environment: the text of the key, and of the one that is to take its place."""


def storage_key_of(key: object) -> StorageKey | None:
    """Return the key that an option names, or without one that of the environment.

    Args:
        key: its text, the path of a file with it, a `StorageKey`, or None.

    Raises:
        InvalidKey: it is none.
        KeyFileError: of the kind that tells why its file cannot be used.
        InvalidOption: it is nothing of these.
    """
    match key:
        case None:
            return key_in_environment()
        case StorageKey():
            return key
        case str():
            if not key.strip().startswith(STORAGE_PREFIX):
                why = (
                    f"a storage key begins with {STORAGE_PREFIX!r}; "
                    "a key file is given as its pathlib.Path"
                )
                raise InvalidKey("the storage key", why)
            return StorageKey.parse(key, "the storage key")
        case os.PathLike():
            return key_in_file(Path(key))
        case _:
            # What it is does not go into the error: it may be a key all the same.
            expected = "the text of a storage key, or the pathlib.Path of its file"
            raise InvalidOption("key", type(key), expected)


def key_in_environment(variable: str = KEY_VARIABLE) -> StorageKey | None:
    """Return the key in a variable of the environment, None where it is empty or not there.

    Raises:
        InvalidKey: what is there is none.
    """
    text = os.environ.get(variable, "")
    return StorageKey.parse(text, variable) if text.strip() else None


def key_by(file: Path | None) -> StorageKey | None:
    """Return the key in a file that was named, or else that of the environment, if any.

    Raises:
        InvalidKey: what is there is none, or others may read it.
    """
    return key_in_environment() if file is None else key_in_file(file)


def key_in_file(path: Path) -> StorageKey:
    """Return the key in a file: one line, beside empty ones and those that begin with `#`.

    Raises:
        NoKeyFile: it is not there.
        KeyFileExposed: others may read it.
        KeyFileError: it cannot be read, for another reason.
        InvalidKey: what is in there is none.
    """
    where = f"the key file {path}"
    try:
        text = read_private(path)[0].decode()
    except NoKeyFile:
        raise NoKeyFile(str(path), "zmesh keys new --storage --file") from None
    except UnicodeDecodeError as error:
        raise InvalidKey(where, "it is no text") from error
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if len(keys) != 1:
        raise InvalidKey(where, f"it has {len(keys)} lines with a key, in the place of one")
    return StorageKey.parse(keys[0], where)
