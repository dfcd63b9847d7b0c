from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.discovery.entropy import FixedEntropy, SeededEntropy
from zmesh.actions import Dial, HangUp
from zmesh.discovery.candidates import MDNS, PEER, SEED, STATIC
from zmesh.discovery.membership import OWN_MAX, Membership, Unlinked, Verdict
from zmesh.events import PathCause
from zmesh.ids import Entropy, NodeId
from zmesh.options import NodeOptions

OPTIONS = NodeOptions()
E1, E2, E3 = "tcp://192.0.2.1:5", "tcp://192.0.2.2:5", "tcp://192.0.2.3:5"


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(16, "big"))


ME = node(1000)
LOW, HIGH, OTHER = node(1), node(2000), node(3000)


def member(
    options: NodeOptions = OPTIONS, entropy: Entropy | None = None, here: str = "192.0.2.9"
) -> Membership:
    membership = Membership(ME, options, entropy or FixedEntropy())
    membership.on_local_endpoints([f"tcp://{here}:5"], 0.0)
    return membership


def run_until(membership: Membership, until: float) -> list[tuple[float, Dial | HangUp]]:
    """Let time pass, and return what was ordered when."""
    orders: list[tuple[float, Dial | HangUp]] = [(-1.0, each) for each in membership.take_dials()]
    while (deadline := membership.deadline) is not None and deadline <= until:
        membership.on_timer(deadline)
        membership.take_asks(deadline)
        orders += [(deadline, each) for each in membership.take_dials()]
    return orders


def linked(membership: Membership, peer: NodeId, endpoint: str, now: float) -> int:
    """Take a peer from candidate to link; return the path."""
    membership.on_candidate(MDNS, peer, "", [endpoint], now)
    membership.on_timer(now + OPTIONS.higher_id_dials_after)
    (dial,) = membership.take_dials()
    assert isinstance(dial, Dial)
    membership.on_dial_up(dial.path, now)
    assert membership.on_identified(dial.path, peer, [endpoint], now) is Verdict.PROCEED
    membership.on_linked(peer, now, path=dial.path)
    return dial.path


def test_the_lower_id_dials_at_once() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1], 5.0)
    assert membership.take_dials() == [Dial(1, E1)]
    assert membership.take_dials() == []


def test_the_higher_id_waits_for_the_other_to_dial() -> None:
    membership = member()
    membership.on_candidate(MDNS, LOW, "", [E1], 5.0)
    assert membership.take_dials() == []
    assert membership.deadline == 5.3
    membership.on_timer(5.3)
    assert membership.take_dials() == [Dial(1, E1)]


def test_more_addresses_do_not_shorten_the_wait_of_the_higher_id() -> None:
    membership = member()
    membership.on_candidate(MDNS, LOW, "", [E1], 5.0)
    membership.on_candidate(MDNS, LOW, "", [E1, E2], 5.01)
    assert membership.deadline == 5.3


def test_the_higher_id_does_not_dial_whom_an_inbound_link_serves() -> None:
    membership = member()
    membership.on_candidate(MDNS, LOW, "", [E1], 5.0)
    membership.on_linked(LOW, 5.1, path=b"inbound", endpoints=[E1])
    assert run_until(membership, 1000.0) == []


def test_a_static_peer_is_dialed_at_once_whatever_its_id() -> None:
    membership = member()
    membership.on_candidate(STATIC, None, "host:5", [E1], 5.0)
    assert membership.take_dials() == [Dial(1, E1)]
    assert membership.expected(1) is None
    assert membership.endpoint(1) == E1


def test_we_never_dial_ourselves() -> None:
    membership = member()
    membership.on_candidate(MDNS, ME, "", [E1], 0.0)
    membership.on_candidate(STATIC, None, "me:5", ["tcp://192.0.2.9:5"], 0.0)
    assert run_until(membership, 100.0) == []


def test_a_node_on_loopback_alone_dials_no_network_on_hearsay() -> None:
    # A listener for mDNS on loopback hears the LAN too where another program listens there.
    membership = member(here="127.0.0.1")
    membership.on_candidate(MDNS, HIGH, "", [E1, "tcp://127.0.0.1:6"], 0.0)
    membership.on_candidate(PEER, OTHER, "", [E2], 0.0)
    assert {order for _, order in run_until(membership, 1.0)} == {Dial(1, "tcp://127.0.0.1:6")}
    membership.on_candidate(STATIC, None, "host:5", [E3], 1.0)
    assert membership.take_dials() == [Dial(2, E3)]


