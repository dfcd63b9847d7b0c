"""How a refusal by rules travels as the reason of a REJECTED, apart from an application's own.

The reason is `NOT-ALLOWED ` and a JSON array of three texts: action, name, rule. A reason that an
application gives and that begins so gets a space before it.
"""

import json
from typing import Final

from zmesh.errors import Rejected
from zmesh.security_errors import SIGNATURE_REFUSED, NotAllowed, SignatureRefused

HEAD: Final = "NOT-ALLOWED "

_BYTES_MAX: Final = 900
"""Of a reason, so that none is cut off on its way."""

_NAME_CHARACTERS: Final = 300


def to_reason(action: str, name: str, rule: str) -> str:
    """Return the reason that tells of a refusal; a long name is shortened."""
    for length in (_NAME_CHARACTERS, 100, 30):
        shown = name if len(name) <= length else name[:length] + "..."
        told = rule if len(rule) <= length else rule[:length] + "..."
        reason = HEAD + json.dumps([action, shown, told], ensure_ascii=False)
        if len(reason.encode(errors="replace")) <= _BYTES_MAX:
            break
    return reason


def from_reason(reason: str) -> tuple[str, str, str] | None:
    """Return action, name and rule that a reason tells; None where it is no refusal by rules."""
    if not reason.startswith(HEAD):
        return None
    try:
        told = json.loads(reason.removeprefix(HEAD))
        if not isinstance(told, list) or len(told) != 3:
            return None
        if not all(isinstance(text, str) for text in told):
            return None
        action, name, rule = told
        "".join(told).encode()  # JSON can spell halves of characters, which no log takes
    except (ValueError, RecursionError):
        return None
    return action, name, rule


def error_of(peer: str, reason: str) -> NotAllowed | Rejected:
    """Return the error for the caller of what a peer rejected: its rules, its handler, or whoever
    verifies signatures there.
    """
    told = from_reason(reason)
    if told is not None:
        return NotAllowed(told[0], told[1], peer, told[2])
    if reason.startswith(SIGNATURE_REFUSED):
        return SignatureRefused(peer, reason.removeprefix(SIGNATURE_REFUSED))
    return Rejected(peer, reason)


def of_application(reason: str) -> str:
    """Return the reason an application gives, such that nobody takes it for that of rules."""
    return " " + reason if reason.startswith(HEAD) else reason
