"""Who provides, wants, or is part of what: told to every peer, learned from each.

A peer is told everything when a session begins, and changes from then on; what changes back and
forth within a turn is not told at all.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from zmesh.core.guard import Guard
from zmesh.core.peers import Peer, RemotePeer
from zmesh.core.turn import Turn
from zmesh.errors import UsageError
from zmesh.ids import NodeId
from zmesh.message import InterestKind
from zmesh.options import NodeOptions
from zmesh.patterns.filters import Sieve
from zmesh.patterns.routing import TopicTable, is_pattern
from zmesh.patterns.wanted import (
    WantedTable,
    check_terms,
    is_plain,
    pattern_in,
    sieve_of,
    to_text,
)
from zmesh.security.refusal import from_reason
from zmesh.security.rules import Action
from zmesh.terms import PLAIN, Terms
from zmesh.wire.attributes import is_attribute
from zmesh.wire.frames import Interest, Refused

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


ACTIONS: Final = {
    InterestKind.SERVICE: Action.SERVE,
    InterestKind.TOPIC: Action.SUBSCRIBE,
    InterestKind.SUBSCRIPTION: Action.SUBSCRIBE,
    InterestKind.LOG: Action.SUBSCRIBE,
    InterestKind.QUEUE: Action.PULL,
    InterestKind.GROUP: Action.JOIN,
    InterestKind.STATE: Action.SHARE,
}
"""What a node does by being interested; attributes only describe it."""


def action_of(kind: InterestKind, text: str) -> tuple[Action, str] | None:
    """Return what an interest asks for: an action and a name; None where rules do not care."""
    action = ACTIONS.get(kind)
    if action is None:
        return None
    name: str | None = text
    if kind in (InterestKind.SUBSCRIPTION, InterestKind.LOG):
        name = pattern_in(text)
    return None if name is None else (action, name)


class InterestTable:
    """Services, topic patterns, groups and the like, of this node and of all peers.

    `note` counts a defect of a peer, by its kind and in words; `guard` says what peers may be.
    """

    def __init__(
        self,
        turn: Turn,
        options: NodeOptions,
        note: Callable[[NodeId, str, str], None],
        guard: Guard,
    ) -> None:
        self._turn = turn
        self._guard = guard
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

    def pattern_of(self, token: int) -> str | None:
        """Return the pattern of one of this node's subscriptions; None where it has ended."""
        subscription = self._subscriptions.get(token)
        return None if subscription is None else subscription.pattern

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

    def on_interest(self, peer: Peer, interest: Interest) -> tuple[list[Entry], bool]:
        """Take what a peer tells.

        What is not valid, or more than a peer may have, is left out and traced; kinds that are not
        known are those of a later version, and left out.

        Returns:
            What it declares from now on, and whether anything has changed.
        """
        was_taken_back = self._take_back(peer, interest)
        learned: list[Entry] = []
        forbidden: list[tuple[str, str, str]] = []
        refused = 0
        room = self.room(peer)
        for index, (name, text) in enumerate(interest.added):
            kind = _KINDS.get(name)
            if kind is None:
                continue
            if room <= 0:  # at no cost an entry: there may be very many
                refused += sum(name in _KINDS for name, _ in interest.added[index:])
                break
            entry = (kind, text)
            if not self._is_welcome(peer, entry):
                refused += 1
            elif reason := self._refusal(peer, entry):
                forbidden.append((*entry, reason))
                room = self.room(peer)
            elif self._learn(peer, entry):
                learned.append(entry)
                room -= 1
            elif text not in peer.interests[kind]:
                refused += 1  # a subscription on terms that are not valid, or one too many
        if refused:
            detail = f"{refused} entries that are not valid, or more than a peer may have"
            self._note_defect(peer.id, "interest", detail)
        if forbidden:
            self._tell_refused(peer, forbidden)
        return learned, bool(learned or was_taken_back)

    def _take_back(self, peer: Peer, interest: Interest) -> bool:
        """Forget what a peer does not want any more; return whether there was any of it."""
        was_there = False
        for entry in [(_KINDS[name], text) for name, text in interest.removed if name in _KINDS]:
            was_there |= self._unlearn(peer, entry)
            if isinstance(peer, RemotePeer) and entry in peer.forbidden:
                self._pardon(peer, entry)
        return was_there

    def forget(self, peer: Peer) -> None:
        """Forget what a peer told: its session is over."""
        if isinstance(peer, RemotePeer):
            peer.refusals.clear()
            peer.refused.clear()
            for entry in list(peer.forbidden):
                self._pardon(peer, entry)
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
        return True

    def room(self, peer: Peer) -> int:
        """Return how many more interests a peer may tell of."""
        told = sum(map(len, peer.interests.values()))
        told += len(peer.forbidden) if isinstance(peer, RemotePeer) else 0
        return self._options.interest_max - told

    # Rules

    def _refusal(self, peer: Peer, entry: Entry) -> str:
        """Return why rules forbid an interest of a peer, and keep it apart; "" where they do not.

        It is judged anew when rules change.
        """
        asked = None if self._guard.trust is None else action_of(*entry)
        if asked is None or not isinstance(peer, RemotePeer):
            return ""
        decision = self._guard.decide(peer, *asked)
        if decision is None:
            return ""
        if entry not in peer.forbidden:
            peer.forbidden[entry] = None
            peer.interest_bytes += len(entry[1].encode())
        return self._guard.refuse(peer, *asked, decision)

    @staticmethod
    def _pardon(peer: RemotePeer, entry: Entry) -> None:
        del peer.forbidden[entry]
        peer.interest_bytes -= len(entry[1].encode())

    def judge_anew(self, peer: RemotePeer) -> tuple[list[Entry], bool]:
        """Judge all that a peer told, as rules have changed.

        Returns:
            What it is interested in from now on, and whether anything has changed.
        """
        before = dict(peer.forbidden)
        for entry in before:
            self._pardon(peer, entry)
        listed = [(kind, text) for kind, texts in peer.interests.items() for text in texts]
        told: list[tuple[str, str, str]] = []
        learned: list[Entry] = []
        for entry in (*listed, *before):
            if reason := self._refusal(peer, entry):
                self._unlearn(peer, entry)
                told.append((*entry, reason))
            elif entry in before and self._learn(peer, entry):
                learned.append(entry)
        news = [each for each in told if (InterestKind(each[0]), each[1]) not in before]
        if news:
            self._tell_refused(peer, news)
        return learned, bool(learned or news)

    def _tell_refused(self, peer: Peer, refused: list[tuple[str, str, str]]) -> None:
        """Tell what is refused, each once a session: an answer is longer than what asks for it."""
        assert isinstance(peer, RemotePeer), "nothing is refused to this node"  # noqa: S101
        limits, told = self._options.wire, peer.refused
        refused = [each for each in refused if (InterestKind(each[0]), each[1]) not in told]
        refused = refused[: self._options.interest_max - len(told)]
        if not refused:
            return
        told.update({(InterestKind(kind), text): None for kind, text, _ in refused})
        room, piece = limits.head_bytes_max // 4, list[tuple[str, str, str]]()
        for each in refused:
            size = ENTRY_OVERHEAD_BYTES + sum(len(text.encode()) for text in each)
            if piece and (len(piece) == limits.interest_max or size > room):
                peer.link.send_control(Refused(tuple(piece)))
                room, piece = limits.head_bytes_max // 4, []
            piece.append(each)
            room -= size
        peer.link.send_control(Refused(tuple(piece)))
        self._turn.touched[peer] = None

    def on_refused(self, peer: RemotePeer, refused: Refused) -> None:
        """Pass on what a peer's rules do not let this node be; each once a session."""
        for kind, text, reason in refused.entries:
            asked = action_of(_KINDS[kind], text) if kind in _KINDS else None
            told = from_reason(reason)
            if asked is None or told is None or asked in peer.refusals or not self._is(*asked):
                continue
            peer.refusals[asked] = None
            self._guard.refused_by(peer, *asked, told[2])

    def _is(self, action: Action, name: str) -> bool:
        """Return whether this node has an interest that comes to this action."""
        if action is Action.SUBSCRIBE:
            return any(each.pattern == name for each in self._subscriptions.values())
        local = self._turn.peers.local.interests
        return any(name in local[kind] for kind, of in ACTIONS.items() if of is action)

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
