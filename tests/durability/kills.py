"""A process that writes a journal is killed again and again; what it acknowledged is there.

The checker knows nothing but what came through the pipe before the process died.
"""

import random
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.journal.support import BOX, IN, OUT, record, row, row_of_run, run, talk
from tests.processes import ROOT
from zmesh.journal.tools import verify
from zmesh.options import KIB, JournalOptions
from zmesh.security.storage_key import StorageKey
from zmesh.storage import Command, CountAttempts, Forget, SetWatermark, Store

PROGRAM = "tests/durability/programs/journal_writer.py"
KEPT = 50
SIZE = 300
OPTIONS = JournalOptions(
    reserve_bytes_min=256 * KIB, wal_bytes_max=128 * KIB, vacuum_bytes_min=16 * KIB
)


def commands(number: int) -> tuple[Command, ...]:
    """Return what batch `number` does."""
    gone = number - KEPT
    work: tuple[Command, ...] = (
        Store(OUT, [row(number, SIZE)]),
        Store(IN, [row(number, number % 7 * 1000)]),
        SetWatermark(IN, number),
        CountAttempts(IN, ((number, number),), number % 5 + 1),
        run(number * 4 - 3, number * 4),  # a block, of which the last goes later
    )
    if gone <= 0:
        return work
    place, places = ((gone, gone),), ((max(gone * 4 - 4, 1), gone * 4 - 1),)
    return (*work, Forget(OUT, place), Forget(IN, place), Forget(BOX, places))


@dataclass
class Figures:
    """What was seen."""

    kills: int = 0
    acknowledged: int = 0
    found_more: int = 0  # written and not told any more: allowed
    lost: int = 0
    wrong: int = 0
    unsound: int = 0

    def is_good(self) -> bool:
        return not (self.lost or self.wrong or self.unsound) and self.acknowledged > 0


def kill_again_and_again(
    place: Path, kills: int, seed: int, longest_s: float = 0.6, key: StorageKey | None = None
) -> Figures:
    """Start a writer, kill it at a random moment, and look, so many times."""
    chance = random.Random(seed)
    path = place / "journal"
    figures = Figures()
    last = incarnation = 0
    for _ in range(kills):
        told, acknowledged = _one_life(path, chance.uniform(0.0, longest_s), key)
        figures.kills += 1
        if told is not None:
            figures.wrong += told <= incarnation
            incarnation = told
        last = max(last, acknowledged)
        found = _look(path, figures, incarnation, key)
        incarnation += 1
        figures.lost += max(0, last - found)
        figures.found_more += max(0, found - last)
        last = found
    figures.acknowledged = last
    return figures


def _one_life(path: Path, seconds: float, key: StorageKey | None) -> tuple[int | None, int]:
    """Let a writer live so long once it has opened; return incarnation and last word."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", PROGRAM, str(path), *([] if key is None else [key.text])],
        stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        if seconds > 0.1:  # else it may die while it opens
            first = process.stdout.readline()
            assert first.startswith(b"open"), first
        else:
            first = b""
            time.sleep(0.15)
        time.sleep(seconds)
        process.kill()
        lines = (first + process.stdout.read()).split(b"\n")[:-1]  # the last may be half
    incarnation, acknowledged = None, 0
    for line in lines:
        words = line.split()
        with suppress(IndexError):
            if words[0] == b"open":
                incarnation, acknowledged = int(words[1]), int(words[2])
            else:
                acknowledged = int(words[1])
    return incarnation, acknowledged


def _look(path: Path, figures: Figures, incarnation: int, key: StorageKey | None) -> int:
    """Look whether the journal is what it was after some batch; return which."""
    if path.exists() and verify(path, key):
        figures.unsound += 1
    with talk(path, options=OPTIONS, key=key) as (speaking, opened):
        figures.unsound += opened.rescue is not None
        figures.wrong += opened.identity.incarnation <= incarnation
        lanes = {state.stream: state for state in opened.streams}
        if IN not in lanes:
            return 0
        last = lanes[IN].received_cum
        wanted = list(range(max(1, last - KEPT + 1), last + 1))
        figures.wrong += lanes[OUT].next_position != last + 1
        figures.wrong += lanes[BOX].next_position != last * 4 + 1
        low = max(1, (last - KEPT) * 4)
        of_runs = [row_of_run(each) for each in range(low, last * 4 + 1)]
        figures.wrong += [each.row for each in speaking.rows(BOX)] != of_runs
        for stream in (OUT, IN):
            rows = speaking.rows(stream)
            figures.wrong += [each.row.position for each in rows] != wanted
            for each in rows:
                number = each.row.position
                size = SIZE if stream == OUT else number % 7 * 1000
                figures.wrong += each.row.record != record(number, size)
                figures.wrong += stream == IN and each.attempts != number % 5 + 1
    return last
