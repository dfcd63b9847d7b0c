"""`node.peers`: who is there, waiting for somebody, and watching them come and go."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self, assert_never
from weakref import WeakSet

from zmesh.actions import PeerChange, PeerChanged, PeerState, PeerView
from zmesh.errors import Closed, InvalidOption, PeersMissing, UsageError
from zmesh.face.checks import check_is_text, check_timeout, is_count
from zmesh.patterns.filters import is_same
from zmesh.patterns.routing import TopicTable
from zmesh.terms import Role
from zmesh.wire.attributes import Scalar

WATCH_EVENTS_MAX: Final = 1024
"""Events kept for a watcher that does not keep up; the oldest are dropped, and it is told."""

PRESENT: Final = frozenset({PeerState.ALIVE, PeerState.BUSY, PeerState.SUSPECT})
"""The states of a peer that joined and is not known to be gone."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer as it was when asked for; it never changes, ask again for news."""

    id: str  # hex; what to address it by where several share a name
    name: str
    state: PeerState
    services: frozenset[str]
    topics: frozenset[str]  # the patterns it subscribes to
    endpoints: tuple[str, ...]
    incarnation: int
    round_trip: float | None  # smoothed, in seconds; None before it was measured
    groups: frozenset[str] = frozenset()  # it is a member of
    attributes: Mapping[str, Scalar] = field(default_factory=dict, hash=False)  # it was given
    role: Role = "hub"  # an edge has links with hubs alone

    @property
    def is_present(self) -> bool:
        """Whether it joined, and is not known to be gone."""
        return self.state in PRESENT

    def hears(self, topic: str) -> bool:
        """Return whether it subscribes to a topic."""
        table: TopicTable[str] = TopicTable(cache_max=1)
        for pattern in self.topics:
            table.add(pattern, pattern)
        return topic in self.topics or bool(table.match(topic))


@dataclass(frozen=True, slots=True)
class Joined:
    """A peer is there. It precedes all that comes from it."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Updated:
    """A peer serves, subscribes to, is in or is described by something else than before."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Suspected:
    """A peer has gone silent; its state says how much that means."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Recovered:
    """A suspected peer was heard again."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Left:
    """A peer is gone: it said so, or was lost. `peer` is how it was known last."""

    peer: Peer
    reason: str


@dataclass(frozen=True, slots=True)
class Overrun:
    """The watcher was too slow, and `missed` events were dropped: look at `node.peers` again."""

    missed: int


PeerEvent = Joined | Updated | Suspected | Recovered | Left | Overrun


def peer_of(view: PeerView) -> Peer:
    """Return the peer as the application sees it."""
    return Peer(
        view.id.hex(), view.name, view.state, view.services, view.topics, view.endpoints,
        view.incarnation, view.round_trip, view.groups, view.attributes,
        "edge" if view.is_edge else "hub",
    )  # fmt: skip


