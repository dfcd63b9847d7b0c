from dataclasses import replace

import pytest

from tests.discovery.waiting import until
from zmesh.actions import Trace
from zmesh.discovery.candidates import SEED, STATIC
from zmesh.discovery.static import StaticSource, resolve, targets, targets_of
from zmesh.errors import InvalidOption
from zmesh.events import CandidateFound, Event
from zmesh.options import DiscoveryOptions

OPTIONS = replace(DiscoveryOptions(), names_every=0.02, names_retry=0.001)


def test_peers_are_read_from_a_list() -> None:
    read = targets("peers", ["printer:5555", "tcp://192.0.2.7:5555", "[::1]:5", "printer:5555"], 9)
    assert [(target.host, target.port) for target in read] == [
        ("printer", 5555),
        ("192.0.2.7", 5555),
        ("::1", 5),
    ]


@pytest.mark.parametrize(
    "text", ["a:1,b:2", "a:1 b:2", " a:1 ,\n b:2,", ",a:1,,b:2\t", "a:1,b:2,a:1"]
)
def test_peers_are_read_from_one_text(text: str) -> None:
    assert [target.text for target in targets("ZMESH_PEERS", text, 9)] == ["a:1", "b:2"]


def test_an_empty_text_names_nobody() -> None:
    assert targets("ZMESH_PEERS", "", 9) == ()
    assert targets("ZMESH_PEERS", " , ", 9) == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("printer", "no :port"),
        ("udp://printer:1", "only tcp://"),
        ("::1:5", "needs brackets"),
        ("0.0.0.0:5", "no address one can dial"),
        ("[fe80::1]:5", "needs its interface"),
        ("", "no :port"),
    ],
)
def test_a_bad_peer_is_named_with_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(InvalidOption) as raised:
        targets("peers", ["printer:5", text], 9)
    assert raised.value.option == "peers"
    assert raised.value.value == text
    assert why in str(raised.value)


def test_more_peers_than_the_table_holds_are_refused() -> None:
    with pytest.raises(InvalidOption, match="at most 2"):
        targets("peers", ["a:1", "b:1", "c:1"], 2)


def test_the_environment_adds_to_the_option() -> None:
    environment = {"ZMESH_PEERS": "b:1 a:1"}
    read = targets_of("peers", ["a:1"], "ZMESH_PEERS", environment, 9)
    assert [target.text for target in read] == ["a:1", "b:1"]
    assert targets_of("seeds", [], "ZMESH_SEEDS", environment, 9) == ()
    with pytest.raises(InvalidOption, match="ZMESH_PEERS='x'"):
        targets_of("peers", [], "ZMESH_PEERS", {"ZMESH_PEERS": "x"}, 9)


def test_localhost_resolves_and_nonsense_raises_oserror() -> None:
    assert "127.0.0.1" in resolve("localhost")
    with pytest.raises(OSError, match="not a host name"):
        resolve("a" * 64 + ".example")


class Names:
    """A name server at our word."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = addresses
        self.asked = 0

    def resolve(self, host: str) -> list[str]:
        self.asked += 1
        if host not in self.addresses:
            raise OSError(f"{host} is unknown")
        return self.addresses[host]


class Ears:
    """Collects what a source tells."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.traces: list[Trace] = []

    async def events_are(self, count: int) -> list[Event]:
        await until(lambda: len(self.events) >= count)
        return self.events


def source(
    names: Names, ears: Ears, *texts: str, kind: str = STATIC, only_loopback: bool = False
) -> StaticSource:
    wanted = targets("peers", texts, 99)
    return StaticSource(
        kind, wanted, ears.events.extend, ears.traces.append, OPTIONS, names.resolve,
        only_loopback=only_loopback,
    )  # fmt: skip


async def test_addresses_are_told_at_once_and_names_when_they_are_resolved() -> None:
    ears = Ears()
    static = source(Names(printer=["192.0.2.9", "2001:db8::9"]), ears, "127.0.0.1:5", "printer:6")
    static.start()
    assert ears.events == [CandidateFound(STATIC, None, "127.0.0.1:5", ("tcp://127.0.0.1:5",))]
    await ears.events_are(2)
    await static.stop()
    endpoints = ("tcp://192.0.2.9:6", "tcp://[2001:db8::9]:6")
    assert ears.events[1] == CandidateFound(STATIC, None, "printer:6", endpoints)


async def test_seeds_are_told_as_seeds() -> None:
    ears = Ears()
    seeds = source(Names(), ears, "127.0.0.1:5", kind=SEED)
    seeds.start()
    await seeds.stop()
    assert ears.events == [CandidateFound(SEED, None, "127.0.0.1:5", ("tcp://127.0.0.1:5",))]


async def test_a_name_that_leads_elsewhere_is_told_again_and_the_same_is_not() -> None:
    ears, names = Ears(), Names(printer=["192.0.2.9", "192.0.2.8"])
    static = source(names, ears, "printer:6")
    static.start()
    await ears.events_are(1)
    names.addresses["printer"] = ["192.0.2.8", "192.0.2.9"]  # turned round: no change
    enough = names.asked + 3
    await until(lambda: names.asked >= enough)
    assert len(ears.events) == 1
    names.addresses["printer"] = ["192.0.2.7"]
    await ears.events_are(2)
    await static.stop()
    assert ears.events[1] == CandidateFound(STATIC, None, "printer:6", ("tcp://192.0.2.7:6",))


async def test_a_name_nobody_knows_yet_is_traced_once_and_tried_until_it_is_known() -> None:
    ears, names = Ears(), Names()
    static = source(names, ears, "printer:6")
    static.start()
    await until(lambda: names.asked >= 4)
    assert static.unresolved == {"printer:6": "printer is unknown"}
    assert [trace.name for trace in ears.traces] == ["name_unresolved"]
    names.addresses["printer"] = ["192.0.2.9"]
    await ears.events_are(1)
    assert static.unresolved == {}
    await static.stop()


async def test_a_name_that_is_forgotten_for_a_while_keeps_its_last_address() -> None:
    ears, names = Ears(), Names(printer=["192.0.2.9"])
    static = source(names, ears, "printer:6")
    static.start()
    await ears.events_are(1)
    del names.addresses["printer"]
    await until(lambda: bool(static.unresolved))
    await static.stop()
    assert len(ears.events) == 1


async def test_names_that_lead_to_the_network_are_not_followed_where_that_is_not_allowed() -> None:
    ears, names = Ears(), Names(printer=["192.0.2.9"], both=["192.0.2.9", "127.0.0.1"])
    static = source(names, ears, "printer:6", "both:7", only_loopback=True)
    static.start()
    await ears.events_are(1)
    await until(lambda: bool(static.unresolved))
    assert ears.events == [CandidateFound(STATIC, None, "both:7", ("tcp://127.0.0.1:7",))]
    assert "takes a mesh key or insecure=True" in static.unresolved["printer:6"]
    names.addresses["printer"] = ["127.0.0.2"]
    await ears.events_are(2)
    await static.stop()
    assert static.unresolved == {}


def test_only_what_the_operator_writes_down_is_static() -> None:
    with pytest.raises(InvalidOption, match="one of seed, static"):
        StaticSource("mdns", [], lambda _: None, lambda _: None, OPTIONS)
