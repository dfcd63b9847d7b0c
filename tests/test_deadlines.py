"""Deadlines: the next one is always right, and what is dropped costs no memory."""

from hypothesis import given
from hypothesis import strategies as st

from zmesh.deadlines import Agenda, Deadlines, earliest


def test_the_earliest_deadline_is_next_and_due_comes_in_order() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("late", 3.0)
    deadlines.set("early", 1.0)
    deadlines.set("middle", 2.0)
    assert deadlines.next == 1.0
    assert deadlines.due(2.0) == ["early", "middle"]
    assert deadlines.next == 3.0


def test_keys_due_at_the_same_time_come_in_the_order_they_were_set() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for key in ("b", "a", "c"):
        deadlines.set(key, 1.0)
    assert deadlines.due(1.0) == ["b", "a", "c"]


def test_a_deadline_set_again_replaces_the_one_before() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("key", 1.0)
    deadlines.set("key", 5.0)
    assert deadlines.due(4.0) == []
    assert deadlines.next == 5.0
    deadlines.set("key", None)
    assert deadlines.due(9.0) == []
    assert "key" not in deadlines


def test_nothing_is_due_before_its_time() -> None:
    deadlines: Deadlines[int] = Deadlines()
    deadlines.set(1, 1.0)
    assert deadlines.due(0.999) == []
    assert len(deadlines) == 1


def test_deadlines_moved_for_ever_stay_within_bounded_memory() -> None:
    deadlines: Deadlines[int] = Deadlines()
    for step in range(10_000):
        deadlines.set(step % 3, float(step))
        assert len(deadlines._heap) <= 2 * 3 + 65


def test_earliest_passes_over_what_has_no_time() -> None:
    assert earliest() is None
    assert earliest(None, None) is None
    assert earliest(None, 2.0, 1.0, None, 3.0) == 1.0
    assert earliest(0.0, None) == 0.0


@given(
    st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 50).map(float)), max_size=60)
)
def test_due_agrees_with_a_plain_dictionary(changes: list[tuple[int, float | None]]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    plain: dict[int, float] = {}
    for key, when in changes:
        deadlines.set(key, when)
        if when is None:
            plain.pop(key, None)
        else:
            plain[key] = when
        assert deadlines.next == min(plain.values(), default=None)
    due = deadlines.due(25.0)
    assert sorted(due) == sorted(key for key, when in plain.items() if when <= 25.0)
    assert [plain[key] for key in due] == sorted(plain[key] for key in due)


def test_an_agenda_looks_no_later_than_the_first_deadline_and_finds_out_what_was_put_off() -> None:
    agenda = Agenda()
    calls: Deadlines[str] = Deadlines(agenda)
    links: Deadlines[str] = Deadlines(agenda)
    calls.set("call", 5.0)
    links.set("link", 2.0)
    assert agenda.next == 2.0
    links.set("link", 9.0)
    assert agenda.next == 2.0  # a spare look, and then
    agenda.put_off(2.0)
    assert agenda.next == 5.0
    calls.discard("call")
    agenda.put_off(5.0)
    assert agenda.next == 9.0
    links.set("link", 1.0)
    assert agenda.next == 1.0


def test_an_agenda_looks_once_at_every_time_it_is_told() -> None:
    agenda = Agenda()
    deadlines: Deadlines[str] = Deadlines(agenda)
    agenda.look_at(3.0)
    agenda.look_at(1.0)
    deadlines.set("key", 2.0)
    for when in (1.0, 2.0, 3.0):
        assert agenda.next == when
        deadlines.due(when)
        agenda.put_off(when)
    assert agenda.next is None


def test_an_agenda_asks_again_soon_for_what_was_due_and_not_done() -> None:
    agenda = Agenda()
    deadlines: Deadlines[str] = Deadlines(agenda)
    deadlines.set("key", 1.0)
    agenda.put_off(3.0)
    assert agenda.next is not None
    assert 3.0 < agenda.next < 3.001
    deadlines.due(3.0)
    agenda.put_off(4.0)
    assert agenda.next is None


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.one_of(st.none(), st.floats(0.0, 9.0)))
    )
)
def test_an_agenda_is_never_late_and_holds_little(
    changes: list[tuple[int, int, float | None]],
) -> None:
    agenda = Agenda()
    parts: list[Deadlines[int]] = [Deadlines(agenda) for _ in range(3)]
    now = 0.0
    for part, key, wait in changes:
        parts[part].set(key, None if wait is None else now + wait)
        now += 0.5
        for each in parts:
            each.due(now)
        agenda.put_off(now)
        first = earliest(*(each.next for each in parts))
        assert first is None or (agenda.next is not None and agenda.next <= first)
        assert agenda.next is None or agenda.next > now
