"""Patterns of rules against names and against the patterns of subscriptions.

The spelling is that of topics: tokens separated by dots, `*` for exactly one token, and `>` as the
last one for one or more. All functions take valid patterns as their tokens.
"""

from collections.abc import Sequence
from typing import Final

ONE: Final = "*"
REST: Final = ">"
TOKENS_MAX: Final = 32

Tokens = Sequence[str]


def tokens_of(text: str) -> tuple[str, ...]:
    """Return the tokens of a name or pattern."""
    return tuple(text.split("."))


def flaw_in(pattern: str) -> str:
    """Return why a text is no pattern, in words; "" where it is one."""
    tokens = pattern.split(".")
    if len(tokens) > TOKENS_MAX:
        return f"it has more than {TOKENS_MAX} tokens"
    if not all(tokens):
        return "tokens between dots must not be empty"
    *before, last = tokens
    if any(REST in token for token in before) or (REST in last and last != REST):
        return f"{REST!r} stands only for all further tokens, as the last of them"
    if any(ONE in token and token != ONE for token in tokens):
        return f"{ONE!r} stands only for a whole token"
    return ""


def matches(pattern: Tokens, name: Tokens) -> bool:
    """Return whether a pattern matches a name, whose tokens may be anything."""
    if pattern[-1] == REST:
        if len(name) < len(pattern):
            return False
    elif len(name) != len(pattern):
        return False
    return all(want in (have, ONE, REST) for want, have in zip(pattern, name, strict=False))


def covers(wide: Tokens, narrow: Tokens) -> bool:
    """Return whether one pattern matches every name that another one matches."""
    for index, want in enumerate(wide):
        if want == REST:
            return len(narrow) > index
        if index >= len(narrow):
            return False
        have = narrow[index]
        if have == REST or (want not in (ONE, have)):
            return False
    return len(narrow) == len(wide)


def overlaps(one: Tokens, other: Tokens) -> bool:
    """Return whether there is a name that both patterns match."""
    for index in range(max(len(one), len(other))):
        if index >= len(one) or index >= len(other):
            return False
        left, right = one[index], other[index]
        if REST in (left, right):
            return True
        if left != right and ONE not in (left, right):
            return False
    return True
