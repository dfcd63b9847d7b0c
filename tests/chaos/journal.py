"""A journal that is damaged, and one whose writer is killed, as often as it takes to believe it.

`python -m tests.chaos.journal --damages 10000 --kills 200` prints a line of JSON (`--encrypted`:
of a journal with a storage key), and fails where
damage was not seen and not harmless, where a row came back other than it was written, or where
something that was acknowledged was gone after a `kill -9`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.durability.damage import Bases, Verdicts, judge
from tests.durability.kills import kill_again_and_again
from tests.journal.support import KEY
from tests.memory import directory_in_memory
from tests.processes import say
from zmesh.security.storage_key import StorageKey

Figures = dict[str, Any]


def damage_share(first: int, last: int, key: StorageKey | None) -> Verdicts:
    """Damage a journal in so many ways, and judge each."""
    with directory_in_memory() as place:
        bases = Bases(place / "bases", key=key)
        bases.build()
        verdicts = Verdicts()
        for number in range(first, last):
            judge(bases, number, verdicts, place)
        return verdicts


def damage_all(damages: int, key: StorageKey | None) -> Figures:
    """Damage in as many processes as there are cores."""
    workers = len(os.sched_getaffinity(0))
    step = -(-damages // workers)
    starts = range(0, damages, step)
    counts: Counter[str] = Counter()
    silent: list[str] = []
    rows = rescued = 0
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        ends = [min(damages, start + step) for start in starts]
        for verdicts in pool.map(damage_share, starts, ends, repeat(key)):
            counts += verdicts.counts
            silent += verdicts.silent
            rows += verdicts.rows
            rescued += verdicts.rescued
    return {
        "damages": sum(counts.values()),
        "verdicts": dict(sorted(counts.items())),
        "rows_in_damaged": rows,
        "rows_rescued": rescued,
        "unnoticed": silent,
    }


def ok(figures: Figures) -> bool:
    """Return whether all was as it should be."""
    kills = figures["kills"]
    return not figures["unnoticed"] and not (kills["lost"] or kills["wrong"] or kills["unsound"])


def main(damages: int, kills: int, *, is_encrypted: bool) -> Figures:
    """Do both."""
    began = time.monotonic()
    key = KEY if is_encrypted else None
    figures = damage_all(damages, key)
    with tempfile.TemporaryDirectory() as place:
        figures["kills"] = asdict(kill_again_and_again(Path(place), kills, seed=1, key=key))
    figures["seconds"] = round(time.monotonic() - began, 1)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--damages", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--encrypted", action="store_true", help="with a storage key")
    options = parser.parse_args()
    result = main(options.damages, options.kills, is_encrypted=options.encrypted)
    result["ok"] = ok(result)
    say(json.dumps(result))
    sys.exit(not result["ok"])
