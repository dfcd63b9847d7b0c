"""All sources of a node together."""

import asyncio
import os
import uuid
from collections.abc import Sequence

import pytest

from zmesh.actions import Trace
from zmesh.discovery.interfaces import Interface
from zmesh.discovery.membership import Membership
from zmesh.errors import InvalidOption
from zmesh.events import CandidateFound, EndpointsChanged, Event, PathCause
from zmesh.face.listening import Listening
from zmesh.face.settings import Settings, settle
from zmesh.face.sources import Sources
from zmesh.face.system import SystemEntropy
from zmesh.ids import NodeId
from zmesh.options import DiscoveryOptions, NodeOptions

LO = Interface("lo", ("127.0.0.1",))
LATER = Interface("lo", ("127.0.0.1", "127.0.0.2"))
BOUND = ("tcp://127.0.0.1:5000",)


def settings(**options: object) -> Settings:
    told: dict[str, object] = {
        "name": "a", "mesh": uuid.uuid4().hex, "peers": (), "seeds": (), "mdns": False,
        "interfaces": None, "port": 0, "insecure": False, "options": NodeOptions(),
        "zeroconf": None, "environment": {}, **options,
    }  # fmt: skip
    return settle(**told)  # type: ignore[arg-type]


class Bench:
    """Sources, and what they tell."""

    def __init__(self, told: Settings) -> None:
        self.events: list[Event] = []
        self.traces: list[Trace] = []
        self.node = NodeId(os.urandom(16))
        self.sources = Sources(told, self.node, self.events.extend, self.traces.append)

    def found(self) -> set[NodeId | None]:
        return {event.node for event in self.events if isinstance(event, CandidateFound)}


async def test_what_is_written_down_is_told_at_once() -> None:
    bench = Bench(settings(peers=["127.0.0.1:1000"], seeds=["127.0.0.1:1001"]))
    await bench.sources.start(Listening(("127.0.0.1",)), BOUND, ())
    assert bench.events == [
        EndpointsChanged(BOUND),
        CandidateFound("static", None, "127.0.0.1:1000", ("tcp://127.0.0.1:1000",)),
        CandidateFound("seed", None, "127.0.0.1:1001", ("tcp://127.0.0.1:1001",)),
    ]
    assert bench.sources.endpoints == BOUND
    await bench.sources.stop()


async def test_nodes_of_a_mesh_find_each_other_by_mdns() -> None:
    told = settings(mdns=True)
    first, second = Bench(told), Bench(told)
    for bench in (first, second):
        await bench.sources.start(Listening(("127.0.0.1",)), BOUND, ())
    async with asyncio.timeout(10):
        while first.node not in second.found() or second.node not in first.found():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await first.sources.stop()
    await second.sources.stop()


async def test_name_that_cannot_be_announced_is_refused() -> None:
    bench = Bench(settings(mdns=True, name="x" * 500))
    with pytest.raises(InvalidOption, match="name"):
        await bench.sources.start(Listening(("127.0.0.1",)), BOUND, ())
    await bench.sources.stop()


async def test_changed_interfaces_are_told_where_the_node_listens_everywhere() -> None:
    bench = Bench(settings(interfaces=["*"], insecure=True, mdns=True))
    everywhere = Listening(("0.0.0.0",), is_everywhere=True)  # noqa: S104  # nothing is bound
    await bench.sources.start(everywhere, ("tcp://0.0.0.0:5000",), (LO,))
    assert bench.events[0] == EndpointsChanged(("tcp://127.0.0.1:5000",))
    bench.sources._on_change((LATER,))
    assert bench.sources.endpoints == ("tcp://127.0.0.1:5000", "tcp://127.0.0.2:5000")
    assert bench.events[1] == EndpointsChanged(bench.sources.endpoints)
    await bench.sources.stop()


async def test_named_interfaces_are_listened_on_where_they_are_now() -> None:
    bench = Bench(settings(interfaces=["lo"]))
    asked: list[tuple[str, ...]] = []

    def listen(hosts: Sequence[str]) -> tuple[str, ...]:
        asked.append(tuple(hosts))
        return tuple(f"tcp://{host}:5000" for host in hosts)

    await bench.sources.start(Listening(("127.0.0.1",)), BOUND, (LO,), listen)
    bench.sources._on_change((LATER,))
    bench.sources._on_change(())
    bench.sources._on_change((LO,))
    both = ("tcp://127.0.0.1:5000", "tcp://127.0.0.2:5000")
    assert bench.events[1:] == [EndpointsChanged(told) for told in (both, (), BOUND)]
    assert bench.sources.endpoints == BOUND
    assert asked == [("127.0.0.1", "127.0.0.2"), (), ("127.0.0.1",)]
    await bench.sources.stop()


async def test_what_could_not_be_listened_on_is_tried_again() -> None:
    discovery = DiscoveryOptions(interfaces_every=0.01)
    bench = Bench(settings(interfaces=["lo"], options=NodeOptions(discovery=discovery)))
    tries = 0
    is_free = asyncio.Event()

    def listen(hosts: Sequence[str]) -> tuple[str, ...]:
        nonlocal tries
        tries += 1
        if tries == 3:
            is_free.set()
        return tuple(f"tcp://{host}:5000" for host in hosts if tries >= 3 or host != "127.0.0.2")

    await bench.sources.start(Listening(("127.0.0.1",)), BOUND, (LO,), listen)
    bench.sources._on_change((LATER,))
    await asyncio.wait_for(is_free.wait(), 5)
    await asyncio.sleep(0.05)
    assert tries == 3, "then it is content"
    both = (*BOUND, "tcp://127.0.0.2:5000")
    told = [event.endpoints for event in bench.events if isinstance(event, EndpointsChanged)]
    assert told == [BOUND, BOUND, BOUND, both]
    await bench.sources.stop()


async def test_interfaces_of_the_machine_are_listed_and_followed() -> None:
    bench = Bench(settings())
    interfaces = await bench.sources.interfaces()
    assert any("127.0.0.1" in interface.addresses for interface in interfaces)
    await bench.sources.stop()


async def test_reasons_to_be_alone_are_told() -> None:
    bench = Bench(settings(mesh="lonely"))
    membership = Membership(bench.node, NodeOptions(), SystemEntropy())
    why = bench.sources.why_alone(membership.statistics(), {})
    assert why.startswith("no peers in mesh 'lonely': mDNS is off")
    failures = {"tcp://127.0.0.1:1000": PathCause.REFUSED}
    why = bench.sources.why_alone(membership.statistics(), failures)
    assert "cannot reach tcp://127.0.0.1:1000 (refused, nobody listens there)" in why
    await bench.sources.stop()
