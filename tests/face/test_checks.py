"""What the application passes is refused where it could harm the node."""

import math

import pytest

from zmesh.bounds import SECONDS_MAX
from zmesh.errors import InvalidOption
from zmesh.face.checks import (
    check_is_text,
    check_message_options,
    check_service,
    check_timeout,
    sendable_text,
)
from zmesh.options import NodeOptions

OPTIONS = NodeOptions()


def test_options_in_range_pass() -> None:
    check_message_options(OPTIONS.wire, 0, None, None)
    check_message_options(OPTIONS.wire, 9, "k", 0.001)
    check_message_options(OPTIONS.wire, 9, "", SECONDS_MAX)
    for timeout in (None, 0, 5, 0.5, SECONDS_MAX):
        check_timeout(timeout)
    check_service("resize", 1, OPTIONS)


@pytest.mark.parametrize(
    ("priority", "key", "ttl", "named"),
    [
        (-1, None, None, "priority"),
        (10, None, None, "priority"),
        (4.5, None, None, "priority"),
        (True, None, None, "priority"),
        ("4", None, None, "priority"),
        (4, "k" * 5000, None, "key"),
        (4, "\ud800", None, "key"),
        (4, 7, None, "key"),
        (4, None, 0, "ttl"),
        (4, None, "5", "ttl"),
        (4, None, math.nan, "ttl"),
        (4, None, math.inf, "ttl"),
        (4, None, 1e300, "ttl"),
    ],
)
def test_option_out_of_range_is_named(
    priority: int, key: str | None, ttl: float | None, named: str
) -> None:
    with pytest.raises(InvalidOption, match=named):
        check_message_options(OPTIONS.wire, priority, key, ttl)


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, math.inf, -math.inf, 1e300, "5", True])
def test_timeout_that_is_no_time_to_wait_is_refused(timeout: float) -> None:
    with pytest.raises(InvalidOption, match="timeout"):
        check_timeout(timeout)


@pytest.mark.parametrize("name", ["", "x" * 2000, "\ud800", b"resize", 5, None, ["resize"]])
def test_name_no_service_can_have_is_refused(name: object) -> None:
    with pytest.raises(InvalidOption, match="service"):
        check_service(name, 1, OPTIONS)


def test_service_that_handles_nothing_is_refused() -> None:
    with pytest.raises(InvalidOption, match="concurrency"):
        check_service("resize", 0, OPTIONS)


def test_what_is_no_text_is_refused() -> None:
    check_is_text("topic", "a.b")
    with pytest.raises(InvalidOption, match="topic"):
        check_is_text("topic", b"a.b")


def test_any_reason_becomes_a_text_that_can_travel() -> None:
    assert sendable_text("no paper") == "no paper"
    assert sendable_text(KeyError("paper")) == "'paper'"
    assert sendable_text("\udc80.txt") == "?.txt"
    assert sendable_text(None) == "None"
