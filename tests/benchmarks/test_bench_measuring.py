"""One measurement: a sender and receivers as processes of their own."""

import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from benchmarks.processes import preload
from benchmarks.scenario import ACKED, CALL, STREAM, Scenario
from benchmarks.system import (
    READY,
    Measured,
    Opened,
    Pair,
    Role,
    RoleFailed,
    Sent,
    System,
    Tally,
    Where,
    go,
    leave,
    measure,
    nothing,
    received,
)
from benchmarks.systems.bare import BARE


def test_what_came_is_counted_from_the_first_sent_to_the_last_received() -> None:
    tallies = [Tally(), Tally()]
    tallies[0].count, tallies[0].last_s = 60, 11.0
    tallies[1].count, tallies[1].last_s = 30, 12.0
    found = received(STREAM, Sent(100, 10.0), tallies)
    assert found.value == 45.0
    assert found.lost == pytest.approx(0.1)


def test_nothing_that_came_is_all_that_is_lost() -> None:
    assert received(STREAM, Sent(100, 10.0), [Tally()]) == Measured(0.0, 1.0)


def measured(send: Role, receive: Role, scenario: Scenario, place: Path) -> Measured:
    preload(["benchmarks.system"])
    system = System("some", "", {scenario.key: Pair(send, receive)}, nothing)
    return measure(system, Opened({}), scenario, place / "one")


def _ready(pipe: Connection, _scenario: Scenario, _where: Where) -> None:
    pipe.send(READY)


def _takes_a_second(pipe: Connection, _scenario: Scenario, _where: Where) -> None:
    began = go(pipe)
    leave(pipe, Sent(500, began, began + 1.0))


def _raises(_pipe: Connection, _scenario: Scenario, _where: Where) -> None:
    raise ValueError("no such\nthing")


def _dies(_pipe: Connection, _scenario: Scenario, _where: Where) -> None:
    os._exit(1)


def test_sender_that_knows_when_all_is_acknowledged_tells_the_figure(tmp_path: Path) -> None:
    assert measured(_takes_a_second, _ready, ACKED, tmp_path) == Measured(500.0)


def test_what_a_role_raises_is_told(tmp_path: Path) -> None:
    with pytest.raises(RoleFailed, match="ValueError: no such thing"):
        measured(_raises, _ready, ACKED, tmp_path)


def test_role_that_dies_is_noticed(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(EOFError):
        measured(_takes_a_second, _dies, ACKED, tmp_path)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("scenario", [STREAM, CALL])
def test_yardstick_is_measured(scenario: Scenario, tmp_path: Path) -> None:
    short = Scenario(scenario.key, scenario.title, scenario.unit, count=100)
    with BARE.opened(tmp_path) as opened:
        found = measure(BARE, opened, short, tmp_path / "one")
    assert found.value > 0
    assert found.lost == 0
