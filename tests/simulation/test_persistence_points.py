"""Both sides die before and after every single operation on their disks, and keep every promise.

`python -m tests.chaos.persistence_points` does the same to seeded scenarios, and two at a time.
"""

import pytest

from tests.simulation.points import RECEIVER, SENDER, Death, deaths, live, scenario, with_logs


def dying(host: int, *, receiver_has_disk: bool = True) -> list[Death]:
    """Return the deaths of one host, at each operation of each of its lives."""
    report, operations = live(scenario(receiver_has_disk=receiver_has_disk))
    assert not report.violations, report.first
    return [death for death in deaths(operations) if death.life[0] == host]


def test_there_are_points_in_several_lives_of_both() -> None:
    points = [*dying(SENDER), *dying(RECEIVER)]
    assert {death.life for death in points} == {(0, 1), (0, 2), (1, 1), (1, 2)}
    assert len(points) > 60


@pytest.mark.parametrize("receiver_has_disk", [True, False])
def test_a_sender_may_die_at_every_operation(*, receiver_has_disk: bool) -> None:
    plan = scenario(receiver_has_disk=receiver_has_disk)
    for death in dying(SENDER, receiver_has_disk=receiver_has_disk):
        report, operations = live(plan, death)
        assert operations[death.life] == death.point[0]  # it did die there
        assert not report.violations, (death, report.first)


def test_a_receiver_may_die_at_every_operation() -> None:
    for death in dying(RECEIVER):
        report, operations = live(scenario(), death)
        assert operations[death.life] == death.point[0]
        assert not report.violations, (death, report.first)


@pytest.mark.parametrize("count", [None, 4], ids=["all", "four"])
@pytest.mark.parametrize("host", [SENDER, RECEIVER], ids=["publisher", "reader"])
def test_a_publisher_or_a_named_reader_may_die_at_every_operation(
    host: int, count: int | None
) -> None:
    plan = with_logs(count)
    report, operations = live(plan)
    assert not report.violations, report.first
    points = [death for death in deaths(operations) if death.life[0] == host]
    assert {death.life for death in points} == {(host, 1), (host, 2)}
    assert len(points) > 40
    for death in points:
        report, operations = live(plan, death)
        assert operations[death.life] == death.point[0]
        assert not report.violations, (death, report.first)


def test_a_death_at_every_operation_of_the_life_that_follows_one() -> None:
    """The life that restores what another left dies while it does."""
    first = next(death for death in dying(SENDER) if death.point == (6, True))
    _, operations = live(scenario(), first)
    for death in deaths({(SENDER, 2): operations[SENDER, 2]}):
        report, _ = live(scenario(), first, death)
        assert not report.violations, (death, report.first)
