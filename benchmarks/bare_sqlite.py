"""The yardstick of what is on disk: one table in SQLite (WAL, `synchronous=FULL`), one thread."""

import sqlite3
import time
from pathlib import Path


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
