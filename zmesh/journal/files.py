"""The files of a journal, and everything that is done to them: faults are injected here.

`PATH` is the database, `PATH-wal` and `PATH-shm` are SQLite's; `PATH.lock` tells who has it and
how far it had come, `PATH.reserve` is space kept for when there is none, `PATH.suspect` says that
it was found damaged while it was open. A damaged one is set aside as `PATH.damaged-1` and so on.
"""

import errno
import fcntl
import os
import sqlite3
import struct
import time
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final
from zlib import crc32

from zmesh.ids import JournalId
from zmesh.options import JournalOptions
from zmesh.storage_errors import JournalLocked

BUSY_TIMEOUT_S: Final = 10.0  # a tool that copies the journal may hold it for a moment
MODE: Final = 0o600  # bodies are nobody else's affair
OTHERS: Final = 0o066
LOCK_TRIES: Final = 5  # who asks whether it is taken has it for a moment
LOCK_PAUSE_S: Final = 0.02
NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_CLAIM: Final = Struct(">I16sQ")  # process, journal, commits; a checksum follows
_CHECKSUM_BYTES: Final = 4


class Files:
    """The operating system, for one journal.

    Args:
        path: of the database.
        vfs: SQLite's name of what it reads and writes files with; the system's own by default.
    """

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        self.path = Path(os.path.realpath(path))  # or two names would be two locks
        self._vfs = vfs
        self._lock = -1
        self._pid = os.getpid()

    def beside(self, suffix: str) -> Path:
        """Return the path of a neighbour."""
        return self.path.with_name(self.path.name + suffix)

    # The database

    def connect(
        self, path: Path | None = None, *, read_only: bool = False, cache_bytes: int = 0
    ) -> sqlite3.Connection:
        """Open a database that is there; transactions are the caller's."""
        mode = "ro" if read_only else "rw"
        vfs = "" if self._vfs is None else f"&vfs={self._vfs}"
        uri = f"{(path or self.path).absolute().as_uri()}?mode={mode}{vfs}"
        database = sqlite3.connect(uri, BUSY_TIMEOUT_S, isolation_level=None, uri=True)
        try:
            database.text_factory = bytes  # a flipped bit may make a text of bytes
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute(f"PRAGMA cache_size = -{(cache_bytes or 2 << 20) // 1024}")
        except BaseException:
            database.close()
            raise
        return database

    def create(self, path: Path) -> None:
        """Create an empty file that nobody else may read; SQLite's own get the same mode."""
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE))

    # Files

    def exists(self, path: Path) -> bool:
        """Return whether there is such a file."""
        return path.exists()

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def sync(self, path: Path) -> None:
        """Have a file, or the names in a directory, on disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_names(self) -> None:
        """Have the names of all files of the journal on disk."""
        self.sync(self.path.absolute().parent)

    def allocate(self, path: Path, size: int) -> None:
        """Create a file that takes so many bytes of the disk; OSError where there are none."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            self.remove(path)
            raise
        finally:
            os.close(descriptor)

    def lengthen(self, path: Path, size: int) -> None:
        """Add zeros to a file until it is so long, where there is space, and have that on disk.

        What is written there later is synced without a word about how long the file is, which
        many file systems write to another place.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(descriptor, bytes(max(0, size - os.fstat(descriptor).st_size)))
            os.fdatasync(descriptor)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
        finally:
            os.close(descriptor)

    def size_of(self, path: Path) -> int:
        """Return the size of a file; 0 where there is none."""
        try:
            return os.stat(path).st_size  # noqa: PTH116  # half of what the path's own takes
        except FileNotFoundError:
            return 0

    def free_bytes(self) -> int:
        """Return how much space the disk has for us."""
        state = os.statvfs(self.path.absolute().parent)
        return state.f_bavail * state.f_frsize

    # The lock, and what is claimed in it

    def lock(self) -> None:
        """Take the journal for this process.

        Raises:
            JournalLocked: somebody else has it.
        """
        descriptor = os.open(
            self.beside(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE
        )
        try:
            self._flock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor

    def _flock(self, descriptor: int) -> None:
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOCK_PAUSE_S)
            else:
                return
        raise JournalLocked(str(self.path), _pid_in(descriptor))

    def unlock(self) -> None:
        """Let others have the journal. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def claimed(self) -> tuple[JournalId, int] | None:
        """Return which journal was here and how many commits it had, at least; None if unknown."""
        claim = _read_claim(self._lock)
        return None if claim is None else (JournalId(claim[1]), claim[2])

    def claim(self, journal: JournalId, commits: int) -> None:
        """Note that so many commits are on disk.

        SQLite ends its log at the first broken frame, and what follows is as if it had never been.
        This is how that is found out. It is not synced: after a power cut it may say too little,
        and never too much.
        """
        data = _CLAIM.pack(self._pid, journal, commits)
        os.pwrite(self._lock, data + crc32(data).to_bytes(_CHECKSUM_BYTES, "big"), 0)


