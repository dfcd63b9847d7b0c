import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.ids import JournalId, NodeId
from zmesh.security.replays import BLOCK, ReplayTable, Verdict

ADA = (NodeId(b"a" * 16), JournalId(b"j" * 16))
BOB = (NodeId(b"b" * 16), JournalId(b"k" * 16))
NEW, REPLAYED, TOO_OLD = Verdict.NEW, Verdict.REPLAYED, Verdict.TOO_OLD


def table(blocks: int = 100, windows: int = 100, lost_ms: int = 0) -> ReplayTable:
    return ReplayTable(blocks, windows, lost_ms)


def accept(
    memory: ReplayTable, counter: int, origin: tuple[NodeId, JournalId] = ADA, scope: str = "in",
    signed_ms: int = 10, until_ms: int = 1000, now_ms: int = 20, *, is_kept: bool = True,
) -> Verdict:  # fmt: skip
    verdict = memory.begin(scope, origin, counter, signed_ms, is_kept=is_kept)
    if verdict is NEW:
        memory.finish(scope, origin, counter, signed_ms, until_ms, now_ms)
    return verdict


def test_what_was_accepted_is_a_replay_for_the_same_handler_alone() -> None:
    memory = table()
    assert accept(memory, 1) is NEW
    assert accept(memory, 1) is REPLAYED
    assert accept(memory, 2) is NEW
    assert accept(memory, 1, origin=BOB) is NEW
    assert accept(memory, 1, scope="other") is NEW


def test_what_is_being_handled_is_a_replay_until_it_was_given_back() -> None:
    memory = table()
    assert memory.begin("in", ADA, 1, 10, is_kept=True) is NEW
    assert memory.begin("in", ADA, 1, 10, is_kept=True) is REPLAYED
    memory.forget("in", ADA, 1, 20)
    assert len(memory) == 0
    assert memory.begin("in", ADA, 1, 10, is_kept=True) is NEW


def test_what_comes_from_its_origin_is_no_replay_but_is_remembered() -> None:
    memory = table()
    for _ in range(2):
        assert memory.begin("in", ADA, 1, 10, is_kept=True, is_sure=True) is NEW
        memory.finish("in", ADA, 1, 10, 1000, 20)
    assert accept(memory, 1) is REPLAYED


def test_what_is_handled_twice_at_once_is_pending_until_both_are_over() -> None:
    memory = table()
    assert memory.begin("in", ADA, 1, 10, is_kept=True) is NEW
    assert memory.begin("in", ADA, 1, 10, is_kept=True, is_sure=True) is NEW
    memory.forget("in", ADA, 1, 20)
    assert memory.begin("in", ADA, 1, 10, is_kept=True) is REPLAYED
    memory.finish("in", ADA, 1, 10, 1000, 20)
    assert memory.begin("in", ADA, 1, 10, is_kept=True) is REPLAYED


def test_a_run_of_counters_costs_next_to_nothing() -> None:
    memory = table(blocks=5)
    for counter in range(4 * BLOCK):
        assert accept(memory, counter) is NEW
    assert memory.blocks == 4
    assert all(accept(memory, counter) is REPLAYED for counter in range(4 * BLOCK))


def test_a_full_table_takes_nothing_as_old_as_what_it_gave_up() -> None:
    memory = table(blocks=3)
    for number in range(4):
        assert accept(memory, number * BLOCK) is NEW
    assert memory.blocks == 3
    assert accept(memory, 0) is TOO_OLD
    assert accept(memory, 1) is TOO_OLD  # never seen, and there is no telling
    assert accept(memory, 3 * BLOCK) is REPLAYED


def test_who_sends_most_gives_up_first() -> None:
    memory = table(blocks=4)
    accept(memory, 0, origin=BOB)
    for number in range(50):
        accept(memory, number * BLOCK)
    assert memory.blocks <= 4
    assert accept(memory, 0, origin=BOB) is REPLAYED
    assert accept(memory, 1, origin=BOB) is NEW


def test_what_expired_makes_room_first_and_raises_no_floor() -> None:
    memory = table(blocks=2)
    accept(memory, 0, origin=BOB, until_ms=100)
    accept(memory, 0)
    accept(memory, BLOCK, now_ms=101)
    assert accept(memory, 0) is REPLAYED
    assert accept(memory, 0, origin=BOB) is NEW  # its signature has expired: nobody asks


def test_too_many_origins_leave_their_time_behind() -> None:
    memory = table(windows=1)
    accept(memory, 1, origin=ADA, signed_ms=10)
    accept(memory, 1, origin=BOB, signed_ms=20)
    third = (NodeId(b"c" * 16), JournalId(b"l" * 16))
    accept(memory, 1, origin=third, signed_ms=30)
    assert len(memory) <= 2
    assert accept(memory, 1, origin=ADA, signed_ms=10) is TOO_OLD
    assert accept(memory, 2, origin=ADA, signed_ms=40) is NEW


