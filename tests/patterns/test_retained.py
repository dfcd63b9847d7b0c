"""What a publisher keeps: the last of each topic, within bounds."""

from hypothesis import given
from hypothesis import strategies as st

from zmesh.message import Kind, Record, head, size_of
from zmesh.options import MIB
from zmesh.patterns.retained import Retained


def record(topic: str, text: str) -> Record:
    return (head(Kind.PUBLICATION), topic, text.encode())


def retained(count_max: int = 1000, bytes_max: int = MIB) -> Retained:
    return Retained(count_max, bytes_max)


def keep(store: Retained, topic: str, text: str, depth: int = 1) -> list[str]:
    return store.keep(record(topic, text), 4, None, None, depth)


def texts(store: Retained, pattern: str = ">", now: float = 0.0) -> list[str]:
    return [bytes(kept.record[2]).decode() for kept in store.matching(pattern, now)]


def test_last_value_of_each_topic_is_kept() -> None:
    store = retained()
    for topic, text in (("a", "1"), ("b", "2"), ("a", "3")):
        keep(store, topic, text)
    assert texts(store) == ["2", "3"]
    assert texts(store, "a") == ["3"]
    assert texts(store, "c") == []


def test_as_many_are_kept_as_the_last_one_says() -> None:
    store = retained()
    for number in range(5):
        keep(store, "t", str(number), depth=3)
    assert texts(store) == ["2", "3", "4"]
    keep(store, "t", "5", depth=2)
    assert texts(store) == ["4", "5"]
    assert len(store) == 2


def test_patterns_find_topics_in_the_order_published() -> None:
    store = retained()
    for topic in ("a.x", "b.x", "a.y", "a.x.z"):
        keep(store, topic, topic, depth=2)
    keep(store, "a.x", "again", depth=2)
    assert texts(store, "a.*") == ["a.x", "a.y", "again"]
    assert texts(store, "a.>") == ["a.x", "a.y", "a.x.z", "again"]
    assert texts(store, "*.x") == ["a.x", "b.x", "again"]


def test_cleared_topic_keeps_nothing() -> None:
    store = retained()
    keep(store, "t", "1")
    store.clear("t")
    store.clear("t")
    assert texts(store) == []
    assert (len(store), store.size) == (0, 0)


def test_what_has_expired_is_not_found() -> None:
    store = retained()
    store.keep(record("t", "1"), 4, None, 10.0, 2)
    store.keep(record("t", "2"), 4, None, 20.0, 2)
    assert texts(store, now=9.9) == ["1", "2"]
    assert texts(store, now=10.0) == ["2"]


def test_count_is_bounded_and_the_topic_published_longest_ago_makes_room() -> None:
    store = retained(count_max=3)
    for topic in ("a", "b", "c"):
        keep(store, topic, topic)
    keep(store, "a", "a again")
    assert keep(store, "d", "d") == ["b"]
    assert texts(store) == ["c", "a again", "d"]
    assert store.forgotten == 1


def test_bytes_are_bounded() -> None:
    size = size_of(record("a", "x" * 100))
    store = retained(bytes_max=2 * size)
    for topic in ("a", "b"):
        assert keep(store, topic, "x" * 100) == []
    assert keep(store, "c", "x" * 100) == ["a"]
    assert store.size == 2 * size
    assert keep(store, "d", "x" * 1000) == ["b", "c", "d"]
    assert (len(store), store.size) == (0, 0)


steps = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 4), st.integers(0, 50)), max_size=60
)


@given(steps, st.integers(1, 8), st.integers(30, 300))
def test_bounds_hold_and_no_topic_has_a_gap(
    steps: list[tuple[str, int, int]], count_max: int, bytes_max: int
) -> None:
    store = retained(count_max, bytes_max)
    published: dict[str, list[str]] = {}
    for number, (topic, depth, length) in enumerate(steps):
        if depth:
            text = str(number).ljust(length, ".")
            keep(store, topic, text, depth)
            published.setdefault(topic, []).append(text)
        else:
            store.clear(topic)
        assert len(store) <= count_max
        assert store.size <= bytes_max
        assert store.size == sum(size_of(kept.record) for kept in store.matching(">", 0.0))
    for topic, all_texts in published.items():
        kept = texts(store, topic)
        assert kept == all_texts[len(all_texts) - len(kept) :]
