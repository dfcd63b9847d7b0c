"""Tickets: what is on disk when, what is told when, and what another life makes of it."""

import pytest

from tests.patterns.later import BROKEN, FULL, Life, request
from zmesh.actions import CallFailure, LaterEnded, LaterForgotten, LaterStored, TicketState
from zmesh.errors import UsageError
from zmesh.events import CallLater
from zmesh.message import Extras, Record, Tag, extra, extras_of
from zmesh.options import NodeOptions
from zmesh.patterns.call_later import FIRST_LATER
from zmesh.storage import Entry, EntryKind, SetEntries
from zmesh.testing.journal import Disk

OPTIONS = NodeOptions(redeliver_min=1.0, redeliver_max=8.0, tickets_max=3, tickets_bytes_max=1000)


def alive(**options: float) -> Life:
    return Life(Disk(), OPTIONS if not options else NodeOptions(**options))  # type: ignore[arg-type]


def test_request_is_made_when_it_is_on_disk_and_not_before() -> None:
    life = alive()
    life.later.on_call_later(CallLater("t", request(), 4, life.wall_ms))
    life.gather()
    assert (life.calls, life.told, life.later.find("t")) == ({}, [], None)
    life.write()
    assert life.told == [LaterStored("t")]
    [call] = life.calls.values()
    assert call.call > FIRST_LATER
    assert (call.record[1:3], call.deadline) == (request()[1:], None)


def test_request_that_is_refused_leaves_no_trace() -> None:
    life = alive()
    life.later.on_call_later(CallLater("t", request(), 4, life.wall_ms))
    life.write(FULL)
    assert life.told == [LaterStored("t", FULL)]
    assert (life.calls, len(life.later), life.tickets()) == ({}, 0, [])
    life.ask("t")
    assert life.state("t") == "waiting"


def test_answer_is_told_when_it_is_on_disk_and_not_before() -> None:
    life = alive()
    life.ask("t")
    life.answer("42")
    life.gather()
    assert life.told == [LaterStored("t")]
    assert life.state("t") is TicketState.WAITING
    life.write()
    assert life.told[1:] == [LaterEnded("t")]
    assert (life.state("t"), life.answered("t")) == ("answered", "42")
    assert life.tickets() == [("t", b"standing")]


def test_node_that_dies_before_the_request_is_on_disk_makes_none() -> None:
    life = alive()
    life.later.on_call_later(CallLater("t", request(), 4, life.wall_ms))
    life.gather()
    assert life.next_life().later.all() == []


def test_node_that_dies_before_the_answer_is_on_disk_asks_again() -> None:
    life = alive()
    life.ask("t", "how much?")
    life.answer("lost")
    life.gather()
    life = life.next_life()
    assert life.state("t") == "waiting"
    assert life.calls == {}, "nobody was met yet"
    life.later.on_provider("render")
    [call] = life.calls.values()
    assert bytes(call.record[2]) == b"how much?"
    life.answer("42")
    life.write()
    assert life.answered("t") == "42"


def test_answer_is_there_in_another_life_and_nobody_is_asked() -> None:
    life = alive()
    life.ask("t")
    life.answer("42")
    life.write()
    life = life.next_life()
    life.later.on_provider("render")
    life.wait(60)
    assert life.calls == {}
    assert (life.answered("t"), life.find("t").service) == ("42", "render")


def test_requests_of_all_lives_have_numbers_of_their_own() -> None:
    life = alive()
    life.ask("one")
    life = life.next_life()
    life.ask("two")
    numbers = [life.find(name).number for name in ("one", "two")]
    assert 0 < numbers[0] < numbers[1]
    for name, number in zip(("one", "two"), numbers, strict=True):
        record = life.find(name).record
        assert record is not None
        assert extra(record, Tag.STORED) == number
    assert life.later.floor == numbers[0]


def test_floor_stays_below_a_request_until_its_answer_is_on_disk() -> None:
    life = alive()
    life.ask("t")
    number = life.find("t").number
    life.answer()
    life.gather()
    assert life.later.floor == number
    assert life.known == []
    life.write()
    assert life.later.floor > number
    assert life.known == [number]


