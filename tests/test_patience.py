"""How waits grow while a node is late itself, and shrink again."""

from zmesh.patience import FACTOR_MAX, HALF_LIFE_S, Patience


def test_a_node_that_keeps_time_waits_as_long_as_it_was_told() -> None:
    patience = Patience()
    assert patience.factor(1000.0) == 1.0
    assert patience.at_once(64, 1000.0) == 64


def test_lateness_adds_up_to_a_limit_and_is_forgotten_by_halves() -> None:
    patience = Patience()
    patience.on_loop_late(1.0, 10.0)
    assert patience.factor(10.0) == 2.0
    assert patience.factor(10.0 + HALF_LIFE_S) == 1.5
    patience.on_loop_late(100.0, 20.0)
    assert patience.factor(20.0) == FACTOR_MAX
    assert patience.factor(20.0 + 10 * HALF_LIFE_S) < 1.01


def test_a_late_node_begins_less_at_once_and_never_nothing() -> None:
    patience = Patience()
    patience.on_loop_late(1.0, 0.0)
    assert patience.at_once(64, 0.0) == 16
    patience.on_loop_late(100.0, 0.0)
    assert patience.at_once(64, 0.0) == 1
    assert patience.at_once(8, 0.0) == 1
