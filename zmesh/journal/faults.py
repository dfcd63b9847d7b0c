"""What SQLite and the system say of a disk, as errors of ours: mapped once, here."""

import errno
import os
import sqlite3
from enum import Enum
from pathlib import Path
from typing import Final

from zmesh.journal.coding import Unsound
from zmesh.storage_errors import (
    JournalBroken,
    JournalCorrupted,
    JournalFull,
    JournalLocked,
    StorageError,
)

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


class Fault(Enum):
    """What is the matter."""

    FULL = "full"
    DAMAGED = "damaged"
    LOCKED = "locked"
    FAILED = "failed"  # the disk, or what we may do with it


def fault_of(error: Exception, path: Path) -> Fault:
    """Return what the matter is."""
    if isinstance(error, Unsound):
        return Fault.DAMAGED
    if isinstance(error, OSError):
        return Fault.FULL if error.errno in _FULL else Fault.FAILED
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE:
        return Fault.FULL  # the index of the log could not be made longer
    # Without a code: a value is not of the type that was written, or Python cannot read it.
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return Fault.FULL
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Fault.LOCKED
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
            # A header that says "read only", where the file system does not.
            may_write = os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)
            return Fault.DAMAGED if may_write else Fault.FAILED
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_ERROR:
            return Fault.DAMAGED  # an ERROR: our tables are not our tables
        case _:
            return Fault.FAILED


def told(
    error: Exception, path: Path, operation: str, used: int = 0, *, is_tool: bool = False
) -> StorageError:
    """Return the error for whoever runs the node, or a tool that is none."""
    if isinstance(error, StorageError):
        return error
    match fault_of(error, path):
        case Fault.FULL:
            return JournalFull(str(path), used, 0)
        case Fault.LOCKED:
            return JournalLocked(str(path), None)
        case Fault.DAMAGED:
            return JournalCorrupted(str(path), str(error))
        case Fault.FAILED:
            name = getattr(error, "sqlite_errorname", None)
            reason = f"{name}: {error}" if name else str(error)
            return JournalBroken(str(path), operation, reason, has_stopped=not is_tool)
