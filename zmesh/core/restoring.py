"""The beginning of another life: what the journal kept is read before anybody is met."""

from collections.abc import Callable, Mapping
from functools import partial

from zmesh.actions import Restored
from zmesh.core.link_news import LinkNews
from zmesh.core.turn import Turn
from zmesh.errors import ZmeshError
from zmesh.storage import (
    Answer,
    EntriesRead,
    Entry,
    EntryKind,
    ReadEntries,
    ReadRows,
    RowsRead,
    StreamKind,
)

ENTRIES_AT_ONCE = 1024


class Restoring:
    """Has patterns read what they kept; action `Restored` tells when all of it was."""

    def __init__(self, turn: Turn, news: LinkNews) -> None:
        self._turn = turn
        self._news = news
        self._open = 0
        self._error: ZmeshError | None = None
        self.replays: list[Entry] = []  # for who verifies signatures

    def begin(self) -> None:
        """Ask for everything, where there is a journal."""
        opened = self._turn.keeper.opened
        if opened is None:
            return
        self._open = 1  # not over before all was asked
        readers: Mapping[EntryKind, Callable[[Entry], None]] = {
            EntryKind.COUNTER: self._turn.keeper.on_counter,
            EntryKind.REPLAYS: self.replays.append,
            **self._news.entry_readers,
        }
        for kind, reader in readers.items():
            self._open += 1
            self._turn.keeper.read(ReadEntries(kind), partial(self._on_entries, kind, reader))
        for state in opened.streams:
            if state.stream.kind is StreamKind.LANE_IN:
                self._open += 1
                self._turn.handled.restore(state.stream, self._done)
            if opened.rescue is not None and state.rows:
                self._open += 1
                question = ReadRows(state.stream, state.last - 1, 1)
                self._turn.keeper.read(question, self._on_last_row)
        self._open += self._news.outbox.restore(opened.streams, self._done)
        self._open += self._news.dead_letters.restore(opened.streams, self._done)
        self._open += self._news.queues.pushed.restore(opened.streams, self._done)
        self._done(None)

    def _on_entries(
        self, kind: EntryKind, reader: Callable[[Entry], None], answer: Answer | ZmeshError
    ) -> None:
        if not isinstance(answer, EntriesRead):
            self._done(answer if isinstance(answer, ZmeshError) else None)
            return
        for entry in answer.entries:
            reader(entry)
        if answer.is_end:
            self._done(None)
            return
        last = answer.entries[-1]
        question = ReadEntries(kind, (last.name, last.key), ENTRIES_AT_ONCE)
        self._turn.keeper.read(question, partial(self._on_entries, kind, reader))

    def _on_last_row(self, answer: Answer | ZmeshError) -> None:
        """Learn of a number that was given out: what told so may not have been rescued."""
        if isinstance(answer, RowsRead):
            for each in answer.rows:
                self._turn.keeper.on_number(each.row.order)
        self._done(answer if isinstance(answer, ZmeshError) else None)

    def _done(self, error: ZmeshError | None) -> None:
        self._error = self._error or error
        self._open -= 1
        if not self._open:
            self._news.gatherings.fan_out.on_restored()
            self._turn.actions.append(Restored(self._error))
