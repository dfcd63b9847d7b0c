"""What a journal holds, in a shape that can be compared, whoever keeps it."""

from collections.abc import Callable, Sequence

from tests.journal.support import Talk
from zmesh.storage import (
    Answer,
    EntriesRead,
    EntryKind,
    Opened,
    OutcomesRead,
    Question,
    ReadEntries,
    ReadOutcomes,
    ReadRows,
    RowsRead,
    StreamState,
)
from zmesh.testing.journal_content import JournalContent

Content = dict[str, object]


def content_of(talk: Talk, opened: Opened) -> Content:
    """Return what a journal that was just opened holds."""
    return _content(talk.ask, opened.streams)


def content_in(model: JournalContent) -> Content:
    """Return what a journal should hold."""
    return _content(model.answer, model.states())


def _content(ask: Callable[[Question], Answer], states: Sequence[StreamState]) -> Content:
    rows, outcomes, entries = {}, {}, {}
    for state in states:
        stream = state.stream
        found: dict[int, tuple[object, ...]] = {}
        is_end = False
        while not is_end:
            page = ask(ReadRows(stream, max(found, default=0), count_max=100))
            assert isinstance(page, RowsRead)
            found.update({each.row.position: tuple(each) for each in page.rows})
            is_end = page.is_end
        if found:
            rows[stream] = found
        marks = ask(ReadOutcomes(stream, count_max=10_000))
        assert isinstance(marks, OutcomesRead)
        if marks.outcomes:
            outcomes[stream] = marks.outcomes
    for kind in EntryKind:
        answer = ask(ReadEntries(kind, count_max=10_000))
        assert isinstance(answer, EntriesRead)
        entries.update({each[:3]: each for each in answer.entries})
    return {"rows": rows, "outcomes": outcomes, "entries": entries, "streams": tuple(states)}