def test_a_node_that_comes_to_listen_on_a_network_dials_whom_it_heard_of() -> None:
    membership = member(here="127.0.0.1")
    membership.on_candidate(MDNS, HIGH, "", [E1], 0.0)
    membership.on_local_endpoints(["tcp://192.0.2.9:5"], 10.0)
    assert membership.take_dials() == [Dial(1, E1)]


def test_all_addresses_are_tried_in_parallel_each_a_little_later() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1, E2, E3], 5.0)
    dials = [order for order in run_until(membership, 5.2) if isinstance(order[1], Dial)]
    assert [(round(when, 3), dial.endpoint) for when, dial in dials if isinstance(dial, Dial)] == [
        (-1.0, E1),
        (5.05, E2),
        (5.1, E3),
    ]


def test_a_refused_address_gives_way_to_the_next_at_once() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1, E2], 5.0)
    membership.take_dials()
    membership.on_dial_failed(1, PathCause.REFUSED, 5.001)
    assert membership.take_dials() == [Dial(2, E2)]


def test_a_black_holed_first_address_delays_nobody() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1, E2], 5.0)
    membership.take_dials()
    membership.on_timer(5.05)
    assert membership.take_dials() == [Dial(2, E2)]
    membership.on_dial_up(2, 5.06)
    assert membership.on_identified(2, HIGH, [E2], 5.07) is Verdict.PROCEED
    assert membership.take_dials() == [HangUp(1)]


def test_an_address_learned_during_a_round_joins_it() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1], 5.0)
    membership.on_candidate(PEER, HIGH, "", [E1, E2], 5.01)
    orders = [order for _, order in run_until(membership, 5.1)]
    assert orders == [Dial(1, E1), Dial(2, E2)]


def test_a_silent_dial_is_hung_up_and_tried_again_later() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1], 5.0)
    membership.take_dials()
    assert membership.deadline == 7.0
    membership.on_timer(7.0)
    assert membership.take_dials() == [HangUp(1)]
    assert membership.causes() == {E1: PathCause.UNREACHABLE}
    assert membership.deadline == 7.1
    membership.on_timer(7.1)
    assert membership.take_dials() == [Dial(2, E1)]


def test_a_connection_that_never_says_who_it_is_is_hung_up() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1], 5.0)
    membership.take_dials()
    membership.on_dial_up(1, 6.5)
    assert membership.deadline == 8.5
    membership.on_timer(8.5)
    assert membership.take_dials() == [HangUp(1)]


def test_rounds_back_off_doubling_up_to_the_cap() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1], 0.0)
    waits: list[float] = []
    now = 0.0
    for path in range(1, 12):
        assert membership.take_dials() == [Dial(path, E1)]
        membership.on_dial_failed(path, PathCause.REFUSED, now)
        deadline = membership.deadline
        assert deadline is not None
        waits.append(round(deadline - now, 3))
        now = deadline
        membership.on_timer(now)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0, 15.0]


def test_the_back_off_has_full_jitter() -> None:
    membership = member(entropy=FixedEntropy(0.25))
    membership.on_candidate(MDNS, HIGH, "", [E1], 0.0)
    membership.on_dial_failed(1, PathCause.REFUSED, 0.0)
    assert membership.deadline == 0.025


def test_a_node_that_answers_as_ourselves_is_not_dialed_there_again() -> None:
    membership = member()
    membership.on_candidate(STATIC, None, "me:5", [E1], 0.0)
    membership.take_dials()
    assert membership.on_identified(1, ME, [E1], 0.1) is Verdict.ITSELF
    assert [order for _, order in run_until(membership, 1000.0)] == [HangUp(1)]
    membership.on_candidate(MDNS, HIGH, "", [E1, E2], 1000.0)  # a record naming our own endpoint
    assert membership.take_dials() == [Dial(2, E2)]


def test_what_was_ourselves_is_tried_again_on_another_network() -> None:
    membership = member()
    membership.on_candidate(STATIC, None, "me:5", [E1], 0.0)
    membership.on_identified(1, ME, [E1], 0.1)
    run_until(membership, 100.0)
    membership.on_local_endpoints(["tcp://198.51.100.1:5"], 100.0)
    assert membership.take_dials() == [Dial(2, E1)]


