"""The documentation runs: every Python block of README and docs, each in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from threading import Timer

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")

SECONDS_MAX = 60
"""For a block: all take a second or two."""


def snippets() -> list[tuple[str, str]]:
    """Return every Python block with the place it stands at."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match.group(1)))
    return found


@pytest.fixture(scope="module")
def runner() -> Iterator[subprocess.Popen[str]]:
    """Return what runs programs, each in its own process, with zmesh imported once for all."""
    command = [sys.executable, "-W", "error", "-m", "tests.warm"]
    with subprocess.Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize(("place", "code"), snippets(), ids=[place for place, _ in snippets()])
def test_python_block_runs(
    place: str, code: str, tmp_path: Path, runner: subprocess.Popen[str]
) -> None:
    status, output = run(runner, code, tmp_path)
    assert status == 0, f"{place}\n{output}"


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("print('fine')", 0, "fine\n"),
        ("raise SystemExit(3)", 3, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import warnings; warnings.warn('no')", 1, "UserWarning: no"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
        ("import os; os.environ['SEEN'] = '1'", 0, ""),
        ("import os; assert 'SEEN' not in os.environ", 0, ""),
    ],
)
def test_how_a_block_ends_is_noticed(
    code: str, status: int, told: str, tmp_path: Path, runner: subprocess.Popen[str]
) -> None:
    ended, output = run(runner, code, tmp_path)
    assert ended == status
    assert told in output


def run(runner: subprocess.Popen[str], code: str, place: Path) -> tuple[int, str]:
    """Return the exit status of a program, and what it printed; in a minute it is killed."""
    script, output = place / "snippet.py", place / "output"
    script.write_text(code, encoding="utf-8")
    mesh = f"docs-{os.urandom(6).hex()}"  # other tests on this machine must not be found
    environment = {"ZMESH_MESH": mesh, "PYTHONPATH": str(ROOT)}
    order = {"script": str(script), "place": str(place), "output": str(output)}
    return _status_of(runner, {**order, "environment": environment}), output.read_text(
        encoding="utf-8"
    )


def _status_of(runner: subprocess.Popen[str], order: dict[str, object]) -> int:
    assert runner.stdin is not None
    assert runner.stdout is not None
    runner.stdin.write(json.dumps(order) + "\n")
    runner.stdin.flush()
    child = int(runner.stdout.readline())
    timer = Timer(SECONDS_MAX, os.kill, (child, signal.SIGKILL))
    timer.start()
    try:
        return int(runner.stdout.readline())
    finally:
        timer.cancel()
        timer.join()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
