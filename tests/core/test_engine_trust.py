"""Who gets a link, and who loses it: by the ids that were proved."""

import logging

from tests.core.telling import tell
from tests.core.test_engine_proofs import LINK, by, hello, inbound
from tests.core.trusts import audited, change, key_of, trust
from tests.engines import Host, World
from zmesh.actions import AuditKind, CallFailure, PeerChange, PeerChanged
from zmesh.events import CandidateFound
from zmesh.message import FailureKind, Outcome
from zmesh.options import NodeOptions
from zmesh.security.node_key import NodeKey, to_text
from zmesh.security.trust import Trust


def started(*names: str, trusted: tuple[str, ...]) -> tuple[World, list[Host]]:
    """Start hosts that know of each other; only the first one trusts nobody but some."""
    world = World(secured=True)
    world.trusts[names[0]] = trust(*names, but=tuple(n for n in names if n not in trusted))
    hosts = [world.host(name) for name in names]
    for number, host in enumerate(hosts):
        for other in hosts[:number]:
            world.introduce(other, host)
    world.run(5.0)
    return world, hosts


def test_only_nodes_that_are_listed_get_a_link() -> None:
    _, (a, b, c) = started("a", "b", "c", trusted=("a", "b"))
    assert [view.name for view in a.engine.peers()] == ["b"]
    assert {view.name for view in b.engine.peers()} == {"a", "c"}
    assert [view.name for view in c.engine.peers()] == ["b"]


def test_both_sides_of_a_refusal_are_told_why() -> None:
    _, (a, b) = started("a", "b", trusted=("a",))
    told = audited(a, AuditKind.NOT_TRUSTED)
    assert told
    assert all(b.id.hex() in each.peer for each in told)
    assert "revoked" in told[0].detail
    traces = b.traces("not_trusted")
    assert "its key was revoked" in str(traces[0].fields["detail"])
    assert traces[0].level >= logging.WARNING
    assert len({str(trace.fields["peer"]) for trace in traces}) <= 3
    assert b.engine.statistics().membership.not_trusted_there > 0
    assert a.engine.statistics().membership.not_trusted > 0
    there = b.engine.statistics().membership
    assert there.revoked_there == there.not_trusted_there
    assert not b.traces("defect"), "it is told already"


def test_a_stranger_is_refused_whoever_dials() -> None:
    for knows in ("a", "b"):
        world = World(secured=True)
        world.trusts["a"] = trust("a")
        a, b = world.host("a"), world.host("b")
        one, other = (a, b) if knows == "a" else (b, a)
        one.do(CandidateFound("mdns", other.id, other.name, (other.endpoint,)))
        world.run(5.0)
        assert not a.engine.peers()
        assert not b.engine.peers()
        assert b.engine.statistics().membership.not_trusted_there
        assert not b.engine.statistics().membership.revoked_there
        assert "its key is not listed" in audited(a, AuditKind.NOT_TRUSTED)[0].detail


def test_who_is_refused_is_dialed_and_answered_seldom() -> None:
    world, (a, b) = started("a", "b", trusted=("a",))
    dials = a.engine.statistics().membership.dials + b.engine.statistics().membership.dials
    world.run(60.0)
    after = a.engine.statistics().membership.dials + b.engine.statistics().membership.dials
    assert after - dials < 60
    assert len(audited(a, AuditKind.NOT_TRUSTED)) < 100


def test_nobody_addresses_who_is_not_trusted() -> None:
    world, (a, b) = started("a", "b", trusted=("a",))
    ticket = a.post(b, "hi")
    world.run(0.1)
    [failure] = ticket.failures
    assert failure.kind is FailureKind.PEER_UNKNOWN


def test_a_revoked_peer_loses_its_link_at_once_and_does_not_come_back() -> None:
    world, (a, b) = started("a", "b", trusted=("a", "b"))
    assert a.engine.peers()
    change(a, "a", "b", but=("b",))
    world.run(0.0)
    assert not a.engine.peers()
    [told] = audited(a, AuditKind.REVOKED)
    assert b.id.hex() in told.peer
    world.run(0.5)
    assert not b.engine.peers()
    world.run(60.0)
    assert not a.engine.peers()
    assert not b.engine.peers()
    again = world.host("b")
    world.introduce(a, again)
    world.run(5.0)
    assert not a.engine.peers()


def test_who_is_trusted_again_comes_back_soon() -> None:
    world, (a, b) = started("a", "b", trusted=("a", "b"))
    change(a, "a", "b", but=("b",))
    world.run(10.0)
    change(a, "a", "b")
    world.run(5.0)
    assert [view.name for view in a.engine.peers()] == ["b"]
    assert [view.name for view in b.engine.peers()] == ["a"]
    ticket = a.post(b, "welcome")
    world.run(1.0)
    assert ticket.accepted == 1


