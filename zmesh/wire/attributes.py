"""What describes a node, as it travels: `key=value`, the value in JSON."""

import json
from collections.abc import Iterable
from math import isinf
from typing import Final

from zmesh.errors import InvalidOption
from zmesh.options import WireLimits
from zmesh.wire.bodies import check_text

Scalar = str | int | float | bool
"""What an attribute can be: others compare it, so it has no inside."""

_SEPARATOR: Final = "="


def attribute_text(key: str, value: Scalar, limits: WireLimits) -> str:
    """Return an attribute as it travels.

    Raises:
        InvalidOption: a key that is empty or has a "=", a value that is no scalar or no number,
            or both together are too long.
    """
    check_key(key)
    if not isinstance(value, str | int | float):  # a bool is an int
        raise InvalidOption(f"attribute {key!r}", value, "a text, a number, a bool, or None")
    try:
        text = f"{key}{_SEPARATOR}{json.dumps(value, ensure_ascii=False, allow_nan=False)}"
    except ValueError as error:  # not a number, infinite, or with more digits than Python writes
        expected = "a finite number of a length that can be written"
        shown = value if isinstance(value, float) else f"an {type(value).__name__}"
        raise InvalidOption(f"attribute {key!r}", shown, expected) from error
    check_text(f"attribute {key!r}", text, limits)
    return text


def check_key(key: object) -> None:
    """Raise InvalidOption where an attribute cannot be called so."""
    if not isinstance(key, str) or not key or _SEPARATOR in key:
        raise InvalidOption("attribute", key, 'a text without "="')


def is_attribute(text: str) -> bool:
    """Return whether a text from a peer is an attribute."""
    return _parse(text) is not None


def attributes_of(texts: Iterable[str]) -> dict[str, Scalar]:
    """Return the attributes that valid texts tell; of equal keys the last one counts."""
    return dict(pair for pair in map(_parse, texts) if pair is not None)


def _parse(text: str) -> tuple[str, Scalar] | None:
    key, separator, written = text.partition(_SEPARATOR)
    if not key or not separator:
        return None
    try:
        value = json.loads(written, parse_constant=_refuse)
        if isinstance(value, str):
            value.encode()  # JSON can spell halves of characters, which no text may have
    except (ValueError, RecursionError):
        return None
    if isinstance(value, float) and isinf(value):  # more than a float can be: "1e999"
        return None
    return (key, value) if isinstance(value, str | int | float) else None


def _refuse(constant: str) -> None:
    """Take no NaN and no infinity, which JSON does not have."""
    raise ValueError(constant)
