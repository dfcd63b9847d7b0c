"""Control records as positional arrays, both ways."""

from typing import Final, assert_never, cast

from zmesh.errors import ProtocolError
from zmesh.message import LANES, Outcome
from zmesh.options import WireLimits
from zmesh.wire.fields import COUNT_MAX, Fields, array, integer, malformed, row, text
from zmesh.wire.frames import Control, ControlType, Drain, Gap, Interest, Refused, Settle

_OUTCOMES: Final = tuple(Outcome)
_SETTLE: Final = int(ControlType.SETTLE)

Entries = tuple[tuple[str, str], ...]


def control_to_wire(record: Control) -> Fields:
    """Return the array of a control record."""
    match record:
        case Settle(lane, outcomes, details):
            return (ControlType.SETTLE, lane, outcomes, details)
        case Gap(lane, ranges):
            return (ControlType.GAP, lane, ranges)
        case Interest(added, removed):
            return (ControlType.INTEREST, added, removed)
        case Drain():
            return (ControlType.DRAIN,)
        case Refused(entries):
            return (ControlType.REFUSED, entries)
        case _:
            assert_never(record)


def check_control(value: object, limits: WireLimits) -> tuple[Control, ...]:
    """Return the records of a DATA frame of the control lane.

    Raises:
        ProtocolError: "malformed", "oversized", or "unknown frame" for a record of a type that
            this version does not know.
    """
    records = array(value, "control records", limits.records_max)
    if not records:
        raise malformed("a DATA frame without records")
    return tuple([_control_from_wire(record, limits) for record in records])


def _control_from_wire(value: object, limits: WireLimits) -> Control:
    if type(value) is not tuple or not value:
        raise malformed("a control record is not an array")
    if type(value[0]) is int and value[0] == _SETTLE:  # as nearly all are
        return _settle(value, limits)
    match integer(value[0], "the type of a control record"):
        case ControlType.GAP:
            return _gap(value, limits)
        case ControlType.INTEREST:
            _, added, removed = row(value, "INTEREST", 3)
            entries = _interest(added, limits.interest_max)
            return Interest(entries, _interest(removed, limits.interest_max - len(entries)))
        case ControlType.DRAIN:
            row(value, "DRAIN", 1)
            return Drain()
        case ControlType.REFUSED:
            _, refused = row(value, "REFUSED", 2)
            return Refused(_refused(refused, limits.interest_max))
        case unknown:
            raise ProtocolError("unknown frame", f"control record of type {unknown}")


def _settle(value: Fields, limits: WireLimits) -> Settle:
    # Written out: there is one for every few messages.
    if len(value) != 4:
        raise malformed("SETTLE is not an array of 4")
    _, lane, ranges, notes = value
    if type(lane) is not int or not 0 <= lane < LANES:
        raise malformed(f"the lane of SETTLE is not an integer in 0..{LANES - 1}")
    outcomes = []
    for item in array(ranges, "outcomes", limits.ranges_max):
        if type(item) is not tuple or len(item) != 3:
            raise malformed("an outcome is not an array of 3")
        outcome, first, last = item
        if type(outcome) is not int or type(first) is not int or type(last) is not int:
            raise malformed("an outcome is not an array of integers")
        if not 0 <= outcome < len(_OUTCOMES) or not 1 <= first <= last <= COUNT_MAX:
            raise malformed("an outcome is unknown, or its numbers are out of range")
        outcomes.append((_OUTCOMES[outcome], first, last))
    return Settle(lane, tuple(outcomes), () if notes == () else _details(notes, limits))


def _details(value: object, limits: WireLimits) -> tuple[tuple[int, str, int], ...]:
    details = array(value, "details", limits.ranges_max)
    for item in details:
        seq, reason, delay_ms = row(item, "a detail", 3)
        integer(seq, "the number of a detail", 1)
        text(reason, "a reason")
        integer(delay_ms, "a delay")
    return cast("tuple[tuple[int, str, int], ...]", details)


def _gap(value: Fields, limits: WireLimits) -> Gap:
    _, lane, ranges = row(value, "GAP", 3)
    items = array(ranges, "gaps", limits.ranges_max)
    for item in items:
        first, last, size = row(item, "a gap", 3)
        integer(last, "the last number of a gap", integer(first, "the first number of a gap", 1))
        integer(size, "the size of a gap")
    lane = integer(lane, "the lane of GAP", 0, LANES - 1)
    return Gap(lane, cast("tuple[tuple[int, int, int], ...]", items))


def _interest(value: object, length_max: int) -> Entries:
    # Written out: there may be a thousand in a packet.
    items = array(value, "interest", length_max)
    for item in items:
        if type(item) is not tuple or len(item) != 2:
            raise malformed("an interest is not an array of 2")
        kind, name = item
        if type(kind) is not str or type(name) is not str:
            raise malformed("an interest, or its kind, is not a text")
    return cast("Entries", items)


def _refused(value: object, length_max: int) -> tuple[tuple[str, str, str], ...]:
    items = array(value, "refused interests", length_max)
    for item in items:
        kind, name, reason = row(item, "a refused interest", 3)
        text(kind, "the kind of an interest")
        text(name, "an interest")
        text(reason, "a reason")
    return cast("tuple[tuple[str, str, str], ...]", items)