def test_own_endpoints_found_out_are_bounded() -> None:
    membership = member()
    for number in range(3 * OWN_MAX):
        endpoint = f"tcp://192.0.2.1:{1 + number}"
        membership.on_candidate(STATIC, None, f"me{number}", [endpoint], 0.0)
        (dial,) = (each for each in membership.take_dials() if isinstance(each, Dial))
        membership.on_identified(dial.path, ME, [], 0.0)
    assert len(membership._own) == OWN_MAX


def test_an_unexpected_node_is_hung_up_and_the_record_distrusted() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1], 0.0)
    membership.take_dials()
    assert membership.on_identified(1, OTHER, [E1], 0.1) is Verdict.WRONG_NODE
    assert membership.take_dials() == [HangUp(1)]
    assert membership.deadline == 15.1  # no haste: nobody is missing, somebody else is there
    assert membership.statistics().wrong_node == 1


def test_a_lying_address_does_not_stop_the_others() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1, E2], 0.0)
    membership.on_timer(0.05)
    assert membership.on_identified(1, OTHER, [], 0.1) is Verdict.WRONG_NODE
    assert membership.on_identified(2, HIGH, [], 0.2) is Verdict.PROCEED


def test_a_node_of_another_mesh_is_tried_rarely() -> None:
    membership = member(entropy=FixedEntropy(0.0))
    membership.on_candidate(STATIC, None, "host:5", [E1], 0.0)
    membership.take_dials()
    membership.on_wrong_mesh(1, 0.5)
    assert membership.take_dials() == [HangUp(1)]
    assert membership.deadline == 8.0
    assert membership.statistics().wrong_mesh == 1


def test_a_path_that_proceeds_must_become_a_link_in_time() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1], 0.0)
    membership.take_dials()
    assert membership.on_identified(1, HIGH, [E1], 1.0) is Verdict.PROCEED
    assert membership.on_identified(1, HIGH, [E1], 1.1) is Verdict.PROCEED  # IAM came twice
    assert membership.deadline == 11.0
    membership.on_timer(11.0)
    assert membership.take_dials() == [HangUp(1)]
    membership.on_timer(11.1)
    assert membership.take_dials() == [Dial(2, E1)]


def test_a_greeted_path_that_ends_starts_another_round() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1], 0.0)
    membership.on_identified(1, HIGH, [E1], 1.0)
    membership.take_dials()
    membership.on_dial_failed(1, PathCause.CLOSED, 2.0)
    assert membership.deadline == 2.1
    assert [order for _, order in run_until(membership, 3.0)] == [Dial(2, E1)]


def test_a_static_endpoint_of_a_linked_peer_is_redundant_and_remembered() -> None:
    membership = member()
    path = linked(membership, HIGH, E1, 0.0)
    membership.on_candidate(STATIC, None, "host:5", [E2], 1.0)
    (dial,) = membership.take_dials()
    assert isinstance(dial, Dial)
    assert membership.on_identified(dial.path, HIGH, [E1], 1.1) is Verdict.REDUNDANT
    assert membership.take_dials() == [HangUp(dial.path)]
    assert run_until(membership, 1000.0) == []
    membership.on_unlinked(HIGH, 2000.0)
    orders = [order for _, order in run_until(membership, 2000.2)]
    assert orders == [HangUp(path), Dial(3, E2), Dial(4, E1)]


def test_the_loser_of_two_dials_that_answer_is_hung_up() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1, E2], 0.0)
    membership.on_timer(0.05)
    membership.take_dials()
    assert membership.on_identified(2, HIGH, [], 0.06) is Verdict.PROCEED
    assert membership.take_dials() == [HangUp(1)]
    assert membership.on_identified(1, HIGH, [], 0.07) is Verdict.REDUNDANT
    assert membership.take_dials() == []
    membership.on_dial_failed(1, PathCause.CLOSED, 0.08)  # late news of a path hung up
    membership.on_wrong_mesh(1, 0.08)
    membership.on_dial_up(1, 0.08)
    assert membership.expected(1) is None
    assert membership.endpoint(1) is None


