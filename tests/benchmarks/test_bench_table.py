"""The table of results: what stands in its cells, and what beside it."""

import pytest

from benchmarks.results import Figure, Results, Round
from benchmarks.scenario import ACKED, CALL, STREAM
from benchmarks.table import cell, markdown, number, ratio

TAKEN = "2026-12-01T10:00:00+00:00"


def results() -> Results:
    return Results(
        machine={"cores": "2"},
        date="2026-12-01",
        versions={"pyzmq": "27.3.0", "zmesh": "0.1.0"},
        yardsticks={"bare": "bare", "zmesh": "bare"},
        about={"bare": "as one would write it", "zmesh": "by the thousand"},
        rounds=[
            Round("acked", "quick", {"bare": 182_000.0, "zmesh": 519_000.0}, taken=TAKEN),
            Round("call", "slow", {"bare": 105.4, "zmesh": 421.0}, taken=TAKEN),
            Round("call", "slow", {"bare": 104.6}, taken=TAKEN),
        ],
        skipped={"Redis": "redis-server is not installed"},
        left_out={"zmesh": {"stream": "no such thing", "large": "no such thing"}},
        failed={"bare": {"queue": "a process ended"}},
    )


def test_rows_are_scenarios_and_columns_systems() -> None:
    page = markdown(results())
    assert "| scenario | bare | zmesh | measured |" in page
    assert "| acked stream | 182,000/s | 519,000/s (2.9x) | quick, 2026-12-01 |" in page
    assert "| call, one at a time, p50, us, lower | 105 | 421 (4x) | slow, 2026-12-01 |" in page


def test_scenarios_that_were_not_measured_have_no_row() -> None:
    assert STREAM.title not in markdown(results())


def test_page_tells_versions_machine_and_what_is_missing() -> None:
    page = markdown(results())
    assert "pyzmq 27.3.0, zmesh 0.1.0" in page
    assert "cores 2" in page
    assert "**zmesh**: stream, large (no such thing)." in page
    assert "**bare**: queue (a process ended)." in page
    assert "**Redis**: redis-server is not installed." in page


def test_loss_is_told_beside_the_figure() -> None:
    figure = Figure("zmesh", "stream", "quick", 50_000.0, 0.5, (0.5,), lost=0.031)
    assert cell(STREAM, figure) == "50,000/s (0.5x), 3.1 % lost"


def test_missing_figure_is_a_dash_and_a_yardstick_has_no_ratio() -> None:
    assert cell(ACKED, None) == "-"
    assert cell(CALL, Figure("bare", "call", "slow", 105.4, 1.0, (1.0,))) == "105"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04721, "0.0472"), (12.34, "12.3"), (412.6, "413"), (519_321.0, "519,000")],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.1449, "0.14"), (2.85, "2.9"), (61.4, "61")])
def test_ratios_have_two_digits_that_count(value: float, text: str) -> None:
    assert ratio(value) == text
