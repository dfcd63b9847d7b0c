"""Fuzz the targets in turn, guided by coverage: `python -m tests.fuzz.run --minutes 5`.

Prints a line of JSON for each. Ends with 1 where one found something; the input that did is
beside the others in `.fuzz/TARGET/`, and `python -m tests.fuzz.replay TARGET FILE` runs it again.
"""

import argparse
import json
import re
import subprocess
import sys
from hashlib import sha1
from pathlib import Path
from typing import Final

from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS

WORK: Final = Path(".fuzz")
"""What fuzzing finds on its way, to go on with the next time; not for the repository."""

TIMEOUT_S: Final = 60
"""For one input by the clock on the wall: all take milliseconds, where nobody else works."""

MEMORY_MIB: Final = 1024
"""For the whole process, the fuzzer's own tables included."""

BYTES_MAX: Final = 4096

_RUNS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--merge", action="store_true", help="add to the corpus what reaches more")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    unknown = sorted(set(names) - set(TARGETS))
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}")
    if arguments.merge:
        return max(merge(name) for name in names)
    return max(fuzz(name, arguments.minutes * 60) for name in names)


def fuzz(name: str, seconds: float) -> int:
    """Run one target for so long; return 1 where something was found."""
    found, crashes = WORK / name / "found", WORK / name / "crashes"
    for directory in (found, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    for data in seeds.made(name):
        (found / sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    before = set(crashes.iterdir())
    limits = [
        f"-timeout={TIMEOUT_S}",
        f"-report_slow_units={TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-max_len={BYTES_MAX}",
    ]
    told = _child(
        name, *limits, f"-max_total_time={max(1, round(seconds))}", "-print_final_stats=1",
        f"-artifact_prefix={crashes}/", str(found), *_kept(name),
    )  # fmt: skip
    runs = _RUNS.search(told.stderr)
    new = sorted(str(path) for path in set(crashes.iterdir()) - before)
    summary = {
        "target": name,
        "runs": int(runs[1]) if runs else 0,
        "seconds": round(seconds),
        "corpus": len(list(found.iterdir())),
        "crashes": new,
    }
    print(json.dumps(summary), flush=True)  # noqa: T201  this is a command
    if told.returncode or new or not runs:
        print(told.stderr[-8000:], file=sys.stderr)  # noqa: T201
        return 1
    return 0


def merge(name: str) -> int:
    """Copy to the corpus what reaches code that nothing in it reaches."""
    kept = seeds.CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    told = _child(name, "-merge=1", f"-max_len={BYTES_MAX}", str(kept), str(WORK / name / "found"))
    return told.returncode


def _kept(name: str) -> list[str]:
    kept = seeds.CORPUS / name
    return [str(kept)] if kept.exists() else []


def _child(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.child", *arguments]
    return subprocess.run(
        command, stderr=subprocess.PIPE, text=True, errors="replace", check=False
    )


if __name__ == "__main__":
    sys.exit(main())
