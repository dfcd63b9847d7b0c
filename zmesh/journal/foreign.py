"""What is no journal of ours, damaged or not, is left alone."""

import sqlite3
from contextlib import closing
from typing import Final

from zmesh.ids import JournalId
from zmesh.journal.faults import Fault, fault_of
from zmesh.journal.files import Files
from zmesh.journal.schema import APPLICATION_ID, version_of
from zmesh.storage_errors import JournalBroken

_APPLICATION_ID_AT: Final = 68  # in the file: https://www.sqlite.org/fileformat2.html section 1.3


def refuse_irregular(files: Files) -> None:
    """Leave alone what is no file.

    Raises:
        JournalBroken: there is a directory, or a device, at the path of the journal.
    """
    path = files.path
    if path.is_dir():
        raise JournalBroken(str(path), "be opened", "this is a directory")
    if files.exists(path) and not path.is_file():
        raise JournalBroken(str(path), "be opened", "this is no regular file")


def refuse_foreign(files: Files, claimed: tuple[JournalId, int] | None) -> None:
    """Leave alone what is no journal of ours: it must not be set aside.

    Args:
        files: of the journal.
        claimed: what is claimed of it; where something is, it was a journal.

    Raises:
        JournalBroken: the file is another's.
        OSError, sqlite3.Error: it cannot be read.
    """
    refuse_irregular(files)
    if claimed is not None or not files.exists(files.path):
        return
    with files.path.open("rb") as file:
        head = file.read(_APPLICATION_ID_AT + 4)
    if not head or head[_APPLICATION_ID_AT:] == APPLICATION_ID.to_bytes(4, "big"):
        return
    try:
        with closing(files.connect(read_only=True)) as database:
            (number,) = database.execute("PRAGMA application_id").fetchone()  # maybe in the log
            if number == APPLICATION_ID or version_of(database) == 0:
                return
    except sqlite3.DatabaseError as error:
        if fault_of(error, files.path) is not Fault.DAMAGED:
            raise
    raise JournalBroken(str(files.path), "be opened", "this file is no journal of zmesh")
