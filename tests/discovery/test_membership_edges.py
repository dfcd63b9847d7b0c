"""Membership where nodes have roles, and where this node is late: whom it dials, and how many."""

from tests.discovery.entropy import FixedEntropy
from zmesh.actions import Dial, HangUp
from zmesh.discovery.candidates import ITSELF, MDNS, PEER, STATIC
from zmesh.discovery.membership import Membership, Unlinked, Verdict
from zmesh.ids import NodeId
from zmesh.options import NodeOptions
from zmesh.patience import Patience

OPTIONS = NodeOptions()
E1, E2, E3 = "tcp://192.0.2.1:5", "tcp://192.0.2.2:5", "tcp://192.0.2.3:5"


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(16, "big"))


LOW, ME, HIGH, OTHER = node(1), node(1000), node(2000), node(3000)


def member(
    options: NodeOptions = OPTIONS, *, is_edge: bool = False, patience: Patience | None = None
) -> Membership:
    membership = Membership(ME, options, FixedEntropy(), is_edge=is_edge, patience=patience)
    membership.on_local_endpoints(["tcp://192.0.2.9:5"], 0.0)
    return membership


def dials(membership: Membership, until: float) -> list[str]:
    """Let time pass; return what was dialed."""
    orders = membership.take_dials()
    while (deadline := membership.deadline) is not None and deadline <= until:
        membership.on_timer(deadline)
        orders += membership.take_dials()
    return [order.endpoint for order in orders if isinstance(order, Dial)]


def test_edges_that_are_announced_are_neither_dialed_nor_kept() -> None:
    for is_edge in (False, True):
        membership = member(is_edge=is_edge)
        membership.on_candidate(MDNS, HIGH, "", [E1], 0.0, is_edge=True)
        assert dials(membership, 100.0) == []
        assert membership.statistics().table.candidates == 0


def test_an_edge_that_was_linked_is_left_to_dial_again_and_forgotten_at_last() -> None:
    membership = member()
    membership.on_linked(HIGH, 0.0, path=b"inbound", endpoints=[E1], is_edge=True)
    membership.on_unlinked(HIGH, 10.0, Unlinked.LOST)
    assert dials(membership, 10.0 + OPTIONS.forget_after - 1.0) == []
    assert membership.statistics().table.candidates == 1
    assert dials(membership, 10.0 + OPTIONS.forget_after + 1.0) == []
    assert membership.statistics().table.candidates == 0


def test_an_edge_that_was_written_down_is_dialed_by_a_hub() -> None:
    membership = member()
    membership.on_candidate(STATIC, None, "edge:5", [E1], 0.0)
    (dial,) = membership.take_dials()
    verdict = membership.on_identified(dial.path, HIGH, [E1, E2], 0.1, is_edge=True)
    assert verdict is Verdict.PROCEED
    membership.on_linked(HIGH, 0.2, path=dial.path, endpoints=[E1, E2], is_edge=True)
    membership.on_unlinked(HIGH, 5.0, Unlinked.LOST)
    assert dials(membership, 6.0) == [E1], "where it was written down, and nowhere else"


def test_an_edge_hangs_up_on_an_edge_and_tries_it_rarely() -> None:
    membership = member(is_edge=True)
    membership.on_candidate(STATIC, None, "edge:5", [E1], 0.0)
    (dial,) = membership.take_dials()
    assert membership.on_identified(dial.path, HIGH, [E1], 0.1, is_edge=True) is Verdict.EDGES
    assert membership.take_dials() == [HangUp(dial.path)]
    assert dials(membership, 7.0) == []
    assert dials(membership, 16.0) == [E1]
    assert membership.statistics().edges == 1


def test_who_was_an_edge_and_is_a_hub_now_is_dialed() -> None:
    membership = member()
    membership.on_linked(HIGH, 0.0, path=b"inbound", endpoints=[E1], is_edge=True)
    membership.on_unlinked(HIGH, 10.0, Unlinked.LEFT)
    membership.on_candidate(MDNS, HIGH, "", [E2], 20.0)
    assert set(dials(membership, 21.0)) == {E1, E2}


def test_a_record_alone_makes_no_edge_of_a_hub_that_was_linked() -> None:
    membership = member()
    membership.on_linked(HIGH, 0.0, path=b"inbound", endpoints=[E1])
    membership.on_candidate(MDNS, HIGH, "", [E1], 5.0, is_edge=True)  # by whoever
    membership.on_unlinked(HIGH, 10.0, Unlinked.LOST)
    assert dials(membership, 12.0) == [E1]
    membership.on_linked(HIGH, 13.0, path=b"again", endpoints=[E1], is_edge=True)  # it says so
    membership.on_unlinked(HIGH, 20.0, Unlinked.LOST)
    assert dials(membership, 40.0) == []


def test_an_edge_dials_as_many_hubs_as_it_may() -> None:
    membership = member(NodeOptions(hubs_max=2), is_edge=True)
    for index in range(5):
        membership.on_candidate(PEER, node(2000 + index), "", [f"tcp://192.0.2.{index}:9"], 0.0)
    assert len(dials(membership, 1.0)) == 2


def test_who_asks_us_is_not_dialed_at_the_same_time() -> None:
    membership = member()
    membership.on_candidate(MDNS, LOW, "", [E1], 5.0)
    membership.on_asked(LOW, 5.2)
    assert dials(membership, 5.2 + OPTIONS.dial_timeout - 0.1) == []
    assert dials(membership, 5.2 + OPTIONS.dial_timeout + 0.1) == [E1], "it never called"


def test_who_asks_again_and_again_is_waited_for_once() -> None:
    membership = member()
    membership.on_candidate(MDNS, LOW, "", [E1], 5.0)
    for tenth in range(25):
        membership.on_asked(LOW, 5.0 + tenth / 10)
        membership.on_timer(5.0 + tenth / 10)
    assert [order.endpoint for order in membership.take_dials() if isinstance(order, Dial)] == [E1]


def test_who_was_dialed_is_not_given_up_for_the_time_this_node_was_late() -> None:
    patience = Patience()
    membership = member(patience=patience)
    membership.on_candidate(MDNS, HIGH, "", [E1], 0.0)
    (dial,) = membership.take_dials()
    patience.on_loop_late(3.0, 3.0)
    membership.on_loop_late(3.0, 3.0)
    membership.on_timer(3.0)
    assert membership.take_dials() == []
    membership.on_timer(OPTIONS.dial_timeout + 3.0)
    assert membership.take_dials() == [HangUp(dial.path)]


def test_a_late_node_dials_fewer_at_once_and_waits_longer_for_each() -> None:
    patience = Patience()
    patience.on_loop_late(7.0, 0.0)
    membership = member(patience=patience)
    for index in range(64):
        membership.on_candidate(PEER, node(2000 + index), "", [f"tcp://192.0.2.{index}:9"], 0.0)
    (dial,) = membership.take_dials()
    assert isinstance(dial, Dial)
    assert membership.deadline is not None
    membership.on_timer(OPTIONS.dial_timeout)
    assert HangUp(dial.path) not in membership.take_dials()


def test_where_a_hub_listens_by_its_own_word_it_is_dialed_after_a_loss() -> None:
    membership = member(is_edge=True)
    membership.on_linked(HIGH, 0.0, path=b"inbound", endpoints=[E3])
    membership.on_candidate(ITSELF, HIGH, "", [E3], 1.0)
    membership.on_unlinked(HIGH, 5.0, Unlinked.LOST)
    assert dials(membership, 6.0) == [E3]
