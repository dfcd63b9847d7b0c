"""Where the storage key comes from: an argument, a file, the environment."""

import os
from pathlib import Path
from shlex import quote
from typing import Final

from zmesh.errors import InvalidOption
from zmesh.security.key_files import read_private
from zmesh.security.storage_key import StorageKey
from zmesh.security_errors import InvalidKey, KeyFileError, KeyFileExposed, NoKeyFile

KEY_VARIABLE: Final = "ZMESH_STORAGE_KEY"
NEW_KEY_VARIABLE: Final = "ZMESH_STORAGE_KEY_NEW"
"""In the environment: the text of the key, and of the one that is to take its place."""


def storage_key_of(key: object) -> StorageKey | None:
    """Return the key that an option names, or without one that of the environment.

    Args:
        key: its text, the path of a file with it, a `StorageKey`, or None.

    Raises:
        InvalidKey: it is none.
        InvalidOption: it is nothing of these.
    """
    match key:
        case None:
            return key_in_environment()
        case StorageKey():
            return key
        case str():
            return StorageKey.parse(key, "the storage key")
        case os.PathLike():
            return key_in_file(Path(key))
        case _:
            # What it is does not go into the error: it may be a key all the same.
            told = type(key).__name__
            raise InvalidOption("key", told, "the text of a storage key, or the path of its file")


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
        InvalidKey: there is none, or others may read it.
    """
    where = f"the key file {path}"
    try:
        text = read_private(path)[0].decode()
    except NoKeyFile as error:
        how = "it is not there: make one with `zmesh keys new --storage --file`, or copy it"
        raise InvalidKey(where, how) from error
    except KeyFileExposed as error:
        raise InvalidKey(where, f"others may read it: chmod 600 {quote(str(path))}") from error
    except KeyFileError as error:
        raise InvalidKey(where, f"it {error.why}") from error
    except UnicodeDecodeError as error:
        raise InvalidKey(where, "it is no text") from error
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if len(keys) != 1:
        raise InvalidKey(where, f"it has {len(keys)} lines with a key, in the place of one")
    return StorageKey.parse(keys[0], where)