def holder_of(path: Path) -> tuple[bool, int | None]:
    """Return whether somebody has the journal open, and the process if it is known."""
    with suppress(FileNotFoundError):
        descriptor = os.open(
            path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True, _pid_in(descriptor)
        finally:
            os.close(descriptor)
    return False, None


def readable_by_others(path: Path) -> list[Path]:
    """Return which files of a journal that have bodies in them others may read or write.

    What we make is for its owner alone; files may come from a copy, or from somebody's chmod.
    """
    if os.name == "nt":
        return []
    damaged = f"{path.name}.damaged-"
    databases = ("", ".new", ".salvage", ".app")
    names = {path.name + part + log for part in databases for log in ("", "-wal", "-shm")}
    found = []
    with os.scandir(path.absolute().parent) as there:
        for each in there:
            if each.name in names or each.name.startswith(damaged):
                with suppress(FileNotFoundError):
                    if each.stat().st_mode & OTHERS:
                        found.append(path.with_name(each.name))
    return sorted(found)


def claim_of(path: Path) -> tuple[JournalId, int] | None:
    """Return what is claimed of a journal that somebody else may have open."""
    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        claim = _read_claim(descriptor)
    finally:
        os.close(descriptor)
    return None if claim is None else (JournalId(claim[1]), claim[2])


def _read_claim(descriptor: int) -> tuple[int, bytes, int] | None:
    data = os.pread(descriptor, _CLAIM.size + _CHECKSUM_BYTES, 0)
    try:
        claim: tuple[int, bytes, int] = _CLAIM.unpack(data[: _CLAIM.size])
    except struct.error:
        return None
    told = int.from_bytes(data[_CLAIM.size :], "big")
    return claim if crc32(data[: _CLAIM.size]) == told else None


def _pid_in(descriptor: int) -> int | None:
    claim = _read_claim(descriptor)
    return None if claim is None else claim[0]


class Reserve:
    """Space kept for when there is none: SQLite cannot even delete on a full disk."""

    def __init__(self, files: Files, options: JournalOptions) -> None:
        self._files = files
        self._path = files.beside(".reserve")
        self._size = max(options.reserve_bytes_min, 2 * options.wal_bytes_max)
        self.is_there = False

    def take(self) -> bool:
        """Take the space, where the disk has half as much again; tell whether it is ours.

        Raises:
            OSError: for another reason than want of space.
        """
        if not self.is_there:
            kept = self._files.exists(self._path)
            if not kept and self._files.free_bytes() < self._size + self._size // 2:
                return False
            try:
                self._files.allocate(self._path, self._size)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                return False
            self.is_there = True
        return True

    def release(self) -> bool:
        """Give the space back; tell whether there was any."""
        self.is_there = False
        was_there = self._files.exists(self._path)  # an earlier life may have left it
        self._files.remove(self._path)
        return was_there
