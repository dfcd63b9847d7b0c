from tests.discovery.entropy import FixedEntropy
from zmesh.deadlines import Agenda
from zmesh.discovery.seeds import AskSchedule
from zmesh.ids import NodeId
from zmesh.options import NodeOptions

A, B = NodeId(b"a" * 16), NodeId(b"b" * 16)


def schedule(place: float = 0.5) -> AskSchedule:
    return AskSchedule(NodeOptions(), FixedEntropy(place), Agenda())


def test_without_a_linked_seed_nobody_is_asked() -> None:
    asks = schedule()
    asks.on_seeds([], 0.0)
    assert asks.deadline is None
    assert asks.take(1000.0) == []


def test_a_seed_is_first_asked_again_after_a_while() -> None:
    asks = schedule()
    asks.on_seeds([A], 10.0)
    assert asks.deadline == 12.0
    assert asks.take(11.9) == []
    assert asks.take(12.0) == [A]
    assert asks.deadline == 16.0


def test_seeds_are_asked_in_turns() -> None:
    asks = schedule()
    asks.on_seeds([A, B], 0.0)
    assert [asks.take(1000.0 * turn) for turn in (1, 2, 3)] == [[A], [B], [A]]


def test_the_wait_has_jitter_and_a_cap() -> None:
    asks = schedule(place=1.0)
    asks.on_seeds([A], 0.0)
    assert asks.deadline == 2.5
    for turn in range(1, 9):
        asks.take(1000.0 * turn)
    assert asks.deadline == 8037.5


def test_a_new_seed_makes_the_asking_frequent_again_and_a_known_one_does_not() -> None:
    asks = schedule()
    asks.on_seeds([A], 0.0)
    asks.take(2.0)
    asks.on_seeds([A], 3.0)
    assert asks.deadline == 6.0
    asks.on_seeds([A, B], 3.0)
    assert asks.deadline == 5.0
    asks.on_seeds([B], 4.0)
    assert asks.deadline == 5.0


def test_when_the_last_seed_is_gone_the_asking_ends() -> None:
    asks = schedule()
    asks.on_seeds([A], 0.0)
    asks.on_seeds([], 1.0)
    assert asks.deadline is None
    asks.on_seeds([A], 2.0)
    assert asks.deadline == 4.0
