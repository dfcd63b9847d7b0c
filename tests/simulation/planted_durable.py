"""Known bugs of what is stored, each planted alone: what the simulator must find.

As in `planted`, those marked (found) are no inventions.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.planted import bug
from zmesh.core.handled import Handled
from zmesh.core.keeper import Keeper
from zmesh.core.positions import Positions, Track
from zmesh.patterns import confirming
from zmesh.patterns.boxes import Box
from zmesh.patterns.confirming import Confirming
from zmesh.patterns.log_readers import LogReaders
from zmesh.patterns.outbox import Outbox
from zmesh.patterns.topic_log import TopicLog
from zmesh.storage import (
    Command,
    CountAttempts,
    Forget,
    Move,
    RowsRead,
    Store,
    StoreOutcomes,
    StoreRun,
)
from zmesh.testing.findings import Rule


def tell_at_once(patch: pytest.MonkeyPatch, kind: type[Command]) -> None:
    """Let who waits for a command of a kind go on before the disk has it."""
    real = Keeper.write

    def write(self: Keeper, *commands: Command, then: Any = None, stored: Any = None) -> None:
        if then is None or not isinstance(commands[0], kind):
            real(self, *commands, then=then, stored=stored)
            return
        real(self, *commands)
        if stored is not None:
            self.on_stored(stored, None)
        then(None)

    patch.setattr(Keeper, "write", write)


def drop(patch: pytest.MonkeyPatch, unwanted: Callable[[Command], bool]) -> None:
    """Leave out commands, as if they were on disk."""
    for name in ("write", "later"):
        real = getattr(Keeper, name)

        def order(self: Keeper, *commands: Command, real: Any = real, **who: Any) -> None:
            kept = [command for command in commands if not unwanted(command)]
            if kept:
                real(self, *kept, **who)

        patch.setattr(Keeper, name, order)


# Senders


@bug("durable", Rule.LOST)
def storing_is_told_before_the_disk_has_it(patch: pytest.MonkeyPatch) -> None:
    tell_at_once(patch, StoreRun)


@bug("durable", Rule.LOST)
def what_is_sent_is_forgotten_before_it_has_an_outcome(patch: pytest.MonkeyPatch) -> None:
    real = Outbox._send_run

    def send_run(self: Outbox, box: Box, *args: Any) -> None:
        real(self, box, *args)
        run = list(box.runs)[-1]
        self._turn.keeper.write(Forget(box.stream, ((run.first, run.last),)))

    patch.setattr(Outbox, "_send_run", send_run)


@bug("durable", Rule.LIVENESS, Rule.LOST)
def a_box_is_not_rewound_when_its_session_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "on_session_ended", lambda *_: None)
    patch.setattr(Outbox, "_rewind", lambda *_: None)


@bug("durable", Rule.LOST, Rule.DUPLICATED)
def the_floor_is_one_too_high(patch: pytest.MonkeyPatch) -> None:
    real: Any = Outbox.floor
    patch.setattr(Outbox, "floor", property(lambda self: real.fget(self) + 1))


@bug("durable", Rule.IDENTITY)
def numbers_are_given_again_in_the_next_life(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Keeper, "on_counter", lambda *_: None)


@bug("durable", Rule.IDENTITY, Rule.LOST)
def a_reservation_of_numbers_counts_before_the_disk_has_it(patch: pytest.MonkeyPatch) -> None:
    """(found)"""
    real = Keeper.numbers

    def numbers(self: Keeper, count: int) -> int:
        first = real(self, count)
        self._numbers_end = max(self._numbers_end, self._next_number + 1000)
        return first

    patch.setattr(Keeper, "numbers", numbers)


@bug("durable", Rule.LOST, Rule.DUPLICATED)
def receivers_are_told_before_what_is_forgotten_is_gone(patch: pytest.MonkeyPatch) -> None:
    real = Outbox._forget

    def forget(self: Outbox, run: Any) -> None:
        self._confirming.add(run.node, run.number, run.last - run.first + run.number)
        real(self, run)

    patch.setattr(Outbox, "_forget", forget)
    patch.setattr(confirming, "TELL_AFTER_S", 0.0)


@bug("durable", Rule.UNTRUE)
def attempts_are_not_counted_on_disk(patch: pytest.MonkeyPatch) -> None:
    drop(patch, lambda command: isinstance(command, CountAttempts))


@bug("durable", Rule.UNTRUE, Rule.LOST)
def what_a_full_disk_refused_is_sent(patch: pytest.MonkeyPatch) -> None:
    real = Outbox._on_stored

    def on_stored(self: Outbox, box: Box, rows: Any, ticket: Any, _: object) -> None:
        real(self, box, rows, ticket, None)

    patch.setattr(Outbox, "_on_stored", on_stored)


@bug("durable", Rule.UNTRUE)
def a_failure_is_told_before_the_dead_letter_is_on_disk(patch: pytest.MonkeyPatch) -> None:
    """(found)"""
    real = Outbox._forget

    def forget(self: Outbox, run: Any) -> None:
        if run.failures:
            self._tell(run)
            run.told = None
        real(self, run)

    patch.setattr(Outbox, "_forget", forget)


@bug("durable", Rule.DUPLICATED)
def what_has_an_outcome_expires_as_well(patch: pytest.MonkeyPatch) -> None:
    """(found)"""
    real = Box.trim

    def trim(self: Box) -> None:
        real(self)
        self.done.clear()

    patch.setattr(Box, "trim", trim)


@bug("durable", Rule.LOST, Rule.LIVENESS)
def a_dead_letter_is_not_moved(patch: pytest.MonkeyPatch) -> None:
    drop(patch, lambda command: isinstance(command, Move))


@bug("durable", Rule.MEMORY)
def the_floor_is_told_when_a_session_begins_and_never_again(patch: pytest.MonkeyPatch) -> None:
    """(found)"""
    patch.setattr(Confirming, "on_floor_moved", lambda _: None)


@bug("durable", Rule.MISORDERED)
def what_is_read_again_is_sent_last_first(patch: pytest.MonkeyPatch) -> None:
    real = Outbox._on_read

    def on_read(self: Outbox, box: Box, epoch: int, answer: Any) -> None:
        if isinstance(answer, RowsRead):
            answer = RowsRead(answer.rows[::-1], answer.is_end)
        real(self, box, epoch, answer)

    patch.setattr(Outbox, "_on_read", on_read)


@bug("durable", Rule.LIVENESS)
def a_name_that_two_bore_stays_nobodys(patch: pytest.MonkeyPatch) -> None:
    """(found)"""
    real = Outbox.on_peer

    def on_peer(self: Outbox, peer: Any) -> None:
        if peer.present:
            real(self, peer)

    patch.setattr(Outbox, "on_peer", on_peer)


# Receivers


@bug("durable", Rule.LOST)
def a_verdict_is_passed_on_before_the_disk_has_it(patch: pytest.MonkeyPatch) -> None:
    tell_at_once(patch, StoreOutcomes)


@bug("durable", Rule.DUPLICATED)
def what_was_handled_is_not_restored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Handled, "restore", lambda _, _stream, then: then(None))


@bug("durable", Rule.DUPLICATED)
def a_copy_of_what_the_application_has_is_handed_over(patch: pytest.MonkeyPatch) -> None:
    real = Handled._admit_one

    def admit_one(self: Handled, origin: Any, place: Any, number: int) -> bool:
        origin.pending.pop(number, None)
        return real(self, origin, place, number)

    patch.setattr(Handled, "_admit_one", admit_one)


@bug("durable", Rule.MEMORY)
def an_outcome_that_comes_when_its_sender_forgot_is_kept(patch: pytest.MonkeyPatch) -> None:
    """(found)"""
    real = Handled.on_settle

    def on_settle(self: Handled, source: Any, *args: Any) -> bool:
        for origin in self._origins.values():
            origin.gone.clear()
        return real(self, source, *args)

    patch.setattr(Handled, "on_settle", on_settle)


@bug("durable", Rule.MEMORY)
def outcomes_are_never_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Handled, "on_known", lambda *_: None)


@bug("durable", Rule.DUPLICATED)
def the_outcome_of_all_lower_numbers_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = Handled.on_known

    def on_known(self: Handled, node: Any, journal: Any, floor: int, ranges: Any) -> None:
        real(self, node, journal, max([floor, *(low for low, _ in ranges)]), ranges)

    patch.setattr(Handled, "on_known", on_known)


# Logs, and subscriptions with a name


@bug("durable", Rule.LOST)
def publishing_is_told_before_the_disk_has_it(patch: pytest.MonkeyPatch) -> None:
    tell_at_once(patch, Store)


@bug("durable", Rule.DUPLICATED)
def positions_are_not_restored(patch: pytest.MonkeyPatch) -> None:
    real = Positions.on_entry

    def on_entry(self: Positions, entry: Any) -> None:
        if not entry.key:
            real(self, entry)

    patch.setattr(Positions, "on_entry", on_entry)


@bug("durable", Rule.LOST)
def a_position_passes_over_what_is_at_work(patch: pytest.MonkeyPatch) -> None:
    real = Track.advance

    def advance(self: Track) -> bool:
        self.pending.clear()
        return real(self)

    patch.setattr(Track, "advance", advance)


@bug("durable", Rule.LOST)
def a_position_passes_over_what_was_given_back(patch: pytest.MonkeyPatch) -> None:
    real = Track.advance

    def advance(self: Track) -> bool:
        self.returned.clear()
        return real(self)

    patch.setattr(Track, "advance", advance)


@bug("durable", Rule.LOST)
def a_log_keeps_one_less_than_it_is_to(patch: pytest.MonkeyPatch) -> None:
    real = TopicLog._is_beyond

    def is_beyond(self: TopicLog, slack: int) -> bool:
        self.count += 1
        beyond = real(self, slack)
        self.count -= 1
        return beyond

    patch.setattr(TopicLog, "_is_beyond", is_beyond)


@bug("durable", Rule.LOST)
def a_reader_goes_live_a_publication_too_early(patch: pytest.MonkeyPatch) -> None:
    real = LogReaders._advance

    def advance(self: LogReaders, reader: Any) -> None:
        if not reader.ready and reader.cursor == self._log.written - 1:
            reader.cursor += 1
        real(self, reader)

    patch.setattr(LogReaders, "_advance", advance)


@bug("durable", Rule.MISORDERED)
def a_page_of_a_log_is_read_last_first(patch: pytest.MonkeyPatch) -> None:
    real = LogReaders._on_read

    def on_read(self: LogReaders, reader: Any, written: int, answer: Any) -> None:
        if isinstance(answer, RowsRead):
            answer = RowsRead(answer.rows[::-1], answer.is_end)
        real(self, reader, written, answer)

    patch.setattr(LogReaders, "_on_read", on_read)