def test_a_static_endpoint_follows_the_node_that_answers_there() -> None:
    membership = member()
    membership.on_candidate(STATIC, None, "host:5", [E1], 0.0)
    assert membership.on_identified(1, HIGH, [], 0.1) is Verdict.PROCEED
    assert membership.expected(1) == HIGH
    membership.on_linked(HIGH, 0.2, path=1)
    membership.on_unlinked(HIGH, 10.0)
    membership.on_timer(10.1)
    membership.take_dials()
    assert membership.on_identified(2, OTHER, [], 10.2) is Verdict.PROCEED
    membership.on_linked(OTHER, 10.3, path=2)
    assert membership.statistics().table.candidates == 1  # nobody vouches for the first any more
    assert membership.statistics().linked == 1


def test_a_node_nobody_writes_down_any_more_is_forgotten() -> None:
    membership = member()
    membership.on_candidate(STATIC, None, "host:5", [E1], 0.0)
    membership.on_identified(1, HIGH, [], 0.1)
    membership.on_linked(HIGH, 0.2, path=1)
    membership.on_candidate(STATIC, None, "host:5", [E2], 1.0)
    assert membership.statistics().table.candidates == 2
    membership.on_unlinked(HIGH, 2.0)
    assert membership.statistics().table.candidates == 1
    membership.on_identified(2, HIGH, [], 2.1)
    membership.on_linked(HIGH, 2.2, path=2)
    membership.on_unlinked(HIGH, 3.0)
    membership.on_candidate(STATIC, None, "host:5", [], 3.0)
    assert membership.statistics().table.candidates == 0


def test_a_lost_link_is_dialed_again_at_once() -> None:
    membership = member()
    path = linked(membership, HIGH, E1, 0.0)
    membership.on_unlinked(HIGH, 100.0, Unlinked.LOST)
    assert membership.take_dials() == [HangUp(path)]
    assert membership.deadline == 100.1
    membership.on_timer(100.1)
    assert membership.take_dials() == [Dial(2, E1)]


def test_the_higher_id_does_not_wait_to_dial_a_lost_peer() -> None:
    membership = member()
    membership.on_linked(LOW, 0.0, path=b"inbound", endpoints=[E1])
    membership.on_unlinked(LOW, 100.0)
    assert membership.deadline == 100.1


def test_a_link_that_opens_and_falls_at_once_is_not_dialed_in_a_tight_loop() -> None:
    membership = member()
    linked(membership, HIGH, E1, 0.0)  # dialed at 0.0
    membership.on_unlinked(HIGH, 0.4)
    assert membership.deadline == 1.0


def test_the_end_of_a_path_that_carries_a_link_is_left_to_the_link() -> None:
    membership = member()
    path = linked(membership, HIGH, E1, 0.0)
    membership.on_dial_failed(path, PathCause.CLOSED, 100.0)
    assert membership.take_dials() == []
    membership.on_unlinked(HIGH, 100.0)
    assert membership.take_dials() == []  # it ended by itself: nothing to hang up
    assert membership.deadline == 100.1


def test_a_link_on_an_inbound_path_ends_our_dials() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1, E2], 0.0)
    membership.on_timer(0.05)
    membership.take_dials()
    membership.on_linked(HIGH, 0.06, path=b"inbound")
    assert membership.take_dials() == [HangUp(1), HangUp(2)]
    assert membership.statistics().dialing == 0


def test_a_link_on_an_unknown_path_leaves_the_path_that_won() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1], 0.0)
    membership.on_identified(1, HIGH, [], 0.1)
    membership.take_dials()
    membership.on_linked(HIGH, 0.2)
    assert run_until(membership, 100.0) == []
    membership.on_unlinked(HIGH, 100.0)
    assert membership.take_dials() == [HangUp(1)]


def test_a_peer_that_left_is_sought_slowly() -> None:
    membership = member(entropy=FixedEntropy(0.0))
    path = linked(membership, HIGH, E1, 0.0)
    membership.on_unlinked(HIGH, 100.0, Unlinked.LEFT)
    assert membership.take_dials() == [HangUp(path)]
    assert membership.deadline == 107.5
    membership.on_timer(107.5)
    assert membership.take_dials() == [Dial(2, E1)]


def test_a_peer_that_left_is_dialed_when_it_is_announced_anew() -> None:
    membership = member()
    linked(membership, HIGH, E1, 0.0)
    membership.on_unlinked(HIGH, 100.0, Unlinked.LEFT)
    membership.take_dials()
    membership.on_candidate(PEER, HIGH, "", [E1], 101.0)  # others may not know yet
    assert membership.take_dials() == []
    membership.on_candidate(MDNS, HIGH, "", [E1], 102.0)
    assert membership.take_dials() == [Dial(2, E1)]