def event_of(news: PeerChanged) -> PeerEvent:
    """Return the news as a watcher sees it."""
    peer = peer_of(news.peer)
    match news.change:
        case PeerChange.JOINED:
            return Joined(peer)
        case PeerChange.UPDATED:
            return Updated(peer)
        case PeerChange.SUSPECTED:
            return Suspected(peer)
        case PeerChange.RECOVERED:
            return Recovered(peer)
        case PeerChange.LEFT:
            return Left(peer, news.reason)
        case _:
            assert_never(news.change)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What peers have to meet to be looked for: all that is not None."""

    name: str | None = None
    service: str | None = None
    topic: str | None = None
    group: str | None = None
    where: Mapping[str, Scalar] | None = None  # attributes

    def __post_init__(self) -> None:
        """Check that the texts are texts, and the attributes a mapping.

        Raises:
            InvalidOption: one of them is not.
        """
        for option in ("name", "service", "topic", "group"):
            if getattr(self, option) is not None:
                check_is_text(option, getattr(self, option))
        if not isinstance(self.where, Mapping | None):
            raise InvalidOption("where", self.where, 'a dict, as in {"room": "kitchen"}')

    def meets(self, peer: Peer) -> bool:
        """Return whether a peer is there and meets everything."""
        return (
            peer.is_present
            and self.name in {None, peer.name}
            and (self.service is None or self.service in peer.services)
            and (self.topic is None or peer.hears(self.topic))
            and (self.group is None or self.group in peer.groups)
            and all(
                key in peer.attributes and is_same(peer.attributes[key], value)
                for key, value in (self.where or {}).items()
            )
        )

    def __str__(self) -> str:
        wishes = {
            "named": self.name, "serving": self.service, "subscribed to": self.topic,
            "in": self.group, "with": self.where,
        }  # fmt: skip
        return " and ".join(
            f"{verb} {value!r}" for verb, value in wishes.items() if value is not None
        )


class Watcher:
    """`async for event in node.peers.watch()`: first those who are there, then what happens.

    It ends when the node closes. One task reads it. Where only some peers are wanted, `Joined` and
    `Left` tell who is among them from then on, and no longer.
    """

    def __init__(self, present: list[Peer], wanted: "Wanted") -> None:
        self._events: deque[PeerEvent] = deque(Joined(peer) for peer in present)
        self._wanted = wanted
        self._seen = {peer.id for peer in present}  # those that are told of
        self._missed = 0
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        self._failure: str | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PeerEvent:
        while not self._events and not self._missed:
            if self._is_closed:
                if self._failure is not None:
                    raise Closed(self._failure)
                raise StopAsyncIteration
            if self._waiter is not None and not self._waiter.done():
                raise UsageError("another task waits in this watch: begin one of its own")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._missed:
            missed, self._missed = self._missed, 0
            return Overrun(missed)
        return self._events.popleft()

    def add(self, event: PeerEvent) -> None:
        """Tell the watcher what happened, as far as it is of those wanted."""
        shown = self._shown(event)
        if shown is None:
            return
        event = shown
        if len(self._events) >= WATCH_EVENTS_MAX:
            self._events.popleft()
            self._missed += 1
        self._events.append(event)
        self._wake()

    def _shown(self, event: PeerEvent) -> PeerEvent | None:
        if isinstance(event, Overrun):
            return event
        peer, was_seen = event.peer, event.peer.id in self._seen
        if isinstance(event, Left):
            self._seen.discard(peer.id)
            return event if was_seen else None
        if not self._wanted.meets(peer):
            self._seen.discard(peer.id)
            return Left(peer, f"no longer {self._wanted}") if was_seen else None
        self._seen.add(peer.id)
        return event if was_seen else Joined(peer)

    def close(self, failure: str | None) -> None:
        """End the watch once what happened has been read; a failure is told."""
        self._is_closed = True
        self._failure = failure
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody who waits for peers. Looks at who changed, not at all there are: they are many."""

    wanted: Wanted
    found: set[str]  # ids of those that meet it
    count: int
    future: asyncio.Future[None]

    def on_event(self, event: PeerEvent) -> None:
        """Take in what happened."""
        if isinstance(event, Overrun):
            return
        if not isinstance(event, Left) and self.wanted.meets(event.peer):
            self.found.add(event.peer.id)
        else:
            self.found.discard(event.peer.id)
        if len(self.found) >= self.count:
            self.wake()

    def wake(self) -> None:
        """Have who waits look."""
        if not self.future.done():
            self.future.set_result(None)


