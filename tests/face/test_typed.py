"""Bodies of the application's own types, there and back."""

import sys
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest

from zmesh.errors import InvalidBody, InvalidOption, MissingPackage
from zmesh.face.received import Message
from zmesh.face.typed import body_type, convert
from zmesh.wire.bodies import decode_body, encode_body


@dataclass
class Size:
    width: int
    height: int


@dataclass
class Picture:
    name: str
    size: Size
    raw: bytes


class Point(msgspec.Struct):
    x: float
    tags: list[str] = []


class Order(pydantic.BaseModel):
    item: str
    count: int


PICTURE = Picture("a", Size(3, 4), b"\x00\xff")


@pytest.mark.parametrize(
    "value",
    [PICTURE, Point(1.5, ["a"]), Order(item="x", count=2), [Size(1, 2)], {"k": Size(1, 2)}],
)
def test_what_is_sent_arrives_as_the_type_wanted(value: Any) -> None:
    wanted: Any = type(value)
    if wanted is list:
        wanted = list[Size]
    if wanted is dict:
        wanted = dict[str, Size]
    encoding, data = encode_body(value)
    assert convert(decode_body(encoding, data), wanted) == value


@pytest.mark.parametrize(
    ("wanted", "body", "field"),
    [
        (Picture, {"name": "a", "size": {"width": "3", "height": 4}, "raw": b""}, "$.size.width"),
        (Point, {"x": "far"}, "$.x"),
        (Order, {"item": "x", "count": "many"}, "$.count"),
        (Order, {"item": "x"}, "$.count"),
        (list[int], [1, "2"], "$[1]"),
    ],
)
def test_a_wrong_body_names_the_field(wanted: Any, body: object, field: str) -> None:
    with pytest.raises(InvalidBody) as caught:
        convert(body, wanted)
    assert field in caught.value.detail


def test_a_type_nothing_converts_to_is_refused() -> None:
    with pytest.raises(InvalidBody):  # msgspec takes a class it does not know for `isinstance`
        convert({}, type)
    with pytest.raises(InvalidOption):
        convert([], list[int] | set[int])  # type: ignore[arg-type]  # two that arrays become


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(MissingPackage, match=r"zmesh\[typed\]"):
        convert({}, Size)


def test_handlers_say_what_they_take() -> None:
    def typed(size: Size) -> None: ...
    def message(message: Message) -> None: ...
    def silent(message): ...  # type: ignore[no-untyped-def]
    def anything(message: Any) -> None: ...
    def unknown(size: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert body_type(typed, Message) is Size
    assert [body_type(each, Message) for each in (message, silent, anything, print)] == [None] * 4
    with pytest.raises(InvalidOption, match="Nowhere"):
        body_type(unknown, Message)
