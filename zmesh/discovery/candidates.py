"""The candidate table: who may be there, who says so, and where to try. Hints, never beliefs.

Sources name nodes and vouch for addresses; `CandidateTable` merges what they say about one node.
What the operator wrote down (`STATIC`, `SEED`) names an address without a node: such a pinned
endpoint is a candidate of its own until IAM tells who answers there. Then the endpoint moves to
that node's candidate, and moves on when another node answers at it later.

The table is bounded, and a flood of announcements cannot push honest ones out of it:

- linked candidates and pinned ones are never displaced;
- others only after at least one round of dialing them failed, so whoever answers is safe, and a
  flood has to wait for its own entries to be tried and fail;
- never-identified ones go before those that once proved who they are;
- never-identified ones of one source fill half of the table at most, so a flood of mDNS records
  leaves room for what peers tell.

Who is refused for want of room is not lost: it dials this node itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from zmesh.discovery.endpoints import dialable
from zmesh.ids import NodeId

MDNS = "mdns"
STATIC = "static"
SEED = "seed"
PEER = "peer"  # another node said so
ITSELF = "itself"  # the node said so over a path it answers on

PINNED_SOURCES = frozenset({STATIC, SEED})
"""What the operator wrote down: true until the operator takes it back."""

LASTING_SOURCES = PINNED_SOURCES | {MDNS}
"""Sources that say when they no longer vouch; what others said just ages."""


class Change(Enum):
    """What a finding did to a candidate."""

    NEW = "new"
    CHANGED = "changed"  # there are other endpoints to try now
    SAME = "same"  # nothing new, but somebody said so again


@dataclass(slots=True, eq=False)
class Candidate:
    """Somebody who may be there. Changed only by its table, but for the last three fields."""

    serial: int  # in order of appearance
    node: NodeId | None  # None: an address at which nobody has answered yet
    name: str = ""
    vouched: dict[str, tuple[str, ...]] = field(default_factory=dict)  # source -> endpoints
    pinned: dict[str, None] = field(default_factory=dict)  # endpoints, in order

    proven: bool = False  # answered with the right id, at least once
    stranger_of: str = ""  # the source that alone tells of it, while it is not proven

    is_edge: bool = False  # as was said last; it dials hubs itself
    linked: bool = False
    failures: int = 0  # rounds of dialing since the last success

    @property
    def is_pinned(self) -> bool:
        """Whether the operator wrote it down."""
        return bool(self.pinned) or not PINNED_SOURCES.isdisjoint(self.vouched)

    @property
    def is_lasting(self) -> bool:
        """Whether a source vouches for it that would say if it no longer did."""
        return bool(self.pinned) or not LASTING_SOURCES.isdisjoint(self.vouched)

    def endpoints(self, endpoints_max: int) -> list[str]:
        """Return where to try: pinned ones first, then a fair share of every source's."""
        merged = dict(self.pinned)
        longest = max(map(len, self.vouched.values()), default=0)
        for index in range(longest):
            for endpoints in self.vouched.values():
                if index < len(endpoints):
                    merged[endpoints[index]] = None
        return list(merged)[:endpoints_max]


@dataclass(frozen=True, slots=True)
class Findings:
    """What `CandidateTable.found` did: candidates seen, and candidates no longer in the table."""

    seen: tuple[tuple[Candidate, Change], ...] = ()
    gone: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class CandidateStatistics:
    """How full the table is, and what it did not take."""

    candidates: int
    refused: int  # findings there was no room for
    displaced: int  # candidates that made room for others
    endpoints_dropped: int  # addresses nobody can dial, or beyond the limit


