"""A last-writer-wins map: which entry wins, what is remembered of deletions, and for how long."""

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.patterns.maps import entry, held, limited, origin, pull, shown, state, tombstone
from zmesh.patterns.shared_map import BUCKETS, DELETED, Entry, ReplicaMap, Verdict, digest_of

KEYS = [f"key-{number}" for number in range(6)]


def test_the_higher_stamp_wins_in_whatever_order_entries_come() -> None:
    for first, second in ((entry(1, "z"), entry(2, "a")), (entry(2, "a"), entry(1, "z"))):
        own = limited()
        own.offer("k", first, 0.0)
        own.offer("k", second, 0.0)
        assert own.get("k") == entry(2, "a")


def test_the_origin_decides_between_equal_stamps_and_then_the_value() -> None:
    own = limited()
    own.offer("k", entry(1, "b"), 0.0)
    assert own.offer("k", entry(1, "a"), 0.0) is Verdict.KNOWN
    assert own.offer("k", entry(1, "b", b"w"), 0.0) is Verdict.TAKEN
    assert shown(own) == {"k": b"w"}


def test_a_deleted_key_is_not_there_and_an_older_value_does_not_bring_it_back() -> None:
    own = limited()
    own.offer("k", entry(5), 0.0)
    own.offer("k", tombstone(6), 0.0)
    assert (len(own), list(own), "k" in own, own.get("k")) == (0, [], False, None)
    assert own.offer("k", entry(4, "b"), 0.0) is Verdict.KNOWN
    assert own.offer("k", entry(7, "b"), 0.0) is Verdict.TAKEN
    assert shown(own) == {"k": b"v"}


def test_a_deletion_holds_after_its_tombstone_was_dropped_against_what_it_saw() -> None:
    own = limited()
    own.offer("k", entry(5, "b"), 0.0)
    own.note_seen(origin("b"), 5)
    own.write("k", tombstone(6), 10.0)
    own.expire(before=10.0)
    assert own.tombstones == 1
    own.expire(before=10.1)
    assert own.tombstones == 0
    assert own.offer("k", entry(5, "b"), 20.0) is Verdict.KNOWN
    assert own.offer("k", entry(4, "b"), 20.0) is Verdict.KNOWN
    assert own.offer("k", entry(6, "b"), 20.0) is Verdict.TAKEN


def test_a_deletion_holds_against_what_came_while_earlier_changes_were_missing() -> None:
    own = limited()
    own.offer("k", entry(5, "b"), 0.0)
    own.offer("k", entry(4, "c"), 0.0)
    own.write("k", tombstone(6), 0.0)
    own.expire(before=1.0)
    assert own.tombstones == 0
    assert own.offer("k", entry(5, "b"), 2.0) is Verdict.KNOWN
    assert own.offer("k", entry(4, "c"), 2.0) is Verdict.KNOWN
    assert own.offer("k", entry(4, "b"), 2.0) is Verdict.TAKEN
    own.note_seen(origin("b"), 5)
    assert own.offer("l", entry(5, "b"), 2.0) is Verdict.KNOWN


def test_what_came_ahead_is_remembered_within_bounds() -> None:
    own = limited(shared_keys_max=2)
    for stamp in (2, 4, 6):
        own.offer("k", entry(stamp, "b"), 0.0)
    own.write("k", tombstone(9), 0.0)
    own.expire(before=1.0)
    assert own.offer("k", entry(6, "b"), 2.0) is Verdict.KNOWN
    assert own.offer("k", entry(2, "b"), 2.0) is Verdict.TAKEN


def test_there_is_room_for_so_many_keys_and_forgotten_deletions_make_some() -> None:
    own = limited(shared_keys_max=2)
    own.write("a", entry(1), 0.0)
    own.write("b", entry(2), 0.0)
    assert not own.has_room("c", 1)
    assert own.has_room("a", 1)
    assert own.offer("c", entry(3, "b"), 0.0) is Verdict.REFUSED
    own.write("a", tombstone(3), 0.0)
    assert own.has_room("c", 1)
    assert own.offer("c", entry(3, "b"), 0.0) is Verdict.TAKEN
    assert sorted(held(own)) == ["b", "c"]
    own.offer("b", tombstone(9, "b"), 0.0)
    assert own.offer("d", entry(4, "b"), 0.0) is Verdict.TAKEN
    assert sorted(held(own)) == ["c", "d"]


