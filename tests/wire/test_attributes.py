"""What describes a node, as it travels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import InvalidOption
from zmesh.options import WireLimits
from zmesh.wire.attributes import Scalar, attribute_text, attributes_of, is_attribute

LIMITS = WireLimits()
KEYS = st.text(st.characters(exclude_characters="=", codec="utf-8"), min_size=1, max_size=40)
VALUES = (
    st.text(max_size=40)
    | st.integers()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
)


@given(KEYS, VALUES)
def test_an_attribute_arrives_as_it_was_given(key: str, value: Scalar) -> None:
    text = attribute_text(key, value, LIMITS)
    assert is_attribute(text)
    [(told, back)] = attributes_of([text]).items()
    assert (told, back, type(back)) == (key, value, type(value))


def test_an_attribute_is_written_as_the_protocol_says() -> None:
    assert attribute_text("room", "küche=1", LIMITS) == 'room="küche=1"'
    assert attribute_text("heated", value=True, limits=LIMITS) == "heated=true"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", 1), ("a=b", 1), (7, 1), ("a", b"x"), ("a", None), ("a", [1]), ("a", {}),
        ("a", float("nan")), ("a", float("inf")),
        pytest.param("a", 10**5000, id="huge"), ("a", "x" * 1024),
        ("\udc80", 1), ("a", "\udc80"),
    ],
)  # fmt: skip
def test_what_cannot_travel_is_refused(key: str, value: Scalar) -> None:
    with pytest.raises(InvalidOption, match="attribute"):
        attribute_text(key, value, LIMITS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "=1",
        "a=",
        "a=x",
        "a=null",
        "a=[1]",
        "a={}",
        "a=NaN",
        "a=-Infinity",
        "a=1e999",
        "a=-1e999",
        r'a="\ud800"',
        "a=1 2",
    ],
)
def test_what_is_no_attribute_is_known(text: str) -> None:
    assert not is_attribute(text)
    assert attributes_of([text, "b=1"]) == {"b": 1}


@given(st.text(max_size=1024))
def test_no_text_is_too_strange_to_be_looked_at(text: str) -> None:
    assert is_attribute(text) is bool(attributes_of([text]))


def test_deep_nesting_is_refused_and_not_followed() -> None:
    assert not is_attribute("a=" + "[" * 1000)


def test_of_equal_keys_the_last_one_counts() -> None:
    assert attributes_of(["a=1", "a=2"]) == {"a": 2}