def test_provider_that_appears_is_asked_and_until_then_nobody_is() -> None:
    life = alive()
    life.provided = False
    life.ask("t")
    begun = life.later.deadline
    assert begun == life.turn.now + OPTIONS.redeliver_max
    life.provided = True
    life.later.on_provider("other")
    assert life.calls == {}
    life.later.on_provider("render")
    assert len(life.calls) == 1
    life.later.on_provider("render")
    assert len(life.calls) == 1


def test_looks_for_a_provider_are_far_apart() -> None:
    life = alive()
    life.provided = False
    life.ask("t")
    for _ in range(10):
        due = life.later.deadline
        assert due is not None
        assert due - life.turn.now == OPTIONS.redeliver_max
        life.wait(OPTIONS.redeliver_max)


@pytest.mark.parametrize("failure", [CallFailure.PEER_LOST, CallFailure.EXHAUSTED])
def test_call_that_comes_to_nothing_is_made_again_after_ever_longer_pauses(
    failure: CallFailure,
) -> None:
    life = alive()
    life.ask("t")
    pauses = []
    for _ in range(6):
        life.fail(failure)
        due = life.later.deadline
        assert due is not None
        pauses.append(due - life.turn.now)
        life.wait(pauses[-1])
        assert len(life.calls) == 1
    assert 1.0 <= pauses[0] <= 2.0
    assert all(4.0 <= pause <= 8.0 for pause in pauses[3:])
    life.answer()
    life.write()
    assert life.state("t") == "answered"


def test_handler_that_raises_is_asked_as_often_again_as_allowed() -> None:
    life = alive()
    life.ask("t", retries=2)
    for _ in range(2):
        life.fail(CallFailure.REMOTE_ERROR)
        life.write()
        assert life.state("t") == "waiting"
        life.wait(8)
    life.fail(CallFailure.REMOTE_ERROR)
    life.write()
    assert life.state("t") == "failed"
    life.wait(60)
    assert life.calls == {}


def test_provider_that_appears_does_not_end_the_pause_after_an_exception() -> None:
    life = alive()
    life.ask("t", retries=2)
    life.fail(CallFailure.REMOTE_ERROR)
    life.write()
    life.later.on_provider("render")
    assert life.calls == {}
    life.wait(2)
    assert len(life.calls) == 1


def test_exceptions_of_all_lives_count_together() -> None:
    life = alive()
    life.ask("t", retries=1)
    life.fail(CallFailure.REMOTE_ERROR)
    life.write()
    life = life.next_life()
    life.later.on_provider("render")
    life.fail(CallFailure.REMOTE_ERROR)
    life.write()
    assert life.state("t") == "failed"
    life = life.next_life()
    assert life.state("t") == "failed"
    answer = life.find("t").answer
    assert answer is not None
    assert answer.failure is CallFailure.REMOTE_ERROR


def test_exception_is_counted_on_disk_before_it_is_asked_again() -> None:
    life = alive()
    life.ask("t", retries=1)
    life.fail(CallFailure.REMOTE_ERROR)
    life.gather()
    assert life.later.deadline is None
    life.write()
    assert life.later.deadline is not None


def test_refusal_is_final() -> None:
    life = alive()
    life.ask("t", retries=5)
    life.fail(CallFailure.REJECTED)
    life.write()
    life = life.next_life()
    answer = life.find("t").answer
    assert answer is not None
    assert (answer.failure, answer.peer, answer.reason) == (
        CallFailure.REJECTED, "provider", "why",
    )  # fmt: skip


def test_call_has_what_is_left_of_the_time_to_live() -> None:
    life = alive()
    life.provided = False
    life.ask("t", ttl=10)
    life.provided = True
    life.wait(4)
    life.later.on_provider("render")
    [call] = life.calls.values()
    assert call.deadline == pytest.approx(life.turn.now + 6)
    life.fail(CallFailure.DEADLINE)
    life.write()
    assert life.state("t") == "failed"


def test_time_to_live_ends_a_request_that_nobody_took() -> None:
    life = alive()
    life.provided = False
    life.ask("t", ttl=10)
    life.wait(9.9)
    assert life.state("t") == "waiting"
    life.wait(0.2)
    assert life.state("t") == "failed"
    answer = life.find("t").answer
    assert answer is not None
    assert answer.failure is CallFailure.DEADLINE


def test_time_to_live_goes_on_while_no_life_is() -> None:
    life = alive()
    life.ask("t", ttl=10)
    life = life.next_life(after=11)
    life.later.on_provider("render")
    life.wait(0)
    life.write()
    assert life.state("t") == "failed"
    assert life.calls == {}


