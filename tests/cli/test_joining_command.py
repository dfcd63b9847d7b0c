"""`zmesh invite` and `zmesh join` as processes of their own, on 127.0.0.1, found by mDNS there."""

import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGINT

import pytest

from tests.processes import Child, run
from zmesh.cli.main import main
from zmesh.security.key_files import create_key_file, read_key_file, text_of
from zmesh.security.mesh_key import MeshKey

KEY, OLD = MeshKey(b"k" * 32), MeshKey(b"o" * 32)
ZMESH = ("-m", "zmesh.cli.main")
HERE = ("--interfaces", "127.0.0.1")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "inviter" / "a.key"
    create_key_file(path, text_of([KEY, OLD], "test"))
    return path


@asynccontextmanager
async def inviting(key_file: Path, *arguments: str) -> AsyncIterator[tuple[Child, dict[str, str]]]:
    """Run `zmesh invite`; return it and what it told at its beginning."""
    words = ("invite", "--mesh", "cameras", "--key-file", str(key_file), *HERE, "--json")
    async with run(*ZMESH, *words, "--linger", "0", *arguments) as child:
        told = json.loads(await child.line())
        assert told["event"] == "invited"
        yield child, told


def new_device(home: Path) -> dict[str, str]:
    """Return the environment of a device that has no key."""
    return {"XDG_CONFIG_HOME": str(home), "ZMESH_KEY": "", "ZMESH_KEY_FILE": ""}


async def test_a_new_device_gets_the_key_by_the_code_alone(tmp_path: Path, key_file: Path) -> None:
    environment = new_device(tmp_path / "home")
    async with inviting(key_file) as (inviter, told):
        words = ("join", told["code"].lower().replace("-", " "), *HERE, "--json")
        async with run(*ZMESH, *words, environment=environment) as joiner:
            status, out, error = await joiner.ended()
            assert (status, error) == (0, "")
        joined = json.loads(await inviter.line())
        assert (await inviter.ended())[0] == 0
    result = json.loads(out)
    place = tmp_path / "home" / "zmesh" / "cameras.key"
    assert result["mesh"] == "cameras"
    assert result["path"] == str(place)
    assert result["fingerprint"] == told["fingerprint"] == joined["fingerprint"] == KEY.fingerprint
    assert (joined["event"], joined["saved"]) == ("joined", True)
    assert read_key_file(place).keys == (KEY, OLD)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    shown = json.dumps([told, joined, result])
    assert KEY.text not in shown
    assert KEY.secret.hex() not in shown


async def test_people_are_told_in_words(tmp_path: Path, key_file: Path) -> None:
    words = ("invite", "--mesh", "cameras", "--key-file", str(key_file), *HERE, "--no-mdns")
    async with run(*ZMESH, *words, "--linger", "0.1") as inviter:
        told = [await inviter.line() for _ in range(6)]
        assert told[0] == f"Invitation to mesh 'cameras', key {KEY.fingerprint}."
        code = told[2].removeprefix("    zmesh join ")
        assert "within 10 minutes" in told[4]
        assert "switched off" in told[4]
        at = told[4].rpartition("--at ")[2]
        file = tmp_path / "new.key"
        async with run(*ZMESH, "join", "--at", at, "--file", str(file), reads=True) as joiner:
            await joiner.tell(code)
            status, out, error = await joiner.ended()
        assert (status, error) == (0, "Code: ")
        assert f"its key {KEY.fingerprint} is in {file}" in out
        status, out, error = await inviter.ended()
        assert (status, error) == (0, "")
        assert f"joined and keeps the key. It shows {KEY.fingerprint} too." in out
        assert "Who comes later is told so" in out


async def test_three_wrong_attempts_are_shown_and_end_it(tmp_path: Path, key_file: Path) -> None:
    file = tmp_path / "new.key"
    async with inviting(key_file, "--no-mdns") as (inviter, told):
        code, at = told["code"], told["endpoints"][0]
        guess = code[:-1] + ("0" if code[-1] != "0" else "2")
        for left in (2, 1, 0):
            words = ("join", guess, "--at", at, "--file", str(file))
            async with run(*ZMESH, *words) as joiner:
                status, out, error = await joiner.ended()
            assert (status, out) == (1, "")
            assert "the code is wrong" in error
            failed = json.loads(await inviter.line())
            assert (failed["event"], failed["attempts_left"]) == ("attempt_failed", left)
        assert json.loads(await inviter.line()) == {"event": "dead"}
        status, _, error = await inviter.ended()
    assert status == 1
    assert "wrong code" in error, "the audit log"
    assert not file.exists()


async def test_nobody_comes(key_file: Path) -> None:
    async with inviting(key_file, "--no-mdns", "--expires", "0.2") as (inviter, told):
        assert float(told["expires"]) == 0.2
        assert json.loads(await inviter.line()) == {"event": "expired"}
        assert (await inviter.ended())[0] == 1


async def test_ctrl_c_withdraws_it(tmp_path: Path, key_file: Path) -> None:
    async with inviting(key_file) as (inviter, told):
        inviter.process.send_signal(SIGINT)
        status, _, error = await inviter.ended()
        assert (status, error) == (130, "")
        words = ("join", told["code"], "--at", told["endpoints"][0])
        async with run(*ZMESH, *words, "--file", str(tmp_path / "new.key")) as joiner:
            status, _, error = await joiner.ended()
    assert status == 1
    assert "see that `zmesh invite` still waits" in error
    assert "somebody else used the code: the other screen tells" in error


async def test_who_comes_too_late_is_told_that_the_code_was_used(
    tmp_path: Path, key_file: Path
) -> None:
    async with inviting(key_file, "--linger", "600") as (inviter, told):
        results = []
        for name in ("thief", "device"):
            words = ("join", told["code"], *HERE, "--file", str(tmp_path / name))
            async with run(*ZMESH, *words) as joiner:
                results.append(await joiner.ended())
        assert results[0][0] == 0
        status, _, error = results[1]
        assert status == 1
        assert "the invitation was used" in error
        inviter.process.send_signal(SIGINT)
        status, out, error = await inviter.ended()
    assert (status, error) == (0, ""), "it has done what it was for"
    assert json.loads(out)["event"] == "joined"


async def test_who_comes_too_late_is_told_that_it_has_expired(
    tmp_path: Path, key_file: Path
) -> None:
    more = ("--no-mdns", "--expires", "0.2", "--linger", "600")
    async with inviting(key_file, *more) as (inviter, told):
        assert json.loads(await inviter.line()) == {"event": "expired"}
        words = ("join", told["code"], "--at", told["endpoints"][0], "--file", str(tmp_path / "a"))
        async with run(*ZMESH, *words) as joiner:
            status, _, error = await joiner.ended()
        inviter.process.send_signal(SIGINT)
        assert (await inviter.ended())[0] == 1
    assert status == 1
    assert "has expired" in error
    assert "was found" not in error


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("join", "417"), "no code"),
        (("join", "417-AAAA-AAAA", "--at", "nowhere"), "at="),
        (("join", "417-AAAA-AAAA", "--file", "/"), "no directory"),
        (("invite", "--port", "70000"), "port"),
        (("invite", "--expires", "-1"), "expires"),
        (("invite", "--linger", "nan"), "--linger"),
        (("invite", "--mesh", "nobody-has-a-key"), "zmesh keys new"),
    ],
)
def test_wrong_usage_is_named(
    words: tuple[str, ...],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(words) == 2
    assert why in capsys.readouterr().err
