"""Topics: which are valid, and who asked for which.

A topic is tokens separated by dots: `sensors.kitchen.temp`. In a pattern the token `*` stands for
exactly one token, and `>` as the last token for one or more: `sensors.*.temp`, `sensors.>`.

Keys of exchanges are RabbitMQ's, and so is their spelling: `*` stands for one word, `#` anywhere
for none or more. An empty key has no word, and words may be empty.
"""

import re
from collections.abc import Hashable, Iterator, Sequence
from typing import Generic, TypeVar

from zmesh.errors import InvalidOption

V = TypeVar("V", bound=Hashable)

TOKENS_MAX = 32
"""In a topic or pattern: each token of a pattern becomes an object at every publisher."""

ANY_MAX = 4
"""Times `#` in a binding key: each keeps all that follows it in the search, word after word."""

SEPARATOR = "."
ONE = "*"
REST = ">"
ANY = "#"

_PLAIN = re.compile(r"[^.*>]+(?:\.[^.*>]+)*").fullmatch


def check_topic(topic: str, bytes_max: int) -> None:
    """Raise InvalidOption unless `topic` can be published to; `bytes_max` limits its UTF-8."""
    if not _is_well_formed(topic, bytes_max) or ONE in topic or REST in topic:
        raise InvalidOption(
            "topic",
            topic,
            f"at most {TOKENS_MAX} tokens separated by single dots, without '*' and '>', "
            f"{bytes_max} bytes at most",
        )


def check_pattern(pattern: str, bytes_max: int) -> None:
    """Raise InvalidOption unless `pattern` can be subscribed to; `bytes_max` limits its UTF-8."""
    if not is_pattern(pattern, bytes_max):
        raise InvalidOption(
            "pattern",
            pattern,
            f"at most {TOKENS_MAX} tokens separated by single dots, '*' only as a whole token and "
            f"'>' only as the last one, {bytes_max} bytes at most",
        )


def is_pattern(pattern: str, bytes_max: int) -> bool:
    """Return whether `pattern` can be subscribed to."""
    # Peers may tell of thousands; that of most, a topic, is one is seen at a glance.
    if _PLAIN(pattern) and len(pattern) * 4 <= bytes_max and pattern.count(SEPARATOR) < TOKENS_MAX:
        return pattern.isascii() or _is_short(pattern, bytes_max)
    if not _is_well_formed(pattern, bytes_max):
        return False
    *before, last = pattern.split(SEPARATOR)
    if any(REST in token for token in before) or (REST in last and last != REST):
        return False
    return all(token == ONE or ONE not in token for token in (*before, last))


def check_binding_key(key: str, bytes_max: int) -> None:
    """Raise InvalidOption unless a topic exchange can look for `key`."""
    words = key.split(SEPARATOR)
    if (
        not _is_short(key, bytes_max)
        or len(words) > TOKENS_MAX
        or any(word not in (ONE, ANY) and (ONE in word or ANY in word) for word in words)
        or REST in words
        or words.count(ANY) > ANY_MAX
    ):
        raise InvalidOption(
            "routing_key",
            key,
            f"at most {TOKENS_MAX} words separated by dots, '*' (one word) and '#' (none or more) "
            f"only as whole words, at most {ANY_MAX} times '#', no '>' (it is '#' here), "
            f"{bytes_max} bytes at most",
        )


def check_routing_key(key: str) -> None:
    """Raise InvalidOption where a topic exchange would look for too long."""
    if key.count(SEPARATOR) >= TOKENS_MAX:
        expected = f"at most {TOKENS_MAX} words separated by dots, for a topic exchange"
        raise InvalidOption("routing_key", key, expected)


def is_pattern_of_many(pattern: str) -> bool:
    """Return whether a valid pattern stands for more than the one topic it spells."""
    return ONE in pattern or REST in pattern


def matches(pattern: Sequence[str], topic: str) -> bool:
    """Return whether a topic matches a valid pattern, given as its tokens."""
    tokens = topic.split(SEPARATOR)
    if pattern[-1] == REST:
        if len(tokens) < len(pattern):
            return False
    elif len(tokens) != len(pattern):
        return False
    return all(
        wanted in (token, ONE, REST) for wanted, token in zip(pattern, tokens, strict=False)
    )


