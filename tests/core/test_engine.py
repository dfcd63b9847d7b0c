"""The engine: peers joining and leaving, and what it says of them."""

from dataclasses import replace

import pytest

from tests.engines import Host, World
from zmesh.actions import DeliverInbox, IdentityClash, PeerChange, PeerChanged, PeerState
from zmesh.errors import AmbiguousPeer, InvalidOption, PeerUnknown, UsageError
from zmesh.events import (
    CandidateFound,
    CandidateGone,
    CloseNode,
    LoopLate,
    OpenInbox,
    ProbeAnswered,
    Subscribe,
)
from zmesh.message import FailureKind
from zmesh.options import LinkOptions, NodeOptions


def order(host: Host, *kinds: type) -> list[type]:
    return [type(action) for action in host.actions if isinstance(action, kinds)]


def test_two_nodes_that_hear_of_each_other_join_once() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    assert a.changes == [(PeerChange.JOINED, "b")]
    assert b.changes == [(PeerChange.JOINED, "a")]
    view = a.engine.peers()[0]
    assert (view.id, view.name, view.state) == (b.id, "b", PeerState.ALIVE)
    assert view.endpoints == (b.endpoint,)
    assert view.incarnation == 1


def test_one_who_alone_knows_of_the_other_is_enough() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    a.do(CandidateFound("static", None, "b", (b.endpoint,)))
    world.run(3.0)
    assert b.sees(a) is a.sees(b) is PeerState.ALIVE


def test_joined_precedes_the_first_delivery_of_a_peer() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    world.introduce(a, b)
    world.queue.step()
    ticket = a.post(b, "early")
    world.run_until(lambda: a.finished(ticket))
    assert order(b, PeerChanged, DeliverInbox) == [PeerChanged, DeliverInbox]


def test_nothing_happens_in_ten_idle_minutes() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    before = [len(host.changes) for host in (a, b, c)]
    packets = a.engine.statistics().packets_received
    world.run(600.0)
    assert [len(host.changes) for host in (a, b, c)] == before
    assert not a.engine.statistics().defects
    assert a.engine.statistics().packets_received - packets < 600


def test_a_killed_peer_is_lost_at_once_and_known_to_the_last() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.serve("resize")
    world.run(1.0)
    b.kill()
    took = world.run_until(lambda: a.sees(b) is None)
    assert took < 0.5
    left = a.ordered(PeerChanged)[-1]
    assert isinstance(left, PeerChanged)
    assert left.change is PeerChange.LEFT
    assert left.reason
    assert left.peer.services == {"resize"}
    assert left.peer.state is PeerState.LOST


def test_a_peer_killed_behind_an_inbound_path_is_lost_at_once_too() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    a.do(CandidateFound("static", None, "b", (b.endpoint,)))
    world.run(3.0)
    a.kill()
    assert world.run_until(lambda: b.sees(a) is None) < 0.5


def test_a_restarted_peer_leaves_and_joins_again() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.kill()
    again = world.host("b")
    world.introduce(a, again)
    world.run(5.0)
    changes = [change for change, _ in a.changes]
    assert changes[0] is PeerChange.JOINED
    assert changes[-2:] == [PeerChange.LEFT, PeerChange.JOINED]
    left = next(
        action
        for action in a.actions
        if isinstance(action, PeerChanged) and action.change is PeerChange.LEFT
    )
    assert (left.peer.incarnation, left.peer.state) == (1, PeerState.LOST)
    assert a.engine.peers()[0].incarnation == 2
    ticket = a.post("b", "hello")
    world.run_until(lambda: a.finished(ticket))
    assert again.inbox == ["hello"]


def test_a_silent_peer_is_suspected_and_recovers() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    world.part(a, b)
    world.run_until(lambda: (PeerChange.SUSPECTED, "b") in a.changes, 30.0)
    world.join(a, b)
    world.run(20.0)
    changes = [change for change, _ in a.changes]
    assert changes[-1] in (PeerChange.RECOVERED, PeerChange.JOINED)
    assert a.sees(b) is PeerState.ALIVE


def test_a_peer_that_closes_leaves_with_a_reason() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(CloseNode())
    world.run(0.5)
    assert a.sees(b) is None
    left = a.ordered(PeerChanged)[-1]
    assert isinstance(left, PeerChanged)
    assert "goodbye" in left.reason
    with pytest.raises(PeerUnknown):
        a.engine.resolve("b")


