"""The places of an edge for hubs."""

from tests.discovery.entropy import FixedEntropy
from zmesh.discovery.candidates import Candidate
from zmesh.discovery.hub_places import HubPlaces
from zmesh.discovery.pursuit import Phase, Pursuit


def pursuit(serial: int, *, pinned: bool = False) -> Pursuit:
    candidate = Candidate(serial, None, pinned={"tcp://127.0.0.1:1": None} if pinned else {})
    return Pursuit(candidate)


def test_who_has_a_place_keeps_it_while_dialed_or_linked() -> None:
    places = HubPlaces(1, FixedEntropy(0.0))
    one, two = pursuit(1), pursuit(2)
    assert places.take(one)
    one.phase = Phase.DIALING
    assert not places.take(two)
    one.phase = Phase.LINKED
    assert places.take(one)
    assert places.freed() is None
    one.phase = Phase.RESTING
    assert places.freed() is two
    assert places.freed() is None
    assert places.take(two)


def test_who_was_written_down_takes_no_place() -> None:
    places = HubPlaces(1, FixedEntropy(0.0))
    assert places.take(pursuit(1, pinned=True))
    assert places.take(pursuit(2))


def test_who_is_forgotten_waits_no_longer() -> None:
    places = HubPlaces(1, FixedEntropy(0.0))
    one, two = pursuit(1), pursuit(2)
    places.take(one)
    one.phase = Phase.LINKED
    places.take(two)
    places.leave(two)
    places.leave(one)
    assert places.freed() is None


def test_chance_decides_who_of_those_that_wait_is_next() -> None:
    for choice, expected in ((0.0, 2), (1.0, 4)):
        places = HubPlaces(1, FixedEntropy(choice))
        first = pursuit(1)
        places.take(first)
        first.phase = Phase.LINKED
        for serial in (2, 3, 4):
            places.take(pursuit(serial))
        first.phase = Phase.RESTING
        chosen = places.freed()
        assert chosen is not None
        assert chosen.candidate.serial == expected
