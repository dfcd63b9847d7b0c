"""A file on its way out: read in order, hashed as it is read. It blocks, and is for threads."""

import os
import stat
import threading
from pathlib import Path

from zmesh.errors import FileChanged, InvalidOption
from zmesh.face.partial_file import Digest


class SourceFile:
    """A file being sent: `open` it, `close` it at last, whatever came in between.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0  # when it was opened, in bytes
        self._path = path
        self._lock = threading.Lock()  # a step whose waiter was cancelled goes on
        self._descriptor = -1
        self._modified = 0
        self._digest = Digest()
        self._is_given_up = threading.Event()

    def open(self) -> None:
        """Open it.

        Raises:
            OSError: it cannot be read.
            InvalidOption: it is no regular file.
        """
        with self._lock:
            if self._is_given_up.is_set():
                return
            # A pipe would block here until somebody writes to it.
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            about = os.fstat(self._descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise InvalidOption("path", str(self._path), "a regular file")
            self.size, self._modified = about.st_size, about.st_mtime_ns

    def begin(self, offset: int, digest: bytes) -> int:
        """Return where to begin for a receiver with `offset` bytes of this digest: there, or 0."""
        with self._lock:
            self._digest = Digest()
            if 0 < offset <= self.size:
                self._digest.add_file(self._descriptor, offset, self._is_given_up)
                if self._digest.value() != digest:
                    self._digest = Digest()
            return self._digest.size

    def read(self, piece: int, size: int) -> list[bytes]:
        """Return the next pieces, so large each, up to `size` bytes in all; none at the end.

        Raises:
            FileChanged: fewer are there than when it was opened.
        """
        pieces: list[bytes] = []
        with self._lock:
            while size > 0 and self._digest.size < self.size:
                wanted = min(piece, size, self.size - self._digest.size)
                data = os.pread(self._descriptor, wanted, self._digest.size)
                if not data:
                    raise FileChanged(str(self._path))
                self._digest.add(data)
                pieces.append(data)
                size -= len(data)
        return pieces

    def finish(self) -> bytes:
        """Return the digest of the whole, all of which was read.

        Raises:
            FileChanged: it was written to since it was opened.
        """
        with self._lock:
            now = os.fstat(self._descriptor)
            if (now.st_size, now.st_mtime_ns) != (self.size, self._modified):
                raise FileChanged(str(self._path))
            return self._digest.value()

    def give_up(self) -> None:
        """End soon what runs; to be called from any thread, and followed by `close`."""
        self._is_given_up.set()

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
