"""`node.peers`: looking, waiting and watching."""

import asyncio
import gc

import pytest

from zmesh.actions import PeerChange, PeerChanged, PeerState, PeerView
from zmesh.errors import Closed, InvalidOption, PeersMissing, UsageError
from zmesh.face import peers_view
from zmesh.face.peers_view import (
    Joined,
    Left,
    Overrun,
    PeerEvent,
    Peers,
    Recovered,
    Suspected,
    Updated,
    Watcher,
)
from zmesh.ids import NodeId
from zmesh.wire.attributes import Scalar


def view(
    name: str,
    state: PeerState = PeerState.ALIVE,
    services: tuple[str, ...] = (),
    topics: tuple[str, ...] = (),
    groups: tuple[str, ...] = (),
    **attributes: Scalar,
) -> PeerView:
    node = NodeId(name.encode().ljust(16, b"-"))
    return PeerView(
        node, name, state, frozenset(services), frozenset(topics), (), 1, 0.001,
        groups=frozenset(groups), attributes=attributes,
    )  # fmt: skip


class Bench:
    """Peers a test can change."""

    def __init__(self, *views: PeerView) -> None:
        self.views = {each.name: each for each in views}
        self.error: Exception | None = None
        self.why = ""
        self.peers = Peers(self._all, self.views.get, lambda: self.why)

    def _all(self) -> list[PeerView]:
        if self.error is not None:
            raise self.error
        return list(self.views.values())

    def change(self, change: PeerChange, changed: PeerView, reason: str = "") -> None:
        self.views[changed.name] = changed
        self.peers.changed(PeerChanged(change, changed, reason))


async def take(watcher: Watcher, count: int) -> list[PeerEvent]:
    return [await asyncio.wait_for(anext(watcher), 5) for _ in range(count)]


def test_peers_are_seen_as_they_are() -> None:
    bench = Bench(view("a", services=("resize",)), view("b", PeerState.LOST))
    assert [(peer.name, peer.state, peer.is_present) for peer in bench.peers] == [
        ("a", PeerState.ALIVE, True), ("b", PeerState.LOST, False),
    ]  # fmt: skip
    assert len(bench.peers) == 2
    found = bench.peers.get("a")
    assert found is not None
    assert (found.id, found.services, found.round_trip) == (
        b"a---------------".hex(), frozenset({"resize"}), 0.001,
    )  # fmt: skip
    assert bench.peers.get("z") is None


async def test_waiting_ends_at_once_where_they_are_there() -> None:
    bench = Bench(view("a"), view("b", services=("x",)), view("c", PeerState.LOST, ("x",)))
    assert [peer.name for peer in await bench.peers.wait_for(count=2)] == ["a", "b"]
    assert [peer.name for peer in await bench.peers.wait_for(service="x")] == ["b"]
    assert [peer.name for peer in await bench.peers.wait_for(name="a")] == ["a"]


@pytest.mark.parametrize("pattern", ["a.b.c", "a.*.c", "a.>", ">"])
async def test_waiting_for_a_topic_means_a_matching_pattern(pattern: str) -> None:
    bench = Bench(view("a", topics=("z", pattern)))
    await bench.peers.wait_for(topic="a.b.c", timeout=1)
    with pytest.raises(PeersMissing):
        await Bench(view("a", topics=("a.b", "a.*"))).peers.wait_for(topic="a.b.c", timeout=0)


async def test_waiting_ends_when_the_last_one_comes() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.peers.wait_for(service="x", count=2, timeout=5))
    await asyncio.sleep(0)
    bench.change(PeerChange.JOINED, view("a", services=("x",)))
    await asyncio.sleep(0)
    bench.change(PeerChange.JOINED, view("b"))
    await asyncio.sleep(0)
    assert not task.done()
    bench.change(PeerChange.UPDATED, view("b", services=("x",)))
    assert [peer.name for peer in await task] == ["a", "b"]


async def test_waiting_in_vain_tells_what_was_wanted_and_seen() -> None:
    bench = Bench(view("a"))
    with pytest.raises(TimeoutError, match=r"no 2 peers serving 'x' within 0\.01 s") as caught:
        await bench.peers.wait_for(service="x", count=2, timeout=0.01)
    assert "in sight: a" in str(caught.value)
    with pytest.raises(TimeoutError, match=r"^no peer serving 'x' within 0\.01 s"):
        await bench.peers.wait_for(service="x", timeout=0.01)
    assert not bench.peers._waiters


async def test_waiting_alone_in_vain_tells_why_nobody_is_there() -> None:
    bench = Bench()
    bench.why = "no peers in mesh 'lab': mDNS is off"
    with pytest.raises(PeersMissing, match=r"nobody.*; no peers in mesh 'lab': mDNS is off$"):
        await bench.peers.wait_for(timeout=0)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), "5"])
async def test_timeout_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidOption, match="timeout"):
        await Bench().peers.wait_for(timeout=seconds)


async def test_waiting_for_nobody_is_refused() -> None:
    with pytest.raises(InvalidOption):
        await Bench().peers.wait_for(count=0)


async def test_waiting_ends_with_closed() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.peers.wait_for(timeout=5))
    await asyncio.sleep(0)
    bench.error = Closed()
    bench.peers.close(None)
    with pytest.raises(Closed):
        await task