def test_bytes_are_counted_and_bounded() -> None:
    own = limited(shared_bytes_max=200)
    own.write("k", entry(1, value=b"x" * 50), 0.0)
    assert own.size == 64 + 1 + 50
    assert own.has_room("k", 135)
    assert not own.has_room("k", 136)
    assert not own.has_room("l", 21)
    own.write("k", entry(2, value=b""), 0.0)
    assert own.size == 65
    own.remove("k")
    assert own.size == 0


def test_keys_and_values_over_a_limit_are_refused_from_others() -> None:
    own = limited(shared_key_bytes_max=3, shared_value_bytes_max=3)
    assert own.offer("four", entry(1), 0.0) is Verdict.REFUSED
    assert own.offer("k", entry(1, value=b"four"), 0.0) is Verdict.REFUSED
    assert own.offer("key", entry(1, value=b"val"), 0.0) is Verdict.TAKEN


def test_the_origins_seen_are_bounded_and_the_idlest_is_forgotten() -> None:
    own = limited(shared_origins_max=2)
    for who, stamp in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        own.note_seen(origin(who), stamp)
    assert dict(own.seen) == {origin("a"): 3, origin("c"): 4}


def test_seen_never_goes_back() -> None:
    own = limited()
    own.note_seen(origin("a"), 5)
    own.note_seen(origin("a"), 3)
    assert own.seen[origin("a")] == 5


def test_sums_tell_equal_maps_from_different_ones() -> None:
    one, other = limited(), limited()
    for stamp, key in enumerate(KEYS, 1):
        one.offer(key, entry(stamp), 0.0)
    for stamp, key in reversed(list(enumerate(KEYS, 1))):
        other.offer(key, entry(stamp), 0.0)
    assert (one.root, one.sums) == (other.root, other.sums)
    assert one.differing(other.sums) == []
    other.offer(KEYS[0], entry(20), 0.0)
    assert one.root != other.root
    assert len(one.differing(other.sums)) == 1
    other.remove(KEYS[0])
    one.remove(KEYS[0])
    assert one.root == other.root


@pytest.mark.parametrize(
    "other",
    [
        ("k", Entry(2, origin("a"), 0, b"v")),
        ("k", Entry(1, origin("b"), 0, b"v")),
        ("k", Entry(1, origin("a"), 1, b"v")),
        ("k", Entry(1, origin("a"), 0, b"w")),
        ("l", Entry(1, origin("a"), 0, b"v")),
        ("k", Entry(1, origin("a"), DELETED, b"")),
    ],
)
def test_digests_tell_entries_apart(other: tuple[str, Entry]) -> None:
    assert digest_of(*other) != digest_of("k", Entry(1, origin("a"), 0, b"v"))


def test_what_is_missing_comes_in_bounded_pieces() -> None:
    own = limited()
    for number in range(50):
        own.offer(f"key-{number}", entry(number + 1, value=b"x" * 36), 0.0)
    known: set[int] = set()
    pieces = 0
    more = True
    while more:
        found, more = own.missing(range(BUCKETS), known, 1000)
        assert 1 <= len(found) <= 9
        known |= {digest_of(key, each) for key, each in found}
        pieces += 1
    assert (len(known), pieces) == (50, 6)
    large = limited()
    large.offer("k", entry(1, value=b"x" * 5000), 0.0)
    assert len(large.missing(range(BUCKETS), (), 1000)[0]) == 1


# Becoming equal

Replicas = list[ReplicaMap]
Operation = tuple[int, str, bool, int]  # who, key, deletes, from whom it pulls before


def life(operations: list[Operation], *, expires: bool = False) -> Replicas:
    """What three replicas hold after writing, deleting and pulling as told."""
    replicas = [limited() for _ in range(3)]
    for stamp, (who, key, deletes, other) in enumerate(operations, 1):
        own = replicas[who]
        if other != who:
            pull(own, replicas[other])
        letter = "abc"[who]
        value = f"{stamp}".encode()
        own.write(key, tombstone(stamp, letter) if deletes else entry(stamp, letter, value), 0.0)
        if expires and stamp % 3 == 0:
            own.expire(before=1.0)
    return replicas


