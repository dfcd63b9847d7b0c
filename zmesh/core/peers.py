"""The peers a node knows: by id, by name, by path, and what patterns need to know of each."""

from collections.abc import Iterator
from math import inf

from zmesh.actions import PeerState, PeerView
from zmesh.errors import AmbiguousPeer, PeerUnknown
from zmesh.events import PathCause, Source
from zmesh.ids import NODE_ID_BYTES, NodeId, Path, SessionId, short
from zmesh.message import InterestKind, Ticket
from zmesh.options import NodeOptions
from zmesh.ports import Carrier
from zmesh.reliable.link import Link
from zmesh.reliable.link_events import Liveness, SessionEnd
from zmesh.reliable.link_states import LinkState
from zmesh.security.rules import Decision
from zmesh.wire.attributes import attributes_of

_ABSENT = (PeerState.LOST, PeerState.LEFT)
_STATES = {liveness: PeerState(liveness.value) for liveness in Liveness}


class InternalTicket(Ticket):
    """The ticket of records a pattern sends on its own account: no caller hears of it."""

    __slots__ = ()


class OnceTicket(InternalTicket):
    """The ticket of records that are sent at most once: none comes again, whatever it met."""

    __slots__ = ()


class StoredTicket(InternalTicket):
    """The ticket of messages that are on disk until they have their outcome: see `outbox`.

    `is_void`: what it was for is read and sent again, whatever becomes of this.
    """

    __slots__ = ("count", "first", "is_void")

    def __init__(self, first: int, count: int) -> None:
        super().__init__(count)
        self.first = first
        self.count = count
        self.is_void = False


class LogTicket(InternalTicket):
    """The ticket of publications that a reader of the log was sent: see `log_readers`."""

    __slots__ = ()


class Peer:
    """A node as patterns see it; this node itself is one as well, reached by the loopback."""

    __slots__ = (
        "calls", "carrier", "decompresses", "draining", "endpoints", "id", "incarnation",
        "interest_bytes", "interests", "is_edge", "is_full", "journal", "name", "open_in",
        "present", "retries", "retry_bytes", "selected", "session", "sources", "stale_in",
        "wants_plain",
    )  # fmt: skip

    def __init__(self, node: NodeId, name: str, carrier: Carrier) -> None:
        self.id = node
        self.name = name
        self.carrier = carrier
        self.incarnation = 0  # this and what follows: as far as the carrier's events were taken
        self.endpoints: tuple[str, ...] = ()
        self.session: SessionId | None = None
        self.journal = b""  # its id: another one knows nothing of what was before
        self.present = True  # joined, and neither lost nor left: gets new work
        self.draining = False  # asked for no new work
        self.interests: dict[InterestKind, dict[str, None]] = {  # ordered, so that runs repeat
            kind: {} for kind in InterestKind
        }
        self.interest_bytes = 0  # of their names
        self.selected: dict[str, int] = {}  # patterns it wants some of, with their subscriptions
        self.sources: dict[int, Source] = {}  # of what comes from it, by lane
        self.calls = 0  # our calls it has not answered
        self.open_in = 0  # numbers delivered from it and not yet settled
        self.stale_in = 0  # the same of sessions that are over
        self.retries = 0  # records for it that wait for their next attempt
        self.retry_bytes = 0
        self.is_full = False  # and somebody may wait for room
        self.decompresses: frozenset[int] = frozenset()  # ways in which bodies may be compressed
        self.wants_plain = False  # of the ways used here it does not take all
        self.is_edge = False  # has links with hubs alone

    @property
    def services(self) -> dict[str, None]:
        """The services it provides."""
        return self.interests[InterestKind.SERVICE]

    @property
    def topics(self) -> dict[str, None]:
        """The topic patterns it subscribed to."""
        return self.interests[InterestKind.TOPIC]

    @property
    def groups(self) -> dict[str, None]:
        """The groups it is in."""
        return self.interests[InterestKind.GROUP]

    @property
    def state(self) -> PeerState:
        """The verdict on the peer."""
        return PeerState.ALIVE

    @property
    def round_trip(self) -> float | None:
        """The smoothed round trip to it, in seconds; None before it was measured."""
        return None

    @property
    def latest_incarnation(self) -> int:
        """The incarnation of the process that is there now, told or not."""
        return self.incarnation

    @property
    def is_gone(self) -> bool:
        """Whether nothing sent to it could arrive, unless it comes back first."""
        return False

    def view(self) -> PeerView:
        """Return the peer as it is now."""
        return PeerView(
            id=self.id,
            name=self.name,
            state=self.state,
            services=frozenset(self.services),
            topics=frozenset(self.topics) | frozenset(self.selected),
            endpoints=self.endpoints,
            incarnation=self.incarnation,
            round_trip=self.round_trip,
            draining=self.draining,
            groups=frozenset(self.groups),
            attributes=attributes_of(self.interests[InterestKind.ATTRIBUTE]),
            is_edge=self.is_edge,
        )

    @property
    def label(self) -> str:
        """What to call it before people: its name, or its short id while that is unknown."""
        return self.name or short(self.id)