def test_a_peer_that_left_is_dialed_at_a_new_endpoint_whoever_tells() -> None:
    membership = member()
    linked(membership, HIGH, E1, 0.0)
    membership.on_unlinked(HIGH, 100.0, Unlinked.LEFT)
    membership.take_dials()
    membership.on_candidate(PEER, HIGH, "", [E2], 101.0)
    assert [order for _, order in run_until(membership, 101.1)] == [Dial(2, E1), Dial(3, E2)]


def test_a_record_announced_over_and_over_prompts_one_round_a_second() -> None:
    membership = member()
    now, dials = 0.0, 0
    for number in range(3500):  # 350 a second, as clones with one identity do
        now = number / 350
        membership.on_candidate(MDNS, HIGH, "", [(E1, E2)[number % 2]], now)
        membership.on_timer(now)
        for order in membership.take_dials():
            if isinstance(order, Dial):
                dials += 1
                membership.on_dial_failed(order.path, PathCause.REFUSED, now)
    assert dials <= 2 * 10 + 8  # two addresses a round, and the first rounds of the back-off


def test_concurrent_dials_are_bounded() -> None:
    options = replace(OPTIONS, dials_max=4)
    membership = member(options)
    for number in range(50):
        membership.on_candidate(MDNS, node(2000 + number), "", [E1, E2], 0.0)
    membership.on_timer(0.1)
    assert len(membership.take_dials()) == 4
    assert membership.statistics().dialing == 4
    membership.on_dial_failed(1, PathCause.REFUSED, 0.2)
    assert len(membership.take_dials()) == 1


def test_strangers_are_dialed_no_faster_than_may_be_and_those_known_are_not_kept_waiting() -> None:
    options = replace(OPTIONS, dials_max=1000, dials_per_second=20.0, dials_burst=3)
    membership = member(options)
    linked(membership, HIGH, E1, 0.0)
    for number in range(100):
        membership.on_candidate(MDNS, node(5000 + number), "", ["tcp://192.0.2.77:5"], 10.0)
    membership.on_unlinked(HIGH, 10.0)
    membership.on_candidate(STATIC, None, "host:5", [E2], 10.0)
    orders = run_until(membership, 11.0)
    dials = [(when, order.endpoint) for when, order in orders if isinstance(order, Dial)]
    strangers = [when for when, endpoint in dials if endpoint not in (E1, E2)]
    assert len([when for when in strangers if when <= 10.0]) <= 3, "at once"
    assert 19 <= len([when for when in strangers if when > 10.0]) <= 20
    assert {endpoint for when, endpoint in dials if when <= 10.1} >= {E1, E2}
    assert membership.deadline is not None
    assert membership.deadline <= 11.05


def test_a_flood_does_not_keep_static_peers_known_peers_and_hints_from_their_turn() -> None:
    options = replace(OPTIONS, dials_max=4)
    membership = member(options)
    linked(membership, HIGH, E1, 0.0)
    for number in range(400):
        membership.on_candidate(MDNS, node(5000 + number), "", ["tcp://192.0.2.77:5"], 10.0)
    membership.on_unlinked(HIGH, 10.0)
    membership.on_candidate(STATIC, None, "host:5", [E2], 10.0)
    membership.on_candidate(PEER, OTHER, "", [E3], 10.0)
    orders = run_until(membership, 13.0)  # nobody of the flood answers: 2 s each
    dialed = {order.endpoint for _, order in orders if isinstance(order, Dial)}
    assert {E1, E2, E3} <= dialed


def test_a_flood_is_worked_off_and_then_an_honest_record_finds_room() -> None:
    options = replace(OPTIONS, candidates_max=16)
    membership = member(options)
    for number in range(5000, 5100):
        membership.on_candidate(MDNS, node(number), "", [E1], 0.0)
    assert membership.statistics().table.candidates == 8
    run_until(membership, 2.0)
    membership.on_candidate(MDNS, HIGH, "", [E2], 2.0)
    assert Dial(9, E2) in membership.take_dials()


