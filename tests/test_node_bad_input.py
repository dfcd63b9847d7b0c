"""What cannot work is refused with an error that names it, at the caller, before anything leaves.

The same mistakes are made with every call that takes such a thing: a call that checks less than
the others shows here.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import zmesh
from tests.nodes import QUICK, nodes
from zmesh import LinkOptions, Message, Node, NodeOptions

Use = Callable[..., Any]
"""Does something with a node, given a body and options."""

SMALL = NodeOptions(link=LinkOptions(body_bytes_max=100_000))
LARGE = bytes(100_001)

USES: dict[str, Use] = {
    "send": lambda node, body, **options: node.send("b", body, timeout=5, **options),
    "post": lambda node, body, **options: node.post("b", body, **options),
    "post_nowait": lambda node, body, **options: node.post_nowait("b", body, **options),
    "post_many": lambda node, body, **options: node.post_many("b", [body], **options),
    "call": lambda node, body, **options: node.call("work", body, timeout=5, **options),
    "stream": lambda node, body, **options: node.stream("work", body, **options),
    "publish": lambda node, body, **options: node.publish("topic", body, **options),
    "push": lambda node, body, **options: node.push("queue", body, **options),
    "push_nowait": lambda node, body, **options: node.push_nowait("queue", body, **options),
    "push_many": lambda node, body, **options: node.push_many("queue", [body], **options),
    "fan_out": lambda node, body, **options: node.fan_out("group", body, **options),
    "survey": lambda node, body, **options: node.survey("work", body, **options),
}


async def work(message: Message) -> None:
    """Answer with nothing."""


async def use(node: Node, name: str, body: object = 1, **options: object) -> None:
    """Make one of the calls, up to the moment at which it is under way."""
    made = USES[name](node, body, **options)
    if inspect.isawaitable(made):
        await made
    else:
        async for _ in made:
            break


@pytest.mark.parametrize("name", USES)
async def test_body_that_cannot_travel_is_refused(name: str) -> None:
    async with nodes("a", "b", options=SMALL) as (a, b):
        b.service("work")(work)
        await a.peers.wait_for(service="work", timeout=5)
        with pytest.raises(zmesh.BodyNotEncodable, match="of type object"):
            await use(a, name, object())
        with pytest.raises(zmesh.BodyTooLarge, match="100001 bytes is over the limit of 100000"):
            await use(a, name, LARGE)


@pytest.mark.parametrize("name", USES)
async def test_options_of_a_message_are_checked_alike(name: str) -> None:
    async with nodes("a", "b") as (a, b):
        b.service("work")(work)
        await a.peers.wait_for(service="work", timeout=5)
        for headers in ({1: "x"}, {"unit": ["C"]}, 7, [("unit", "C")], "unit"):
            with pytest.raises(zmesh.InvalidOption, match="headers"):
                await use(a, name, headers=headers)
        for priority in (-1, 10, True, "4", 4.0):
            with pytest.raises(zmesh.InvalidOption, match="priority="):
                await use(a, name, priority=priority)
        with pytest.raises(zmesh.InvalidOption, match="compression="):
            await use(a, name, compression="zip")


NEITHER = ("no", "false", "yes", "", 0, 1, 1.0)
"""What counts as true or false in Python, and is no answer."""


@pytest.mark.parametrize("value", NEITHER)
@pytest.mark.parametrize("option", ["insecure", "mdns", "sign"])
def test_node_takes_yes_and_no_as_bools_alone(option: str, value: Any) -> None:
    told: dict[str, Any] = {"key": (), "mdns": False, option: value}
    with pytest.raises(zmesh.InvalidOption, match=rf"{option}=.*True or False"):
        Node(**told)
    with pytest.raises(zmesh.InvalidOption, match=rf"{option}=.*True or False"):
        Node(**{**told, option: None})
    with pytest.raises(zmesh.InvalidOption, match=r"tracebacks_to_callers=.*True or False"):
        NodeOptions(tracebacks_to_callers=value)


@pytest.mark.parametrize("value", NEITHER)
async def test_messages_take_yes_and_no_as_bools_alone(value: Any) -> None:
    async with nodes("a", "b") as (a, _):
        exchange = await a.exchange("sold", kind="fanout")
        state = await a.shared("state", timeout=0.01)
        made: dict[str, Callable[[], Any]] = {
            "retain": lambda: a.publish("topic", 1, retain=value),
            "replay": lambda: a.subscribe("topic", replay=value),
            "include_late": lambda: a.fan_out("group", 1, include_late=value),
            "mandatory": lambda: exchange.publish(1, mandatory=value),
            "initial": lambda: state.watch(initial=value),
            "forget": lambda: state.close(forget=value),
        }
        for name in ("send", "post", "post_many", "publish", "push", "push_many", "fan_out"):
            with pytest.raises(zmesh.InvalidOption, match=r"durable=.*True or False"):
                await use(a, name, durable=value)
        with pytest.raises(zmesh.InvalidOption, match=r"durable=.*True or False"):
            await exchange.publish(1, durable=value)
        for option, make in made.items():
            with pytest.raises(zmesh.InvalidOption, match=rf"{option}=.*True or False"):
                await make()


async def test_file_with_headers_that_are_none_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    async with nodes("a", "b") as (a, _):
        with pytest.raises(zmesh.InvalidOption, match="headers="):
            await a.send_file("b", tmp_path / "file", headers=7)  # type: ignore[arg-type]


@pytest.mark.parametrize("topic", ["a.*", "a.>", "*", ">", "a..b", ".a", "", 7, "\ud800"])
async def test_topic_that_cannot_be_published_to_is_refused(topic: str) -> None:
    async with nodes("a") as (a,):
        with pytest.raises(zmesh.InvalidOption, match="topic="):
            await a.publish(topic, 1)


@pytest.mark.parametrize("pattern", ["a.b*", ">.a", "a..b", "a.>x", "", 7])
async def test_pattern_that_cannot_be_subscribed_to_is_refused(pattern: str) -> None:
    async with nodes("a") as (a,):
        with pytest.raises(zmesh.InvalidOption, match="pattern="):
            a.subscribe(pattern)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"content": "rate["}, "content="), ({"content": "rated(@)"}, "no function rated"),
        ({"content": 7}, "content="), ({"where": ["unit"]}, "where="),
        ({"where": {"unit": ["C"]}}, r"where\['unit'\]="),
        ({"where": {1: "C"}}, "header in where"), ({"where": {}}, "where="),
        ({"where": {"unit": "C"}, "match": "most"}, "match="),
        ({"type": ""}, "type="), ({"when_full": "wait"}, "when_full="),
        ({"when_full": "latest", "limit": 0}, "limit="),
    ],
)  # fmt: skip
async def test_filter_or_policy_that_cannot_work_is_refused(
    options: dict[str, Any], named: str
) -> None:
    async with nodes("a") as (a,):
        with pytest.raises(zmesh.InvalidOption, match=named):
            a.subscribe("topic", **options)


async def test_nobody_to_ask_is_told_at_once_and_by_name() -> None:
    async with nodes("a", "b") as (a, _), asyncio.timeout(1):
        for name in ("call", "stream", "survey"):
            with pytest.raises(zmesh.NoProvider, match="nobody provides 'work'"):
                await use(a, name)
        with pytest.raises(zmesh.NoMembers, match="nobody is in the group 'group'"):
            await use(a, "fan_out")
        with pytest.raises(zmesh.PeerUnknown, match="no peer 'c'"):
            await a.send("c", 1)
        with pytest.raises(zmesh.PeerUnknown, match="no peer 'c'"):
            await a.call("work", prefer="c")


@pytest.mark.parametrize("bodies", [7, None, "abc", b"abc", memoryview(b"abc")])
async def test_many_bodies_are_not_one(bodies: Any) -> None:
    async with nodes("a", "b") as (a, _):
        with pytest.raises(zmesh.InvalidOption, match="bodies="):
            await a.post_many("b", bodies)
        with pytest.raises(zmesh.InvalidOption, match="bodies="):
            await a.push_many("queue", bodies)


async def test_bodies_that_come_asynchronously_are_refused_where_many_are_posted() -> None:
    async def bodies() -> AsyncIterator[int]:
        yield 1

    async with nodes("a", "b") as (a, _):
        with pytest.raises(zmesh.InvalidOption, match="an iterable of bodies"):
            await a.post_many("b", bodies())  # type: ignore[arg-type]


def takes_nothing() -> None:
    """Take no message."""


def takes_two(message: object, other: object) -> None:
    """Take more than the message."""


def takes_names(*, message: object) -> None:
    """Take it by its name alone."""


@pytest.mark.parametrize("handler", [7, None, takes_nothing, takes_two, takes_names])
def test_handler_that_cannot_be_called_is_refused_where_it_is_registered(handler: Any) -> None:
    node = Node("a", mdns=False)
    with pytest.raises(zmesh.InvalidOption, match="handler="):
        node.service("work")(handler)


def test_handlers_of_all_shapes_are_taken() -> None:
    class Worker:
        async def work(self, message: Message) -> None:
            """Take a message."""

        def __call__(self, message: Message, retries: int = 3) -> None:
            """Take one as well."""

    node = Node("a", mdns=False)
    worker = Worker()
    handlers: tuple[Use, ...] = (worker.work, worker, lambda *_: 1, work, len, dict)
    for number, handler in enumerate(handlers):
        node.service(f"work-{number}")(handler)


@pytest.mark.parametrize("concurrency", [0, -1, "8", 2.5, None, True])
def test_concurrency_that_is_no_number_of_handlers_is_refused(concurrency: Any) -> None:
    with pytest.raises(zmesh.InvalidOption, match="concurrency="):
        Node("a", mdns=False).service("work", concurrency=concurrency)


async def test_what_a_handler_does_wrong_reaches_its_caller() -> None:
    async with nodes("a", "b", options=SMALL) as (a, b):

        @b.service("raises")
        async def raises(_: Message) -> None:
            raise LookupError("no such photo")

        @b.service("odd")
        async def odd(_: Message) -> object:
            return object()

        @b.service("large")
        async def large(_: Message) -> bytes:
            return LARGE

        @b.service("odd parts")
        async def odd_parts(_: Message) -> AsyncIterator[object]:
            yield 1
            yield object()

        @b.service("never")
        async def never(_: Message) -> None:
            await asyncio.Event().wait()

        await a.peers.wait_for(service="never", timeout=5)
        for service, kind, text in (
            ("raises", "LookupError", "no such photo"), ("odd", "BodyNotEncodable", "object"),
            ("large", "BodyTooLarge", "100001"),
        ):  # fmt: skip
            with pytest.raises(zmesh.RemoteError, match=f"{service!r} raised {kind}") as caught:
                await a.call(service, timeout=5)
            assert caught.value.type == kind
            assert text in caught.value.message
        parts = aiter(a.stream("odd parts", timeout=5))
        assert await anext(parts) == 1  # what came before the bad one counts
        with pytest.raises(zmesh.RemoteError, match="BodyNotEncodable"):
            await anext(parts)
        with pytest.raises(zmesh.DeliveryTimeout, match="the call to 'never'"):
            await a.call("never", timeout=0.1)


async def test_waiting_for_no_whole_number_of_peers_is_refused() -> None:
    async with nodes("a", options=QUICK) as (a,):
        for count in (0, -1, "1", 1.5, True, None):
            with pytest.raises(zmesh.InvalidOption, match="count="):
                await a.peers.wait_for(count=count)  # type: ignore[arg-type]