class RemotePeer(Peer):
    """A peer and its link."""

    __slots__ = (
        "announced", "decisions", "elsewhere", "ended", "forbidden", "is_forgotten",
        "is_missed", "link", "look_at", "paths", "refusals", "refused", "supplanted",
        "suspected",
    )  # fmt: skip

    def __init__(self, node: NodeId, link: Link) -> None:
        super().__init__(node, "", link)
        self.link = link
        self.present = False
        self.wants_plain = True  # until it says what it takes
        self.suspected = False  # and the application was told
        self.ended: SessionEnd | None = None  # why the latest session did
        self.announced = False  # it has been told in this session what this node is interested in
        self.paths: dict[Path, None] = {}
        self.supplanted: dict[str, None] = {}  # endpoints of it where another node answered since
        self.is_missed = False  # not present, and how long we have patience is settled
        self.is_forgotten = False  # no longer in the table
        self.look_at = inf  # when its link is looked at; early, where that has changed its mind
        self.forbidden: dict[tuple[InterestKind, str], None] = {}  # it told, and rules forbid
        self.refusals: dict[tuple[str, str], None] = {}  # that it told, and which were passed on
        self.refused: dict[tuple[InterestKind, str], None] = {}  # it was told of in this session
        self.decisions: dict[tuple[str, str], Decision] = {}  # of rules: see `guard`
        self.elsewhere = False  # listens on the loopback of another machine: probes find our own

    def judged(self, endpoint: str, cause: PathCause | None) -> PathCause | None:
        """Return what the answer to a probe says of this peer."""
        is_other = cause is None and endpoint in self.supplanted
        return PathCause.REFUSED if is_other else cause

    @property
    def state(self) -> PeerState:
        """The verdict on the peer."""
        return _STATES[self.link.liveness]

    @property
    def latest_incarnation(self) -> int:
        """The incarnation that the latest HELLO or WELCOME told."""
        return self.link.incarnation

    @property
    def is_gone(self) -> bool:
        """Whether it left or was lost, its session is over, and it does not call again yet."""
        link = self.link
        return (
            link.liveness in (Liveness.LOST, Liveness.LEFT)
            and link.session is None
            and link.state in (LinkState.IDLE, LinkState.CLOSED)
        )

    @property
    def round_trip(self) -> float | None:
        """The smoothed round trip to it, in seconds; None before it was measured."""
        return self.link.round_trip.smoothed


class Hints:
    """Candidates by name: only for finding whom a message is to wait for."""

    def __init__(self, hints_max: int) -> None:
        self._hints_max = hints_max
        self._names: dict[NodeId, dict[str, str]] = {}  # node -> source -> name, oldest first
        self._nodes: dict[str, dict[NodeId, None]] = {}

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._names

    def add(self, source: str, node: NodeId, name: str) -> None:
        """Note what a source says; where there is no room the oldest hint makes some."""
        names = self._names.get(node)
        if names is None:
            if len(self._names) >= self._hints_max:
                self.forget(next(iter(self._names)))
            names = self._names[node] = {}
        old = names.get(source, "")
        names[source] = name
        self._unlist(node, old)
        if name:
            self._nodes.setdefault(name, {})[node] = None

    def remove(self, source: str, node: NodeId) -> None:
        """Forget what a source said of a node."""
        names = self._names.get(node)
        if names is None or source not in names:
            return
        self._unlist(node, names.pop(source))
        if not names:
            del self._names[node]

    def named(self, name: str) -> list[NodeId]:
        """Return the nodes said to have this name."""
        return list(self._nodes.get(name, ()))

    def forget(self, node: NodeId) -> None:
        """Forget what all sources said of a node."""
        for source in list(self._names.get(node, ())):
            self.remove(source, node)

    def _unlist(self, node: NodeId, name: str) -> None:
        """Take a node off a name's list unless another source still calls it so."""
        if not name or name in self._names[node].values():
            return
        del self._nodes[name][node]
        if not self._nodes[name]:
            del self._nodes[name]