def test_a_displaced_candidate_takes_its_dials_along() -> None:
    options = replace(OPTIONS, candidates_max=2)
    membership = member(options)
    membership.on_candidate(MDNS, HIGH, "", [E1], 0.0)
    membership.on_candidate(PEER, OTHER, "", [E2], 0.0)
    membership.take_dials()
    membership.on_linked(node(3), 0.1, path=b"inbound")
    assert membership.take_dials() == [HangUp(1)]
    assert membership.statistics().table.displaced == 1


def test_a_peer_nobody_vouches_for_is_forgotten_at_last() -> None:
    membership = member()
    membership.on_linked(HIGH, 0.0, path=b"inbound", endpoints=[E1])
    membership.on_unlinked(HIGH, 1000.0)
    orders = run_until(membership, 10_000.0)
    assert 1280.0 < orders[-1][0] < 1310.0
    assert membership.deadline is None
    assert membership.statistics().table.candidates == 0
    assert membership.statistics().forgotten == 1


def test_a_peer_without_any_endpoint_is_forgotten_at_once() -> None:
    membership = member()
    membership.on_linked(HIGH, 0.0, path=b"inbound")
    membership.on_unlinked(HIGH, 1.0)
    assert membership.statistics().table.candidates == 0
    membership.on_unlinked(HIGH, 2.0)
    membership.on_candidate_gone(MDNS, HIGH, 2.0)
    assert membership.deadline is None


def test_whom_mdns_still_lists_or_the_operator_wrote_down_is_never_forgotten() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1], 0.0)
    membership.on_candidate(STATIC, None, "host:5", [E2], 0.0)
    run_until(membership, 2000.0)
    assert membership.statistics().table.candidates == 2
    membership.on_candidate_gone(MDNS, HIGH, 2000.0)
    assert membership.statistics().table.candidates == 1


def test_a_record_that_is_taken_back_ends_the_search() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1], 0.0)
    membership.on_candidate_gone(MDNS, HIGH, 0.1)
    orders = [order for _, order in run_until(membership, 100.0)]
    assert orders == [Dial(1, E1), HangUp(1)]
    assert membership.statistics().table.candidates == 0


def test_a_record_that_is_taken_back_leaves_a_link_alone() -> None:
    membership = member()
    linked(membership, HIGH, E1, 0.0)
    membership.on_candidate_gone(MDNS, HIGH, 1.0)
    assert run_until(membership, 1000.0) == []
    assert membership.statistics().linked == 1


def test_a_hint_given_again_keeps_a_peer_from_being_forgotten() -> None:
    membership = member()
    for now in range(0, 2000, 100):
        membership.on_candidate(PEER, HIGH, "", [E1], float(now))
        run_until(membership, now + 99.0)
    assert membership.statistics().table.candidates == 1


def test_a_change_of_our_network_tries_everybody_again() -> None:
    membership = member()
    membership.on_candidate(STATIC, None, "host:5", [E1], 0.0)
    for path, now in enumerate((0.0, 1.0, 3.0, 7.0, 15.0, 30.0, 45.0), start=1):
        membership.on_timer(now)
        assert membership.take_dials() == [Dial(path, E1)]
        membership.on_dial_failed(path, PathCause.UNREACHABLE, now)
    assert membership.deadline == 51.4
    membership.on_local_endpoints(["tcp://198.51.100.1:5"], 47.0)
    assert membership.take_dials() == [Dial(8, E1)]


def test_a_path_that_changes_its_mind_about_who_it_is_is_hung_up() -> None:
    membership = member()
    membership.on_candidate(STATIC, None, "host:5", [E1], 0.0)
    membership.on_identified(1, HIGH, [], 0.1)
    membership.take_dials()
    assert membership.on_identified(1, OTHER, [], 0.2) is Verdict.WRONG_NODE
    assert membership.take_dials() == [HangUp(1)]
    assert membership.on_identified(1, HIGH, [], 0.3) is Verdict.REDUNDANT


def test_a_linked_seed_is_asked_again_less_and_less_often() -> None:
    membership = member(entropy=FixedEntropy(0.5))
    membership.on_candidate(SEED, None, "seed:5", [E1], 0.0)
    assert membership.deadline == 2.0  # the dial's
    membership.on_identified(1, HIGH, [], 0.0)
    membership.on_linked(HIGH, 0.0, path=1)
    asked: list[float] = []
    while len(asked) < 7:
        deadline = membership.deadline
        assert deadline is not None
        membership.on_timer(deadline)
        assert membership.take_asks(deadline) == [HIGH]
        asked.append(deadline)
    assert asked == [2.0, 6.0, 14.0, 30.0, 60.0, 90.0, 120.0]
    membership.on_unlinked(HIGH, 121.0)
    assert membership.take_asks(1000.0) == []


