"""The page of options tells all there are, with their types, units and defaults as they are."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import zmesh
from zmesh import Message, Node, NodeOptions, Peers, SharedMap
from zmesh.options import KIB, MIB

PAGE = (Path(__file__).parent.parent / "docs" / "options.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\|(.+)\|$", re.MULTILINE)
NO_SECONDS = {
    "suspect_phi": "", "lost_phi": "", "time_threshold": "", "records_per_second": "1/s",
    "dials_per_second": "1/s", "connections_share_max": "",
    "retries_per_call": "", "retries_per_second": "1/s", "retries_saved_max": "",
    "proofs_per_second": "1/s", "path_proofs_per_second": "1/s",
    "address_handshakes_per_second": "1/s", "audits_per_second": "1/s",
    "quorum": "", "rate": "bytes/s",
}  # fmt: skip
CLASSES = [
    NodeOptions, zmesh.LinkOptions, zmesh.WireLimits, zmesh.TransportOptions,
    zmesh.DiscoveryOptions, zmesh.TrustOptions, zmesh.Storage, zmesh.Retention,
    zmesh.JournalOptions, zmesh.JoiningOptions,
]  # fmt: skip
TAKERS: dict[str, Callable[..., Any]] = {
    "Node": Node.__init__,
    **{
        name: getattr(Node, name)
        for name in ("send", "post", "post_nowait", "post_many", "call", "call_later", "stream",
                     "publish", "publish_many", "subscribe", "inbox", "service", "shared", "join",
                     "fan_out",
                     "survey", "push", "push_nowait", "push_many", "pull", "send_file",
                     "receive_files", "exchange", "close", "purge", "reload_trust")
    },
    "zmesh.invite": zmesh.invite,
    "zmesh.join": zmesh.join,
    "wait_for": Peers.wait_for,
    "peers.watch": Peers.watch,
    "peers.select": Peers.select,
    "ticket.reply": zmesh.Ticket.reply,
    "release": Message.release,
    "watch": SharedMap.watch,
    "batch": zmesh.Jobs.batch,
    "batches": zmesh.Inbox.batches,
    "exchange.bind": zmesh.Exchange.bind,
    "exchange.unbind": zmesh.Exchange.unbind,
    "exchange.subscribe": zmesh.Exchange.subscribe,
    "exchange.publish": zmesh.Exchange.publish,
    "exchange.wait_for": zmesh.Exchange.wait_for,
}  # fmt: skip


def rows_below(title: str) -> list[list[str]]:
    """Return the cells of the table below a heading that ends so, without its head."""
    [heading] = re.finditer(rf"^##+ .*{re.escape(title)}$", PAGE, re.MULTILINE)
    section, *_ = re.split(r"^#", PAGE[heading.end() :], maxsplit=1, flags=re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in ROW.findall(section)][2:]


def is_in_bytes(name: str) -> bool:
    """Return whether an option is a number of bytes, which its name tells."""
    return "_bytes" in name or name == "size"


def unit_of(name: str, kind: str) -> str:
    """Return the unit of an option, which its name and type tell."""
    if is_in_bytes(name):
        return "bytes"
    return NO_SECONDS.get(name, "s") if "float" in kind else ""


def shown(name: str, value: object) -> str:
    """Return a default as the page shows it."""
    if value is dataclasses.MISSING:
        return "required"
    if dataclasses.is_dataclass(value):
        return f"`{type(value).__name__}()`"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"`{value!r}`"
    if is_in_bytes(name) and value % KIB == 0:
        return f"{value // MIB} MiB" if value % MIB == 0 else f"{value // KIB} KiB"
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def types_of(options: type[Any]) -> dict[str, str]:
    """Return the types of a class's fields, as the page shows them."""
    [definition] = ast.parse(dedent(inspect.getsource(options))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        each.target.id: ast.unparse(each.annotation).replace(" | ", " or ")
        for each in definition.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }


@pytest.mark.parametrize("options", CLASSES, ids=lambda options: options.__name__)
def test_page_tells_every_limit_as_it_is(options: type[Any]) -> None:
    told, types = rows_below(f"`{options.__name__}`"), types_of(options)
    for row in told:
        assert len(row) == 5, row
        assert row[4].endswith("."), row
    assert [row[:4] for row in told] == [
        [f"`{each.name}`", types[each.name], unit_of(each.name, types[each.name]),
         shown(each.name, each.default)]
        for each in dataclasses.fields(options)
    ]  # fmt: skip


def options_of(taker: str) -> dict[str, list[str]]:
    """Return type, unit and default of everything optional that a method takes, by name."""
    function = TAKERS[taker]
    [definition] = ast.parse(dedent(inspect.getsource(function))).body
    assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
    arguments = [*definition.args.args, *definition.args.kwonlyargs]
    types = {
        each.arg: ast.unparse(each.annotation).replace(" | ", " or ")
        for each in arguments
        if each.annotation is not None
    }
    return {
        name: [
            types[name],
            NO_SECONDS.get(name, "s") if "float" in types[name] else "",
            shown(name, parameter.default),
        ]
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty
    }


@pytest.mark.parametrize("taker", TAKERS)
def test_page_tells_every_option_of_a_call_as_it_is(taker: str) -> None:
    told = {}
    for row in rows_below("`Node`") + rows_below("`Calls`"):
        name, takers, *facts, meaning = row
        assert meaning.endswith("."), row
        if f"`{taker}`" in takers.split(", "):
            told[name.strip("`")] = facts
    assert told == options_of(taker)


def test_every_method_that_takes_options_is_looked_at() -> None:
    names = {name for each in Node.__mro__ for name in vars(each)}
    public = {name for name in names if not name.startswith("_")}
    looked_at = {name for name in public if callable(getattr(Node, name, None))} - set(TAKERS)
    for name in looked_at:
        parameters = inspect.signature(getattr(Node, name)).parameters.values()
        assert all(each.default is each.empty for each in parameters), name