@pytest.mark.parametrize("is_over", [True, False])
def test_what_was_handled_all_at_once_leaves_no_more_origins_than_there_may_be(
    *, is_over: bool
) -> None:
    origins = [(NodeId(bytes([number]) * 16), JournalId(b"j" * 16)) for number in range(5)]
    memory = table(windows=2)
    for origin in origins:
        for counter in (1, 2):
            assert memory.begin("in", origin, counter, 10, is_kept=True) is NEW
        memory.finish("in", origin, 1, 10, 1000, 20)
    for origin in origins:  # in a block that is there
        if is_over:
            memory.finish("in", origin, 2, 10, 1000, 20)
        else:
            memory.forget("in", origin, 2, 20)
    assert len(memory) == 2
    assert [accept(memory, 1, origin) for origin in origins] == [TOO_OLD] * 3 + [REPLAYED] * 2


def test_an_origin_that_is_new_again_is_not_believed_about_the_past() -> None:
    memory = table(lost_ms=50)
    assert accept(memory, 2, signed_ms=51) is NEW
    assert accept(memory, 1, signed_ms=50) is TOO_OLD
    assert accept(memory, 1, signed_ms=50, scope="#1", is_kept=False) is NEW


def test_a_handler_that_is_gone_leaves_nothing() -> None:
    memory = table()
    accept(memory, 1, scope="#1", is_kept=False)
    assert memory.begin("#1", ADA, 2, 10, is_kept=False) is NEW
    memory.drop("#1")
    memory.finish("#1", ADA, 2, 10, 1000, 20)
    assert (memory.blocks, len(memory)) == (0, 0)


def reborn(memory: ReplayTable, kept: dict[tuple[str, bytes], bytes]) -> ReplayTable:
    for change in memory.take_changes():
        if change.value is None:
            kept.pop((change.scope, change.key), None)
        else:
            kept[change.scope, change.key] = change.value
    other = table(blocks=4, windows=3)
    other.restore(((scope, key, value) for (scope, key), value in kept.items()), 0, 20)
    return other


def test_another_life_knows_it_but_for_handlers_of_one_life() -> None:
    memory, kept = table(), dict[tuple[str, bytes], bytes]()
    accept(memory, 1)
    accept(memory, 1, scope="#1", is_kept=False)
    memory = reborn(memory, kept)
    assert accept(memory, 1) is REPLAYED
    assert accept(memory, 2) is NEW
    assert not any(scope == "#1" for scope, _ in kept)


def test_another_life_has_no_more_than_there_may_be() -> None:
    memory, kept = table(), dict[tuple[str, bytes], bytes]()
    for number in range(1, 6):
        origin = (NodeId(bytes([number]) * 16), JournalId(b"j" * 16))
        for block in range(2):
            accept(memory, block * BLOCK, origin, signed_ms=10 * number)
    memory = reborn(memory, kept)  # with 3 windows and 4 blocks at most
    assert (len(memory), memory.blocks) == (3, 4)
    memory = reborn(memory, kept)  # what was given up is not kept either
    assert (len(memory), memory.blocks) == (3, 4)
    assert accept(memory, 9, (NodeId(b"\1" * 16), JournalId(b"j" * 16))) is TOO_OLD


origins = st.sampled_from([ADA, BOB, (NodeId(b"c" * 16), JournalId(b"l" * 16))])
messages = st.tuples(st.sampled_from(["in", "queue"]), origins, st.integers(0, 20 * BLOCK))


@given(st.lists(st.tuples(messages, st.booleans(), st.booleans()), max_size=60))
def test_nothing_is_ever_accepted_twice(
    steps: list[tuple[tuple[str, tuple[NodeId, JournalId], int], bool, bool]],
) -> None:
    memory, kept = table(blocks=4, windows=3), dict[tuple[str, bytes], bytes]()
    accepted: set[tuple[str, tuple[NodeId, JournalId], int]] = set()
    for (scope, origin, counter), is_accepted, is_restart in steps:
        signed_ms = 10 + counter
        verdict = memory.begin(scope, origin, counter, signed_ms, is_kept=True)
        message = (scope, origin, counter)
        if message in accepted:
            assert verdict is not NEW
        if verdict is NEW and is_accepted:
            accepted.add(message)
            memory.finish(scope, origin, counter, signed_ms, 10**9, 20)
        elif verdict is NEW:
            memory.forget(scope, origin, counter, 20)
        assert memory.blocks <= 4
        if is_restart:
            memory = reborn(memory, kept)


def test_a_floor_is_not_below_what_was_lost() -> None:
    memory = table(windows=1, lost_ms=100)
    for origin in (ADA, BOB):  # the first makes room, by a time that is before what was lost
        assert memory.begin("in", origin, 1, 10, is_kept=True, is_sure=True) is NEW
        memory.finish("in", origin, 1, 10, 1000, 20)
    assert accept(memory, 2, origin=ADA, signed_ms=50) is TOO_OLD
    assert accept(memory, 2, origin=ADA, signed_ms=101) is NEW
