"""Rows of a damaged SQLite file, page by page: its trees may be torn, each row tells for itself.

The formats are those of https://www.sqlite.org/fileformat2.html (sections 1.3, 1.5, 1.6, 2 and 4).
Nothing is written, and SQLite is not asked: it ends a log at the first frame that is broken, and
would move the log into the file.
"""

import os
import sys
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from struct import unpack_from
from typing import Final

DATABASE_HEADER_BYTES: Final = 100
WAL_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
TABLE_LEAF: Final = 0x0D
COLUMNS_MAX: Final = 16
PAYLOAD_MAX: Final = 1 << 30  # SQLite's own limit for a row
PAGE_SIZE: Final = 4096  # as we create it, should the header not tell

Found = tuple[int, tuple[bytes | int | None, ...]]
"""The row id of a row, and its columns."""


class Image:
    """The pages of a database: those of the file, and in their place the later ones of its log.

    A frame's checksum goes on from the one before, so with that taken from the file each frame can
    be checked by itself: what follows a broken frame is not lost.
    """

    def __init__(self, database: Path, log: Path) -> None:
        # Without a database there may be a log.
        self._file = database.open("rb") if database.exists() else None
        self._file_bytes = 0 if self._file is None else os.fstat(self._file.fileno()).st_size
        self._log = log.read_bytes() if log.exists() else b""
        self.page_size = self._page_size()
        self.broken_frames = 0
        self._newest: dict[int, int] = {}  # page -> where in the log
        self._doubtful: list[int] = []  # frames that are the newest of their page, and broken
        self._read_log()
        in_file = -(-self._file_bytes // self.page_size)
        self.pages = max([in_file, *self._newest])
        self._free = self._free_pages()

    def _page_size(self) -> int:
        head = self._read(0, DATABASE_HEADER_BYTES)
        for data, offset, layout in ((head, 16, ">H"), (self._log, 8, ">I")):
            with suppress(Exception):
                (size,) = unpack_from(layout, data, offset)
                size = 65536 if size == 1 else size
                if 512 <= size <= 65536 and size & (size - 1) == 0:
                    return int(size)
        return PAGE_SIZE

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _read(self, offset: int, size: int) -> bytes:
        return b"" if self._file is None else os.pread(self._file.fileno(), size, offset)

    # The log

    def _read_log(self) -> None:
        step = FRAME_HEADER_BYTES + self.page_size
        count = (len(self._log) - WAL_HEADER_BYTES) // step
        starts = [WAL_HEADER_BYTES + index * step for index in range(count)]
        salts = self._salts(starts)
        little = self._is_little(starts, step)
        seed = self._log[24:32]
        is_inside = True  # whether the frame before was of this generation of the log
        open_frames: list[tuple[int, int]] = []  # page and start, until they are committed
        broken: list[tuple[int, int]] = []
        for start in starts:
            page, commit = unpack_from(">II", self._log, start)
            told = self._log[start + 16 : start + 24]
            has_salts = self._log[start + 8 : start + 16] == salts
            is_sound = (has_salts or is_inside) and (
                _checksum(self._log, start, step, seed, little=little) == told
            )
            is_inside = is_sound or has_salts
            if is_sound:
                open_frames.append((page, start))
            elif has_salts:
                broken.append((page, start))
            if commit and is_inside:
                self._newest.update(open_frames)
                open_frames.clear()
            seed = told
        self.broken_frames = len(broken)
        if broken and broken[-1][1] > max(self._newest.values(), default=0):
            broken += open_frames  # it may be their commit that is broken
        self._doubtful = [start for page, start in broken if self._newest.get(page, 0) < start]

    def _salts(self, starts: list[int]) -> bytes:
        """Return what marks the frames of this generation, though one mark may be broken."""
        told = self._log[16:24]
        marks = [self._log[start + 8 : start + 16] for start in starts[:2]]
        return marks[0] if len(marks) > 1 and marks[0] == marks[1] else told

    def _is_little(self, starts: list[int], step: int) -> bool:
        """Return the byte order of the checksums, though what tells it may be broken."""
        told = not (self._log[3:4] or b"\0")[0] & 1
        for start in starts[:1]:
            checksums = [
                _checksum(self._log, start, step, self._log[24:32], little=little)
                for little in (told, not told)
            ]
            if checksums[1] == self._log[start + 16 : start + 24]:
                return not told
        return told

    # Pages

    def page(self, number: int) -> bytes:
        """Return a page as it was last committed; short or empty where it is not there."""
        start = self._newest.get(number)
        if start is not None:
            return self._log[start + FRAME_HEADER_BYTES :][: self.page_size]
        return self._read((number - 1) * self.page_size, self.page_size)

    def _free_pages(self) -> set[int]:
        """Return the pages that hold nothing any more, as far as the list of them can be read."""
        free: set[int] = set()
        first = self.page(1)
        trunk = unpack_from(">I", first, 32)[0] if len(first) >= DATABASE_HEADER_BYTES else 0
        while 0 < trunk <= self.pages and trunk not in free:
            page = self.page(trunk)
            if len(page) < self.page_size or page[0] == TABLE_LEAF:
                break
            free.add(trunk)
            trunk, count = unpack_from(">II", page)
            count = min(count, self.page_size // 4 - 2)
            free.update(each for each in unpack_from(f">{count}I", page, 8) if each <= self.pages)
        return free

    # Rows

    def rows(self) -> Iterator[Found]:
        """Yield whatever looks like a row of a table; the caller knows a sound one."""
        for number in range(2, self.pages + 1):  # the first has the schema
            if number not in self._free:
                yield from self._rows_of(self.page(number))
        for start in self._doubtful:
            yield from self._rows_of(self._log[start + FRAME_HEADER_BYTES :][: self.page_size])

    def _rows_of(self, page: bytes) -> Iterator[Found]:
        if len(page) < 8 or page[0] != TABLE_LEAF:
            return
        count = min(unpack_from(">H", page, 3)[0], (len(page) - 8) // 2)
        for offset in unpack_from(f">{count}H", page, 8):
            with suppress(IndexError, ValueError, OverflowError):
                row_id, columns = self._row(page, offset)
                if columns:
                    yield row_id, columns

    def _row(self, page: bytes, offset: int) -> Found:
        size, offset = _varint(page, offset)
        row_id, offset = _varint(page, offset)
        return row_id, _columns(self._payload(page, offset, size))

    def _payload(self, page: bytes, offset: int, size: int) -> bytes:
        """Return a row's bytes, those on overflow pages too (section 1.6)."""
        if size > min(PAYLOAD_MAX, self.pages * self.page_size):
            raise ValueError("longer than any row, or than all there is")
        usable = self.page_size
        local = size
        if size > usable - 35:
            least = (usable - 12) * 32 // 255 - 23
            local = least + (size - least) % (usable - 4)
            local = least if local > usable - 35 else local
        parts = [page[offset : offset + local]]
        missing = size - local
        overflow = int.from_bytes(page[offset + local : offset + local + 4], "big")
        while missing > 0:
            page = self.page(overflow) if 0 < overflow <= self.pages else b""
            if len(page) <= 4:
                raise ValueError("it goes on nowhere")
            parts.append(page[4 : 4 + missing])
            missing -= len(parts[-1])
            overflow = int.from_bytes(page[:4], "big")
        return b"".join(parts)


def _columns(payload: bytes) -> tuple[bytes | int | None, ...]:
    """Return the columns of a record (section 2.1)."""
    end, offset = _varint(payload, 0)
    types = []
    while offset < end:
        kind, offset = _varint(payload, offset)
        types.append(kind)
        if len(types) > COLUMNS_MAX:
            raise ValueError("more columns than any table has")
    columns: list[bytes | int | None] = []
    for kind in types:
        if kind == 0:
            columns.append(None)
        elif kind in {8, 9}:
            columns.append(kind - 8)
        elif kind <= 6:
            size = (0, 1, 2, 3, 4, 6, 8)[kind]
            columns.append(int.from_bytes(payload[offset : offset + size], "big", signed=True))
            offset += size
        elif kind >= 12:
            size = (kind - 12) // 2
            columns.append(payload[offset : offset + size])
            offset += size
        else:
            raise ValueError("no column of ours")
    if offset > len(payload):
        raise ValueError("shorter than its columns")
    return tuple(columns)


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        byte = data[offset]
        offset += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, offset
    value = value << 8 | data[offset]
    if value >= 1 << 63:
        value -= 1 << 64
    return value, offset + 1


def _checksum(log: bytes, start: int, step: int, seed: bytes, *, little: bool) -> bytes:
    """Return what the checksum of a frame should be, given the one before (section 4.2)."""
    words = array("I", log[start : start + 8])
    words.frombytes(log[start + FRAME_HEADER_BYTES : start + step])
    if little != (sys.byteorder == "little"):
        words.byteswap()
    first, second = int.from_bytes(seed[:4], "big"), int.from_bytes(seed[4:], "big")
    for index in range(0, len(words), 2):
        first = (first + words[index] + second) & 0xFFFFFFFF
        second = (second + words[index + 1] + first) & 0xFFFFFFFF
    return first.to_bytes(4, "big") + second.to_bytes(4, "big")