class CandidateTable:
    """All candidates, merged from all sources.

    Args:
        candidates_max: candidates held at once.
        endpoints_max: endpoints kept of one candidate, a source.
    """

    def __init__(self, candidates_max: int, endpoints_max: int) -> None:
        self._candidates_max = candidates_max
        self._endpoints_max = endpoints_max
        self._members: dict[int, Candidate] = {}
        self._by_node: dict[NodeId, Candidate] = {}
        self._strangers: dict[str, dict[int, Candidate]] = {}  # by the source that tells of them
        self._pins: dict[str, Candidate] = {}  # pinned endpoint -> who holds it
        self._labels: dict[tuple[str, str], tuple[str, ...]] = {}  # (source, name) -> endpoints
        self._serial = 0
        self._refused = 0
        self._displaced = 0
        self._endpoints_dropped = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._members.values())

    def get(self, node: NodeId) -> Candidate | None:
        """Return the candidate of this node, or None."""
        return self._by_node.get(node)

    def found(
        self, source: str, node: NodeId | None, name: str, endpoints: Iterable[str]
    ) -> Findings:
        """Take in what a source says: who is where.

        Without a node it is the whole truth about what the operator called `name`: endpoints
        found for the name before, and not now (the name resolves elsewhere), are given up.
        """
        # The interface in a peer's link-local address is the peer's own: useless here.
        kept, dropped = dialable(
            endpoints, self._endpoints_max, scoped=source not in {PEER, ITSELF}
        )
        self._endpoints_dropped += dropped
        if node is None:
            return self._found_pinned(source, name, kept)
        candidate = self._by_node.get(node)
        if candidate is None:
            return self._found_hint(source, node, name, kept) if kept else Findings()
        known = {
            *candidate.pinned,
            *(each for said in candidate.vouched.values() for each in said),
        }
        change = Change.SAME if known.issuperset(kept) else Change.CHANGED
        candidate.vouched[source] = kept
        self._file(candidate)
        candidate.name = name or candidate.name
        return Findings(seen=((candidate, change),))

    def ensure(self, node: NodeId) -> Findings:
        """Find the candidate of a node that was met in person; there is room for it always."""
        candidate = self._by_node.get(node)
        if candidate is not None:
            return Findings(seen=((candidate, Change.SAME),))
        gone = self._make_room()
        return Findings(seen=((self._add(node, ""), Change.NEW),), gone=gone)

    def gone(self, source: str, node: NodeId) -> None:
        """Take back what the source said of a node."""
        candidate = self._by_node.get(node)
        if candidate is not None:
            candidate.vouched.pop(source, None)
            self._file(candidate)

    def proved(self, candidate: Candidate) -> None:
        """Learn that a candidate is who it was said to be."""
        candidate.proven = True
        self._file(candidate)

    def identified(
        self, candidate: Candidate, endpoint: str, node: NodeId
    ) -> tuple[Candidate, Candidate | None] | None:
        """Learn that `node` answers at an endpoint of the candidate.

        Returns:
            The node's candidate, and the candidate that was merged into it if one was; None
            where the candidate is another node's and the operator did not pin the endpoint:
            then some source lied, or the port changed hands.
        """
        if candidate.node == node:
            return candidate, None
        owner = self._by_node.get(node)
        if candidate.node is None:
            if owner is None:
                candidate.node = node
                self._by_node[node] = candidate
                return candidate, None
            for pin in candidate.pinned:
                self._pin(pin, owner)
            self._remove(candidate)
            return owner, candidate
        if endpoint not in candidate.pinned:
            return None
        del candidate.pinned[endpoint]
        owner = owner or self._add(node, "")
        self._pin(endpoint, owner)
        return owner, None

    def forget(self, candidate: Candidate) -> None:
        """Remove a candidate nobody vouches for any more."""
        self._remove(candidate)
        if candidate.node is not None:
            del self._by_node[candidate.node]
        for pin in candidate.pinned:
            del self._pins[pin]

    def seeds(self) -> list[NodeId]:
        """Return the nodes that answer at the endpoints of seeds."""
        nodes: dict[NodeId, None] = {}
        for (source, _), endpoints in self._labels.items():
            if source == SEED:
                holders = (self._pins[endpoint].node for endpoint in endpoints)
                nodes.update((node, None) for node in holders if node is not None)
        return list(nodes)

    def statistics(self) -> CandidateStatistics:
        """Return the counters."""
        return CandidateStatistics(
            len(self._members), self._refused, self._displaced, self._endpoints_dropped
        )

    def _found_pinned(self, source: str, name: str, endpoints: tuple[str, ...]) -> Findings:
        before = self._labels.get((source, name), ())
        self._labels[source, name] = endpoints
        seen: list[tuple[Candidate, Change]] = []
        gone: list[Candidate] = []
        for endpoint in endpoints:
            holder = self._pins.get(endpoint)
            if holder is not None:
                seen.append((holder, Change.SAME))
                continue
            gone += self._make_room()
            holder = self._add(None, name)
            self._pin(endpoint, holder)
            seen.append((holder, Change.NEW))
        wanted = {pin for label in self._labels.values() for pin in label}
        for pin in before:
            if pin not in wanted:
                holder = self._pins[pin]
                if holder.node is None:
                    self.forget(holder)
                    gone.append(holder)
                else:
                    del self._pins[pin], holder.pinned[pin]
                    seen.append((holder, Change.SAME))
        return Findings(tuple(seen), tuple(gone))

    def _found_hint(
        self, source: str, node: NodeId, name: str, endpoints: tuple[str, ...]
    ) -> Findings:
        gone: tuple[Candidate, ...] = ()
        crowd = self._crowd(source)
        if crowd is not None:
            gone = self._displace(crowd, failures_min=1)
            if not gone:
                self._refused += 1
                return Findings()
        candidate = self._add(node, name)
        candidate.vouched[source] = endpoints
        self._file(candidate)
        return Findings(((candidate, Change.NEW),), gone)

    def _crowd(self, source: str) -> Iterable[Candidate] | None:
        """Return among whom a stranger from this source finds its room, or None: it is free."""
        strangers = self._strangers.get(source, {})
        if len(strangers) >= max(1, self._candidates_max // 2):
            return strangers.values()
        return self._members.values() if len(self) >= self._candidates_max else None

    def _make_room(self) -> tuple[Candidate, ...]:
        """Displace even what was not tried yet, for somebody who matters more."""
        if len(self._members) < self._candidates_max:
            return ()
        return self._displace(self._members.values(), failures_min=0)

    def _displace(self, among: Iterable[Candidate], failures_min: int) -> tuple[Candidate, ...]:
        # While announcements flood in few were tried yet: that is asked first, and costs least.
        victims = [
            candidate
            for candidate in among
            if candidate.failures >= failures_min and not (candidate.linked or candidate.is_pinned)
        ]
        if not victims:
            return ()
        victim = min(victims, key=lambda each: (each.proven, -each.failures, each.serial))
        self.forget(victim)
        self._displaced += 1
        return (victim,)

    def _add(self, node: NodeId | None, name: str) -> Candidate:
        self._serial += 1
        candidate = Candidate(self._serial, node, name)
        self._members[candidate.serial] = candidate
        if node is not None:
            self._by_node[node] = candidate
        return candidate

    def _remove(self, candidate: Candidate) -> None:
        del self._members[candidate.serial]
        if candidate.stranger_of:
            del self._strangers[candidate.stranger_of][candidate.serial]

    def _file(self, candidate: Candidate) -> None:
        """Keep it among the strangers of a source, or no more: all are never gone through."""
        is_stranger = not candidate.proven and len(candidate.vouched) == 1
        source = next(iter(candidate.vouched)) if is_stranger else ""
        before = candidate.stranger_of
        if source == before:
            return
        if before:
            del self._strangers[before][candidate.serial]
        if source:
            self._strangers.setdefault(source, {})[candidate.serial] = candidate
        candidate.stranger_of = source

    def _pin(self, endpoint: str, holder: Candidate) -> None:
        holder.pinned[endpoint] = None
        self._pins[endpoint] = holder