class Peers:
    """The peers of a node, as its application sees them."""

    def __init__(
        self,
        views: Callable[[], list[PeerView]],
        find: Callable[[str], PeerView | None],
        why_alone: Callable[[], str],
    ) -> None:
        """Show what the callables return; the first two raise once the node closed.

        Args:
            views: returns all peers.
            find: returns one by name or id.
            why_alone: returns why no peer at all is there; empty where one is.
        """
        self._views = views
        self._find = find
        self._why_alone = why_alone
        self._watchers: WeakSet[Watcher] = WeakSet()
        self._waiters: dict[_Waiter, None] = {}
        self._failure = "node"

    def __iter__(self) -> Iterator[Peer]:
        return map(peer_of, self._views())

    def __len__(self) -> int:
        return len(self._views())

    def get(self, name_or_id: str) -> Peer | None:
        """Return the peer with this name or id, or None.

        Raises:
            AmbiguousPeer: several peers have the name.
        """
        view = self._find(name_or_id)
        return None if view is None else peer_of(view)

    async def wait_for(
        self,
        *,
        name: str | None = None,
        service: str | None = None,
        topic: str | None = None,
        group: str | None = None,
        where: Mapping[str, Scalar] | None = None,
        count: int = 1,
        timeout: float | None = None,  # noqa: ASYNC109  # the error tells who was there
    ) -> list[Peer]:
        """Wait until `count` peers are there that meet all that is asked, and return them.

        Args:
            name: they have this name.
            service: they provide this service.
            topic: they subscribe to this topic.
            group: they are in this group.
            where: they have these attributes, as `node.describe` gave them.
            count: how many.
            timeout: seconds to wait; None waits for ever.

        Raises:
            PeersMissing: they did not appear in time. It is a `TimeoutError`.
            Closed: the node was closed meanwhile.
        """
        if not is_count(count, 1):
            raise InvalidOption("count", count, "a whole number, 1 or more")
        check_timeout(timeout)
        wanted = Wanted(name, service, topic, group, where)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    found = [peer for peer in self if wanted.meets(peer)]
                    if len(found) >= count:
                        return found
                    await self._until(wanted, {peer.id for peer in found}, count)
        except TimeoutError as error:
            peers = (f"{count} peers {wanted}" if count > 1 else f"peer {wanted}").strip()
            seen = [peer.name or peer.id for peer in self if peer.is_present]
            raise PeersMissing(peers, seen, timeout or 0.0, self._why_alone()) from error

    def select(
        self,
        *,
        service: str | None = None,
        topic: str | None = None,
        group: str | None = None,
        where: Mapping[str, Scalar] | None = None,
    ) -> list[Peer]:
        """Return the peers that are there and meet all that is asked, as for `wait_for`."""
        wanted = Wanted(None, service, topic, group, where)
        return [peer for peer in self if wanted.meets(peer)]

    def watch(
        self,
        *,
        service: str | None = None,
        topic: str | None = None,
        group: str | None = None,
        where: Mapping[str, Scalar] | None = None,
    ) -> Watcher:
        """Return an iterator of what happens to peers, beginning with `Joined` for those there.

        Where only some are wanted (`service` and so on, as for `wait_for`), `Joined` and `Left`
        tell also who begins and ceases to be one of them.

        It never holds anything up: a watcher that does not keep up is told what it missed.
        """
        wanted = Wanted(None, service, topic, group, where)
        watcher = Watcher([peer for peer in self if wanted.meets(peer)], wanted)
        self._watchers.add(watcher)
        return watcher

    def changed(self, news: PeerChanged) -> None:
        """Tell all who wait and watch."""
        if not (self._watchers or self._waiters):
            return
        event = event_of(news)
        for watcher in list(self._watchers):
            watcher.add(event)
        for waiter in self._waiters:
            waiter.on_event(event)

    def close(self, failure: str | None) -> None:
        """End all waiting and watching."""
        for watcher in list(self._watchers):
            watcher.close(failure)
        for waiter in self._waiters:
            waiter.wake()

    async def _until(self, wanted: Wanted, found: set[str], count: int) -> None:
        """Wait until so many peers meet what is wanted, or the node closes."""
        waiter = _Waiter(wanted, found, count, asyncio.get_running_loop().create_future())
        self._waiters[waiter] = None
        try:
            await waiter.future
        finally:
            del self._waiters[waiter]
