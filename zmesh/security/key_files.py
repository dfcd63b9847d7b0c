"""Key files: mesh keys, one a line, for their owner's eyes only.

```
# the mesh of the cameras, since March
zmk1.w3VZ...
```

The first key is the primary one. Empty lines and what follows a `#` mean nothing.
"""

import os
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from zmesh.security.mesh_key import MeshKey
from zmesh.security_errors import KeyFileError, KeyFileExposed, NoKeyFile

FILE_BYTES_MAX: Final = 65_536
"""A key takes 54 bytes: what is larger is no key file, and is not read to its end."""

KEYS_MAX: Final = 8
"""A rotation takes two. With each more a dial may take another handshake."""

_OTHERS: Final = 0o077

_THERE: Final = "is there already, and is not overwritten"

_SYNTAX: Final = str.maketrans({"%": "%25", "/": "%2F", "\\": "%5C", "\x00": "%00"})


class Stamp(NamedTuple):
    """What a file looks like from outside: where two are alike, so is what is in the file."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> "Stamp":
        """Return that of a file."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key file, read."""

    path: Path
    lines: tuple[str, ...]
    keys: tuple[MeshKey, ...]
    stamp: Stamp

    def with_keys(self, keys: Sequence[MeshKey]) -> str:
        """Return the text with these keys instead; lines that held none stay where they are."""
        left = [key.text for key in keys]
        lines = []
        for line in self.lines:
            if not _key_of(line):
                lines.append(line)
            elif left:
                lines.append(left.pop(0))
        return "\n".join([*lines, *left]) + "\n"


def default_key_file(mesh: str, environment: Mapping[str, str]) -> Path | None:
    """Return where the key of a mesh is looked for; None where there is no home directory.

    `$XDG_CONFIG_HOME/zmesh/<mesh>.key`, where that variable is an absolute path (XDG Base
    Directory Specification 0.8), else `~/.config/zmesh/<mesh>.key`.
    """
    told = environment.get("XDG_CONFIG_HOME", "")
    if Path(told).is_absolute():
        config = Path(told)
    else:
        home = environment.get("HOME", "")
        try:
            config = (Path(home) if home else Path.home()) / ".config"
        except RuntimeError:  # no home is known
            return None
    return config / "zmesh" / f"{mesh.translate(_SYNTAX)}.key"