def test_a_peer_linked_already_that_turns_out_to_be_a_seed_is_asked() -> None:
    membership = member(entropy=FixedEntropy(0.5))
    membership.on_linked(HIGH, 0.0, path=b"inbound")
    assert membership.deadline is None
    membership.on_candidate(SEED, None, "seed:5", [E1], 1.0)
    assert membership.on_identified(1, HIGH, [], 1.0) is Verdict.REDUNDANT
    assert membership.deadline == 3.0


ENDPOINTS = [f"tcp://192.0.2.{last}:5" for last in range(1, 8)]
NODES = [node(number) for number in (1, 2, 1000, 2000, 2001, 2002)]

STEP = st.one_of(
    st.tuples(
        st.just("found"),
        st.sampled_from([MDNS, PEER]),
        st.sampled_from(NODES),
        st.lists(st.sampled_from(ENDPOINTS), max_size=3, unique=True),
    ),
    st.tuples(
        st.just("pinned"),
        st.sampled_from([STATIC, SEED]),
        st.sampled_from("xy"),
        st.lists(st.sampled_from(ENDPOINTS), max_size=3, unique=True),
    ),
    st.tuples(st.just("gone"), st.sampled_from(NODES)),
    st.tuples(st.just("up"), st.integers(0, 7)),
    st.tuples(st.just("identified"), st.integers(0, 7), st.sampled_from(NODES)),
    st.tuples(st.just("failed"), st.integers(0, 7), st.sampled_from(PathCause)),
    st.tuples(st.just("wrong mesh"), st.integers(0, 7)),
    st.tuples(st.just("linked"), st.sampled_from(NODES), st.booleans()),
    st.tuples(st.just("unlinked"), st.sampled_from(NODES), st.sampled_from(Unlinked)),
    st.tuples(st.just("moved"), st.sampled_from(ENDPOINTS)),
    st.tuples(st.just("time"), st.sampled_from([0.01, 0.1, 1.0, 5.0, 400.0])),
)


class Driver:
    """Feeds a membership and keeps the books a transport would keep."""

    def __init__(self, seed: int) -> None:
        self.options = replace(OPTIONS, dials_max=3, candidates_max=4)
        self.membership = Membership(ME, self.options, SeededEntropy(seed))
        self.now = 0.0
        self.open: dict[int, str] = {}
        self.log: list[Dial | HangUp] = []

    def step(self, step: tuple[object, ...]) -> None:  # noqa: C901  one branch an input
        membership, now = self.membership, self.now
        match step:
            case ("found", str(source), bytes(who), list(where)):
                membership.on_candidate(source, NodeId(who), "", where, now)
            case ("pinned", str(source), str(name), list(where)):
                membership.on_candidate(source, None, name, where, now)
            case ("gone", bytes(who)):
                membership.on_candidate_gone(MDNS, NodeId(who), now)
            case ("up", int(index)):
                membership.on_dial_up(self.path(index), now)
            case ("identified", int(index), bytes(who)):
                path = self.path(index)
                verdict = membership.on_identified(path, NodeId(who), ENDPOINTS[:1], now)
                if verdict is Verdict.PROCEED:
                    assert membership.expected(path) == who
            case ("failed", int(index), PathCause() as cause):
                path = self.path(index)
                membership.on_dial_failed(path, cause, now)
                self.open.pop(path, None)
            case ("wrong mesh", int(index)):
                membership.on_wrong_mesh(self.path(index), now)
            case ("linked", bytes(who), bool(inbound)):
                if who != ME:
                    membership.on_linked(NodeId(who), now, path=b"in" if inbound else None)
            case ("unlinked", bytes(who), Unlinked() as reason):
                membership.on_unlinked(NodeId(who), now, reason)
            case ("moved", str(endpoint)):
                membership.on_local_endpoints([endpoint], now)
            case ("time", float(seconds)):
                self.pass_time(now + seconds)
            case _:
                raise AssertionError(step)
        self.collect()

    def path(self, index: int) -> int:
        paths = list(self.open)
        return paths[index % len(paths)] if paths else 10_000

    def pass_time(self, until: float) -> None:
        turns = 0
        while (deadline := self.membership.deadline) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.membership.on_timer(self.now)
            self.membership.take_asks(self.now)
            self.collect()
            turns += 1
            assert turns < 5000, "time does not pass"
        self.now = until

    def collect(self) -> None:
        for order in self.membership.take_dials():
            self.log.append(order)
            if isinstance(order, Dial):
                assert order.path not in self.open
                self.open[order.path] = order.endpoint
            else:
                del self.open[order.path]  # raises for a path that is not open
        statistics = self.membership.statistics()
        assert statistics.dialing <= self.options.dials_max
        assert len(self.open) <= statistics.dialing + len(NODES)  # and the winners
        assert all(self.membership.endpoint(path) == where for path, where in self.open.items())


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=60), st.integers(0, 2**32))
def test_any_course_of_events_keeps_the_books_and_repeats(
    steps: list[tuple[object, ...]], seed: int
) -> None:
    first, second = Driver(seed), Driver(seed)
    for step in steps:
        first.step(step)
        second.step(step)
    assert first.log == second.log
    # Once nothing happens any more, dials alone do not leak paths.
    for path in list(first.open):
        first.membership.on_dial_failed(path, PathCause.CLOSED, first.now)
        del first.open[path]
    first.collect()
    first.pass_time(first.now + 20.0)
    first.collect()


