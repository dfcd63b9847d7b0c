"""Who provides, wants, or is part of what: told to every peer, learned from each.

A peer is told everything when a session begins, and changes from then on; what changes back and
forth within a turn is not told at all.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from zmesh.core.peers import Peer, RemotePeer
from zmesh.core.turn import Turn
from zmesh.errors import UsageError
from zmesh.ids import NodeId
from zmesh.message import InterestKind
from zmesh.options import NodeOptions
from zmesh.patterns.filters import Sieve
from zmesh.patterns.routing import TopicTable, is_pattern
from zmesh.patterns.wanted import WantedTable, check_terms, is_plain, sieve_of, to_text
from zmesh.terms import PLAIN, Terms
from zmesh.wire.attributes import is_attribute
from zmesh.wire.frames import Interest

_KINDS = {kind.value: kind for kind in InterestKind}

ENTRY_OVERHEAD_BYTES = 16
"""More than an entry costs on the wire beside its text."""

Entry = tuple[InterestKind, str]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription of this node."""

    pattern: str
    terms: Terms
    sieve: Sieve | None
    text: str | None  # as peers are told of it, beside its pattern


class InterestTable:
    """Services, topic patterns, groups and the like, of this node and of all peers.

    `note` counts a defect of a peer, by its kind and in words.
    """

    def __init__(
        self, turn: Turn, options: NodeOptions, note: Callable[[NodeId, str, str], None]
    ) -> None:
        self._turn = turn
        self._note_defect = note
        self._options = options
        self._subscriptions: dict[int, Subscription] = {}
        self._pattern_uses: dict[str, int] = {}
        self._changes: dict[Entry, bool] = {}  # since peers were told: added, or else removed
        self.gathered = (self._changes,)  # empty: nothing to flush
        self._tokens: TopicTable[int] = TopicTable(options.topics_cached_max)
        self._receivers: TopicTable[Peer] = TopicTable(options.topics_cached_max)
        self._members: dict[Entry, dict[NodeId, Peer]] = {}
        self.wanted = WantedTable(options)
        self.log_news: list[tuple[Peer, str, bool]] = []  # what came (True) or went, in order
        self.filtering = 0  # subscriptions of this node that have a filter

    @property
    def subscriptions(self) -> int:
        """How many subscriptions this node has."""
        return len(self._subscriptions)

    def tokens(self, topic: str) -> tuple[int, ...]:
        """Return this node's subscriptions to a topic."""
        return self._tokens.match(topic)

    def subscription(self, token: int) -> Subscription:
        """Return one of this node's subscriptions."""
        return self._subscriptions[token]

    def receivers(self, topic: str) -> tuple[Peer, ...]:
        """Return the nodes that want everything on a topic, this one included."""
        return self._receivers.match(topic)

    def providers(self, service: str) -> Iterable[Peer]:
        """Return the nodes that provide a service, this one included."""
        return self.members(InterestKind.SERVICE, service)

    def members(self, kind: InterestKind, text: str) -> Iterable[Peer]:
        """Return the nodes that declared so, this one included; not for topics and the like."""
        return self._members.get((kind, text), {}).values()

    # This node

    def check(self, pattern: str, terms: Terms) -> None:
        """Raise InvalidOption or UsageError where a subscription could not be told of."""
        check_terms(pattern, terms, self._options.wire)
        if not (is_plain(terms) or self.wanted.has_room(self._turn.peers.local)):
            limit = self._options.filters_max
            raise UsageError(
                f"this node has {limit} subscriptions with a filter or limit already: end some "
                "first"
            )

    def declare(self, kind: InterestKind, text: str) -> None:
        """Tell all peers of an interest of this node; again changes nothing."""
        entry = (kind, text)
        if self._learn(self._turn.peers.local, entry):
            self._note(entry, added=True)

    def retract(self, kind: InterestKind, text: str) -> None:
        """Take back what was declared."""
        entry = (kind, text)
        if self._unlearn(self._turn.peers.local, entry):
            self._note(entry, added=False)

    def subscribe(self, token: int, pattern: str, terms: Terms = PLAIN) -> None:
        """Add a subscription."""
        sieve = None if terms.filter is None else sieve_of(terms.filter)
        text = to_text(token, pattern, terms) if terms.replay or not is_plain(terms) else None
        self._subscriptions[token] = Subscription(pattern, terms, sieve, text)
        self._tokens.add(pattern, token)
        self.filtering += sieve is not None
        if is_plain(terms):
            uses = self._pattern_uses.get(pattern, 0)
            self._pattern_uses[pattern] = uses + 1
            if not uses:
                self.declare(InterestKind.TOPIC, pattern)
        if text is not None:
            self.declare(InterestKind.SUBSCRIPTION, text)

    def unsubscribe(self, token: int) -> None:
        """End a subscription, if there is one."""
        ended = self._subscriptions.pop(token, None)
        if ended is None:
            return
        pattern = ended.pattern
        self._tokens.remove(pattern, token)
        self.filtering -= ended.sieve is not None
        if ended.text is not None:
            self.retract(InterestKind.SUBSCRIPTION, ended.text)
        if is_plain(ended.terms):
            self._pattern_uses[pattern] -= 1
            if not self._pattern_uses[pattern]:
                del self._pattern_uses[pattern]
                self.retract(InterestKind.TOPIC, pattern)

    def _note(self, entry: Entry, *, added: bool) -> None:
        if self._changes.get(entry, added) is not added:
            del self._changes[entry]
        else:
            self._changes[entry] = added

    # Telling

    def announce(self, peer: RemotePeer) -> None:
        """Tell a peer everything: a session with it has begun."""
        peer.announced = True
        local = self._turn.peers.local
        entries: list[Entry] = [
            (kind, text)
            for kind, texts in local.interests.items()
            for text in texts
            if kind is not InterestKind.LOG  # which is for one peer
        ]
        self._tell(peer, entries, [])

    def tell_one(self, peer: Peer, kind: InterestKind, text: str, *, added: bool) -> None:
        """Tell one peer, which may be this node, of what is for it alone."""
        if isinstance(peer, RemotePeer):
            entry: Entry = (kind, text)
            self._tell(peer, [entry] if added else [], [] if added else [entry])
        elif added:
            self._learn(peer, (kind, text))
        else:
            self._unlearn(peer, (kind, text))

    def flush(self) -> None:
        """Tell all peers what changed in this turn."""
        if not self._changes:
            return
        changes = dict(self._changes)
        self._changes.clear()
        added = [entry for entry, is_added in changes.items() if is_added]
        removed = [entry for entry, is_added in changes.items() if not is_added]
        for peer in self._turn.peers:
            if peer.announced:
                self._tell(peer, added, removed)

    def _tell(self, peer: RemotePeer, added: list[Entry], removed: list[Entry]) -> None:
        for entries in self._pieces(removed):
            peer.link.send_control(Interest((), entries))
        for entries in self._pieces(added):
            peer.link.send_control(Interest(entries, ()))
        self._turn.touched[peer] = None

    def _pieces(self, entries: list[Entry]) -> Iterator[tuple[Entry, ...]]:
        """Yield the entries in pieces that are each small enough for one record."""
        limits = self._options.wire
        piece: list[Entry] = []
        room = bytes_max = limits.head_bytes_max // 4  # what is sent beside them takes the rest
        for entry in entries:
            size = ENTRY_OVERHEAD_BYTES + len(entry[1].encode())
            if piece and (len(piece) == limits.interest_max or size > room):
                yield tuple(piece)
                piece, room = [], bytes_max
            piece.append(entry)
            room -= size
        if piece:
            yield tuple(piece)

    # Learning

    def on_interest(self, peer: Peer, interest: Interest) -> list[Entry]:
        """Take what a peer tells; return what it declares from now on.

        What is not valid, or more than a peer may have, is left out and traced; kinds that are not
        known are those of a later version, and left out.
        """
        for name, text in interest.removed:
            if name in _KINDS:
                self._unlearn(peer, (_KINDS[name], text))
        learned: list[Entry] = []
        refused = 0
        for name, text in interest.added:
            if name not in _KINDS:
                continue
            entry = (_KINDS[name], text)
            if not self._is_welcome(peer, entry):
                refused += 1
            elif self._learn(peer, entry):
                learned.append(entry)
            elif text not in peer.interests[entry[0]]:
                refused += 1  # a subscription on terms that are not valid, or one too many
        if refused:
            detail = f"{refused} entries that are not valid, or more than a peer may have"
            self._note_defect(peer.id, "interest", detail)
        return learned

    def forget(self, peer: Peer) -> None:
        """Forget what a peer told: its session is over."""
        for kind, texts in peer.interests.items():
            for text in list(texts):
                self._unlearn(peer, (kind, text))

    def _is_welcome(self, peer: Peer, entry: Entry) -> bool:
        kind, text = entry
        if kind is InterestKind.TOPIC and not is_pattern(text, self._options.wire.text_bytes_max):
            return False
        if kind is InterestKind.ATTRIBUTE and not is_attribute(text):
            return False
        if peer.interest_bytes + len(text.encode()) > self._options.interest_bytes_max:
            return text in peer.interests[kind]
        return sum(map(len, peer.interests.values())) < self._options.interest_max

    def _learn(self, peer: Peer, entry: Entry) -> bool:
        kind, text = entry
        if text in peer.interests[kind]:
            return False
        if kind is InterestKind.SUBSCRIPTION and not self.wanted.add(peer, text):
            return False
        peer.interests[kind][text] = None
        peer.interest_bytes += len(text.encode())
        if kind is InterestKind.LOG:
            self.log_news.append((peer, text, True))
        elif kind is InterestKind.TOPIC:
            self._receivers.add(text, peer)
        elif kind is not InterestKind.SUBSCRIPTION:
            self._members.setdefault(entry, {})[peer.id] = peer
        return True

    def _unlearn(self, peer: Peer, entry: Entry) -> bool:
        kind, text = entry
        if text not in peer.interests[kind]:
            return False
        del peer.interests[kind][text]
        peer.interest_bytes -= len(text.encode())
        if kind is InterestKind.LOG:
            self.log_news.append((peer, text, False))
            return True
        if kind is InterestKind.TOPIC:
            self._receivers.remove(text, peer)
            return True
        if kind is InterestKind.SUBSCRIPTION:
            self.wanted.remove(peer, text)
            return True
        del self._members[entry][peer.id]
        if not self._members[entry]:
            del self._members[entry]
        return True