def _is_well_formed(text: str, bytes_max: int) -> bool:
    tokens = text.split(SEPARATOR)
    return _is_short(text, bytes_max) and len(tokens) <= TOKENS_MAX and all(tokens)


def _is_short(text: str, bytes_max: int) -> bool:
    try:
        return len(text.encode()) <= bytes_max
    except UnicodeEncodeError:  # a lone surrogate, which no wire carries
        return False


class _Branch(Generic[V]):
    """One token of the patterns that share all tokens before it."""

    __slots__ = ("branches", "values")

    def __init__(self) -> None:
        self.branches: dict[str, _Branch[V]] = {}
        self.values: dict[V, None] = {}  # who asked for the pattern that ends here


class TopicTable(Generic[V]):
    """Valid patterns, each with the values to find by a topic that matches it.

    What a topic matched is remembered for at most `cache_max` topics, until a pattern changes.
    Values come in an order that depends on the calls made alone.
    """

    __slots__ = ("_cache", "_cache_max", "_count", "_root")

    def __init__(self, cache_max: int) -> None:
        self._root: _Branch[V] = _Branch()
        self._cache: dict[str, tuple[V, ...]] = {}
        self._cache_max = cache_max
        self._count = 0

    def __len__(self) -> int:
        """Count the pairs of pattern and value."""
        return self._count

    def add(self, pattern: str, value: V) -> None:
        """Let topics that match `pattern` find `value`; again changes nothing."""
        branch = self._root
        for token in pattern.split(SEPARATOR):
            following = branch.branches.get(token)
            if following is None:
                following = branch.branches[token] = _Branch()
            branch = following
        if value not in branch.values:
            branch.values[value] = None
            self._count += 1
            self._cache.clear()

    def remove(self, pattern: str, value: V) -> None:
        """Undo `add`; what was not added is left alone."""
        trail = [self._root]
        tokens = pattern.split(SEPARATOR)
        for token in tokens:
            following = trail[-1].branches.get(token)
            if following is None:
                return
            trail.append(following)
        if value not in trail[-1].values:
            return
        del trail[-1].values[value]
        self._count -= 1
        self._cache.clear()
        while tokens and not trail[-1].values and not trail[-1].branches:
            trail.pop()
            del trail[-1].branches[tokens.pop()]

    def match(self, topic: str) -> tuple[V, ...]:
        """Return the values of every pattern that matches `topic`, each once."""
        found = self._cache.get(topic)
        if found is None:
            found = tuple(dict.fromkeys(self._find(topic)))
            if len(self._cache) >= self._cache_max:
                self._cache.clear()
            self._cache[topic] = found
        return found

    def _find(self, topic: str) -> Iterator[V]:
        level = [self._root]
        for token in topic.split(SEPARATOR):
            following: list[_Branch[V]] = []
            for branch in level:
                branches = branch.branches
                if REST in branches:
                    yield from branches[REST].values
                if token in branches:
                    following.append(branches[token])
                # A topic from the wire may hold anything; `*` itself is one token like others.
                if ONE in branches and token != ONE:
                    following.append(branches[ONE])
            level = following
        for branch in level:
            yield from branch.values


class KeyTable(TopicTable[V]):
    """Binding keys of a topic exchange, each with the values to find by a routing key."""

    __slots__ = ()

    def _find(self, topic: str) -> Iterator[V]:
        level = _with_rest({self._root: False})
        for word in topic.split(SEPARATOR) if topic else ():
            following: dict[_Branch[V], bool] = {}
            for branch, is_rest in level.items():
                if is_rest:  # it takes one word more
                    following[branch] = True
                for token in (word, ONE):
                    if token in branch.branches and token != ANY:
                        following[branch.branches[token]] = False
            level = _with_rest(following)
        if not topic and "" in self._root.branches:  # no word at all, which `*` does not take
            yield from self._root.branches[""].values
        for branch in level:
            yield from branch.values


def _with_rest(level: dict[_Branch[V], bool]) -> dict[_Branch[V], bool]:
    """Add the branches that are reached by no word more; True tells those of a `#`."""
    ahead = list(level)
    while ahead:
        rest = ahead.pop().branches.get(ANY)
        if rest is not None and rest not in level:
            level[rest] = True
            ahead.append(rest)
    return level
