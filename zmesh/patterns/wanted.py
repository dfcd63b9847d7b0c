"""Subscriptions on terms as peers tell of them: one interest each, as a JSON text.

docs/protocol.md, section 17.1.
"""

import json
from collections import Counter
from typing import Any, Final

from zmesh.core.peers import Peer
from zmesh.errors import InvalidOption
from zmesh.ids import NodeId
from zmesh.options import NodeOptions, WireLimits
from zmesh.patterns.filters import Sieve, is_scalar
from zmesh.patterns.routing import TopicTable, is_pattern
from zmesh.terms import LIMIT_DEFAULT, Filter, Match, Terms, WhenFull

NUMBER_MAX: Final = 2**53
"""Of subscriptions and limits: what JSON carries everywhere."""

SINCE_BYTES: Final = 40
"""What an interest in a log has at least beside that: from where on, as in `following`."""


class Wanted:
    """A subscription of a peer, as a publisher sees it.

    With `only_replay` an interest of kind TOPIC asks for what is published.
    """

    __slots__ = (
        "ended", "follows", "number", "only_replay", "pattern", "peer", "sieve", "terms",
    )  # fmt: skip

    def __init__(
        self,
        peer: Peer,
        number: int,
        pattern: str,
        terms: Terms,
        *,
        only_replay: bool,
        follows: bool = False,
    ) -> None:
        self.peer = peer
        self.number = number
        self.pattern = pattern
        self.terms = terms
        self.only_replay = only_replay
        self.follows = follows  # what is durable it has by its reader of the log
        self.sieve = None if terms.filter is None else sieve_of(terms.filter)
        self.ended = False

    @property
    def may_miss(self) -> bool:
        """Whether it would rather miss some than hold anybody up."""
        return self.terms.when_full is not WhenFull.BLOCK


class WantedTable:
    """The subscriptions on terms of all peers, this node included."""

    def __init__(self, options: NodeOptions) -> None:
        self._options = options
        self._wanted: dict[tuple[NodeId, str], Wanted] = {}
        self._table: TopicTable[Wanted] = TopicTable(options.topics_cached_max)
        self._demanding: Counter[NodeId] = Counter()  # those that ask for more than a replay
        self.news: list[tuple[Wanted, bool]] = []  # what `take_news` returns next

    def match(self, topic: str) -> tuple[Wanted, ...]:
        """Return those a publication on a topic may be for, by their pattern."""
        return self._table.match(topic)

    def add(self, peer: Peer, text: str) -> bool:
        """Take in what a peer tells; False where it is not valid, or too many filter."""
        wanted = from_text(peer, text, self._options.wire)
        if wanted is None:
            return False
        if not wanted.only_replay:
            if not self.has_room(peer):
                return False
            self._demanding[peer.id] += 1
            peer.selected[wanted.pattern] = peer.selected.get(wanted.pattern, 0) + 1
            self._table.add(wanted.pattern, wanted)
        self._wanted[peer.id, text] = wanted
        self.news.append((wanted, True))
        return True

    def remove(self, peer: Peer, text: str) -> None:
        """Forget what was taken in."""
        wanted = self._wanted.pop((peer.id, text))
        wanted.ended = True
        self.news.append((wanted, False))
        if wanted.only_replay:
            return
        self._table.remove(wanted.pattern, wanted)
        self._demanding[peer.id] -= 1
        peer.selected[wanted.pattern] -= 1
        if not peer.selected[wanted.pattern]:
            del peer.selected[wanted.pattern]
        if not self._demanding[peer.id]:
            del self._demanding[peer.id]

    def has_room(self, peer: Peer) -> bool:
        """Return whether a peer may have another that asks for more than a replay."""
        return self._demanding[peer.id] < self._options.filters_max

    def take_news(self) -> list[tuple[Wanted, bool]]:
        """Return those that began (True) or ended since the last call, in order."""
        news = self.news[:]
        self.news.clear()
        return news


def sieve_of(wanted: Filter) -> Sieve:
    """Return a filter ready for work: equal ones are known by equal texts."""
    return Sieve(wanted, _json(filter_members(wanted)))


def is_plain(terms: Terms) -> bool:
    """Return whether an interest of kind TOPIC says all but the wish for a replay."""
    return terms.filter is None and terms.when_full is WhenFull.BLOCK and not terms.follows


def to_text(number: int, pattern: str, terms: Terms) -> str:
    """Return the interest of a subscription on terms."""
    members = {} if terms.filter is None else filter_members(terms.filter)
    if terms.when_full is not WhenFull.BLOCK:
        members |= {"full": terms.when_full.value, "limit": terms.limit}
    if terms.replay:
        members["replay"] = True
    if terms.follows:
        members["log"] = True
    if is_plain(terms):
        members["only"] = True
    return _json([number, pattern, members])


def check_terms(pattern: str, terms: Terms, limits: WireLimits) -> None:
    """Check that a subscription can be told of; raises InvalidOption where it is too long."""
    size = len(to_text(NUMBER_MAX, pattern, terms).encode()) + SINCE_BYTES * terms.follows
    if size > limits.text_bytes_max:
        raise InvalidOption(
            "size of pattern and filter", size, f"at most {limits.text_bytes_max} bytes together"
        )


def from_text(peer: Peer, text: str, limits: WireLimits) -> Wanted | None:
    """Return what a peer told of a subscription; None where that is not valid."""
    try:
        number, pattern, members = json.loads(text)
    except (TypeError, ValueError, RecursionError):  # no array, or not of three
        return None
    if not _is_count(number) or not isinstance(pattern, str) or not isinstance(members, dict):
        return None
    terms = _terms_of(members)
    if terms is None or not is_pattern(pattern, limits.text_bytes_max):
        return None
    return Wanted(
        peer,
        number,
        pattern,
        terms,
        only_replay=members.get("only") is True,
        follows=members.get("log") is True,
    )


def pattern_in(text: str) -> str | None:
    """Return the pattern that an interest of kind SUBSCRIPTION or LOG names.

    None where it names none: it is not valid then, or, as number 0, of what its node is interested
    in anyway.
    """
    try:
        number, pattern, _ = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    return None if number == 0 or not isinstance(pattern, str) else pattern


def filter_members(wanted: Filter) -> dict[str, Any]:
    """Return what a filter says, as JSON carries it."""
    members: dict[str, Any] = {}
    if wanted.type is not None:
        members["type"] = wanted.type
    if wanted.where:
        members["where"] = dict(wanted.where)
        if wanted.match == "any":
            members["any"] = True
    if wanted.content is not None:
        members["content"] = wanted.content
    return members


def _terms_of(members: dict[str, Any]) -> Terms | None:
    """Return the terms a JSON object tells, None where one is not of its type."""
    kind, where, content = members.get("type"), members.get("where", {}), members.get("content")
    limit = members.get("limit", LIMIT_DEFAULT)
    if not all(text is None or isinstance(text, str) for text in (kind, content)):
        return None
    if not isinstance(where, dict) or not all(map(is_scalar, where.values())):
        return None
    if not _is_count(limit):
        return None
    try:
        when_full = WhenFull(members.get("full", WhenFull.BLOCK))
    except ValueError:
        return None
    wanted = None
    if kind is not None or where or content is not None:
        match: Match = "any" if members.get("any") is True else "all"
        wanted = Filter(kind, tuple(sorted(where.items())), match, content)
    return Terms(wanted, when_full, limit, members.get("replay") is True)


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value <= NUMBER_MAX


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
