"""Which messages of a key are named before others."""

from zmesh.message import Record, Tag, Ticket, extra, with_extra
from zmesh.reliable.key_order import KeyOrder
from zmesh.reliable.sender import OutgoingLane

PLAIN: Record = (0, "", b"x")


def submitted(
    lanes: dict[int, OutgoingLane], keys: KeyOrder, lane: int, *each: str | None
) -> None:
    out = lanes.setdefault(lane, OutgoingLane(lane, 100))
    first, _ = out.submit_each([PLAIN] * len(each), [Ticket() for _ in each], 0.0)
    keys.note_each(lane, first, each)


def test_within_one_lane_nothing_is_named() -> None:
    lanes: dict[int, OutgoingLane] = {}
    keys = KeyOrder(lanes)
    submitted(lanes, keys, 4, "a", "b", "a")
    headed = with_extra(PLAIN, Tag.HEADERS, b"h")
    written = keys.write_each(4, [PLAIN, headed, PLAIN], ["a", "b", None])
    assert written == [
        with_extra(PLAIN, Tag.KEY, "a"),
        with_extra(headed, Tag.KEY, "b"),
        PLAIN,
    ]


def test_what_is_open_of_the_key_on_other_lanes_is_named() -> None:
    lanes: dict[int, OutgoingLane] = {}
    keys = KeyOrder(lanes)
    submitted(lanes, keys, 4, "a", "b", None, "a")
    submitted(lanes, keys, 7, "c")
    first, second, third = keys.write_each(7, [PLAIN] * 3, ["a", "d", None])
    assert extra(first, Tag.PREDECESSORS) == ((4, 4),)
    assert extra(second, Tag.PREDECESSORS) is None
    assert third == PLAIN
    assert len(keys) == 3
