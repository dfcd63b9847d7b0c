"""`zmesh dead-letters`, beside a node and without it."""

import json
from pathlib import Path

import pytest

from tests.journal.support import talk
from tests.nodes import nodes
from tests.storing import stored
from zmesh.cli.main import main
from zmesh.message import Kind, Tag, extra, head
from zmesh.storage import (
    DEAD_LETTERS,
    Burial,
    Entry,
    EntryKind,
    FailedAttempt,
    Row,
    SetEntries,
    Store,
    Stream,
    StreamKind,
)

BOX = Stream(StreamKind.WAITING, b"b")


def burial(reason: str, source: Stream | None = BOX) -> Burial:
    history = (FailedAttempt(1_000, "no paper"), FailedAttempt(2_000, reason))
    return Burial("b", reason, history, 2, 2_000, b"p" * 16, source, (4, "key"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with two letters that can go back, and one that cannot."""
    path = tmp_path / "journal"
    rows = [
        Row(at, (head(Kind.DIRECT), "", text, (16, at)), 500, order=at, note=kept.as_note())
        for at, text, kept in (
            (1, b"one", burial("no ink")),
            (2, b"two", burial("no hope")),
            (3, b"three", burial("no ink", None)),
        )
    ]
    given_out = Entry(EntryKind.COUNTER, "numbers", b"", (4).to_bytes(8))
    with talk(path) as (journal, _):
        journal.write(Store(DEAD_LETTERS, rows), SetEntries((given_out,)))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["dead-letters", *map(str, arguments)])
    out, error = capsys.readouterr()
    return code, out, error


def ids(path: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> list[int]:
    code, out, _ = run(capsys, "list", path, *arguments, "--json")
    assert code == 0
    return [each["id"] for each in json.loads(out)]


def test_list_tells_a_line_each(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "list", path)
    first, *others = out.splitlines()
    assert first == "     1 1970-01-01T00:00:02.000+00:00 peer b, 2 attempts: no ink"
    assert len(others) == 2


def test_letters_are_chosen_by_id_and_reason(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ids(path, capsys) == [1, 2, 3]
    assert ids(path, capsys, "2", "1") == [2, 1]
    assert ids(path, capsys, "--reason", "^no (ink|paper)$") == [1, 3]
    assert ids(path, capsys, "1", "2", "--reason", "hope") == [2]


def test_show_tells_all_of_a_letter(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "show", path, 1, "--json")
    [letter] = json.loads(out)
    assert letter == {
        "id": 1, "kind": "peer", "destination": "b", "reason": "no ink", "attempts": 2,
        "stored": "1970-01-01T00:00:00.500+00:00", "died": "1970-01-01T00:00:02.000+00:00",
        "peer": (b"p" * 16).hex(), "key": "key", "headers": {}, "body": "b'one'",
        "history": [
            {"at": "1970-01-01T00:00:01.000+00:00", "reason": "no paper"},
            {"at": "1970-01-01T00:00:02.000+00:00", "reason": "no ink"},
        ],
    }  # fmt: skip
    _, out, _ = run(capsys, "show", path, 1)
    assert "attempt      1970-01-01T00:00:01.000+00:00 no paper" in out
    assert "b'one'" in out


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("requeue",), 2, "which dead letters"),
        (("purge",), 2, "which dead letters"),
        (("purge", "--reason", "("), 2, "no regular expression"),
        (("purge", "1", "9"), 2, "no dead letter 9"),
        (("requeue", "1", "3"), 2, "not known where it was"),
    ],
)
def test_what_cannot_be_done_changes_nothing(
    path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    why: str,
) -> None:
    verb, *others = arguments
    found, _, error = run(capsys, verb, path, *others)
    assert found == code
    assert why in error
    assert ids(path, capsys) == [1, 2, 3]


def test_without_a_journal_there_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, "list", tmp_path / "none")
    assert code == 2
    assert "no journal" in error


def test_purge_forgets_the_chosen(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "purge", path, "--reason", "ink", "--json")
    assert (code, json.loads(out)["purged"]) == (0, [1, 3])
    assert ids(path, capsys) == [2]
    run(capsys, "purge", path, "--all")
    assert ids(path, capsys) == []


def test_requeue_stores_the_chosen_anew_under_numbers_of_their_own(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, _ = run(capsys, "requeue", path, 2, 1)
    assert code == 0
    assert ids(path, capsys) == [3]
    with talk(path) as (journal, _):
        rows = [each.row for each in journal.rows(BOX)]
    assert [(row.position, row.record[2], row.note) for row in rows] == [
        (1, b"two", (4, "key")), (2, b"one", (4, "key")),
    ]  # fmt: skip
    numbers = [row.order for row in rows]
    assert [extra(row.record, Tag.STORED) for row in rows] == numbers
    assert numbers == [4, 5], "none of those that were given out"


async def test_what_is_requeued_without_the_node_is_sent_in_its_next_life(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a"
    async with nodes("b") as (b,):
        inbox = b.inbox(settle="manual")
        async with stored("a", path, b) as a:
            for text in ("page", "other"):
                receipt = await a.post("b", text)
                await (await anext(inbox)).reject("never")
                await receipt.outcome()
            assert ids(path, capsys) == [1, 2], "beside the node"
            for verb in ("requeue", "purge"):
                code, _, error = run(capsys, verb, path, "--all")
                assert code == 1
                assert "in use by process" in error
        assert run(capsys, "requeue", path, 1)[0] == 0
        async with stored("a", path, b) as a:
            message = await anext(inbox)
            assert (message.body, message.attempt) == ("page", 1)
            await message.accept()
            assert [letter.body for letter in a.dead_letters()] == ["other"]


@pytest.mark.parametrize("verb", ["requeue", "purge"])
def test_all_and_some_is_refused(
    path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, verb, path, "1", "--all")
    assert code == 2
    assert "--all is all of them" in error
    assert len(run(capsys, "list", path)[1].splitlines()) == 3