OPERATIONS = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(KEYS), st.booleans(), st.integers(0, 2)
    ),
    max_size=25,
)  # fmt: skip


def merged(one: ReplicaMap, other: ReplicaMap) -> ReplicaMap:
    result = deepcopy(one)
    pull(result, other)
    return result


@given(OPERATIONS)
def test_merging_is_commutative(operations: list[Operation]) -> None:
    a, b, _ = life(operations)
    assert state(merged(a, b)) == state(merged(b, a))


@given(OPERATIONS)
def test_merging_is_associative(operations: list[Operation]) -> None:
    a, b, c = life(operations)
    assert state(merged(merged(a, b), c)) == state(merged(a, merged(b, c)))


@given(OPERATIONS)
def test_merging_is_idempotent(operations: list[Operation]) -> None:
    a, b, _ = life(operations)
    once = merged(a, b)
    assert state(merged(once, b)) == state(once)
    assert state(merged(a, a)) == state(a)


@given(OPERATIONS, st.integers(80, 400))
def test_the_size_of_pieces_makes_no_difference(operations: list[Operation], size: int) -> None:
    a, b, _ = life(operations)
    small, large = deepcopy(a), deepcopy(a)
    pull(small, b, size)
    pull(large, b, 1 << 20)
    assert state(small) == state(large)


@given(OPERATIONS)
def test_the_last_writer_of_all_wins(operations: list[Operation]) -> None:
    a, b, c = life(operations)
    wanted: dict[str, bytes] = {}
    for stamp, (_, key, deletes, _) in enumerate(operations, 1):
        wanted.pop(key, None)
        if not deletes:
            wanted[key] = f"{stamp}".encode()
    assert shown(merged(merged(a, b), c)) == wanted


@settings(max_examples=200)
@given(OPERATIONS, st.permutations([(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)]))
def test_replicas_become_equal_though_they_forgot_deletions(
    operations: list[Operation], order: list[tuple[int, int]]
) -> None:
    replicas = life(operations, expires=True)
    for _ in range(3):
        for own, other in order:
            pull(replicas[own], replicas[other])
    for own, other in order:
        assert state(replicas[own]) == state(replicas[other])


@given(OPERATIONS, st.integers(0, 24))
def test_what_a_deletion_saw_never_comes_back(operations: list[Operation], at: int) -> None:
    """One replica leaves, all others delete what it has and forget that; then it returns."""
    replicas = life(operations[:at])
    here, there, away = replicas
    for own in (here, there):
        pull(own, away)
        pull(own, replicas[1] if own is here else here)
    for stamp, key in enumerate(list(here), 100):
        here.write(key, tombstone(stamp, "a"), 0.0)
    here.expire(before=1.0)
    assert not set(held(here)) & set(shown(away))
    for own, other in ((away, here), (here, away), (there, away), (there, here), (away, there)):
        pull(own, other)
    assert shown(away) == shown(here) == shown(there) == {}


def test_only_what_differs_travels() -> None:
    one, other = limited(), limited()
    for number in range(200):
        for own in (one, other):
            own.offer(f"key-{number}", entry(number + 1, value=b"x" * 100), 0.0)
    other.write("key-7", entry(1000, "b"), 0.0)
    pieces = pull(one, other)
    assert [key for piece in pieces for key, _ in piece.entries] == ["key-7"]
    assert one.root == other.root


def test_a_newcomer_gets_a_snapshot_in_pieces() -> None:
    old, new = limited(), limited()
    for number in range(300):
        old.write(f"key-{number}", entry(number + 1, value=b"x" * 100), 0.0)
    pieces = pull(new, old, piece_bytes=2000)
    assert state(new) == state(old)
    assert all(len(piece.entries) <= 12 for piece in pieces)


def test_a_replica_with_less_room_takes_what_it_can() -> None:
    old, new = limited(), limited(shared_keys_max=10)
    for number in range(30):
        old.write(f"key-{number}", entry(number + 1), 0.0)
    pull(new, old)
    assert len(new) == 10
