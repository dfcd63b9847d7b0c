"""A disk that fails, under SQLite itself: a VFS in the very library that Python's sqlite3 uses.

The system's VFS does the work; writes, syncs, truncations, removals are counted, logged and may be
made to fail. So the code under test is the one that users run, its exceptions included, and any
version of SQLite will do. (`apsw` has a VFS in Python too, but brings an SQLite of its own.)

`power_cut` gives the disk as it may be found after one: what was synced is there, and of what was
written since any part, down to single sectors.
"""

import _sqlite3
import ctypes
import os
import random
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

from zmesh.ids import JournalId
from zmesh.journal.files import Files

SECTOR = 512
SQLITE_OK = 0
SQLITE_IOERR = 10
WRITE, FSYNC, TRUNCATE, DELETE = (SQLITE_IOERR | kind << 8 for kind in (3, 4, 6, 10))
FULL = 13


class _Vfs(ctypes.Structure):
    pass


# SQLite keeps the pointer to the name, so that very pointer is handed on.
_OPEN = CFUNCTYPE(c_int, POINTER(_Vfs), c_void_p, c_void_p, c_int, POINTER(c_int))
_REMOVE = CFUNCTYPE(c_int, POINTER(_Vfs), c_char_p, c_int)
_Vfs._fields_ = [
    ("iVersion", c_int), ("szOsFile", c_int), ("mxPathname", c_int), ("pNext", c_void_p),
    ("zName", c_char_p), ("pAppData", c_void_p), ("xOpen", _OPEN), ("xDelete", _REMOVE),
    *[(f"x{number}", c_void_p) for number in range(16)],
]  # fmt: skip

_CLOSE = CFUNCTYPE(c_int, c_void_p)
_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)


class _Methods(ctypes.Structure):
    _fields_ = [
        ("iVersion", c_int), ("xClose", _CLOSE), ("xRead", c_void_p), ("xWrite", _WRITE),
        ("xTruncate", _TRUNCATE), ("xSync", _SYNC),
        *[(f"x{number}", c_void_p) for number in range(13)],
    ]  # fmt: skip


class _File(ctypes.Structure):
    _fields_ = [("pMethods", POINTER(_Methods))]


_library = ctypes.CDLL(_sqlite3.__file__)  # its symbols, and those of what it is linked with
_library.sqlite3_vfs_find.restype = POINTER(_Vfs)
_library.sqlite3_vfs_find.argtypes = [c_char_p]
_library.sqlite3_vfs_register.argtypes = [POINTER(_Vfs), c_int]
_library.sqlite3_vfs_unregister.argtypes = [POINTER(_Vfs)]


class PowerCut(OSError):
    """What our own file operations raise when the disk is gone."""


Operation = tuple[str, str]
"""What is done ("write", "sync", "truncate", "remove", "rename", "claim", ...), to which file."""