def read_key_file(path: Path) -> KeyFile:
    """Read a key file. Blocks.

    Raises:
        NoKeyFile: there is none.
        KeyFileExposed: its group or others may read, write or run it.
        KeyFileError: it cannot be read, is no regular file, or holds no key or too many.
        InvalidKey: a line is no key; the error names file and line, and not what it says.
    """
    data, found = read_private(path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise KeyFileError(str(path), "is no text: it is no key file") from error
    lines = tuple(text.splitlines())
    keys = {
        MeshKey.parse(encoded, f"{path} line {number}"): None
        for number, line in enumerate(lines, 1)
        if (encoded := _key_of(line))
    }
    if not keys:
        raise KeyFileError(str(path), "holds no key: make one with `zmesh keys new --file`")
    if len(keys) > KEYS_MAX:
        raise KeyFileError(str(path), f"holds {len(keys)} keys, and at most {KEYS_MAX} may be")
    return KeyFile(path, lines, tuple(keys), Stamp.of(found))


def stamp_of(path: Path) -> Stamp | None:
    """Return what a file looks like from outside; None where it cannot be told. Blocks."""
    try:
        return Stamp.of(path.stat())
    except OSError:
        return None


def check_place(path: Path) -> None:
    """See that a key file could be created; the directories above it are made. Blocks.

    Raises:
        KeyFileError: there is something already, or nothing can be written there.
    """
    temporary = None
    try:
        with suppress(FileNotFoundError):
            os.lstat(path)
            raise KeyFileError(str(path), _THERE)
        _make_directories(path.parent)
        descriptor, temporary = _temporary_in(path.parent)
        os.close(descriptor)
    except (OSError, ValueError) as error:
        raise _failed(path, "be written", error) from error
    finally:
        _remove(temporary)


def create_key_file(path: Path, text: str) -> None:
    """Write a key file where there is none: whole and on disk, or not at all. Blocks.

    The directories above it are made, for their owner alone.

    Raises:
        KeyFileError: there is something already, or it cannot be written.
    """
    temporary = None
    try:
        _make_directories(path.parent)
        descriptor, temporary = _temporary_in(path.parent)
        _fill(descriptor, text)
        _place(temporary, path, text)
    except FileExistsError as error:
        raise KeyFileError(str(path), _THERE) from error
    except (OSError, ValueError) as error:
        raise _failed(path, "be written", error) from error
    finally:
        _remove(temporary)


def replace_key_file(path: Path, text: str) -> None:
    """Write a key file anew: whoever reads it gets the text of before or this one. Blocks.

    A symbolic link stays one.

    Raises:
        KeyFileError: it cannot be written, and is as before; or is, and the disk failed.
    """
    temporary = None
    try:
        target = path.resolve(strict=True)
        before = target.stat()
        descriptor, temporary = _temporary_in(target.parent)
        if hasattr(os, "fchown") and os.geteuid() != before.st_uid:
            os.fchown(descriptor, before.st_uid, before.st_gid)  # root must not take it away
        _fill(descriptor, text)
        Path(temporary).replace(target)
        _sync_names(target.parent)
    except OSError as error:
        raise _failed(path, "be written", error) from error
    finally:
        _remove(temporary)


def text_of(keys: Iterable[MeshKey], comment: str) -> str:
    """Return the text of a new key file."""
    return "\n".join([f"# {comment}", *(key.text for key in keys)]) + "\n"


def check_mode(path: Path, found: os.stat_result) -> None:
    """Raise KeyFileExposed where others than the owner may get at a file."""
    mode = stat.S_IMODE(found.st_mode)
    if mode & _OTHERS and os.name == "posix":
        raise KeyFileExposed(str(path), mode)


def _key_of(line: str) -> str:
    return line.partition("#")[0].strip()


def read_private(path: Path) -> tuple[bytes, os.stat_result]:
    """Return what is in a file for its owner's eyes only, and what the file is. Blocks.

    Raises:
        NoKeyFile, KeyFileExposed, KeyFileError: as `read_key_file`.
    """
    try:
        # A pipe must not keep us waiting.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            # Looked at and read through one descriptor: nobody can exchange it in between.
            found = os.fstat(descriptor)
            _check(path, found)
            data = os.read(descriptor, FILE_BYTES_MAX + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise NoKeyFile(str(path)) from error
    except (OSError, ValueError) as error:  # a path with a zero byte in it is a ValueError
        raise _failed(path, "be read", error) from error
    if len(data) > FILE_BYTES_MAX:
        raise KeyFileError(str(path), f"is over {FILE_BYTES_MAX:,} bytes: it is no key file")
    return data, found


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "directory" if stat.S_ISDIR(found.st_mode) else "device or pipe"
        raise KeyFileError(str(path), f"is a {kind} and no file")
    check_mode(path, found)


def _make_directories(path: Path) -> None:
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):  # with `parents=True` those above would have any mode
        each.mkdir(mode=0o700, exist_ok=True)


def _temporary_in(directory: Path) -> tuple[int, str]:
    """Return a new file that nobody else may read: its descriptor, and its path."""
    return tempfile.mkstemp(dir=directory, prefix=".zmesh-key-")


def _remove(temporary: str | None) -> None:
    if temporary is not None:
        with suppress(OSError):
            Path(temporary).unlink()


def _place(temporary: str, path: Path, text: str) -> None:
    """Give a whole file its name, if that is free; FileExistsError if it is not."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: no other way tells that it is free
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _fill(descriptor, text)
        except OSError:
            _remove(str(path))
            raise
    try:
        _sync_names(path.parent)
    except OSError:
        _remove(str(path))
        raise


def _sync_names(directory: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(descriptor: int, text: str) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(descriptor)


def _failed(path: Path, operation: str, error: Exception) -> KeyFileError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return KeyFileError(str(path), f"cannot {operation}: {why}")