def test_closing_node_leaves_its_requests_to_another_life() -> None:
    life = alive()
    life.ask("t")
    life.fail(CallFailure.CLOSED)
    life.write()
    assert life.state("t") == "waiting"
    assert life.tickets() == [("t", b"request")]


def test_answer_that_finds_a_full_disk_is_written_later() -> None:
    life = alive()
    life.ask("t")
    life.answer("42")
    life.write(FULL)
    assert life.state("t") == "waiting"
    assert life.tickets() == [("t", b"request")]
    life.wait(8)
    assert life.answered("t") == "42"
    assert life.told == [LaterStored("t"), LaterEnded("t")]


def test_answer_that_cannot_be_kept_is_told_as_such_and_asked_for_in_another_life() -> None:
    life = alive()
    life.ask("t")
    life.answer("42")
    life.write(BROKEN)
    assert life.told[1:] == [LaterEnded("t", BROKEN)]
    assert life.state("t") == "waiting"
    life = life.next_life()
    life.later.on_provider("render")
    assert len(life.calls) == 1


def test_forgotten_ticket_is_gone_and_its_call_cancelled() -> None:
    life = alive()
    life.ask("t")
    life.forget("t")
    life.gather()
    assert len(life.cancelled) == 1
    assert life.told == [LaterStored("t")]
    life.write()
    assert life.told[1:] == [LaterForgotten("t")]
    assert (life.tickets(), len(life.later), life.later.deadline) == ([], 0, None)
    life.forget("t")
    life.write()
    assert life.told[2:] == [LaterForgotten("t")]


def test_ticket_forgotten_while_its_answer_is_written_is_gone() -> None:
    life = alive()
    life.ask("t")
    life.answer()
    life.forget("t")
    life.write()
    assert life.told[1:] == [LaterForgotten("t")]
    assert (life.tickets(), len(life.later)) == ([], 0)


def test_answers_are_kept_for_their_time_in_all_lives_together() -> None:
    life = alive(tickets_kept_for=100.0)
    life.ask("t")
    life.answer()
    life.write()
    life.wait(40)
    life = life.next_life(after=50)
    life.wait(9)
    assert life.state("t") == "answered"
    life.wait(2)
    assert (life.tickets(), len(life.later)) == ([], 0)


def test_number_of_tickets_is_bounded() -> None:
    life = alive()
    for name in "abc":
        life.ask(name)
    life.ask("d")
    [refusal] = [each.error for each in life.told if each.ticket == "d"]
    assert isinstance(refusal, UsageError)
    assert len(life.later) == 3
    life.forget("a")
    life.write()
    life.ask("d")
    assert life.state("d") == "waiting"


def test_bytes_of_tickets_are_bounded() -> None:
    life = alive()
    life.ask("a", "x" * 600)
    life.ask("b", "x" * 600)
    assert life.later.find("b") is None
    life.answer("small")
    life.write()
    life.ask("b", "x" * 600)
    assert life.state("b") == "waiting"


def test_request_with_headers_and_a_compressed_body_comes_back_as_it_was() -> None:
    life = alive()
    extras: Extras = (int(Tag.HEADERS), b"\x80", int(Tag.COMPRESSED), (1, 4096))
    record: Record = (0x91, "render", memoryview(b"body"), extras)
    life.later.on_call_later(CallLater("t", record, 7, life.wall_ms, "key", None, 3))
    life.write()
    before = life.find("t")
    after = life.next_life().find("t")
    assert before.record is not None
    assert after.record == before.record
    assert after.record[2] == b"body"
    assert extras_of(after.record) == {**extras_of(record), Tag.STORED: before.number}
    assert (after.lane, after.key, after.retries) == (7, "key", 3)


def test_entry_that_cannot_be_read_is_told_of_and_passed_over() -> None:
    life = alive()
    life.ask("t")
    entry = Entry(EntryKind.TICKET, "u", b"request", b"\x91\x63")
    life.disk.content.apply(SetEntries((entry,)))
    life = life.next_life()
    assert [each.id for each in life.later.all()] == ["t"]
    assert [
        trace for trace in life.turn.actions if getattr(trace, "name", "") == "ticket_unreadable"
    ]
