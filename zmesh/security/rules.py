"""Rules: which nodes may do what, by the names of their keys. Read from TOML, judged in memory.

```toml
default = "deny"

[groups]
cameras = ["camera-1", "camera-2"]

[[rule]]
name = "cameras"
who = ["cameras"]
publish = ["cameras.>"]
deny = { publish = ["cameras.private.>"] }
```

What no rule of a node allows is as `default` says; what one denies is denied whatever others say.
"""

import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from reprlib import repr as short_repr
from typing import Final

from zmesh.options import TrustOptions
from zmesh.security.coverage import Tokens, covers, flaw_in, matches, overlaps, tokens_of
from zmesh.security_errors import InvalidTrust

EVERYBODY: Final = "*"
"""In `who`: all whose keys are listed."""

LABEL_MAX: Final = 64
"""Characters of a rule's name: it travels with every refusal."""


class Action(StrEnum):
    """What one node does to another, and rules allow; the key of its patterns in a rule."""

    CALL = "call"  # a service: calls, streams, surveys, files (`zmesh.files`)
    SERVE = "serve"  # a service, so that others call it
    PUBLISH = "publish"  # on a topic
    SUBSCRIBE = "subscribe"  # to a pattern of topics, or read a log of them
    PUSH = "push"  # jobs into a queue
    PULL = "pull"  # jobs of a queue
    JOIN = "join"  # a group
    FAN_OUT = "fan_out"  # to the members of a group
    SEND = "send"  # direct messages to a node, by the name of its key
    SHARE = "share"  # a shared map; what is declared of exchanges is in `zmesh.exchanges`


_ADVICE: Final = {
    "survey": "a survey is a call to every provider: write `call`",
    "stream": "a stream is a call: write `call`",
    "pattern": "write the action: `publish`, `subscribe`, ...",
    "allow": "what is to be allowed stands in the rule itself: `publish = [...]`",
}

_RULE_KEYS: Final = ("name", "who", "deny")

_Test = Callable[[Tokens, Tokens], bool]
"""Whether a pattern of a rule tells of some tokens."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is allowed, and what said so."""

    allowed: bool
    rule: str  # as in "rules.toml: rule 3 'cameras'"


