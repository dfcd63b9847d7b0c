"""Middleware around handlers, and bodies of the application's own types, between real nodes."""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.nodes import nodes
from zmesh import (
    InvalidBody,
    InvalidOption,
    Message,
    MissingPackage,
    Node,
    Rejected,
    RemoteError,
)

Next = Callable[[Message], Awaitable[Any]]


@dataclass
class Size:
    width: int
    height: int


async def test_a_handler_gets_the_type_it_is_annotated_with() -> None:
    async with nodes("a", "b") as (a, b):

        @b.service("area")
        async def area(size: Size) -> int:
            return size.width * size.height

        @b.service("doubled")
        def doubled(size: Size) -> Size:
            return Size(2 * size.width, 2 * size.height)

        await a.peers.wait_for(service="doubled", timeout=5)
        assert await a.call("area", Size(3, 4)) == 12
        assert await a.call("doubled", Size(3, 4)) == {"width": 6, "height": 8}
        for service in ("area", "doubled"):
            with pytest.raises(Rejected, match=r"\$\.height"):
                await a.call(service, {"width": 3, "height": "4"})


async def test_a_message_of_the_wrong_type_is_rejected() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.post("b", {"width": 3})
        message = await anext(b.inbox("manual"))
        with pytest.raises(InvalidBody, match="height"):
            message.as_(Size)
        with pytest.raises(Rejected, match="height"):
            await receipt


async def test_middleware_runs_around_every_handler_the_first_outermost() -> None:
    steps: list[str] = []
    async with nodes("a", "b") as (a, b):

        @b.middleware
        async def outer(message: Message, call_next: Next) -> Any:
            steps.append(f"outer {message.topic}")
            try:
                return await call_next(message)
            except ValueError as error:
                return f"mended {error}"

        @b.middleware
        async def inner(message: Message, call_next: Next) -> Any:
            steps.append("inner")
            return [await call_next(message)]

        @b.service("plain")
        def plain(message: Message) -> object:
            return message.body

        @b.service("fails")
        async def fails(message: Message) -> object:
            raise ValueError(message.body)

        @b.service("breaks")
        async def breaks(_: Message) -> object:
            raise KeyError("x")

        await a.peers.wait_for(service="breaks", timeout=5)
        assert await a.call("plain", 1) == [1]
        assert steps == ["outer plain", "inner"]
        assert await a.call("fails", "it") == "mended it"
        with pytest.raises(RemoteError, match="KeyError"):
            await a.call("breaks")


async def test_middleware_must_be_awaitable() -> None:
    async with nodes("a") as (a,):
        with pytest.raises(InvalidOption):
            a.middleware(lambda message, call_next: call_next(message))


async def takes_either(numbers: list[int] | set[int]) -> None:
    """Take what no array can tell apart."""


async def takes_numbers(numbers: list[int]) -> None:
    """Take what needs msgspec."""


def test_type_no_body_becomes_is_refused_where_the_handler_is_registered() -> None:
    with pytest.raises(InvalidOption, match="one that msgspec converts to"):
        Node("a", mdns=False).service("work")(takes_either)


def test_missing_library_is_named_where_the_handler_is_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node("a", mdns=False)
    node.service("before")(takes_numbers)
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(MissingPackage, match=r"zmesh\[typed\]"):
        node.service("work")(takes_numbers)
