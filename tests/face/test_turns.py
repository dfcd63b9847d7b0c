"""Whose turn it is: so many at a time, one of each line, in order."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from zmesh.face.turns import Turns


def begin_all(turns: Turns[int, str]) -> list[int]:
    begun = []
    while (request := turns.begin()) is not None:
        begun.append(request)
    return begun


def test_as_many_begin_as_may_run_at_once_in_the_order_they_came() -> None:
    turns: Turns[int, str] = Turns(2)
    for request in range(4):
        turns.add(request, None)
    assert begin_all(turns) == [0, 1]
    turns.end(None)
    assert begin_all(turns) == [2]


def test_one_of_each_line_begins_and_others_pass_those_behind_it() -> None:
    turns: Turns[int, str] = Turns(10)
    for request, line in enumerate(["a", "a", "b", None, "a", None]):
        turns.add(request, line)
    assert begin_all(turns) == [0, 2, 3, 5]
    turns.end("a")
    assert begin_all(turns) == [1]
    turns.end("b")
    assert begin_all(turns) == []


def test_as_many_are_startable_as_there_is_room_for_and_as_wait() -> None:
    turns: Turns[int, str] = Turns(2)
    assert turns.startable == 0
    for request in range(3):
        turns.add(request, None)
    assert turns.startable == 2
    assert begin_all(turns) == [0, 1]
    assert turns.startable == 0
    turns.end(None)
    assert turns.startable == 1


def test_what_is_removed_holds_up_nobody() -> None:
    turns: Turns[int, str] = Turns(1)
    for request, line in enumerate([None, "a", "a", "a"]):
        turns.add(request, line)
    assert begin_all(turns) == [0]
    turns.remove(2, "a")  # behind the head
    turns.remove(1, "a")  # the head, which has not begun
    turns.end(None)
    assert begin_all(turns) == [3]


def test_what_is_cleared_is_returned_and_what_runs_ends_as_ever() -> None:
    turns: Turns[int, str] = Turns(2)
    for request, line in enumerate(["a", "a", None, None]):
        turns.add(request, line)
    assert begin_all(turns) == [0, 2]
    assert turns.clear() == [3, 1]
    turns.end("a")
    turns.end(None)
    assert begin_all(turns) == []
    turns.add(9, "a")
    assert begin_all(turns) == [9]


@given(
    st.integers(1, 4),
    st.lists(st.sampled_from([None, "a", "b"]), max_size=30),
    st.randoms(use_true_random=False),
)
def test_every_request_has_its_turn_once_and_each_line_keeps_its_order(
    at_once: int, lines: list[str | None], random: Random
) -> None:
    turns: Turns[int, str] = Turns(at_once)
    running: list[int] = []
    order: list[int] = []
    left = list(range(len(lines)))
    while left or running:
        if left and random.random() < 0.5:
            turns.add(left[0], lines[left.pop(0)])
        elif running:
            turns.end(lines[running.pop(random.randrange(len(running)))])
        begun = begin_all(turns)
        running += begun
        order += begun
        busy = [lines[request] for request in running if lines[request] is not None]
        assert len(running) <= at_once
        assert len(set(busy)) == len(busy)
    assert sorted(order) == list(range(len(lines)))
    for line in ("a", "b"):
        mine = [request for request in order if lines[request] == line]
        assert mine == sorted(mine)
