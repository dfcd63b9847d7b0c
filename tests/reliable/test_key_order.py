"""Which messages of a key are named before others."""

from zmesh.message import Keys, Record, Tag, Ticket, extra, with_extra
from zmesh.options import LinkOptions, WireLimits
from zmesh.reliable.fragments import Cutter
from zmesh.reliable.key_order import KeyOrder
from zmesh.reliable.sender import OutgoingLane

PLAIN: Record = (0, "", b"x")
CUTTER = Cutter(LinkOptions(), WireLimits())


class Order:
    """Two lanes, and the order of the keys on them."""

    def __init__(self) -> None:
        self.lanes: dict[int, OutgoingLane] = {}
        self.keys = KeyOrder(self.lanes)

    def submit(self, lane: int, count: int, keys: Keys) -> None:
        out = self.lanes.setdefault(lane, OutgoingLane(lane, 100, CUTTER))
        first, last = out.submit([PLAIN] * count, Ticket(count), 0.0)
        self.keys.note(lane, range(first, last + 1), keys)


def test_within_one_lane_nothing_is_named() -> None:
    order = Order()
    order.submit(4, 3, ["a", "b", "a"])
    headed = with_extra(PLAIN, Tag.HEADERS, b"h")
    assert order.keys.write(4, [PLAIN, headed, PLAIN], ["a", "b", None]) == [
        with_extra(PLAIN, Tag.KEY, "a"),
        with_extra(headed, Tag.KEY, "b"),
        PLAIN,
    ]
    assert order.keys.write(4, [PLAIN], "a") == [with_extra(PLAIN, Tag.KEY, "a")]
    assert order.keys.write(4, [PLAIN], None) == [PLAIN]


def test_the_last_of_each_key_on_another_lane_is_named() -> None:
    order = Order()
    order.submit(4, 4, ["a", "b", None, "a"])
    order.submit(7, 1, ["c"])
    first, second, third = order.keys.write(7, [PLAIN] * 3, ["a", "d", None])
    assert extra(first, Tag.PREDECESSORS) == ((4, 4),)
    assert extra(second, Tag.PREDECESSORS) is None
    assert third == PLAIN
    both = order.keys.write(7, [PLAIN] * 2, "b")
    assert [extra(record, Tag.PREDECESSORS) for record in both] == [((4, 2),)] * 2
    assert len(order.keys) == 3
