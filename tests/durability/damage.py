"""Journals with known content, damaged at random, and what became of each when it was opened.

A row that was forgotten may come back from a damaged file, for what says that it is gone may be
what is damaged. It is told as a rescue then, under another journal id, never silently.
"""

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.durability.model import Content, content_in, content_of
from tests.durability.workload import batches
from tests.journal.support import Talk, Unexpected, store
from zmesh.security.storage_key import StorageKey
from zmesh.storage import Broken, Command, Opened, Rescue, Row, Stream
from zmesh.storage_errors import JournalCorrupted
from zmesh.testing.journal_content import JournalContent

FILES = ("journal", "journal-wal", "journal.lock")
KINDS = ("flip", "flip", "flip", "truncate", "sector")


@dataclass
class Bases:
    """Journals to be damaged: one that was closed, and one whose process was killed."""

    place: Path
    rounds: int = 8
    key: StorageKey | None = None
    model: JournalContent = field(default_factory=JournalContent)
    stored: set[tuple[Stream, Row]] = field(default_factory=set)  # ever

    def build(self) -> None:
        """Make them."""
        work: list[tuple[Command, ...]] = [
            *batches(5, rounds=self.rounds),
            (store(1001, 1012, size=20_000),),
            (store(1013, 1020, size=5),),
        ]
        living = self.place / "living"
        living.mkdir(parents=True)
        speaking = Talk(living / "journal", key=self.key)
        speaking.open()
        for commands in work:
            speaking.write(*commands)
            for command in commands:
                self.model.apply(command)
                self._note()
        self._copy(living, self.place / "killed")
        speaking.close()
        self._copy(living, self.place / "closed")

    def _note(self) -> None:
        rows = _rows(content_in(self.model))
        self.stored.update((stream, row) for (stream, _), row in rows.items())

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        target.mkdir()
        for name in FILES:
            if (source / name).exists():
                shutil.copy(source / name, target / name)


@dataclass
class Verdicts:
    """What became of the damaged ones."""

    counts: Counter[str] = field(default_factory=Counter)
    rows: int = 0  # there were, in those that were rescued
    rescued: int = 0
    silent: list[str] = field(default_factory=list)  # losses nobody told of: none, we claim


def damage(source: Path, target: Path, chance: random.Random) -> tuple[str, str]:
    """Copy a journal and damage one of its files; return how and which."""
    target.mkdir()
    for path in source.iterdir():
        shutil.copy(path, target / path.name)
    sizes = {path: path.stat().st_size for path in sorted(target.iterdir())}
    path = chance.choices(list(sizes), [max(size, 4096) for size in sizes.values()])[0]
    data = bytearray(path.read_bytes())
    how = chance.choice(KINDS)
    at = chance.randrange(len(data))
    if chance.random() < 0.25:  # heads of files and pages are small, and matter most
        at = min(len(data) - 1, at // 4096 * 4096 + chance.randrange(100))
    if how == "flip":
        data[at] ^= 1 << chance.randrange(8)
    elif how == "truncate":
        del data[at:]
    else:
        start = at // 512 * 512
        data[start : start + 512] = chance.choice((bytes(512), chance.randbytes(512)))[
            : len(data) - start
        ]
    path.write_bytes(data)
    return how, path.name


def judge(bases: Bases, number: int, verdicts: Verdicts, place: Path) -> None:
    """Damage a journal, open it, and judge what is there."""
    chance = random.Random(number)
    target = place / str(number)
    how = damage(bases.place / chance.choice(("killed", "closed")), target, chance)
    case = f"{number}: {how}"
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    verdict = _open(target, bases, verdicts, case)
    if verdict == "late":  # a row was damaged, and seen when it was read: the next life rescues
        verdict = _open(target, bases, verdicts, case)
        verdict = f"late, {verdict}"
        if "rescued" not in verdict:
            verdicts.silent.append(f"{case}: {verdict}")
    if "rescued" in verdict and "late" not in verdict:
        for name in ("journal", "journal-wal"):
            aside = target / name.replace("journal", "journal.damaged-1")
            if name in before and aside.read_bytes() != before[name]:
                verdicts.silent.append(f"{case}: {name} was changed when it was set aside")
    verdicts.counts[verdict] += 1
    shutil.rmtree(target)


def _open(target: Path, bases: Bases, verdicts: Verdicts, case: str) -> str:
    speaking = Talk(target / "journal", key=bases.key)
    speaking.journal.open()
    event = speaking.news.get(timeout=30)
    try:
        if isinstance(event, Broken):  # whatever is damaged, a node starts
            verdicts.silent.append(f"{case}: {event.error}")
            return f"refused: {type(event.error).__name__}"
        assert isinstance(event, Opened), event
        if event.rescue is None:
            return _judge_whole(speaking, event, bases, verdicts, case)
        _judge_rescue(speaking, event, event.rescue, bases, verdicts, case)
        return "rescued"
    finally:
        speaking.close()


def _judge_whole(
    speaking: Talk, opened: Opened, bases: Bases, verdicts: Verdicts, case: str
) -> str:
    try:
        content = content_of(speaking, opened)
    except Unexpected as error:
        assert isinstance(error.event, Broken), error  # noqa: PT017
        assert isinstance(error.event.error, JournalCorrupted), error  # noqa: PT017
        return "late"
    if content != content_in(bases.model):
        verdicts.silent.append(f"{case}: other content, and no word")
        return "silent"
    return "harmless"


def _judge_rescue(
    speaking: Talk, opened: Opened, rescue: Rescue, bases: Bases, verdicts: Verdicts, case: str
) -> None:
    content = content_of(speaking, opened)
    expected = content_in(bases.model)
    found, wanted = _rows(content), _rows(expected)
    altered = {
        key for key, row in found.items() if (key[0], row) not in bases.stored and key[0].kind < 15
    }
    missing = wanted.keys() - found.keys()
    lost_streams = {key for key in found if key[0].kind == 15}
    missing_for_good = len(missing) - len(lost_streams)
    if altered:
        verdicts.silent.append(f"{case}: altered {altered}")
    if rescue.rows != len(found):
        verdicts.silent.append(f"{case}: {rescue.rows} told, {len(found)} found")
    returned = len(found) - len(wanted) + len(missing)
    if rescue.rows_lost is not None and rescue.rows_lost < missing_for_good - returned:
        verdicts.silent.append(f"{case}: {rescue.rows_lost} told lost, {missing_for_good} are")
    verdicts.rows += len(wanted)
    verdicts.rescued += len(wanted) - missing_for_good


def _rows(content: Content) -> dict[tuple[Stream, int], Row]:
    return {
        (stream, position): row
        for stream, rows in content["rows"].items()  # type: ignore[attr-defined]
        for position, (row, _) in rows.items()
    }
