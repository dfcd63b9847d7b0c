"""Single values from the wire: each function returns the value, typed, or raises ProtocolError.

Types are compared and not `isinstance`d: `True` is an `int` to Python, and not to the protocol.
Nothing from the wire is hashed, compared or shown before its type is known, since comparing two
deeply nested tuples exhausts the stack.
"""

from typing import Final, cast

from zmesh.errors import ProtocolError
from zmesh.wire.frames import Ranges

COUNT_MAX: Final = 2**63 - 1
"""The highest number of anything; the bit above it leaves room to add to what a peer says."""

NONCE_MAX: Final = 2**64 - 1

ALGORITHM_MAX: Final = 127
"""The highest number of a way to compress, known here or not."""

Fields = tuple[object, ...]
"""A msgpack array whose items are still to be checked."""


def malformed(detail: str) -> ProtocolError:
    """Return the error for what no conforming peer sends."""
    return ProtocolError("malformed", detail)


def oversized(what: str, size: int, limit: int) -> ProtocolError:
    """Return the error for what exceeds a limit."""
    return ProtocolError("oversized", f"{what}: {size}, at most {limit}")


def integer(value: object, what: str, low: int = 0, high: int = COUNT_MAX) -> int:
    """Return an integer in `low..high`."""
    if type(value) is not int or not low <= value <= high:
        raise malformed(f"{what} is not an integer in {low}..{high}")
    return value


def text(value: object, what: str) -> str:
    """Return a text; its length was limited when it was unpacked."""
    if type(value) is not str:
        raise malformed(f"{what} is not a text")
    return value


def token(value: object, what: str, size: int) -> bytes:
    """Return exactly `size` bytes."""
    if type(value) is not bytes or len(value) != size:
        raise malformed(f"{what} is not {size} bytes")
    return value


def array(value: object, what: str, length_max: int) -> Fields:
    """Return an array of at most `length_max` items."""
    if type(value) is not tuple:
        raise malformed(f"{what} is not an array")
    if len(value) > length_max:
        raise oversized(what, len(value), length_max)
    return value


def row(value: object, what: str, width: int) -> Fields:
    """Return an array of exactly `width` items."""
    if type(value) is not tuple or len(value) != width:
        raise malformed(f"{what} is not an array of {width}")
    return value


def texts(value: object, what: str, length_max: int) -> tuple[str, ...]:
    """Return an array of texts."""
    items = array(value, what, length_max)
    for item in items:
        text(item, what)
    return cast("tuple[str, ...]", items)


def ranges_above(value: object, cum: int, what: str, length_max: int) -> Ranges:
    """Return what was received above `cum`: ascending, disjoint and not adjacent ranges."""
    items = array(value, what, length_max)
    previous = cum
    for item in items:
        first, last = row(item, what, 2)
        first = integer(first, what)
        if first <= previous + 1:
            raise malformed(f"{what} are not ascending and apart")
        previous = integer(last, what, first)
    return cast("Ranges", items)


def lane_rows(value: object, what: str, width: int, lanes: int) -> tuple[Fields, ...]:
    """Return rows of `width` that begin with their lane: ascending, each lane at most once."""
    rows = tuple([row(item, what, width) for item in array(value, what, lanes)])
    previous = -1
    for fields in rows:
        previous = integer(fields[0], f"the lane of {what}", previous + 1, lanes - 1)
    return rows
