"""A forked program is what `python` would have made of it."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from tests.processes import ROOT, Forked, run

ENDINGS = [
    ("print('fine')", 0, "fine\n", ""),
    ("raise SystemExit(3)", 3, "", ""),
    ("import sys; sys.exit('no')", 1, "", "no\n"),
    ("1 / 0", 1, "", "ZeroDivisionError"),
    ("import warnings; warnings.warn('no')", 1, "", "UserWarning: no"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, "", ""),
    ("raise KeyboardInterrupt", -2, "", "KeyboardInterrupt"),
    ("import os; os.environ['SEEN'] = '1'", 0, "", ""),
    ("import os; assert 'SEEN' not in os.environ", 0, "", ""),
    ("import atexit; atexit.register(print, 'late'); print('soon')", 0, "soon\nlate\n", ""),
    ("import asyncio\nasync def f(): print('ran')\nasyncio.run(f())", 0, "ran\n", ""),
    ("open('/dev/null')", 0, "", "ResourceWarning"),
    ("import signal; print(signal.getsignal(signal.SIGCHLD))", 0, "0\n", ""),
    ("import threading; print(threading.enumerate())", 0, "[<_MainThread(MainThread", ""),
    ("import sys; print(__name__, sys.argv, repr(sys.stdin.read()))", 0, "['-c'] ''\n", ""),
]


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "forked"])
@pytest.mark.parametrize(("code", "status", "out", "error"), ENDINGS)
async def test_how_a_program_ends_is_noticed(
    code: str, status: int, out: str, error: str, *, fresh: bool
) -> None:
    async with run("-c", code, fresh=fresh) as child:
        ended = await child.ended()
    assert ended[0] == status, ended
    assert out in ended[1]
    assert error in ended[2]
    assert error or not ended[2]


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "forked"])
async def test_a_script_and_a_module_see_where_they_are(tmp_path: Path, *, fresh: bool) -> None:
    text = "import sys, os\nprint([__name__, __file__, sys.argv, sys.path[0], os.getcwd()])\n"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tale.py").write_text(text)
    script, place = str(tmp_path / "other" / "tale.py"), tmp_path / "other"
    async with run(script, "a", "b", place=tmp_path, fresh=fresh) as child:
        told = ["__main__", script, [script, "a", "b"], str(place), str(tmp_path)]
        assert await child.ended() == (0, f"{told}\n", "")
    async with run("-m", "tale", "a", place=place, fresh=fresh) as child:
        told = ["__main__", script, [script, "a"], str(place), str(place)]
        assert await child.ended() == (0, f"{told}\n", "")


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "forked"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_signals_end_it(number: int, *, fresh: bool) -> None:
    code = "import time; print('ready', flush=True); time.sleep(60)"
    async with run("-c", code, fresh=fresh) as child:
        assert await child.line() == "ready"
        child.process.send_signal(number)
        status, _, error = await child.ended()
    assert status == -number
    assert ("KeyboardInterrupt" in error) == (number == signal.SIGINT)


async def test_it_reads_lines_and_their_end() -> None:
    code = "import sys\nfor line in sys.stdin: print('got', line, end='', flush=True)"
    async with run("-c", code, reads=True) as child:
        for word in ("one", "two"):
            await child.tell(word)
            assert await child.line() == f"got {word}"
        child.end_of_input()
        assert await child.ended() == (0, "", "")


async def test_many_run_at_once_and_each_ends_on_its_own() -> None:
    async def one(number: int) -> tuple[int, str, str]:
        async with run("-c", f"import sys; print({number}); sys.exit({number})") as child:
            return await child.ended()

    ended = await asyncio.gather(*(one(number) for number in range(20)))
    assert ended == [(number, f"{number}\n", "") for number in range(20)]


async def test_environment_is_what_was_given() -> None:
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    seen = []
    for fresh in (True, False):
        async with run("-c", code, environment={"ZMESH_WORD": "said"}, fresh=fresh) as child:
            seen.append(json.loads((await child.ended())[1]))
    assert seen[0] == seen[1]
    assert seen[0].items() >= {**os.environ, "ZMESH_WORD": "said", "PYTHONPATH": str(ROOT)}.items()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are seen in /proc")
async def test_no_file_of_another_is_left_open() -> None:
    code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    async with run("-c", "input()", reads=True), run("-c", code) as child:
        assert await child.ended() == (0, "[0, 1, 2, 3]\n", "")


async def test_what_still_runs_is_killed_at_the_end() -> None:
    async with run("-c", "import time; print(1, flush=True); time.sleep(60)") as child:
        await child.line()
    assert child.process.returncode == -signal.SIGKILL
    assert isinstance(child.process, Forked)
    with pytest.raises(ProcessLookupError):
        os.kill(child.process.pid, 0)


async def test_forks_are_of_one_process() -> None:
    parents = set()
    for _ in range(2):
        async with run("-c", "import os; print(os.getppid())") as child:
            parents.add((await child.ended())[1])
    assert len(parents) == 1