class FaultyDisk:
    """One disk with what is in one directory. `fail` is asked before each operation."""

    _names = 0

    def __init__(self, place: Path) -> None:
        FaultyDisk._names += 1
        self.name = f"faulty-{os.getpid()}-{FaultyDisk._names}"
        self.place = place
        self.operations: list[Operation] = []
        self.fail: Callable[[Operation], int | str | None] = lambda _: None
        self.durable: dict[str, bytearray] = {}
        self.unsynced: dict[str, list[tuple[int, bytes | None]]] = defaultdict(list)
        self.is_cut = False
        self._paths: dict[int, str] = {}
        self._tables: dict[int, tuple[_Methods, _Methods]] = {}
        system = _library.sqlite3_vfs_find(None)
        self._system = system.contents
        self._system_pointer = system
        self._vfs = _Vfs()
        ctypes.memmove(ctypes.byref(self._vfs), system, ctypes.sizeof(_Vfs))
        self._vfs.zName = self.name.encode()
        self._vfs.pNext = None
        self._vfs.xOpen = _OPEN(self._open)
        self._vfs.xDelete = _REMOVE(self._remove)
        assert _library.sqlite3_vfs_register(ctypes.byref(self._vfs), 0) == SQLITE_OK

    def close(self) -> None:
        _library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))

    # What is done to files

    def ask(self, what: str, path: str) -> int | str | None:
        """Note an operation; return how it is to fail, or None."""
        operation = (what, Path(path).name)
        if self.is_cut:
            return "cut"
        self.operations.append(operation)
        return self.fail(operation)

    def cut(self) -> None:
        """From now on nothing reaches the disk."""
        self.is_cut = True

    def wrote(self, path: str, offset: int, data: bytes) -> None:
        self.unsynced[path].append((offset, data))

    def synced(self, path: str) -> None:
        content = self.durable.setdefault(path, bytearray())
        for offset, data in self.unsynced.pop(path, []):
            _do(content, offset, data)

    def renamed(self, source: str, target: str) -> None:
        self.durable[target] = self.durable.pop(source, bytearray())
        self.unsynced[target] = self.unsynced.pop(source, [])
        # SQLite may have the file open: it goes on under the new name.
        self._paths = {
            file: target if path == source else path for file, path in self._paths.items()
        }

    def removed(self, path: str) -> None:
        self.durable.pop(path, None)
        self.unsynced.pop(path, None)

    def power_cut(self, chance: random.Random, target: Path) -> None:
        """Write what may be left: names are as they were, unsynced data is there in part."""
        self.cut()
        for path in self.durable.keys() | self.unsynced.keys():
            content = self.durable.get(path, bytearray()).copy()
            kept = chance.choice((0.0, 0.5, 0.9, 1.0))
            for offset, data in self.unsynced.get(path, []):
                if data is None:
                    if chance.random() < kept:
                        _do(content, offset, None)
                    continue
                for start in range(0, len(data), SECTOR):
                    if chance.random() < kept:
                        _do(content, offset + start, data[start : start + SECTOR])
            (target / Path(path).name).write_bytes(content)

    # SQLite's

    def _open(self, _vfs: Any, name: int | None, file: int, flags: int, out: Any) -> int:
        result = self._system.xOpen(self._system_pointer, name, file, flags, out)
        opened = ctypes.cast(file, POINTER(_File)).contents
        if result == SQLITE_OK and name is not None and opened.pMethods:
            path = ctypes.string_at(name).decode()
            self._paths[file] = path
            address = ctypes.addressof(opened.pMethods.contents)
            opened.pMethods = ctypes.pointer(self._methods(address))
            self.durable.setdefault(path, bytearray())
        return int(result)

    def _methods(self, address: int) -> _Methods:
        """Return the system's methods with ours in the place of some."""
        if address not in self._tables:
            system = _Methods.from_address(address)
            ours = _Methods()
            ctypes.memmove(ctypes.byref(ours), address, ctypes.sizeof(_Methods))

            def write(file: int, data: int, size: int, offset: int) -> int:
                path = self._paths[file]
                failure = self.ask("write", path)
                if failure == "short":
                    system.xWrite(file, data, size // 2, offset)
                    self.wrote(path, offset, ctypes.string_at(data, size // 2))
                    return WRITE
                if failure is not None:
                    return WRITE if isinstance(failure, str) else failure
                self.wrote(path, offset, ctypes.string_at(data, size))
                return int(system.xWrite(file, data, size, offset))

            def truncate(file: int, size: int) -> int:
                failure = self.ask("truncate", self._paths[file])
                if failure is not None:
                    return TRUNCATE if isinstance(failure, str) else failure
                self.wrote(self._paths[file], size, None)  # type: ignore[arg-type]
                return int(system.xTruncate(file, size))

            def sync(file: int, flags: int) -> int:
                failure = self.ask("sync", self._paths[file])
                if failure is not None:
                    return FSYNC if isinstance(failure, str) else failure
                result = int(system.xSync(file, flags))
                self.synced(self._paths[file])
                return result

            ours.xWrite, ours.xTruncate, ours.xSync = (
                _WRITE(write), _TRUNCATE(truncate), _SYNC(sync),
            )  # fmt: skip
            self._tables[address] = (ours, system)
        return self._tables[address][0]

    def _remove(self, _vfs: Any, name: bytes, sync: int) -> int:
        failure = self.ask("remove", name.decode())
        if failure is not None:
            return DELETE if isinstance(failure, str) else failure
        self.removed(name.decode())
        return int(self._system.xDelete(self._system_pointer, name, sync))


def _do(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class FaultyFiles(Files):
    """Our own file operations on such a disk."""

    def __init__(self, path: Path, disk: FaultyDisk) -> None:
        super().__init__(path, disk.name)
        self.disk = disk

    def _ask(self, what: str, path: Path) -> None:
        failure = self.disk.ask(what, str(path))
        if failure is not None:
            number = failure if isinstance(failure, int) else 5
            raise PowerCut(number, os.strerror(number))

    def create(self, path: Path) -> None:
        self._ask("create", path)
        super().create(path)
        self.disk.durable[str(path)] = bytearray()

    def rename(self, source: Path, target: Path) -> None:
        self._ask("rename", source)
        super().rename(source, target)
        self.disk.renamed(str(source), str(target))

    def remove(self, path: Path) -> None:
        self._ask("unlink", path)
        super().remove(path)
        self.disk.removed(str(path))

    def sync(self, path: Path) -> None:
        self._ask("fsync", path)
        if path.is_file():
            self.disk.synced(str(path))

    def lengthen(self, path: Path, size: int) -> None:
        self._ask("lengthen", path)
        before = self.size_of(path)
        super().lengthen(path, size)
        self.disk.wrote(str(path), before, bytes(max(0, size - before)))
        self._ask("fsync", path)
        self.disk.synced(str(path))

    def allocate(self, path: Path, size: int) -> None:
        self._ask("allocate", path)
        super().allocate(path, size)

    def claim(self, journal: JournalId, commits: int) -> None:
        path = self.beside(".lock")
        self._ask("claim", path)
        super().claim(journal, commits)
        self.disk.wrote(str(path), 0, path.read_bytes())


def sqlite_version() -> str:
    return sqlite3.sqlite_version
