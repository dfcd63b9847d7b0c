"""Who is asked: by load and latency, by key, by preference."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.actions import PeerState
from zmesh.core.loopback import Loopback
from zmesh.core.peers import Peer
from zmesh.ids import NodeId, SessionId
from zmesh.options import LinkOptions, NodeOptions
from zmesh.patterns.choosing import Choosing, Wish, weight
from zmesh.testing.clock import SeededEntropy

ANYBODY = Wish()


class Provider(Peer):
    """A peer in whatever state a test wants."""

    def __init__(self, number: int) -> None:
        node = NodeId(bytes([number]) * 16)
        super().__init__(node, f"p{number}", Loopback(SessionId(bytes(16)), LinkOptions()))
        self.verdict = PeerState.ALIVE

    @property
    def state(self) -> PeerState:
        return self.verdict


def choosing(options: NodeOptions | None = None) -> Choosing:
    return Choosing(options or NodeOptions(), SeededEntropy("choice"))


def providers(count: int) -> list[Provider]:
    return [Provider(number) for number in range(1, count + 1)]


def chosen(
    choice: Choosing, among: list[Provider], times: int = 300, now: float = 0.0
) -> Counter[str]:
    """Return how often each is chosen where no call stays open."""
    names = []
    for _ in range(times):
        peer = choice.choose("work", among, ANYBODY, {}, now)
        assert peer is not None
        names.append(peer.name)
    return Counter(names)


def spread(choice: Choosing, among: list[Provider], calls: int) -> list[int]:
    """Return how many of so many calls, all left open, each gets."""
    for _ in range(calls):
        peer = choice.choose("work", among, ANYBODY, {}, 0.0)
        assert peer is not None
        peer.calls += 1
    return [peer.calls for peer in among]


# Load and latency


def test_nobody_is_chosen_of_nobody() -> None:
    assert choosing().choose("work", [], ANYBODY, {}, 0.0) is None
    gone, leaving = providers(2)
    gone.present, leaving.draining = False, True
    for wish in (ANYBODY, Wish(key="k"), Wish(prefer=gone.id)):
        assert choosing().choose("work", [gone, leaving], wish, {}, 0.0) is None


def test_open_calls_are_shared_evenly_among_the_unmeasured() -> None:
    assert spread(choosing(), providers(3), 30) == [10, 10, 10]


def test_chance_decides_between_equals() -> None:
    counts = chosen(choosing(), providers(3))
    assert min(counts.values()) > 60


def test_latency_and_load_are_weighed_against_each_other() -> None:
    fast, slow = among = providers(2)
    choice = choosing()
    choice.on_answer(fast, "work", 0.010, 0.0)
    choice.on_answer(slow, "work", 0.100, 0.0)
    # Twice the fastest one's 10 ms counts as alike: 20 ms against 100 ms.
    assert spread(choice, among, 60) == [50, 10]


def test_who_answers_nearly_as_fast_is_as_good() -> None:
    one, other = among = providers(2)
    choice = choosing()
    choice.on_answer(one, "work", 0.010, 0.0)
    choice.on_answer(other, "work", 0.019, 0.0)
    assert min(chosen(choice, among).values()) > 100


def test_differences_below_the_noise_do_not_count() -> None:
    one, other = among = providers(2)
    choice = choosing()
    choice.on_answer(one, "work", 0.000_1, 0.0)
    choice.on_answer(other, "work", 0.000_9, 0.0)
    assert min(chosen(choice, among).values()) > 100


def test_latency_is_known_of_each_service_apart() -> None:
    one, other = among = providers(2)
    choice = choosing()
    choice.on_answer(one, "other work", 5.0, 0.0)
    choice.on_answer(other, "work", 0.000_5, 0.0)
    assert min(chosen(choice, among).values()) > 100


def test_a_slow_answer_counts_at_once_and_fast_ones_by_and_by() -> None:
    (peer,) = providers(1)
    choice = choosing()
    choice.on_answer(peer, "work", 0.1, 0.0)
    choice.on_answer(peer, "work", 1.0, 0.0)
    assert choice.latency(peer, "work", 0.0) == 1.0
    choice.on_answer(peer, "work", 0.1, 1.0)
    # One second of ten: exp(-0.1) of the old is kept.
    assert choice.latency(peer, "work", 1.0) == pytest.approx(0.1 + 0.9 * 0.904_837, abs=1e-6)


def test_what_was_slow_once_is_tried_again_after_a_while() -> None:
    fast, slow = among = providers(2)
    choice = choosing()
    choice.on_answer(slow, "work", 1.0, 0.0)
    for second in range(120):
        choice.on_answer(fast, "work", 0.001, float(second))
        if second == 30:
            assert set(chosen(choice, among, now=30.0)) == {"p1"}
    assert set(chosen(choice, among, now=119.0)) == {"p1", "p2"}


def test_a_request_given_up_counts_as_slow_and_never_as_fast() -> None:
    (peer,) = providers(1)
    choice = choosing()
    choice.on_silence(peer, "work", 0.000_5, 0.0)
    assert choice.latency(peer, "work", 0.0) is None
    choice.on_silence(peer, "work", 2.0, 0.0)
    assert choice.latency(peer, "work", 0.0) == 2.0
    choice.on_silence(peer, "work", 0.5, 0.0)
    assert choice.latency(peer, "work", 0.0) == 2.0


def test_who_was_not_asked_yet_comes_first_then_who_is_alive() -> None:
    asked, silent, busy = among = providers(3)
    silent.verdict = PeerState.SUSPECT
    busy.calls = 100
    counts = {asked.id: 1}
    assert choosing().choose("work", among, ANYBODY, counts, 0.0) is busy
    assert choosing().choose("work", [asked, silent], ANYBODY, counts, 0.0) is silent
    assert choosing().choose("work", among, ANYBODY, counts, 0.0, but=[busy.id]) is silent


def test_measurements_are_bounded() -> None:
    choice = choosing(NodeOptions(latencies_max=3))
    (peer,) = providers(1)
    for number in range(10):
        choice.on_answer(peer, f"work-{number}", 0.1, 0.0)
    assert len(choice) == 3
    assert choice.latency(peer, "work-9", 0.0) == 0.1
    assert choice.latency(peer, "work-0", 0.0) is None


# Keys


def by_key(among: list[Provider], key: str) -> Provider:
    peer = choosing().choose("work", among, Wish(key=key), {}, 0.0)
    assert isinstance(peer, Provider)
    return peer


@given(st.text(max_size=20), st.integers(2, 8), st.randoms())
def test_a_key_moves_only_when_its_provider_goes(key: str, count: int, random: Random) -> None:
    among = providers(count)
    mine = by_key(among, key)
    mine.calls = 1000
    mine.verdict = PeerState.SUSPECT
    random.shuffle(among)
    assert by_key(among, key) is mine, "neither load, nor silence, nor order counts"
    for other in among:
        if other is not mine:
            assert by_key([peer for peer in among if peer is not other], key) is mine
    mine.draining = True
    second = by_key(among, key)
    assert second is not mine
    assert by_key([peer for peer in among if peer is not mine], key) is second


def test_keys_are_spread_evenly() -> None:
    among = providers(4)
    counts = Counter(by_key(among, f"user-{number}").name for number in range(2000))
    assert len(counts) == 4
    assert all(400 < count < 600 for count in counts.values())


def test_a_provider_more_takes_its_share_of_the_keys_and_moves_no_others() -> None:
    among = providers(5)
    moved = 0
    for number in range(1000):
        before, after = by_key(among[:4], f"{number}"), by_key(among, f"{number}")
        moved += before is not after
        assert after in (before, among[4])
    assert 150 < moved < 250


def test_weights_are_what_every_node_computes() -> None:
    assert weight(b"user-7", NodeId(bytes(16))).hex() == "dc0e697a6b293b67"


# Preference


def test_the_preferred_provider_is_asked_first_whatever_its_load() -> None:
    one, other = among = providers(2)
    other.calls = 50
    other.verdict = PeerState.BUSY
    assert choosing().choose("work", among, Wish(prefer=other.id), {}, 0.0) is other
    both = Wish(key="k", prefer=one.id)
    assert choosing().choose("work", among, both, {}, 0.0) is one


def test_the_others_are_asked_where_the_preferred_one_cannot_be_or_was() -> None:
    one, other = among = providers(2)
    wish = Wish(prefer=other.id)
    assert choosing().choose("work", among, wish, {other.id: 1}, 0.0) is one
    assert choosing().choose("work", [one], wish, {}, 0.0) is one
    other.draining = True
    assert choosing().choose("work", among, wish, {}, 0.0) is one
