"""The demonstration, as a user runs it, on a small tree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from zmesh.cli.demo.work import analyse, files_below
from zmesh.cli.main import main
from zmesh.errors import InvalidOption


def test_demo_loses_nothing_when_a_worker_is_killed(tmp_path: Path) -> None:
    for number in range(60):
        text = "".join(f"def function_{number}_{line}(): pass\n" for line in range(number * 40))
        (tmp_path / f"{number}.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "zmesh.cli.main", "demo", "--json", "--tree", str(tmp_path)],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    summary = json.loads(line)
    assert list(summary) == [
        "files", "bytes", "workers", "killed", "joined_late", "discovery_ms", "failover_ms",
        "redelivered", "lost", "wrong", "files_per_s", "seconds",
    ]  # fmt: skip
    assert (summary["files"], summary["lost"], summary["wrong"]) == (60, 0, 0)
    assert (summary["workers"], summary["killed"], summary["joined_late"]) == (3, 1, 1)
    assert summary["discovery_ms"] > 0


def test_analysis_of_a_file_is_what_it_says() -> None:
    analysis = analyse(b"a = b\nb = a_1 + b\n")
    assert analysis["lines"] == 2
    assert analysis["identifiers"] == [["b", 3], ["a", 1], ["a_1", 1]]
    assert len(analysis["sha256"]) == 64


def test_files_come_in_order_and_caches_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    for name in ("b.py", "a.py", "__pycache__/c.pyc"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in files_below(tmp_path)] == ["a.py", "b.py"]


def test_tree_without_files_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidOption, match="at least one file"):
        files_below(tmp_path)
    assert main(["demo", "--tree", str(tmp_path)]) == 2
    assert "at least one file" in capsys.readouterr().err