def test_who_is_listed_later_gets_a_link_soon() -> None:
    world, (a, b) = started("a", "b", trusted=("a",))
    change(a, "a", "b")
    world.run(20.0)
    assert [view.name for view in a.engine.peers()] == ["b"]
    assert [view.name for view in b.engine.peers()] == ["a"]


def test_messages_to_a_revoked_peer_end_as_lost_with_the_reason() -> None:
    world, (a, b) = started("a", "b", trusted=("a", "b"))
    b.accepts = False
    sent = a.post(b, "one", "two")
    world.run(0.5)
    late = a.post(b, "three")
    change(a, "a", "b", but=("b",))
    world.run(0.1)
    for ticket in (sent, late):
        assert ticket.done
        assert {each.kind for each in ticket.failures} <= {
            FailureKind.PEER_LOST, FailureKind.PEER_UNKNOWN,
        }  # fmt: skip
    assert {each.reason for each in sent.failures} == {"its key is not trusted any more"}
    [left] = [
        each for each in a.ordered(PeerChanged)
        if isinstance(each, PeerChanged) and each.change is PeerChange.LEFT
    ]  # fmt: skip
    assert left.reason == "its key is not trusted any more"


def test_work_of_a_revoked_peer_goes_to_others() -> None:
    world, (a, b, c) = started("a", "b", "c", trusted=("a", "b", "c"))
    for host in (b, c):
        host.serve("resize", lambda _: None)
    b.pull("work")
    world.run(0.5)
    calls = [a.call("resize", str(number)) for number in range(4)]
    work = a.push("work", "job")
    world.run(0.5)
    assert b.jobs
    assert b.handled
    c.pull("work")
    change(a, "a", "b", "c", but=("b",))
    world.run(1.0)
    while c.places:
        c.answer("done")
    world.run(0.5)
    assert all(a.answers[call].failure is None for call in calls)
    c.settle_job(Outcome.ACCEPTED)
    world.run(0.5)
    assert work.accepted == 1


def test_a_call_that_only_a_revoked_peer_served_waits_for_another() -> None:
    world, (a, b) = started("a", "b", trusted=("a", "b"))
    b.serve("resize", lambda _: None)
    world.run(0.5)
    call = a.call("resize", "x", timeout=2.0)
    world.run(0.5)
    change(a, "a", "b", but=("b",))
    world.run(0.1)
    assert call not in a.answers
    world.run(3.0)
    assert a.answers[call].failure is CallFailure.DEADLINE


def test_verdicts_on_what_came_from_a_revoked_peer_lead_nowhere() -> None:
    world, (a, b) = started("a", "b", trusted=("a", "b"))
    a.serve("slow", lambda _: None)
    world.run(0.5)
    b.call("slow", "x")
    world.run(0.5)
    assert a.places
    change(a, "a", "b", but=("b",))
    world.run(0.1)
    a.answer("too late")
    world.run(1.0)
    change(a, "a", "b")
    world.run(10.0)
    assert a.engine.peers()


def test_a_change_that_concerns_nobody_cuts_nobody_off() -> None:
    world, (a, b) = started("a", "b", trusted=("a", "b"))
    links = a.engine.statistics().links[b.id].links
    change(a, "a", "b", rules='default = "allow"')
    world.run(5.0)
    assert a.engine.statistics().links[b.id].links == links
    assert not audited(a, AuditKind.REVOKED)


def test_a_key_stands_for_the_id_that_is_hashed_of_it() -> None:
    key, other = NodeKey.of(bytes(32)), NodeKey.of(bytes(range(32)))
    trusting = Trust({"one": to_text(key.public)})
    assert trusting.admits(key.id)
    assert not trusting.admits(other.id)
    assert not trusting.admits(key_of(0).id)


def test_who_has_many_keys_that_are_not_listed_uses_up_nobodys_share() -> None:
    options = NodeOptions(proofs_burst=20, proofs_per_second=5.0)
    world = World(options, secured=True)
    world.trusts["a"] = trust("a", "b")
    a = world.host("a")
    for number in range(10):  # connections, fewer than are looked at
        for attempt in range(8):
            key = NodeKey.of(bytes([number, attempt]) * 16)
            tell(a, inbound(number), by(key, hello(key.id, a), inbound(number)), link=LINK)
    assert a.engine.statistics().proofs_checked == 10
    b = world.host("b")
    b.do(CandidateFound("mdns", a.id, "a", (a.endpoint,)))
    world.run(1.0)
    assert [view.name for view in a.engine.peers()] == ["b"]