def test_a_name_given_to_two_peers_is_ambiguous_and_their_ids_are_not() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    c2 = world.host("d")
    c2.engine = type(c2.engine)(
        replace(c2.engine._local, name="b"), NodeOptions(), c2.engine._entropy, world.queue.now
    )
    world.introduce(a, c2)
    world.run(3.0)
    with pytest.raises(AmbiguousPeer) as caught:
        a.engine.resolve("b")
    assert sorted(caught.value.ids) == sorted([b.id.hex(), c2.id.hex()])
    assert a.engine.resolve(b.id.hex()) == b.id
    assert a.engine.resolve(c2.id) == c2.id
    assert a.engine.resolve("c") == c.id
    assert a.engine.resolve("a") == a.id


@pytest.mark.parametrize("to", ["nobody", "ff" * 16, "zz" * 16])
def test_who_was_never_heard_of_is_unknown(to: str) -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    with pytest.raises(PeerUnknown) as caught:
        a.engine.resolve(to)
    assert caught.value.known == ("b",)


def test_a_candidate_that_is_gone_is_no_longer_known_by_name() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    b.kill()
    a.do(CandidateFound("mdns", b.id, "b", (b.endpoint,)))
    world.run(0.1)
    assert a.engine.resolve("b") == b.id
    a.do(CandidateGone("mdns", b.id))
    world.run(0.1)
    with pytest.raises(PeerUnknown):
        a.engine.resolve("b")


def test_a_link_of_two_uses_one_path_however_many_were_dialed() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    world.run(30.0)
    statistics = a.engine.statistics().membership, b.engine.statistics().membership
    assert [each.linked for each in statistics] == [1, 1]
    assert [each.dialing for each in statistics] == [0, 0]


def test_dialing_ourselves_ends_quietly() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    world.network.listen(a, "tcp://127.0.0.1:9")  # as a forwarded port would lead back here
    a.do(CandidateFound("static", None, "me", ("tcp://127.0.0.1:9",)))
    world.run(1.0)
    assert a.engine.peers() == []
    assert a.engine.statistics().membership.itself == 1
    assert not a.ordered(IdentityClash)
    assert b.engine.peers() == []


def test_a_node_with_our_identity_elsewhere_is_a_clash() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    b.engine = type(b.engine)(a.engine._local, NodeOptions(), b.engine._entropy, world.queue.now)
    a.do(CandidateFound("static", None, "clone", (b.endpoint,)))
    world.run(1.0)
    clash = a.ordered(IdentityClash)[0]
    assert isinstance(clash, IdentityClash)
    assert clash.endpoint == b.endpoint


def test_seeds_bring_together_nodes_that_never_heard_of_each_other() -> None:
    world = World()
    seed, a, b = world.host("seed"), world.host("a"), world.host("b")
    for host in (a, b):
        host.do(CandidateFound("seed", None, "seed", (seed.endpoint,)))
    world.run(5.0)
    assert a.sees(b) is PeerState.ALIVE
    assert b.sees(a) is PeerState.ALIVE


def test_a_full_table_refuses_newcomers_and_keeps_its_peers() -> None:
    world = World()
    a = world.host("a", options=NodeOptions(peers_max=2))
    others = [world.host(name) for name in "bcd"]
    for other in others[:2]:
        world.introduce(a, other)
    world.run(3.0)
    world.introduce(a, others[2])
    world.run(10.0)
    assert a.engine.statistics().peers == 2
    assert a.engine.statistics().peers_refused > 0
    assert a.engine.statistics().peers_displaced == 0
    assert sorted(view.name for view in a.engine.peers()) == ["b", "c"]
    others[0].do(CloseNode())
    world.run(60.0)
    assert sorted(view.name for view in a.engine.peers()) == ["c", "d"]
    assert a.engine.statistics().peers_displaced == 1


def test_a_peer_that_stays_away_is_forgotten() -> None:
    world = World(NodeOptions(link=LinkOptions(session_linger=5.0)))
    a, b = world.mesh("a", "b")
    b.kill()
    world.run(5.0)
    a.do(CandidateGone("mdns", b.id))
    world.run(20.0)
    assert a.engine.statistics().peers == 0
    with pytest.raises(PeerUnknown):
        a.engine.resolve("b")


