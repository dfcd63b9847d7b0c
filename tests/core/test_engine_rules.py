"""Rules in whole engines: each action allowed and refused, told to both sides, changed at work."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.core.trusts import audited, change, pair, refusal, trust
from tests.engines import Host, World, direct, job, publication, request
from tests.patterns.gathering import fan_out, join, survey
from tests.patterns.streaming import Application
from zmesh.actions import CallFailure, Delivery, PublicationsMissed
from zmesh.events import SettleDeliveries, Subscribe
from zmesh.map_events import OpenState, WriteState
from zmesh.message import FailureKind, Kind, Outcome, Tag, Ticket, head, with_extra
from zmesh.options import NodeOptions, TrustOptions
from zmesh.security.refusal import from_reason
from zmesh.security.rules import Action
from zmesh.security_errors import NotAllowed
from zmesh.terms import Terms, WhenFull

NOTHING = '[[rule]]\nname = "b"\nwho = "b"\njoin = "nowhere"\n'


@dataclass
class Attempt:
    """What one host tried."""

    happened: Callable[[], bool]
    reason: Callable[[], str]  # that the one who tried was told


def failure_of(ticket: Ticket) -> str:
    [failure] = ticket.failures
    assert failure.kind is FailureKind.REJECTED
    return failure.reason


def call(world: World, a: Host, b: Host) -> Attempt:
    a.serve("x.y")
    world.run(0.5)
    number = b.call("x.y", "hello")

    def reason() -> str:
        assert b.answers[number].failure is CallFailure.REJECTED
        return b.answers[number].reason

    return Attempt(lambda: a.handled == ["hello"], reason)


def stream(world: World, a: Host, b: Host) -> Attempt:
    serving, calling = Application(a), Application(b)
    serving.serve("x.y", lambda _: ["one", "two"])
    world.run(0.5)
    opened = calling.open("x.y")

    def reason() -> str:
        assert opened.end is not None
        assert opened.end.failure is CallFailure.REJECTED
        return opened.end.reason

    return Attempt(lambda: opened.parts == ["one", "two"], reason)


def ask(world: World, a: Host, b: Host) -> Attempt:
    a.serve("x.y")
    world.run(0.5)
    answers = survey(b, "x.y", "hello")

    def reason() -> str:
        [answer] = answers.all
        return answer.reason

    return Attempt(lambda: answers.replies == {"a": "hello"}, reason)


def publish(world: World, a: Host, b: Host) -> Attempt:
    a.subscribe(1, "x.>")
    world.run(0.5)
    ticket = b.publish("x.y", "news")
    return Attempt(lambda: a.heard == [("x.y", "news")], lambda: failure_of(ticket))


def push(world: World, a: Host, b: Host) -> Attempt:
    a.job_outcome = Outcome.ACCEPTED
    a.pull("x.y")
    world.run(0.5)
    ticket = b.push("x.y", "work")
    return Attempt(lambda: a.jobs == [("work", 1)], lambda: failure_of(ticket))


def fan(world: World, a: Host, b: Host) -> Attempt:
    join(a, group="x.y")
    world.run(0.5)
    report = fan_out(b, "all", group="x.y")

    def reason() -> str:
        assert report.failed == ["a"]
        return report.standings["a"].reason

    return Attempt(lambda: a.grouped == [("x.y", "all")], reason)


def send(_: World, a: Host, b: Host) -> Attempt:
    ticket = b.post(a, "hi")
    return Attempt(lambda: a.inbox == ["hi"], lambda: failure_of(ticket))


SENT = {
    "call": (call, "x.y"),
    "stream": (stream, "x.y"),
    "survey": (ask, "x.y"),
    "publish": (publish, "x.y"),
    "push": (push, "x.y"),
    "fan_out": (fan, "x.y"),
    "send": (send, "a"),
}
ACTIONS = {"stream": "call", "survey": "call"}


@pytest.mark.parametrize("what", SENT)
def test_what_a_rule_allows_a_peer_does(what: str) -> None:
    attempt, name = SENT[what]
    action = ACTIONS.get(what, what)
    world, a, b = pair(f'[[rule]]\nwho = "b"\n{action} = "{name}"\n')
    tried = attempt(world, a, b)
    world.run(3.0)
    assert tried.happened()
    assert not audited(a)


@pytest.mark.parametrize("what", SENT)
def test_what_no_rule_allows_is_refused_and_both_sides_are_told(what: str) -> None:
    attempt, name = SENT[what]
    action = ACTIONS.get(what, what)
    world, a, b = pair(NOTHING)
    tried = attempt(world, a, b)
    world.run(3.0)
    assert not tried.happened()
    assert refusal(tried.reason()) == (action, name, "rules.toml: default deny")
    told = audited(a)
    assert {(each.peer, each.rule) for each in told} == {("b", "rules.toml: default deny")}
    assert f"{action} '{name}'" in {each.detail for each in told}


@pytest.mark.parametrize("what", SENT)
def test_what_a_rule_denies_is_refused_whatever_others_allow(what: str) -> None:
    attempt, name = SENT[what]
    action = ACTIONS.get(what, what)
    rules = (
        f'default = "allow"\n[[rule]]\nwho = "*"\n{action} = ">"\n'
        f'[[rule]]\nname = "not b"\nwho = "b"\ndeny = {{ {action} = "{name}" }}\n'
    )
    world, a, b = pair(rules)
    tried = attempt(world, a, b)
    world.run(3.0)
    assert not tried.happened()
    assert refusal(tried.reason())[2] == "rules.toml: rule 2 'not b' denies it"


# What peers tell of themselves


def serve(world: World, a: Host, b: Host) -> Callable[[], bool]:
    b.serve("x.y")
    world.run(0.5)
    number = a.call("x.y", "hello")
    world.run(0.5)
    return lambda: number in a.answers and a.answers[number].failure is None


def subscribe(world: World, a: Host, b: Host) -> Callable[[], bool]:
    b.subscribe(1, "x.y")
    world.run(0.5)
    a.publish("x.y", "news")
    return lambda: b.heard == [("x.y", "news")]


def filtering(world: World, a: Host, b: Host) -> Callable[[], bool]:
    b.do(Subscribe(1, "x.y", Terms(when_full=WhenFull.LATEST)))
    world.run(0.5)
    a.publish("x.y", "news")
    return lambda: b.heard == [("x.y", "news")]


def pull(world: World, a: Host, b: Host) -> Callable[[], bool]:
    b.job_outcome = Outcome.ACCEPTED
    b.pull("x.y")
    world.run(0.5)
    a.push("x.y", "work")
    return lambda: b.jobs == [("work", 1)]


def member(world: World, a: Host, b: Host) -> Callable[[], bool]:
    join(b, group="x.y")
    world.run(0.5)
    fan_out(a, "all", group="x.y")
    return lambda: b.grouped == [("x.y", "all")]


def share(world: World, a: Host, b: Host) -> Callable[[], bool]:
    a.do(OpenState("x.y", world.wall_ms))
    b.do(OpenState("x.y", world.wall_ms))
    world.run(0.5)
    a.do(WriteState("x.y", "key", 0, b"value", world.wall_ms))
    b.do(WriteState("x.y", "other", 0, b"value", world.wall_ms))
    world.run(0.5)

    def happened() -> bool:
        shown = [host.engine.shared_state.map("x.y") for host in (a, b)]
        return all(each is not None and {"key", "other"} <= set(each) for each in shown)

    return happened


TOLD = {
    "serve": serve, "subscribe": subscribe, "filter": filtering, "pull": pull, "join": member,
    "share": share,
}  # fmt: skip


@pytest.mark.parametrize("what", TOLD)
def test_an_interest_that_a_rule_allows_counts(what: str) -> None:
    action = {"filter": "subscribe"}.get(what, what)
    world, a, b = pair(f'[[rule]]\nwho = "b"\n{action} = "x.*"\n')
    happened = TOLD[what](world, a, b)
    world.run(2.0)
    assert happened()
    assert not audited(a)


@pytest.mark.parametrize("what", TOLD)
def test_an_interest_that_no_rule_allows_is_not_listed_and_both_sides_are_told(what: str) -> None:
    action = {"filter": "subscribe"}.get(what, what)
    world, a, b = pair('[[rule]]\nwho = "b"\ncall = "elsewhere"\n')
    happened = TOLD[what](world, a, b)
    world.run(2.0)
    assert not happened()
    [here, *_] = audited(a)
    assert (here.peer, here.detail) == ("b", f"{action} 'x.y'")
    [there] = audited(b)
    assert there.peer == "a"
    assert there.detail == f"it does not let this node {action} 'x.y'"
    assert there.rule == "rules.toml: default deny"
    if what == "share":
        own = a.engine.shared_state.map("x.y")
        assert own is not None
        assert "other" not in own


@pytest.mark.parametrize("what", [each for each in TOLD if each != "share"])
def test_who_gains_a_permission_is_listed_without_a_new_link_and_who_loses_it_is_dropped(
    what: str,
) -> None:
    action = {"filter": "subscribe"}.get(what, what)
    world, a, b = pair(NOTHING)
    happened = TOLD[what](world, a, b)
    world.run(1.0)
    links = a.engine.statistics().links[b.id].links
    allowed = f'[[rule]]\nwho = "b"\n{action} = "x.y"\n'
    change(a, "a", "b", rules=allowed)
    world.run(0.5)
    TOLD[what](world, a, b)
    world.run(2.0)
    assert happened() or b.heard or b.jobs or b.grouped or b.handled
    change(a, "a", "b", rules=NOTHING)
    world.run(0.5)
    [view] = a.engine.peers()
    assert not view.services | view.topics | view.groups
    handled = [*b.heard, *b.jobs, *b.grouped, *b.handled]
    TOLD[what](world, a, b)
    world.run(2.0)
    assert [*b.heard, *b.jobs, *b.grouped, *b.handled] == handled
    assert a.engine.statistics().links[b.id].links == links


def test_a_call_that_waits_is_made_when_its_provider_may_serve() -> None:
    world, a, b = pair('[[rule]]\nwho = "b"\nserve = "x.y"\n')
    b.serve("x.y", lambda _: None)
    world.run(0.5)
    number = a.call("x.y", "hello", timeout=20.0)
    world.run(0.5)
    b.kill()
    world.run(0.5)
    assert number not in a.answers
    change(a, "a", "b", rules=NOTHING)
    again = world.host("b")
    again.serve("x.y")
    world.introduce(a, again)
    world.run(3.0)
    assert number not in a.answers
    change(a, "a", "b", rules='[[rule]]\nwho = "b"\nserve = "x.y"\n')
    world.run(1.0)
    assert a.answers[number].failure is None


# A subscription brings what it covers


def test_a_subscription_that_would_bring_what_is_denied_is_refused() -> None:
    rules = '[[rule]]\nwho = "b"\nsubscribe = ">"\ndeny = { subscribe = "secret.*" }\n'
    world, a, b = pair(rules)
    for token, pattern in enumerate((">", "secret.x", "*.x", "open.>", "secret.x.y"), 1):
        b.subscribe(token, pattern)
    world.run(0.5)
    [view] = a.engine.peers()
    assert view.topics == {"open.>", "secret.x.y"}


def test_a_subscription_that_more_than_one_pattern_allows_together_is_refused() -> None:
    world, a, b = pair('[[rule]]\nwho = "b"\nsubscribe = ["*", "*.>"]\n')
    b.subscribe(1, ">")
    b.subscribe(2, "a.>")
    world.run(0.5)
    [view] = a.engine.peers()
    assert view.topics == {"a.>"}


def test_an_interest_taken_back_is_not_listed_when_it_would_be_allowed() -> None:
    world, a, b = pair(NOTHING)
    b.subscribe(1, "x.y")
    world.run(0.5)
    b.unsubscribe(1)
    world.run(0.5)
    change(a, "a", "b", rules='default = "allow"')
    world.run(0.5)
    [view] = a.engine.peers()
    assert not view.topics


# What rules have nothing against


def test_without_rules_whoever_is_listed_does_everything() -> None:
    world, a, b = pair(None)
    for what in ("send", "call", "publish"):
        tried = SENT[what][0](world, a, b)
        world.run(1.0)
        assert tried.happened()


def test_a_node_does_to_itself_what_it_likes() -> None:
    world, a, _ = pair('[[rule]]\nwho = "b"\ncall = "x"\n')
    a.serve("x.y")
    a.subscribe(1, "x.y")
    world.run(0.1)
    number = a.call("x.y", "hello")
    a.publish("x.y", "news")
    world.run(0.5)
    assert a.answers[number].failure is None
    assert a.heard == [("x.y", "news")]


def test_what_its_own_rules_forbid_is_refused_before_anything_is_sent() -> None:
    _, a, b = pair('[[rule]]\nwho = "a"\ncall = "x"\n')
    a.engine.guard.check_own(Action.CALL, "x")
    with pytest.raises(NotAllowed, match="default deny") as caught:
        a.engine.guard.check_own(Action.CALL, "y")
    assert (caught.value.action, caught.value.name) == ("call", "y")
    b.engine.guard.check_own(Action.CALL, "y")  # it has no rules


# Refusals and what was under way


def test_a_batch_is_refused_in_part() -> None:
    world, a, b = pair('[[rule]]\nwho = "b"\npublish = ["x.a", "x.c"]\n')
    a.subscribe(1, ">")
    world.run(0.5)
    tickets = [b.publish(topic, topic) for topic in ("x.a", "x.b", "x.b", "x.c")]
    world.run(1.0)
    assert [topic for topic, _ in a.heard] == ["x.a", "x.c"]
    assert [len(ticket.failures) for ticket in tickets] == [0, 1, 1, 0]
    assert all(ticket.done for ticket in tickets)


def test_a_job_that_is_forbidden_is_a_dead_letter_and_takes_no_room_of_others() -> None:
    world = World(secured=True)
    rules = '[[rule]]\nwho = "c"\npush = "work"\n'
    world.trusts["a"] = trust("a", "b", "c", rules=rules)
    a, b, c = world.mesh("a", "b", "c")
    a.pull("work", 1)
    world.run(0.5)
    tickets = [b.push("work", f"forbidden {number}") for number in range(100)]
    world.run(1.0)
    good = c.push("work", "allowed")
    world.run(1.0)
    assert a.jobs == [("allowed", 1)]
    a.settle_job()
    world.run(5.0)
    assert good.accepted == 1
    assert all(ticket.done for ticket in tickets)
    assert refusal(failure_of(tickets[99]))[:2] == ("push", "work")
    assert len(b.engine.dead_letters()) == 100


def test_who_may_push_no_more_gives_its_room_back() -> None:
    world, a, b = pair('default = "allow"')
    a.pull("work", 1)
    world.run(0.5)
    b.push("work", "one")
    world.run(0.5)
    assert a.jobs == [("one", 1)]
    late = b.push("work", "two")
    change(a, "a", "b", rules=NOTHING)
    world.run(0.5)
    a.settle_job()
    world.run(2.0)
    assert refusal(failure_of(late))[0] == "push"
    change(a, "a", "b", rules='default = "allow"')
    world.run(0.5)
    b.push("work", "three")
    world.run(2.0)
    assert a.jobs == [("one", 1), ("three", 1)]


def test_a_stored_message_that_is_forbidden_is_a_dead_letter() -> None:
    world = World(secured=True)
    world.trusts["a"] = trust("a", "b", rules=NOTHING)
    a, b = world.host("a"), world.keep("b")
    world.introduce(a, b)
    world.run(3.0)
    post = b.post(a, "hi", durable=True, wall_ms=world.wall_ms)
    work = b.store("work", "job")
    a.pull("work")
    world.run(10.0)
    assert refusal(failure_of(post))[0] == "send"
    assert refusal(failure_of(work))[0] == "push"
    assert not a.inbox
    assert not a.jobs
    assert [letter.attempts for letter in b.engine.dead_letters()] == [1, 1]
    assert b.engine.stored_out == 0


def test_a_copy_of_a_stored_message_gets_the_outcome_of_the_first_whatever_rules_say_now() -> None:
    world, a, b = pair('default = "allow"')
    record = with_extra(direct("hi"), Tag.STORED, 7)
    first = Ticket()
    b.engine._turn.submit(b.engine._peers.get(a.id), 4, [record], first)  # type: ignore[arg-type]
    b.post(a, "wakes it")
    world.run(1.0)
    assert a.inbox == ["hi", "wakes it"]
    change(a, "a", "b", rules=NOTHING)
    world.run(0.1)
    again, forged = Ticket(), Ticket()
    b.engine._turn.submit(b.engine._peers.get(a.id), 4, [record], again)  # type: ignore[arg-type]
    news = with_extra(publication("x.y", "news"), Tag.STORED, 7)
    a.subscribe(1, "x.y")
    b.engine._turn.submit(b.engine._peers.get(a.id), 4, [news], forged)  # type: ignore[arg-type]
    b.post(a, "wakes it")
    world.run(1.0)
    assert (again.accepted, forged.accepted) == (1, 0)
    assert a.inbox == ["hi", "wakes it"]
    assert not a.heard


def test_a_request_that_comes_again_is_answered_whatever_rules_say_now() -> None:
    world, a, b = pair('default = "allow"')
    a.serve("x.y", lambda _: None)
    world.run(0.5)
    number = b.call("x.y", "hello")
    world.run(0.5)
    assert a.handled == ["hello"]
    change(a, "a", "b", rules=NOTHING)
    world.run(0.1)
    a.answer("done")
    world.run(1.0)
    assert b.answers[number].failure is None


def test_who_may_not_publish_does_not_end_subscriptions_by_what_was_missed() -> None:
    world, a, b = pair('[[rule]]\nwho = "b"\npublish = "y.>"\n')
    a.subscribe(1, "x.>")
    a.subscribe(2, "*.z")
    world.run(0.5)
    for token in (1, 2):
        record = with_extra((head(Kind.MISSED), "", b""), Tag.MISSED, (token, 5))
        ticket = Ticket()
        peer = b.engine._peers.get(a.id)
        b.engine._turn.submit(peer, 4, [record], ticket)  # type: ignore[arg-type]
        b.post(a, "wakes it")
    world.run(1.0)
    told = [a for a in a.ordered(PublicationsMissed) if isinstance(a, PublicationsMissed)]
    assert [each.counts for each in told] == [[(2, 5)]]


def test_an_application_cannot_reject_in_the_words_of_rules() -> None:
    world, a, b = pair(None)
    forged = 'NOT-ALLOWED ["send", "a", "rules.toml: rule 1"]'
    assert from_reason(forged) is not None

    def reject(delivery: Delivery) -> None:
        first, last = delivery.first_seq, delivery.last_seq
        a.do(SettleDeliveries(delivery.source, first, last, Outcome.REJECTED, forged))

    a._accept = reject  # type: ignore[method-assign]
    ticket = b.post(a, "hi")
    world.run(1.0)
    assert from_reason(failure_of(ticket)) is None


# Bounds


def test_no_more_decisions_are_remembered_than_allowed() -> None:
    options = NodeOptions(trust=TrustOptions(decisions_max=8))
    world, a, b = pair('[[rule]]\nwho = "b"\npublish = "x.>"\n', options=options)
    a.subscribe(1, ">")
    world.run(0.5)
    for number in range(50):
        b.publish(f"x.{number}")
    world.run(2.0)
    assert len(a.heard) == 50
    peer = a.engine._peers.get(b.id)
    assert peer is not None
    assert 0 < len(peer.decisions) <= 8


def test_forbidden_interests_count_as_what_a_peer_may_have() -> None:
    world, a, b = pair(NOTHING, options=NodeOptions(interest_max=10))
    for token in range(1, 50):
        b.subscribe(token, f"x.{token}")
    world.run(1.0)
    peer = a.engine._peers.get(b.id)
    assert peer is not None
    assert len(peer.forbidden) == 10
    assert a.engine.statistics().defects["interest"]


def test_what_is_refused_again_and_again_is_told_once_a_session() -> None:
    world, a, b = pair(NOTHING, options=NodeOptions(interest_max=10))
    peer = a.engine._peers.get(b.id)
    assert peer is not None
    for token in range(1, 50):
        for _ in range(5):
            b.subscribe(token, f"x.{token}")
            world.run(0.1)
            b.unsubscribe(token)
            world.run(0.1)
    assert len(audited(a)) == 49 * 5
    assert len(peer.refused) == len(audited(b)) == 10


def test_requests_are_refused_before_they_reach_a_handler_that_is_not_there() -> None:
    world, a, b = pair(NOTHING)
    peer = b.engine._peers.get(a.id)
    assert peer is not None
    ticket = Ticket()
    b.engine._turn.submit(peer, 4, [request("hidden"), job("hidden")], ticket)
    b.post(a, "wakes it")
    world.run(1.0)
    assert {each.detail for each in audited(a)} >= {"call 'hidden'", "push 'hidden'"}
