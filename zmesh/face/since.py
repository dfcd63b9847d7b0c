"""What people say of where a subscription begins, as the engine takes it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from zmesh.errors import InvalidOption
from zmesh.face.checks import check_when_full, check_yes_no, is_count, is_seconds
from zmesh.face.storing import wall_ms
from zmesh.ids import NODE_ID_BYTES
from zmesh.storage import POSITION_MAX
from zmesh.terms import Filter, Since, Terms, WhenFull

Begin = Literal["first"] | datetime | float | Mapping[str, int]
"""The first there is, a time, seconds ago, or positions by the ids of publishers."""

_EXPECTED = '"first", an aware datetime, seconds ago, or positions by the ids of publishers'


def terms_of(
    wanted: Filter | None,
    when_full: str,
    limit: int,
    *,
    replay: bool,
    name: str | None,
    since: Begin | None,
) -> Terms:
    """Return the terms of a subscription.

    Raises:
        InvalidOption: one of them cannot work, or they do not go together.
    """
    check_yes_no("replay", replay)
    policy, begin = check_when_full(when_full, limit), since_of(since)
    if name is None and begin is None:
        return Terms(wanted, policy, limit, replay)
    if name is not None:
        check_name(name)
    if policy is not WhenFull.BLOCK:
        expected = '"block": a log waits, and drops nothing'
        raise InvalidOption("when_full", when_full, expected)
    # The log tells what is retained in its place.
    return Terms(wanted, policy, limit, replay=False, name=name, since=begin)


def since_of(value: Begin | None) -> Since:
    """Return where to begin.

    Raises:
        InvalidOption: it is none of what can be said.
    """
    match value:
        case None:
            return None
        case "first":
            return "first"
        case datetime() if value.tzinfo is not None:
            return max(0, round(value.timestamp() * 1000))
        case int() | float() if type(value) is not bool and is_seconds(value) and value >= 0:
            return max(0, wall_ms() - round(value * 1000))
        case Mapping() if all(_is_place(*pair) for pair in value.items()):
            return tuple(sorted(value.items()))
        case _:
            raise InvalidOption("since", value, _EXPECTED)


def check_name(name: object) -> None:
    """Check what a durable subscription is to be called.

    Raises:
        InvalidOption: it cannot be.
    """
    if not isinstance(name, str) or not 0 < len(name) <= 255 or "\0" in name:
        raise InvalidOption("name", name, "a text of 1 to 255 characters")


def _is_place(publisher: object, position: object) -> bool:
    if not isinstance(publisher, str) or len(publisher) != 2 * NODE_ID_BYTES:
        return False
    return not set(publisher) - set("0123456789abcdef") and is_count(position, 0, POSITION_MAX)