async def test_watching_tells_who_is_there_and_then_what_happens() -> None:
    bench = Bench(view("a"), view("gone", PeerState.LEFT))
    watcher = bench.peers.watch()
    bench.change(PeerChange.JOINED, view("b"))
    bench.change(PeerChange.UPDATED, view("b", services=("x",)))
    bench.change(PeerChange.SUSPECTED, view("b", PeerState.SUSPECT))
    bench.change(PeerChange.RECOVERED, view("b"))
    bench.change(PeerChange.LEFT, view("b", PeerState.LOST), "refused")
    events = await take(watcher, 6)
    assert [type(event) for event in events] == [
        Joined, Joined, Updated, Suspected, Recovered, Left,
    ]  # fmt: skip
    left = events[-1]
    assert isinstance(left, Left)
    assert (left.peer.name, left.reason) == ("b", "refused")


async def test_watching_waits_for_news() -> None:
    bench = Bench()
    watcher = bench.peers.watch()
    task = asyncio.create_task(take(watcher, 1))
    await asyncio.sleep(0)
    bench.change(PeerChange.JOINED, view("a"))
    assert isinstance((await task)[0], Joined)


async def test_slow_watcher_is_told_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_view, "WATCH_EVENTS_MAX", 3)
    bench = Bench()
    watcher = bench.peers.watch()
    for number in range(5):
        bench.change(PeerChange.JOINED, view(str(number)))
    overrun, *rest = await take(watcher, 4)
    assert overrun == Overrun(2)
    assert [event.peer.name for event in rest if isinstance(event, Joined)] == ["2", "3", "4"]


async def test_watching_ends_when_the_node_closes() -> None:
    bench = Bench(view("a"))
    watcher = bench.peers.watch()
    failed = bench.peers.watch()
    bench.peers.close(None)
    assert len([event async for event in watcher]) == 1
    failed.close("node")
    await anext(failed)
    with pytest.raises(Closed):
        await anext(failed)


async def test_second_task_in_one_watch_is_refused_and_the_first_goes_on() -> None:
    bench = Bench()
    watcher = bench.peers.watch()
    first = asyncio.ensure_future(anext(watcher))
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="another task waits in this watch"):
        await anext(watcher)
    bench.change(PeerChange.JOINED, view("a"))
    assert isinstance(await first, Joined)


async def test_watching_goes_on_after_waiting_was_cancelled() -> None:
    bench = Bench()
    watcher = bench.peers.watch()
    waiting = asyncio.ensure_future(anext(watcher))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    bench.change(PeerChange.JOINED, view("a"))
    assert len(await take(watcher, 1)) == 1


async def test_dropped_watcher_is_forgotten() -> None:
    bench = Bench()
    bench.peers.watch()
    gc.collect()
    assert len(bench.peers._watchers) == 0


# Groups and attributes


def test_peers_can_be_selected_by_service_group_and_attributes() -> None:
    bench = Bench(
        view("a", groups=("cameras",), room="kitchen"),
        view("b", groups=("cameras",), room="cellar", services=("resize",)),
        view("c", PeerState.LOST, groups=("cameras",)),
    )
    select = bench.peers.select
    assert [peer.name for peer in select()] == ["a", "b"]
    assert [peer.name for peer in select(group="cameras")] == ["a", "b"]
    assert [peer.name for peer in select(where={"room": "kitchen"})] == ["a"]
    assert [peer.name for peer in select(where={"room": "kitchen", "floor": 1})] == []
    assert [peer.name for peer in select(group="cameras", service="resize")] == ["b"]


def test_a_boolean_is_no_number_where_attributes_are_compared() -> None:
    bench = Bench(view("a", heated=True, floor=1), view("b", heated=False, floor=0))
    select = bench.peers.select
    assert [peer.name for peer in select(where={"heated": True})] == ["a"]
    assert [peer.name for peer in select(where={"heated": 1})] == []
    assert [peer.name for peer in select(where={"floor": 1})] == ["a"]
    assert [peer.name for peer in select(where={"floor": 1.0})] == ["a"]
    assert [peer.name for peer in select(where={"floor": False})] == []


async def test_waiting_for_a_group_ends_when_there_are_enough() -> None:
    bench = Bench(view("a"))
    waiting = asyncio.create_task(bench.peers.wait_for(group="cameras", timeout=5))
    await asyncio.sleep(0)
    bench.change(PeerChange.UPDATED, view("a", groups=("cameras",)))
    assert [peer.name for peer in await waiting] == ["a"]
    with pytest.raises(PeersMissing, match=r"no peer with {'room': 'attic'} within"):
        await bench.peers.wait_for(where={"room": "attic"}, timeout=0.0)


async def test_a_watch_of_some_tells_who_begins_and_ceases_to_be_one_of_them() -> None:
    bench = Bench(view("a", room="kitchen"), view("b", room="cellar"))
    watcher = bench.peers.watch(where={"room": "kitchen"})
    bench.change(PeerChange.UPDATED, view("b", room="attic"))  # not wanted, before and after
    bench.change(PeerChange.UPDATED, view("b", room="kitchen"))
    bench.change(PeerChange.SUSPECTED, view("b", PeerState.SUSPECT, room="kitchen"))
    bench.change(PeerChange.UPDATED, view("a", room="cellar"))
    bench.change(PeerChange.LEFT, view("a", PeerState.LEFT, room="cellar"), "bye")
    bench.change(PeerChange.LEFT, view("b", PeerState.LEFT, room="kitchen"), "bye")
    events = await take(watcher, 5)
    told = [(type(each), each.peer.name) for each in events if not isinstance(each, Overrun)]
    assert told == [(Joined, "a"), (Joined, "b"), (Suspected, "b"), (Left, "a"), (Left, "b")]
    assert [event.reason for event in events if isinstance(event, Left)] == [
        "no longer with {'room': 'kitchen'}",
        "bye",
    ]
    assert not watcher._events