ALL_ALLOWED: Final = Decision(allowed=True, rule="no rules: whose key is listed may do everything")


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[rule]]`."""

    place: str
    who: frozenset[str]  # names of keys
    is_for_all: bool
    allows: Mapping[Action, tuple[Tokens, ...]]
    denies: Mapping[Action, tuple[Tokens, ...]]


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of a mesh.

    A subscription is allowed where one pattern covers it, and denied where one overlaps with it:
    else it would bring what was denied.
    """

    where: str
    rules: tuple[Rule, ...]
    default: bool
    _of: dict[str, tuple[Rule, ...]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(
        cls,
        text: str,
        names: Collection[str],
        where: str = "rules.toml",
        options: TrustOptions = TrustOptions(),  # noqa: B008  # frozen
    ) -> "Rules":
        """Read rules.

        Args:
            text: TOML.
            names: of the keys there are, revoked ones included.
            where: it comes from, for errors and decisions.
            options: bounds.

        Raises:
            InvalidTrust: it is no TOML, says what rules cannot say, or names nobody.
        """
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # also of a number with too many digits
            raise InvalidTrust(where, f"it is no TOML: {error}") from error
        return _Reader(where, frozenset(names), options).rules(table)

    def judge(self, name: str, action: Action, target: str) -> Decision:
        """Decide whether the node whose key is called `name` may do something.

        Args:
            name: of the key.
            action: what it does.
            target: the service, topic, queue, group, map or node it does it to; with SUBSCRIBE a
                valid pattern.
        """
        tokens = tokens_of(target)
        if action is Action.SUBSCRIBE:
            return self._judge(name, action, tokens, denies=overlaps, allows=covers)
        return self._judge(name, action, tokens, denies=matches, allows=matches)

    def judge_any(self, name: str, action: Action, pattern: str) -> Decision:
        """Decide whether a node may do something to any of the names that match a pattern."""
        return self._judge(name, action, tokens_of(pattern), denies=covers, allows=overlaps)

    def _judge(
        self, name: str, action: Action, tokens: Tokens, *, denies: _Test, allows: _Test
    ) -> Decision:
        rules = self._rules_of(name)
        for rule in rules:
            if any(denies(pattern, tokens) for pattern in rule.denies.get(action, ())):
                return Decision(allowed=False, rule=f"{rule.place} denies it")
        for rule in rules:
            if any(allows(pattern, tokens) for pattern in rule.allows.get(action, ())):
                return Decision(allowed=True, rule=rule.place)
        said = "allow" if self.default else "deny"
        return Decision(self.default, f"{self.where}: default {said}")

    def _rules_of(self, name: str) -> tuple[Rule, ...]:
        found = self._of.get(name)
        if found is None:
            found = tuple(r for r in self.rules if r.is_for_all or name in r.who)
            self._of[name] = found  # as many as there are keys
        return found


class _Reader:
    """Makes rules of what TOML says."""

    def __init__(self, where: str, names: frozenset[str], options: TrustOptions) -> None:
        self._where = where
        self._names = names
        self._options = options
        self._groups: dict[str, frozenset[str]] = {}

    def rules(self, table: Mapping[str, object]) -> Rules:
        """Return the rules of a whole file."""
        self._check_keys(self._where, table, ("default", "groups", "rule"))
        default = table.get("default", "deny")
        if default not in ("deny", "allow"):
            raise self._invalid(
                self._where, f'default is {_shown(default)}: write "deny" or "allow"'
            )
        groups = table.get("groups", {})
        if not isinstance(groups, dict):
            raise self._invalid(self._where, "groups is no table: write [groups]")
        for group, members in groups.items():
            self._groups[group] = self._group(group, members)
        rules = table.get("rule", [])
        if not isinstance(rules, list):
            raise self._invalid(self._where, "rule is no list of tables: write [[rule]]")
        if len(rules) > self._options.rules_max:
            limit = self._options.rules_max
            raise self._invalid(self._where, f"{len(rules)} rules are more than {limit}")
        made = tuple(self._rule(number, rule) for number, rule in enumerate(rules, 1))
        return Rules(self._where, made, default == "allow")

    def _group(self, group: str, members: object) -> frozenset[str]:
        place = f"{self._where}: group {short_repr(group)}"
        if group in self._names:
            raise self._invalid(place, "a key has this name as well")
        if group == EVERYBODY:
            raise self._invalid(place, f"{EVERYBODY!r} stands for everybody")
        names = self._texts(place, members)
        for name in names:
            if name not in self._names:
                raise self._invalid(place, f"there is no key {short_repr(name)}")
        return frozenset(names)

    def _rule(self, number: int, rule: object) -> Rule:
        place = f"{self._where}: rule {number}"
        if not isinstance(rule, dict):
            raise self._invalid(place, "it is no table: write [[rule]]")
        label = rule.get("name", "")
        if not isinstance(label, str) or len(label) > LABEL_MAX or not label.isprintable():
            raise self._invalid(place, f"its name is no text of at most {LABEL_MAX} characters")
        place += f" {label!r}" if label else ""
        self._check_keys(place, rule, (*_RULE_KEYS, *Action))
        if "who" not in rule:
            raise self._invalid(place, 'who is missing: name keys, groups, or "*"')
        deny = rule.get("deny", {})
        if not isinstance(deny, dict):
            raise self._invalid(place, "deny is no table: write deny = { publish = [...] }")
        self._check_keys(f"{place}: deny", deny, tuple(Action))
        allows = {key: value for key, value in rule.items() if key not in _RULE_KEYS}
        if not allows and not deny:
            raise self._invalid(place, "it allows nothing, and denies nothing")
        who = self._texts(f"{place}: who", rule["who"])
        return Rule(
            place,
            self._members(place, who),
            EVERYBODY in who,
            self._patterns(place, allows),
            self._patterns(f"{place}: deny", deny),
        )

    def _members(self, place: str, who: Iterable[str]) -> frozenset[str]:
        members: set[str] = set()
        for name in who:
            if name in self._groups:
                members |= self._groups[name]
            elif name in self._names:
                members.add(name)
            elif name != EVERYBODY:
                raise self._invalid(place, f"who: there is no key and no group {short_repr(name)}")
        return frozenset(members)

    def _patterns(
        self, place: str, actions: Mapping[str, object]
    ) -> dict[Action, tuple[Tokens, ...]]:
        found: dict[Action, tuple[Tokens, ...]] = {}
        for action, listed in actions.items():
            texts = self._texts(f"{place}: {action}", listed)
            for text in texts:
                if flaw := flaw_in(text):
                    raise self._invalid(
                        f"{place}: {action}", f"{short_repr(text)} is no pattern: {flaw}"
                    )
            found[Action(action)] = tuple(map(tokens_of, texts))
        return found

    def _texts(self, place: str, value: object) -> list[str]:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise self._invalid(place, f"{_shown(value)} is neither a text nor a list of texts")
        limit = self._options.rule_patterns_max
        if len(texts) > limit:
            raise self._invalid(place, f"{len(texts)} entries are more than {limit}")
        return texts

    def _check_keys(self, place: str, table: Mapping[str, object], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                advice = _ADVICE.get(key, f"known are {', '.join(map(str, known))}")
                raise self._invalid(place, f"unknown key {short_repr(key)}: {advice}")

    @staticmethod
    def _invalid(place: str, why: str) -> InvalidTrust:
        return InvalidTrust(place, why)


def _shown(value: object) -> str:
    """Return what TOML made of a value, shortened."""
    try:
        return short_repr(value)
    except ValueError:  # Python writes no number with that many digits
        return "a number too long to be shown"
