"""`zmesh bench`, as a user runs it: alone, and between two processes of a mesh."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zmesh
from zmesh.cli.bench.command import Figure
from zmesh.cli.bench.measures import MEASURES
from zmesh.cli.main import main

COMMAND = [sys.executable, "-m", "zmesh.cli.main", "bench"]
SHORT = ["--seconds", "0.05", "--json"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=110, check=False
    )


def measures(done: subprocess.CompletedProcess[str]) -> dict[str, float]:
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return {each["measure"]: each["value"] for each in json.loads(line)["measures"]}


def test_alone_it_measures_all_on_loopback() -> None:
    done = run(*SHORT)
    assert list(measures(done)) == [each.key for each in MEASURES]
    assert all(value > 0 for value in measures(done).values())
    [endpoint] = json.loads(done.stdout)["endpoints"]
    assert endpoint.startswith("tcp://127.0.0.1:")


def test_alone_it_measures_what_is_asked_for_with_a_key() -> None:
    assert list(measures(run(*SHORT, "--encrypt", "--only", "call"))) == ["call"]


def test_two_of_a_mesh_measure_between_them(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(zmesh.MeshKey(os.urandom(32)).text, encoding="utf-8")
    key.chmod(0o600)
    common = ["--mesh", "bench-test", "--key-file", str(key), "--interfaces", "127.0.0.1"]
    with subprocess.Popen(
        [*COMMAND, "--serve", "--name", "there", "--json", *common],
        stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            told = json.loads(server.stdout.readline())
            assert (told["serving"], told["mesh"]) == ("there", "bench-test")
            at = told["endpoints"][0].removeprefix("tcp://")
            done = run("--with", "there", "--at", at, "--only", "posts", "calls", *SHORT, *common)
            assert list(measures(done)) == ["posts", "calls"]
            assert json.loads(done.stdout)["with"] == "there"
        finally:
            server.kill()


def test_other_end_that_is_not_there_is_told() -> None:
    done = run("--with", "nobody", "--mesh", "bench-nobody", "--timeout", "0.1")
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--seconds", "0"], "more than 0 seconds, at most 60"),
        (["--seconds", "61"], "more than 0 seconds, at most 60"),
        (["--with", "x", "--timeout", "nan"], "more than 0 seconds"),
        (["--mesh", "some"], "given with --serve or --with"),
        (["--with", "x", "--encrypt"], "given alone"),
        (["--with", "x", "--name", "y"], "given with --serve"),
        (["--serve", "--only", "call"], "given with --with"),
        (["--serve", "--seconds", "5"], "given to who measures"),
        (["--serve", "--timeout", "5"], "given to who measures"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("posts", 76_543.2, "76,500/s"),
        ("call", 103.4, "103 us"),
        ("parts", 4.567, "4.57 MiB/s"),
    ],
)
def test_figures_have_three_digits_that_count(key: str, value: float, text: str) -> None:
    [measure] = [each for each in MEASURES if each.key == key]
    assert Figure(measure, value).text == text
