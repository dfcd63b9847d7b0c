"""`python -m benchmarks.instructions`: instructions of the hot paths, beside the stored counts.

They repeat, whatever else the machine does: those of the interpreter (bytecode, without what the
standard library's and other C code does), and, where `valgrind` is, those of the processor.
"""

import argparse
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.instruction_cases import CASES, Case
from benchmarks.judging import exit_status

STORED = Path(__file__).parent / "instructions.json"
ROOT = Path(__file__).parent.parent

WARM = 32
"""Times a case is done before it is counted: caches are filled, windows as wide as they get."""

TIMES = 32

TIMES_SLOWLY = 8
"""The same under valgrind, where all takes fifty times as long."""

WORSE_MIN = 0.03
"""Fewer more than this part is not told. The same code repeats exactly; a line moved, another
place of an object in memory (so of its hash) or another checkout are worth up to one in a hundred,
and a change that costs three in a hundred of a hot path is one to have been meant."""

BYTECODE, PROCESSOR = "bytecode", "processor"

Counts = Mapping[str, float]
"""Instructions of a case done once, by its key."""

Thunk = Callable[[], object]


# Bytecode


def bytecode(cases: Sequence[Case] = CASES, *, warm: int = WARM, times: int = TIMES) -> Counts:
    """Count the instructions of the interpreter, but for those of this very program."""
    return {case.key: _bytecode_of(case, warm, times) for case in cases}


def _bytecode_of(case: Case, warm: int, times: int) -> float:
    steps = case.steps()
    _warm_up(steps, warm)
    seen = 0

    def on_opcode(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal seen
        seen += event == "opcode"
        return on_opcode

    def on_call(frame: FrameType, _event: str, _argument: object) -> Any:
        if frame.f_globals.get("__name__", "").startswith("benchmarks."):
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return on_opcode

    before = sys.gettrace()
    for _ in range(times):
        thunk = next(steps)
        sys.settrace(on_call)
        try:
            thunk()
        finally:
            sys.settrace(before)
    return round(seen / times, 1)


def _warm_up(steps: Iterator[Thunk], warm: int) -> None:
    gc.disable()
    for _ in range(warm):
        next(steps)()


# Processor


def processor() -> Counts | None:
    """Count the instructions of the processor, C code included; None where valgrind is not."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        _run_counted(valgrind, Path(directory))
        return _counts_in(Path(directory))


def _run_counted(valgrind: str, place: Path) -> None:
    # Nothing else of the environment: strings of other lengths move the stack.
    environment = {"PATH": os.defpath, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        *_without_random_addresses(), valgrind, "--tool=callgrind",
        "--zero-before=getpgrp", "--dump-before=getppid",
        f"--callgrind-out-file={place / 'counts'}",
        sys.executable, "-m", "benchmarks.instructions", "--counted",
    ]  # fmt: skip
    ended = subprocess.run(  # noqa: S603
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise RuntimeError(f"it does not run under valgrind: {ended.stderr[-500:]}")


def _without_random_addresses() -> list[str]:
    setarch = shutil.which("setarch")
    return [setarch, platform.machine(), "--addr-no-randomize"] if setarch else []


def _counts_in(place: Path) -> Counts:
    """Read what `counted` had written, in its order."""
    numbers = count(1)
    counts = {}
    for case in CASES:
        seen = [_count_in(place / f"counts.{next(numbers)}") for _ in range(TIMES_SLOWLY)]
        counts[case.key] = round(sum(seen) / TIMES_SLOWLY, 1)
    return counts


def _count_in(file: Path) -> int:
    [found] = re.findall(r"^summary: (\d+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found)


def counted() -> None:
    """Do each case between calls of `getpgrp` and `getppid`, which valgrind looks for."""
    for case in CASES:
        steps = case.steps()
        _warm_up(steps, WARM)
        for _ in range(TIMES_SLOWLY):
            thunk = next(steps)
            os.getpgrp()
            thunk()
            os.getppid()


# Beside the stored ones


@dataclass(frozen=True, slots=True)
class Compared:
    """A count beside the stored one."""

    how: str
    case: str
    now: float
    stored: float | None

    @property
    def ratio(self) -> float:
        return self.now / self.stored if self.stored else 1.0

    @property
    def is_worse(self) -> bool:
        return self.ratio > 1 + WORSE_MIN

    @property
    def word(self) -> str:
        if self.stored is None:
            return "not compared"
        if self.is_worse:
            return "worse"
        return "better: store it" if self.ratio < 1 - WORSE_MIN else "well"


Stored = Mapping[str, Mapping[str, float]]
"""Counts by what they are of (`place`), and case."""


def place(how: str) -> str:
    """Return what counts depend on: they are compared with those of the very same alone."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    if how == BYTECODE:
        return f"{how}, {python.rpartition('.')[0]}"
    return f"{how}, {python}, msgpack {version('msgpack')}, {platform.machine()}"


def measured() -> dict[str, Counts]:
    """Count in each way that can be had here."""
    found: dict[str, Counts] = {BYTECODE: bytecode()}
    by_processor = processor()
    if by_processor is not None:
        found[PROCESSOR] = by_processor
    return found


def compared(found: Mapping[str, Counts], stored: Stored) -> list[Compared]:
    """Put counts beside the stored ones."""
    return [
        Compared(how, key, now, stored.get(place(how), {}).get(key))
        for how, counts in found.items()
        for key, now in counts.items()
    ]


def told(found: Sequence[Compared]) -> str:
    """Return the comparison as a Markdown table."""
    titles = {case.key: case.title for case in CASES}
    lines = ["| done once | instructions of | stored | now | |", "| --- |" + " --- |" * 4]
    for each in found:
        before = "nothing" if each.stored is None else f"{each.stored:,.0f}"
        change = "" if each.stored is None else f" ({each.ratio - 1:+.1%})"
        lines.append(
            f"| {titles[each.case]} | {each.how} | {before} | {each.now:,.0f}{change} "
            f"| {each.word} |"
        )
    return "\n".join(lines)


def read(path: Path = STORED) -> dict[str, dict[str, float]]:
    """Return the stored counts."""
    if not path.exists():
        return {}
    stored: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    return stored


def check(path: Path = STORED) -> int:
    """Count, print the comparison, and return how it ended."""
    found = measured()
    told_of = compared(found, read(path))
    print(told(told_of))
    if PROCESSOR not in found:
        print("valgrind is not installed: instructions of the processor are not counted")
    return exit_status(told_of)


def main() -> int:
    """Count and compare, or store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--store", action="store_true", help="store the counts: they are right")
    parser.add_argument("--stored", type=Path, default=STORED, help="the file they are in")
    parser.add_argument("--counted", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.counted:
        counted()
        return 0
    if not options.store:
        return check(options.stored)
    found = measured()
    stored = {**read(options.stored), **{place(how): counts for how, counts in found.items()}}
    text = json.dumps(stored, indent=1, sort_keys=True)
    options.stored.write_text(text + "\n", encoding="utf-8")
    print(told(compared(found, stored)))
    print(f"stored in {options.stored}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
