"""The yardstick of what is on disk: one table in SQLite (WAL, `synchronous=FULL`), one thread."""

import os
import sqlite3
import statistics
import time
from pathlib import Path

SYNCS = 200
SYNCED = bytes(range(256)) * 33  # about what a commit of one message adds to a log


def inserted(path: Path, body: bytes, batch: int, seconds: float) -> float:
    """Return rows per second that SQLite takes, so many a commit."""
    database = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, body BLOB NOT NULL)")
    number, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        database.execute("BEGIN")
        rows = [(number + index, body) for index in range(batch)]
        database.executemany("INSERT INTO rows VALUES (?, ?)", rows)
        database.execute("COMMIT")
        number += batch
    took = time.perf_counter() - began
    database.close()
    return number / took


def sync_seconds(path: Path) -> tuple[float, float]:
    """Return the median time of a sync: of a file that has grown, and of one written over."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    medians = []
    try:
        for _ in range(2):
            times = []
            for number in range(SYNCS):
                os.pwrite(descriptor, SYNCED, number * len(SYNCED))
                began = time.perf_counter()
                os.fdatasync(descriptor)
                times.append(time.perf_counter() - began)
            medians.append(statistics.median(times))
    finally:
        os.close(descriptor)
        path.unlink()
    return medians[0], medians[1]
