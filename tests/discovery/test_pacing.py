from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from zmesh.discovery.pacing import Pacer
from zmesh.options import DiscoveryOptions

OPTIONS = DiscoveryOptions(records_max=8, records_per_second=2.0, records_burst=3, record_gap=1.0)


def taken(pacer: Pacer[str, int], now: float) -> list[tuple[str, int]]:
    got = []
    while (news := pacer.take(now)) is not None:
        got.append(news)
    return got


def test_news_are_there_at_once() -> None:
    pacer: Pacer[str, int] = Pacer(OPTIONS, 10.0)
    pacer.add("a", 1, 10.0)
    assert pacer.deadline is not None
    assert pacer.deadline <= 10.0
    assert taken(pacer, 10.0) == [("a", 1)]
    assert pacer.deadline is None


def test_of_one_key_only_the_latest_counts() -> None:
    pacer: Pacer[str, int] = Pacer(OPTIONS, 10.0)
    pacer.add("a", 1, 10.0)
    pacer.add("a", 2, 10.0)
    assert taken(pacer, 10.0) == [("a", 2)]


def test_a_key_that_was_just_looked_at_waits_for_its_gap() -> None:
    pacer: Pacer[str, int] = Pacer(OPTIONS, 10.0)
    pacer.add("a", 1, 10.0)
    pacer.take(10.0)
    pacer.add("a", 2, 10.2)
    pacer.add("b", 3, 10.2)
    assert taken(pacer, 10.2) == [("b", 3)]
    assert pacer.deadline == 11.0
    assert taken(pacer, 11.0) == [("a", 2)]
    pacer.add("a", 4, 12.5)
    assert taken(pacer, 12.5) == [("a", 4)]


def test_a_burst_is_taken_and_then_the_rate_holds() -> None:
    pacer: Pacer[str, int] = Pacer(OPTIONS, 10.0)
    for number, key in enumerate("abcdef"):
        pacer.add(key, number, 10.0)
    assert len(taken(pacer, 10.0)) == 3
    assert pacer.deadline == 10.5
    assert taken(pacer, 10.4) == []
    assert taken(pacer, 10.5) == [("d", 3)]
    assert len(taken(pacer, 20.0)) == 2


def test_more_keys_than_may_wait_are_refused_and_counted() -> None:
    pacer: Pacer[str, int] = Pacer(OPTIONS, 10.0)
    for number, key in enumerate("abcdefghij"):
        pacer.add(key, number, 10.0)
    pacer.add("a", 77, 10.0)
    assert len(pacer) == 8
    assert pacer.refused == 2
    assert pacer.take(10.0) == ("a", 77)


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklm"), st.floats(0.0, 0.3)), max_size=80))
def test_no_flood_is_looked_at_faster_than_allowed(flood: list[tuple[str, float]]) -> None:
    options = replace(OPTIONS, records_max=5)
    pacer: Pacer[str, int] = Pacer(options, 0.0)
    now, looks = 0.0, list[tuple[float, str, int]]()
    latest: dict[str, int] = {}
    for number, (key, wait) in enumerate(flood):
        until = now + wait
        while (deadline := pacer.deadline) is not None and deadline <= until:
            now = max(now, deadline)
            news = pacer.take(now)
            assert news is not None, "the deadline was a promise"
            looks.append((now, *news))
        now = until
        refused = pacer.refused
        pacer.add(key, number, now)
        if pacer.refused == refused:
            latest[key] = number
        assert len(pacer) <= 5
    while (deadline := pacer.deadline) is not None:
        now = max(now, deadline)
        news = pacer.take(now)
        assert news is not None
        looks.append((now, *news))
    seen = {key: number for _, key, number in looks}
    assert seen == latest  # nothing that was taken in is lost
    assert len(looks) <= options.records_burst + options.records_per_second * now + 1
    for key in latest:
        times = [when for when, each, _ in looks if each == key]
        assert all(later - sooner > 0.999 for sooner, later in pairwise(times))