class Peers:
    """All known peers, and this node itself as `local`."""

    def __init__(self, local: Peer, options: NodeOptions) -> None:
        self.local = local
        self.hints = Hints(options.candidates_max)
        self._peer_paths_max = options.peer_paths_max
        self._by_id: dict[NodeId, RemotePeer] = {}
        self._by_name: dict[str, dict[NodeId, RemotePeer]] = {}
        self._by_path: dict[Path, RemotePeer] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[RemotePeer]:
        return iter(self._by_id.values())

    def get(self, node: NodeId) -> RemotePeer | None:
        """Return the remote peer with this id."""
        return self._by_id.get(node)

    def find(self, node: NodeId) -> Peer | None:
        """Return the peer with this id, this node included."""
        return self.local if node == self.local.id else self._by_id.get(node)

    def on_path(self, path: Path) -> RemotePeer | None:
        """Return the peer that proved to be at the other end of a path."""
        return self._by_path.get(path)

    # Changes

    def add(self, peer: RemotePeer) -> None:
        """Take in a new peer."""
        self._by_id[peer.id] = peer

    def remove(self, peer: RemotePeer) -> None:
        """Forget a peer and its paths."""
        del self._by_id[peer.id]
        self.rename(peer, "")
        for path in list(peer.paths):
            self.unbind(path)

    def rename(self, peer: RemotePeer, name: str) -> bool:
        """Note the peer's name; return whether it is another than before."""
        if name == peer.name:
            return False
        if peer.name:
            del self._by_name[peer.name][peer.id]
            if not self._by_name[peer.name]:
                del self._by_name[peer.name]
        if name:
            self._by_name.setdefault(name, {})[peer.id] = peer
        peer.name = name
        return True

    def bind(self, path: Path, peer: RemotePeer) -> bool:
        """Note who is at the other end of a path; False where it is somebody else's already.

        Nobody tells when an inbound path ends, so the oldest one not in use makes room.
        """
        owner = self._by_path.setdefault(path, peer)
        if owner is not peer:
            return False
        peer.paths[path] = None
        inbound = [each for each in peer.paths if isinstance(each, bytes)]
        if len(inbound) > self._peer_paths_max:
            self.unbind(next(each for each in inbound if each not in (path, peer.link.path)))
        return True

    def unbind(self, path: Path) -> RemotePeer | None:
        """Forget a path; return whose it was."""
        peer = self._by_path.pop(path, None)
        if peer is not None:
            peer.paths.pop(path, None)
        return peer

    # Finding by what people say

    def resolve(self, to: str | NodeId) -> NodeId:
        """Return the node that a name, an id or its hex digits stands for.

        A name means a present peer if there is one, else a peer expected to (re)appear. Of those
        that are lost for good it means the last: `Peer.is_gone` tells.

        Raises:
            PeerUnknown: nobody is known by it.
            AmbiguousPeer: several are.
        """
        if isinstance(to, bytes):
            return self._resolve_id(to)
        named = list(self._by_name.get(to, {}).values())
        if len(named) == 1 and named[0].present and to != self.local.name:  # as mostly
            return named[0].id
        if to == self.local.name:
            found = [self.local.id, *(peer.id for peer in named if peer.present)]
        else:
            found = (
                [peer.id for peer in named if peer.present]
                or [peer.id for peer in named if peer.state not in _ABSENT]
                or [peer.id for peer in named if not peer.is_gone]
                or [node for node in self.hints.named(to) if not self._is_gone(node)]
                or [peer.id for peer in named if not self._has_left(peer.id)][-1:]
            )
        if len(found) > 1:
            raise AmbiguousPeer(to, [node.hex() for node in found])
        if found:
            return found[0]
        node = _parse_id(to)
        if node is None:
            raise PeerUnknown(to, self._known())
        return self._resolve_id(node)

    def has_left(self, to: str | NodeId) -> bool:
        """Return whether a name or id that no longer resolves was that of a peer who left."""
        if isinstance(to, bytes):
            return self._has_left(to)
        node = _parse_id(to)
        named = any(map(self._has_left, self._by_name.get(to, ())))
        return named or (node is not None and self._has_left(node))

    def _resolve_id(self, node: NodeId) -> NodeId:
        if self._has_left(node) or (self.find(node) is None and node not in self.hints):
            raise PeerUnknown(node.hex(), self._known())
        return node

    def _has_left(self, node: NodeId) -> bool:
        peer = self._by_id.get(node)
        return peer is not None and peer.is_gone and peer.state is PeerState.LEFT

    def _is_gone(self, node: NodeId) -> bool:
        peer = self._by_id.get(node)
        return peer is not None and peer.is_gone

    def _known(self) -> list[str]:
        return [peer.label for peer in self if peer.present]


def _parse_id(text: str) -> NodeId | None:
    if len(text) != 2 * NODE_ID_BYTES:
        return None
    try:
        return NodeId(bytes.fromhex(text))
    except ValueError:
        return None
