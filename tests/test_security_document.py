"""The table of bounds tells every one there is on what others send, as it is."""

import dataclasses
import re
from pathlib import Path

from tests.test_options_document import shown
from zmesh.core.engine_statistics import EngineStatistics
from zmesh.options import (
    DiscoveryOptions,
    LinkOptions,
    NodeOptions,
    TransportOptions,
    TrustOptions,
    WireLimits,
)

PAGE = (Path(__file__).parent.parent / "docs" / "security.md").read_text(encoding="utf-8")
[BOUNDS] = re.findall(r"^## Bounds$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
ROWS = [
    [cell.strip() for cell in row.split("|")]
    for row in re.findall(r"^\|(.+)\|$", BOUNDS, re.MULTILINE)
    if not row.startswith((" what ", " --- "))
]
PARTS = {
    "": NodeOptions, "link": LinkOptions, "wire": WireLimits, "transport": TransportOptions,
    "discovery": DiscoveryOptions, "trust": TrustOptions,
}  # fmt: skip
OWN = {
    # what bounds this node's own application, and what it sends
    "subscriptions_max", "services_max", "groups_max", "attributes_max", "fan_outs_max",
    "fan_outs_bytes_max", "surveys_max", "calls_max", "tickets_max", "tickets_bytes_max",
    "streams_max", "queues_max", "queued_jobs_max", "queued_jobs_bytes_max", "pulls_max",
    "retries_per_second", "retries_saved_max", "dead_letters_max", "dead_letters_bytes_max",
    "history_max", "retained_max", "retained_bytes_max", "shared_maps_max",
    "link.queued_messages_max", "link.queued_bytes_max", "link.inline_bytes_max",
    "link.packet_bytes_max", "link.fragment_bytes_max",
    # what an operator writes
    "trust.trusted_keys_max", "trust.file_bytes_max", "trust.rules_max",
    "trust.rule_patterns_max",
    # the longest of times that only ever grow by waiting
    "reconnect_max", "ask_after_max", "redeliver_max", "link.ack_delay_max",
    "link.probe_timeout_max", "link.hello_timeout_max", "link.ping_after_max",
    "link.ping_idle_max", "link.samples_max", "discovery.ask_every_max",
}  # fmt: skip


def options() -> dict[str, object]:
    """Every number there is, by the name that the table has for it."""
    return {
        f"{part}.{each.name}".lstrip("."): each.default
        for part, of in PARTS.items()
        for each in dataclasses.fields(of)
        if isinstance(each.default, int | float)
    }


def test_bounds_are_those_of_the_options() -> None:
    assert len(ROWS) > 60
    for row in ROWS:
        assert len(row) == 4, row
        name = row[2].strip("`")
        assert row[1] == shown(name.rpartition(".")[2], options()[name]), name
        assert row[0], name
        assert row[3], name


def test_every_bound_is_told_once() -> None:
    told = [row[2].strip("`") for row in ROWS]
    assert len(set(told)) == len(told)
    bounds = {name for name in options() if name.endswith(("_max", "_per_second", "_burst"))}
    assert bounds - OWN <= set(told)
    assert bounds >= OWN
    assert not OWN & set(told)


def test_counters_that_are_named_exist() -> None:
    counters = {each.name for each in dataclasses.fields(EngineStatistics)}
    named = [name for row in ROWS for name in re.findall(r"`engine\.(\w+)", row[3])]
    assert named
    assert set(named) <= counters
