"""A file on its way in: what of it is there, written on, verified, and put in its place.

What came is kept beside the target, in `.NAME.zmesh-part`, so that whoever is to receive the same
file later goes on from there. All of this blocks; it is for threads.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

DIGEST_BYTES: Final = 32
READ_BYTES: Final = 1024 * 1024
"""Read and hashed at a time."""

PARTIAL_PREFIX: Final = "."
PARTIAL_SUFFIX: Final = ".zmesh-part"
NAME_BYTES_MAX: Final = 255 - len(PARTIAL_PREFIX) - len(PARTIAL_SUFFIX)
"""What file systems take, less what the name of the partial file adds."""


class Corrupted(Exception):
    """What came of a file is not what was sent; it was removed."""


class Digest:
    """The BLAKE2b digest of the beginning of a file."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self.size = 0

    def add(self, data: bytes | memoryview) -> None:
        """Add what comes next."""
        self._hash.update(data)
        self.size += len(data)

    def add_file(self, descriptor: int, size: int, is_given_up: threading.Event) -> None:
        """Add the first bytes of a file, as many as there are up to `size`, unless given up."""
        while self.size < size and not is_given_up.is_set():
            data = os.pread(descriptor, min(READ_BYTES, size - self.size), self.size)
            if not data:
                return
            self.add(data)

    def value(self) -> bytes:
        """Return the digest of all that was added."""
        return self._hash.digest()


class PartialFile:
    """A file being received.

    `take` makes it ours, `look` tells what is there, `begin` says from where on it is written,
    and `finish` puts it in place. `give_up` shortens the step that runs; `close` comes last.

    Args:
        target: where it is to be.
        size: of the whole, in bytes.
    """

    def __init__(self, target: Path, size: int) -> None:
        self._target = target
        self._size = size
        self._path = target.with_name(f"{PARTIAL_PREFIX}{target.name}{PARTIAL_SUFFIX}")
        self._descriptor = -1
        self._digest = Digest()
        self._is_there = False  # the target itself may be what is sent
        self._is_over = False  # nothing of ours lies beside the target any more
        self._is_given_up = threading.Event()
        self._lock = threading.Lock()  # a step whose waiter was cancelled goes on

    def take(self) -> bool:
        """Take hold of the partial file; return False where somebody else has it.

        Raises:
            OSError: it cannot be written.
        """
        with self._lock:
            if self._is_given_up.is_set():
                return False
            if self._target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever had it may have put it in its place just now.
                if os.path.samestat(self._path.lstat(), os.fstat(descriptor)):
                    self._descriptor, descriptor = descriptor, -1
            except (BlockingIOError, FileNotFoundError):
                return False
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
            return self._descriptor >= 0

    def look(self) -> tuple[int, bytes]:
        """Return the size and the digest of what is there.

        Raises:
            OSError: it cannot be read, or there is no room for the rest.
        """
        with self._lock:
            there = os.fstat(self._descriptor).st_size
            if there <= self._size:
                self._digest.add_file(self._descriptor, there, self._is_given_up)
            if not there:
                self._look_at_target()
            room = os.fstatvfs(self._descriptor)
            if not self._is_there and self._size - there > room.f_bavail * room.f_frsize:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._digest.size, self._digest.value()

    def _look_at_target(self) -> None:
        """Offer the target as what is there, where it may be the very file that is sent."""
        if not (self._target.is_file() and self._target.stat().st_size == self._size):
            return
        with self._target.open("rb") as file:
            self._digest.add_file(file.fileno(), self._size, self._is_given_up)
        self._is_there = True

    def begin(self, offset: int) -> None:
        """Keep the first `offset` bytes, which is all or nothing of what is there.

        Raises:
            Corrupted: it is neither.
        """
        with self._lock:
            if offset not in {0, self._digest.size}:
                raise Corrupted
            if offset != self._digest.size:
                self._digest = Digest()
            if not offset and self._size:
                self._is_there = False
            os.ftruncate(self._descriptor, 0 if self._is_there else offset)

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Write what comes next; return how much of the file is there.

        Raises:
            Corrupted: more came than was announced.
            OSError: it cannot be written.
        """
        with self._lock:
            if self._digest.size + sum(map(len, pieces)) > self._size:
                self._remove()
                raise Corrupted
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    written = os.pwrite(self._descriptor, view, self._digest.size)
                    self._digest.add(view[:written])
                    view = view[written:]
            return self._digest.size

    def finish(self, digest: bytes) -> None:
        """Verify the file, and put it in its place; it is on disk then.

        Raises:
            Corrupted: it is not what was sent; what came of it is removed.
            OSError: it cannot be put there.
        """
        with self._lock:
            if self._digest.size != self._size or self._digest.value() != digest:
                self._remove()
                raise Corrupted
            if self._is_there:
                self._remove()
                return
            os.fsync(self._descriptor)
            self._path.replace(self._target)
            self._is_over = True
            _sync_directory(self._target.parent)

    def give_up(self) -> None:
        """End soon what runs; to be called from any thread, and followed by `close`."""
        self._is_given_up.set()

    def close(self) -> None:
        """Let go of it; what came stays, unless that is nothing."""
        with self._lock:
            if self._descriptor < 0:
                return
            try:
                if not self._is_over and not os.fstat(self._descriptor).st_size:
                    self._remove()
            finally:
                os.close(self._descriptor)
                self._descriptor = -1

    def _remove(self) -> None:
        self._path.unlink(missing_ok=True)
        self._is_over = True


def _sync_directory(path: Path) -> None:
    """Have a new name in a directory on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
