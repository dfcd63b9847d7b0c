"""What a journal should hold, kept beside it: commands are done here and there."""

from dataclasses import dataclass, field

from tests.journal.support import Talk
from zmesh.storage import (
    Command,
    CountAttempts,
    Entry,
    EntryKind,
    Forget,
    Move,
    Opened,
    ReadEntries,
    ReadOutcomes,
    RemoveEntries,
    Row,
    SetEntries,
    SetWatermark,
    Store,
    StoredOutcome,
    StoreOutcomes,
    Stream,
)

Content = dict[str, object]


@dataclass
class Model:
    """The content of a journal, simply."""

    rows: dict[Stream, dict[int, Row]] = field(default_factory=dict)
    attempts: dict[Stream, dict[int, int]] = field(default_factory=dict)
    outcomes: dict[Stream, dict[int, StoredOutcome]] = field(default_factory=dict)
    watermarks: dict[Stream, tuple[int, object]] = field(default_factory=dict)
    following: dict[Stream, int] = field(default_factory=dict)
    entries: dict[tuple[int, str, bytes], Entry] = field(default_factory=dict)

    def apply(self, command: Command) -> None:
        match command:
            case Store(stream, rows):
                for row in rows:
                    self.rows.setdefault(stream, {})[row.position] = row
                    last = max(self.following.get(stream, 1), row.position + 1)
                    self.following[stream] = last
            case Forget(stream, ranges):
                for position in _in(ranges):
                    self.rows.get(stream, {}).pop(position, None)
                    self.attempts.get(stream, {}).pop(position, None)
            case Move(source, ranges, target, first, note):
                moved = [self.rows[source].pop(each) for each in _in(ranges)]
                kept = [row if note is None else row._replace(note=note) for row in moved]
                rows = [row._replace(position=first + n) for n, row in enumerate(kept)]
                self.apply(Store(target, rows))
                self.apply(Forget(source, ranges))
            case _:
                self._apply_beside(command)

    def _apply_beside(self, command: Command) -> None:
        match command:
            case CountAttempts(stream, ranges, attempts):
                counted = self.attempts.setdefault(stream, {})
                counted.update(dict.fromkeys(_in(ranges), attempts))
            case SetWatermark(stream, cum, ranges):
                self.watermarks[stream] = (cum, ranges)
                self.following.setdefault(stream, 1)
            case StoreOutcomes(stream, outcomes):
                for outcome in outcomes:
                    for position in _in(((outcome.first, outcome.last),)):
                        self.outcomes.setdefault(stream, {})[position] = outcome
            case SetEntries(entries):
                self.entries.update({entry[:3]: entry for entry in entries})
            case RemoveEntries(kind, name, _):
                for key in [each for each in self.entries if each[:2] == (kind, name)]:
                    del self.entries[key]
            case _:
                raise AssertionError(command)

    def content(self) -> Content:
        """Return it so that it can be compared."""
        return {
            "rows": {
                stream: {
                    position: (row, self.attempts.get(stream, {}).get(position, 0))
                    for position, row in sorted(rows.items())
                }
                for stream, rows in self.rows.items()
                if rows
            },
            "outcomes": {
                stream: {
                    position: (each.outcome, each.reason, each.delay_ms)
                    for position, each in sorted(outcomes.items())
                }
                for stream, outcomes in self.outcomes.items()
                if outcomes
            },
            "watermarks": {
                each: mark for each, mark in self.watermarks.items() if mark != (0, ())
            },
            "following": {each: last for each, last in self.following.items() if last != 1},
            "entries": self.entries.copy(),
        }


def content_of(talk: Talk, opened: Opened) -> Content:
    """Return what a journal that was just opened holds, in the same shape."""
    rows, outcomes, entries = {}, {}, {}
    for state in opened.streams:
        found = {each.row.position: tuple(each) for each in talk.rows(state.stream)}
        if found:
            rows[state.stream] = found
        marks = talk.ask(ReadOutcomes(state.stream, count_max=10_000))
        ended = {
            position: (each.outcome, each.reason, each.delay_ms)
            for each in marks.outcomes  # type: ignore[union-attr]
            for position in range(each.first, each.last + 1)
        }
        if ended:
            outcomes[state.stream] = ended
    for kind in EntryKind:
        answer = talk.ask(ReadEntries(kind, count_max=10_000))
        entries.update({each[:3]: each for each in answer.entries})  # type: ignore[union-attr]
    marks_in = {each.stream: (each.received_cum, each.received_ranges) for each in opened.streams}
    following = {each.stream: each.next_position for each in opened.streams}
    return {
        "rows": rows,
        "outcomes": outcomes,
        "watermarks": {each: mark for each, mark in marks_in.items() if mark != (0, ())},
        "following": {each: last for each, last in following.items() if last != 1},
        "entries": entries,
    }


def _in(ranges: tuple[tuple[int, int], ...]) -> list[int]:
    return [each for first, last in ranges for each in range(first, last + 1)]