def test_what_waits_for_a_peer_that_never_came_fails_at_last() -> None:
    world = World(NodeOptions(link=LinkOptions(session_linger=5.0)))
    a, b = world.host("a"), world.host("b")
    b.kill()
    a.do(CandidateFound("mdns", b.id, "b", (b.endpoint,)))
    ticket = a.post("b", "hello?")
    world.run_until(lambda: a.finished(ticket), 20.0)
    assert ticket.failures[0].kind is FailureKind.PEER_LOST
    assert a.engine.statistics().peers == 0


def test_closing_ends_everything_and_says_goodbye() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    sent, self_sent = a.post(b, "one"), a.post("a", "to myself")
    a.accepts = False
    b.serve("slow", lambda _: None)
    world.run(1.0)
    call = a.call("slow")
    world.run(0.5)
    a.do(CloseNode())
    world.run(0.5)
    assert [f.kind for f in sent.failures] == [FailureKind.CLOSED]
    assert [f.kind for f in self_sent.failures] == [FailureKind.CLOSED]
    assert a.finished(sent)
    assert a.finished(self_sent)
    assert a.answers[call].failure is not None
    assert a.engine.deadline is None
    assert a.engine.handle([OpenInbox()], world.queue.now) == []
    assert b.sees(a) is None


def test_a_late_loop_makes_nobody_suspect() -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    world.run(20.0)
    world.queue.now += 30.0  # this host slept, and nobody else did anything
    a.do(LoopLate(30.0))
    world.run(10.0)
    assert [change for change, _ in a.changes] == [PeerChange.JOINED]


def test_an_answer_to_a_probe_nobody_asked_for_is_ignored() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    a.do(ProbeAnswered("tcp://127.0.0.1:1", None))
    world.run(1.0)
    assert a.sees(b) is PeerState.ALIVE


def test_limit_on_subscriptions_is_the_callers_to_ask_for() -> None:
    world = World(NodeOptions(subscriptions_max=1))
    (a,) = world.mesh("a")
    a.engine.check_subscribe("a.*")
    a.engine.check_publish("a.b")
    a.do(Subscribe(1, "a.*"))
    world.run(0.1)
    with pytest.raises(UsageError, match="1 subscriptions"):
        a.engine.check_subscribe("b")
    with pytest.raises(InvalidOption):
        a.engine.check_publish("a.*")
    with pytest.raises(InvalidOption):
        a.engine.check_subscribe("a..b")


def test_a_turn_costs_no_more_with_a_thousand_peers_known() -> None:
    """Counted, not timed: a turn for one link looks at no other."""
    world = World()
    a, b = world.mesh("a", "b")
    looked_at = 0

    for number in range(1000):
        node = bytes([200]) + number.to_bytes(15, "big")
        a.do(CandidateFound("mdns", node, f"n{number}", ()))  # type: ignore[arg-type]
        a.engine._residents.admit(node)  # type: ignore[arg-type]
    world.run(0.1)

    for peer in a.engine._peers:
        if peer.id != b.id:
            packets = peer.link.packets

            def counted(now, packets=packets):  # type: ignore[no-untyped-def]
                nonlocal looked_at
                looked_at += 1
                return packets(now)

            peer.link.packets = counted  # type: ignore[method-assign]
    ticket = a.post(b, "one")
    world.run_until(lambda: a.finished(ticket))
    assert looked_at == 0


def test_a_peer_whose_address_is_another_nodes_now_is_lost_and_not_busy_for_ever() -> None:
    """Its host lost power, and came back with a new process and a new identity."""
    world = World()
    a, b = world.mesh("a", "b")
    ticket = a.post(b, "fine")
    world.run_until(lambda: a.finished(ticket))
    world.network.black_hole(a.index, b.index)
    b.kill()
    successor = world.host("c")
    world.network.listen(successor, b.endpoint)
    ticket = a.post(b, "anybody there?")
    world.introduce(a, successor)
    world.run_until(lambda: a.finished(ticket), 60.0)
    assert ticket.failures[0].kind is FailureKind.PEER_LOST
    assert [view.name for view in a.engine.peers()] == ["c"]
