from zmesh.options import LinkOptions
from zmesh.reliable.conduct import Conduct

OPTIONS = LinkOptions(violations_max=3, violations_within=600.0, refusal=15.0)


def test_a_peer_is_cut_off_at_the_last_violation_allowed_and_heard_again_later() -> None:
    conduct = Conduct(OPTIONS, 100.0)
    assert not conduct.refused(100.0)
    assert [conduct.on_violation(100.0 + turn) for turn in range(3)] == [False, False, True]
    assert conduct.refused(102.0)
    assert conduct.refused(116.9)
    assert not conduct.refused(117.0)


def test_after_a_refusal_the_count_begins_anew() -> None:
    conduct = Conduct(OPTIONS, 100.0)
    verdicts = [conduct.on_violation(100.0 + 20.0 * turn) for turn in range(6)]
    assert verdicts == [False, False, True, False, False, True]
    assert conduct.refused(200.0)


def test_a_slip_now_and_then_is_forgiven() -> None:
    conduct = Conduct(OPTIONS, 0.0)
    assert not any(conduct.on_violation(300.1 * turn) for turn in range(1000))


def test_violations_count_together_however_many_came_long_before() -> None:
    conduct = Conduct(OPTIONS, 0.0)
    verdicts = [conduct.on_violation(at) for at in (0.0, 1.0, 1000.0, 1300.0, 1600.0)]
    assert verdicts == [False, False, False, False, True]


def test_complaints_are_a_second_apart() -> None:
    conduct = Conduct(OPTIONS, 100.0)
    assert conduct.may_complain(100.0)
    assert not conduct.may_complain(100.999)
    assert conduct.may_complain(101.0)
    assert not conduct.may_complain(101.5)
