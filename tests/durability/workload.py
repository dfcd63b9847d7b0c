"""Work for a journal that uses everything it can, and what it may hold when it is stopped."""

import queue
import random
from collections.abc import Sequence

from tests.durability.model import Content, content_in
from tests.journal.support import BOX, IN, OUT, Talk, row, run, store
from zmesh.message import Outcome
from zmesh.storage import (
    DEAD_LETTERS,
    Broken,
    Burial,
    Command,
    CountAttempts,
    Entry,
    EntryKind,
    Forget,
    JournalEvent,
    Move,
    Opened,
    Refused,
    RemoveEntries,
    Room,
    SetEntries,
    SetWatermark,
    Store,
    StoredOutcome,
    StoreOutcomes,
    Written,
)
from zmesh.storage_errors import JournalFull, StorageError
from zmesh.testing.journal_content import JournalContent

BURIAL = Burial("queue", "broken", ((17, "no such file"), (18, "no such file"))).as_note()


def batches(seed: int = 1, rounds: int = 6, start: int = 0) -> list[tuple[Command, ...]]:
    """Return batches that fill, forget, move and replace."""
    chance = random.Random(seed)
    work: list[tuple[Command, ...]] = []
    for number in range(start, start + rounds):
        first = number * 40 + 1
        size = chance.choice((10, 500, 3000))
        work += [
            (store(first, first + 39, size=size),),
            (
                Store(IN, [row(each) for each in range(first, first + 40)]),
                SetWatermark(IN, first + 39, ((first + 45, first + 46),)),
            ),
            (
                CountAttempts(IN, ((first, first + 30),), 1),
                CountAttempts(IN, ((first, first),), 2),
            ),
            (
                Move(IN, ((first, first),), DEAD_LETTERS, number * 10 + 1, BURIAL),
                Forget(IN, ((first + 1, first + 35),)),
                StoreOutcomes(IN, (
                    StoredOutcome(first, first, Outcome.REJECTED, "broken"),
                    StoredOutcome(first + 1, first + 35, Outcome.ACCEPTED),
                )),
            ),
            (Forget(OUT, ((first, first + 20), (first + 30, first + 30))),),
            *_runs(number, chance.choice((10, 200, 800))),
            (
                SetEntries(tuple(
                    Entry(EntryKind.SHARED, "map", bytes([each]), chance.randbytes(each * 9))
                    for each in chance.sample(range(50), 10)
                )),
                SetEntries((Entry(EntryKind.RETAINED, f"topic-{number}", b"", b"v" * 50),)),
                RemoveEntries(EntryKind.RETAINED, f"topic-{number - 1}"),
            ),
        ]  # fmt: skip
    return work


def _runs(number: int, size: int) -> list[tuple[Command, ...]]:
    """Return batches of runs, parts of which go: from the ends, the middle, to another stream."""
    first = number * 100 + 1
    return [
        (
            run(first, first + 49, size=size),
            run(first + 50, first + 54, size=5),
            CountAttempts(BOX, ((first + 5, first + 5), (first + 16, first + 17)), 2),
            Forget(BOX, ((max(first - 80, 1), first),)),  # the rest of a block, or of two
        ),
        (
            Forget(BOX, ((first + 1, first + 4), (first + 31, first + 40))),
            Forget(BOX, ((first + 50, first + 52),)),
            Move(BOX, ((first + 12, first + 14),), DEAD_LETTERS, number * 10 + 2, BURIAL),
            Forget(BOX, ((first + 16, first + 16), (first + 53, first + 54))),
        ),
    ]  # fmt: skip


class Run:
    """A journal at work until the end, or until its disk is gone; knows what it may hold then.

    Args:
        talk: the journal, not open yet.
        work: what is handed over, one batch after the other.
        model: what it holds.
    """

    def __init__(
        self, talk: Talk, work: Sequence[tuple[Command, ...]], model: JournalContent | None = None
    ) -> None:
        self.talk = talk
        self.opened: Opened | None = None
        self.models = [model or JournalContent()]  # as acknowledged, and with what was under way
        self.history = self.models[:]  # all that were acknowledged
        self.refusal: StorageError | None = None
        self._work = work

    def go(self) -> None:
        """Work."""
        self.talk.journal.open()
        first = self._next()
        if not isinstance(first, Opened):
            return
        self.opened = first
        for commands in self._work:
            try:
                self.talk.hand_over(*commands)
            except StorageError as refusal:  # nothing of it may be there
                self.refusal = refusal
                return
            after = self.models[0].copy()
            for command in commands:
                after.apply(command)
            match self._next():
                case Written():
                    self.models = [after]
                    self.history.append(after)
                case Refused(_, error):
                    self.refusal = error
                    if not isinstance(error, JournalFull):
                        self.models.append(after)
                    return
                case Broken(error):  # after a commit that was acknowledged
                    self.refusal = error
                    self.models.append(after)
                    return
                case other:
                    raise AssertionError(other)

    def _next(self) -> JournalEvent:
        while True:
            try:
                event = self.talk.news.get(timeout=20.0)
            except queue.Empty:
                raise AssertionError("the journal says nothing") from None
            if not isinstance(event, Room):  # a checkpoint had none for a moment
                return event

    def held_by(self, content: Content) -> JournalContent:
        """Return which of the possible models a journal's content is."""
        for model in self.models:
            if content_in(model) == content:
                return model
        raise AssertionError(
            f"{content}\nis none of\n{[content_in(each) for each in self.models]}"
        )
