"""Options that cannot work are refused when they are made, by name, with what they may be."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from enum import IntEnum
from typing import Any

import pytest

import zmesh
from zmesh import InvalidOption, LinkOptions, Node, NodeOptions
from zmesh.bounds import COUNT_MAX, SECONDS_MAX, Checked

CLASSES: list[type[Checked]] = [
    NodeOptions, LinkOptions, zmesh.WireLimits, zmesh.TransportOptions, zmesh.DiscoveryOptions,
    zmesh.TrustOptions, zmesh.Retention, zmesh.JournalOptions, zmesh.JoiningOptions,
]  # fmt: skip
NUMBERS = [(kind, each) for kind in CLASSES for each in fields(kind)]


def expected_of(make: Callable[[], object]) -> str:
    with pytest.raises(InvalidOption) as caught:
        make()
    return str(caught.value)


@pytest.mark.parametrize(("kind", "option"), NUMBERS, ids=lambda each: getattr(each, "name", None))
def test_no_option_takes_what_is_not_of_its_kind(kind: Any, option: Any) -> None:
    is_bool = option.type is bool
    wrong: list[object] = ["3", [], {}, math.nan, math.inf, -math.inf, -1, 10**30]
    wrong += [0, 1] if is_bool else [True]
    if option.type is int:
        wrong.append(2.0)
    if type(None) not in getattr(option.type, "__args__", ()):
        wrong.append(None)
    for value in wrong:
        told = expected_of(lambda value=value: kind(**{option.name: value}))  # type: ignore[misc]
        assert told.startswith(f"{option.name}={value!r} cannot work: expected ")


@pytest.mark.parametrize(("kind", "option"), NUMBERS, ids=lambda each: getattr(each, "name", None))
def test_every_option_takes_its_default_again(kind: Any, option: Any) -> None:
    made = kind(**{option.name: option.default})
    assert made == kind()
    assert repr(made) == f"{kind.__name__}()"


def test_numbers_of_other_libraries_are_numbers() -> None:
    class Count(IntEnum):
        FEW = 3

    class Float64(float):
        """As numpy's."""

    assert NodeOptions(attempts_max=Count.FEW).attempts_max == 3
    assert LinkOptions(session_linger=Float64(0.5)).session_linger == 0.5
    assert "at most 1e+09" in expected_of(lambda: LinkOptions(session_linger=Float64("nan")))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        ((NodeOptions, "attempts_max", -3), "attempts_max=-3 cannot work: expected a whole"),
        ((NodeOptions, "queued_jobs_bytes_max", "10"), "a whole number of bytes, 1 or more"),
        ((NodeOptions, "groups_max", -1), "a whole number, 0 or more"),
        ((NodeOptions, "reconnect_max", 0), "a number of seconds, above 0, at most 1e+09"),
        ((NodeOptions, "dials_per_second", 0), "a number a second, above 0"),
        ((NodeOptions, "retries_per_call", -1), "expected a number, 0 or more"),
        ((NodeOptions, "link", {"a": 3}), "link={'a': 3} cannot work: expected a zmesh."),
        ((NodeOptions, "link", NodeOptions()), "as in LinkOptions(...)"),
        ((zmesh.TransportOptions, "keepalive_count", 128), "1 or more, at most 127"),
        ((zmesh.TransportOptions, "keepalive_idle", 0.5), "of seconds, 1 or more"),
        ((zmesh.Retention, "age", 0), "above 0, at most 1e+09, or None for no bound"),
    ],
)  # fmt: skip
def test_what_an_option_may_be_is_told(make: tuple[Any, str, object], told: str) -> None:
    kind, option, value = make
    assert told in expected_of(lambda: kind(**{option: value}))


@pytest.mark.parametrize(
    ("wrong", "most"),
    [
        ({"samples_min": 2000}, "samples_max=1000"),
        ({"lost_phi": 4.0}, "lost_phi=4.0"),
        ({"window_messages": 20_000}, "window_messages_max=16384"),
        ({"window_bytes": 8 << 20}, "window_bytes_max=4194304"),
        ({"fragment_bytes": 2 << 20}, "fragment_bytes_max=1048576"),
    ],
)
def test_an_option_above_the_one_that_bounds_it_is_refused(wrong: Any, most: str) -> None:
    assert f"expected at most {most}: " in expected_of(lambda: LinkOptions(**wrong))
    LinkOptions(samples_min=2000, samples_max=2000)


def test_what_works_is_taken() -> None:
    NodeOptions(redeliver_max=5, retries_per_call=0, forget_after=SECONDS_MAX, groups_max=0)
    NodeOptions(queued_jobs_max=COUNT_MAX)
    assert zmesh.Retention(age=None, count=None, size=None).age is None
    with pytest.raises(InvalidOption):
        replace(NodeOptions(), attempts_max=0)


@pytest.mark.parametrize("options", [{"attempts_max": 3}, None, LinkOptions(), NodeOptions])
async def test_options_that_are_none_are_refused(options: Any) -> None:
    told = r"^options=.*: expected a zmesh\.{}, as in {}\(\.\.\.\)"
    with pytest.raises(InvalidOption, match=told.format("NodeOptions", "NodeOptions")):
        Node("a", mdns=False, options=options)
    joining = told.format("JoiningOptions", "JoiningOptions")
    with pytest.raises(InvalidOption, match=joining):
        zmesh.invite(options=options)
    with pytest.raises(InvalidOption, match=joining):
        await zmesh.join("1-abcd", options=options)


def test_options_show_what_is_not_as_by_default_alone() -> None:
    options = NodeOptions(attempts_max=5, link=LinkOptions(window_messages=7))
    assert repr(options) == "NodeOptions(link=LinkOptions(window_messages=7), attempts_max=5)"
    assert eval(repr(options), vars(zmesh)) == options  # noqa: S307  # our own text
    assert repr(zmesh.Storage("a", key="secret")) == "Storage(path='a')"