def test_an_answer_that_a_late_loop_reads_after_its_time_still_counts() -> None:
    membership = member()
    membership.on_candidate(MDNS, HIGH, "", [E1], 5.0)
    (dial,) = membership.take_dials()
    membership.on_dial_up(dial.path, 5.0)
    late = 5.0 + OPTIONS.greeting_timeout + 60.0
    assert membership.on_identified(dial.path, HIGH, [E1], late) is Verdict.PROCEED
    assert HangUp(dial.path) not in membership.take_dials()


def test_a_peer_on_loopback_alone_may_be_elsewhere_where_others_reach_us() -> None:
    assert member().may_be_elsewhere(["tcp://127.0.0.1:7"])
    assert not member().may_be_elsewhere(["tcp://127.0.0.1:7", E1])
    assert not member().may_be_elsewhere([])
    assert not member(here="127.0.0.1").may_be_elsewhere(["tcp://127.0.0.1:7"])


def test_silence_is_looked_into_where_the_peer_itself_would_answer() -> None:
    assert member().telling(["tcp://127.0.0.1:7", "tcp://192.0.2.9:5", E1]) == [E1]


def test_host_whose_key_is_another_one_is_out_of_reach_though_it_accepts_connections() -> None:
    membership = member()
    linked(membership, HIGH, E1, 0.0)
    assert membership.judged(HIGH, E1, None) is None
    membership.on_unlinked(HIGH, 10.0)
    at, dial = run_until(membership, 10.2)[-1]
    assert isinstance(dial, Dial)
    membership.on_dial_failed(dial.path, PathCause.WRONG_KEY, at)
    assert membership.judged(HIGH, E1, None) is PathCause.UNREACHABLE
    assert membership.judged(HIGH, E1, PathCause.REFUSED) is PathCause.REFUSED
    assert membership.judged(HIGH, E2, None) is None
    assert membership.judged(OTHER, E1, None) is None
    at, again = run_until(membership, at + 2 * OPTIONS.reconnect_min)[0]
    assert isinstance(again, Dial)
    assert membership.judged(HIGH, E1, None) is PathCause.UNREACHABLE  # while it is dialed, too
    assert membership.causes() == {E1: PathCause.WRONG_KEY}
    membership.on_dial_failed(again.path, PathCause.CLOSED, at)
    assert membership.judged(HIGH, E1, None) is None


def test_link_ends_what_a_wrong_key_said() -> None:
    membership = member()
    linked(membership, HIGH, E1, 0.0)
    membership.on_unlinked(HIGH, 10.0)
    at, dial = run_until(membership, 10.2)[-1]
    assert isinstance(dial, Dial)
    membership.on_dial_failed(dial.path, PathCause.WRONG_KEY, at)
    membership.on_linked(HIGH, at + 1, path=b"it called")
    assert membership.judged(HIGH, E1, None) is None
