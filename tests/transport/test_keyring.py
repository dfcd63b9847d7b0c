"""Which key an endpoint is dialed with."""

from tests.transport.peer import curve_keys, server_pair
from zmesh.transport.keyring import Keyring

ONE, TWO, THREE = (server_pair(seed).public for seed in (1, 2, 3))


def test_without_keys_there_is_one_empty_one_to_try() -> None:
    ring = Keyring(None, 10)
    ring.on_worked("x", b"")
    assert ring.to_try("x") == [b""]


def test_what_worked_is_tried_first_there_and_nowhere_else() -> None:
    ring = Keyring(curve_keys(1, 2, 3), 10)
    ring.on_worked("x", THREE)
    assert ring.to_try("x") == [THREE, ONE, TWO]
    assert ring.to_try("y") == [ONE, TWO, THREE]
    ring.on_worked("x", ONE)
    assert ring.to_try("x") == [ONE, TWO, THREE]


def test_a_key_that_was_retired_is_not_tried() -> None:
    ring = Keyring(curve_keys(1, 2), 10)
    ring.on_worked("x", TWO)
    ring.replace(curve_keys(3, 1))
    assert ring.to_try("x") == [THREE, ONE]


def test_no_more_is_remembered_than_allowed() -> None:
    ring = Keyring(curve_keys(1, 2), 2)
    for endpoint in ("x", "y", "z"):
        ring.on_worked(endpoint, TWO)
    assert ring.to_try("x") == [ONE, TWO]
    assert ring.to_try("y") == ring.to_try("z") == [TWO, ONE]
    assert len(ring._worked) == 2
