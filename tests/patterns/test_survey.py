"""Surveys between whole nodes on a simulated network."""

import pytest

from tests.engines import Host, World, echo, reply
from tests.patterns.gathering import cameras, join, survey
from zmesh.actions import CallFailure, CancelRequest, SurveyEnded
from zmesh.events import CloseNode, DrainNode, Withdraw
from zmesh.message import Kind, Outcome, Record, head
from zmesh.options import LinkOptions, NodeOptions
from zmesh.testing.network import Weather


def providers(world: World, *names: str) -> list[Host]:
    """Return hosts of which all but the first answer "status" with their name."""
    hosts = world.mesh(*names)
    for host in hosts[1:]:
        host.serve("status", lambda _, name=host.name: reply(name))  # type: ignore[misc]
    world.run(0.1)
    return hosts


def never(_: Record) -> None:
    """Handle without an answer."""


def test_every_provider_is_asked_once_and_the_survey_ends_with_the_last_reply() -> None:
    world = World()
    a, b, _, _ = providers(world, "a", "b", "c", "d")
    answers = survey(a, "status")
    world.run(0.1)
    assert answers.replies == {"b": "b", "c": "c", "d": "d"}
    assert answers.ended == SurveyEnded(answers.number)
    assert len(b.handled) == 1
    statistics = a.engine.statistics()
    assert (statistics.surveys, statistics.queued_messages, statistics.late_replies) == (0, 0, 0)


def test_this_node_answers_as_well_where_it_provides_the_service() -> None:
    world = World()
    a = world.host("a")
    a.serve("status", echo)
    answers = survey(a, "status", "how are you")
    world.run(0.1)
    assert answers.replies == {"a": "how are you"}


def test_nobody_to_ask_is_told_at_once() -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    answers = survey(a, "status")
    world.run(0.0)
    assert answers.ended == SurveyEnded(answers.number, CallFailure.NO_PROVIDER)


def test_only_members_of_the_group_are_asked() -> None:
    world = World()
    a, b, c = providers(world, "a", "b", "c")
    join(b)
    join(a, c, group="others")
    world.run(0.1)
    answers = survey(a, "status", group="cameras")
    world.run(0.1)
    assert answers.replies == {"b": "b"}
    nobody = survey(a, "status", group="printers")
    world.run(0.0)
    assert nobody.ended == SurveyEnded(nobody.number, CallFailure.NO_PROVIDER)


def test_the_silent_fail_at_the_deadline_and_are_told_to_stop() -> None:
    world = World()
    a, b, _ = providers(world, "a", "b", "c")
    b.handlers["status"] = never
    answers = survey(a, "status", timeout=1.0)
    took = world.run_until(lambda: answers.ended is not None)
    assert 0.9 < took < 1.1
    assert (answers.replies, answers.failures) == ({"c": "c"}, {"b": CallFailure.DEADLINE})
    world.run(0.1)
    assert len(b.ordered(CancelRequest)) == 1


@pytest.mark.parametrize(
    ("count", "quorum", "needed"),
    [(2, None, 2), (None, 0.5, 3), (None, 0.0, 1), (None, 0.75, 4), (3, 0.25, 2), (9, None, 4)],
)
def test_enough_replies_end_it_and_stop_the_rest(
    count: int | None, quorum: float | None, needed: int
) -> None:
    world = World()
    a, *others = providers(world, "a", "b", "c", "d", "e")
    for host in others:
        host.handlers["status"] = never
    answers = survey(a, "status", timeout=60.0, count=count, quorum=quorum)
    world.run(0.1)
    for number, host in enumerate(others, 1):
        assert (answers.ended is None) is (number <= needed)
        if number <= needed:
            host.answer(host.name)
            world.run(0.1)
    assert answers.ended == SurveyEnded(answers.number)
    assert (len(answers.replies), answers.failures) == (needed, {})
    assert sum(len(host.ordered(CancelRequest)) for host in others) == 4 - needed


def test_cancelling_stops_those_at_work() -> None:
    world = World()
    a, b = providers(world, "a", "b")
    b.handlers["status"] = never
    answers = survey(a, "status", timeout=60.0)
    world.run(0.1)
    answers.cancel()
    world.run(0.1)
    assert len(b.ordered(CancelRequest)) == 1
    b.answer("too late")
    world.run(0.1)
    assert (answers.all, answers.ended) == ([], None)
    assert a.engine.statistics().late_replies == 1


def test_providers_that_fail_are_told_each_with_its_reason() -> None:
    world = World()
    a, b, c, d, e = providers(world, "a", "b", "c", "d", "e")
    b.handlers["status"] = lambda _: (head(Kind.FAILURE), "", b"it broke")
    c.handlers["status"] = lambda _: Outcome.REJECTED
    d.handlers["status"] = lambda _: Outcome.RELEASED
    e.handlers["status"] = never
    answers = survey(a, "status", timeout=60.0)
    world.run(0.1)
    e.kill()
    world.run_until(lambda: answers.ended is not None, 5.0)
    assert answers.replies == {}
    assert answers.failures == {
        "b": CallFailure.REMOTE_ERROR, "c": CallFailure.REJECTED, "d": CallFailure.REJECTED,
        "e": CallFailure.PEER_LOST,
    }  # fmt: skip
    assert len(b.handled) == len(c.handled) == len(d.handled) == 1, "a survey asks once"


def test_a_provider_that_withdraws_says_so() -> None:
    world = World()
    a, b = providers(world, "a", "b")
    b.do(Withdraw("status"))
    answers = survey(a, "status")  # before the news is there
    world.run(0.1)
    assert answers.failures == {"b": CallFailure.REJECTED}
    assert "not provided here" in answers.all[0].reason


def test_who_drains_is_not_asked() -> None:
    world = World()
    a, b, _ = providers(world, "a", "b", "c")
    b.do(DrainNode(world.queue.now + 60.0))
    world.run(0.1)
    answers = survey(a, "status")
    world.run(0.1)
    assert answers.replies == {"c": "c"}


def test_who_has_a_full_queue_is_not_asked() -> None:
    world = World(NodeOptions(link=LinkOptions(queued_messages_max=3)))
    a, b, _ = providers(world, "a", "b", "c")
    b.accepts = False
    a.post(b, "1", "2", "3")
    world.run(0.1)
    answers = survey(a, "status")
    world.run(0.1)
    assert (answers.replies, answers.failures) == ({"c": "c"}, {"b": CallFailure.REJECTED})
    assert answers.ended


def test_a_body_nobody_may_send_fails_at_every_provider() -> None:
    world = World(NodeOptions(link=LinkOptions(body_bytes_max=100)))
    a, *_ = providers(world, "a", "b", "c")
    answers = survey(a, "status", "x" * 101)
    world.run(0.0)
    assert answers.failures == dict.fromkeys("bc", CallFailure.REJECTED)
    assert answers.ended == SurveyEnded(answers.number)


def test_calls_and_surveys_at_once_do_not_take_each_others_answers() -> None:
    world = World()
    a, b, c = providers(world, "a", "b", "c")
    for host in (b, c):
        host.serve("echo", echo)
    world.run(0.1)
    calls = [a.call("echo", str(number)) for number in range(20)]
    surveys = [survey(a, "echo", f"s{number}") for number in range(20)]
    world.run(0.5)
    for number, call in enumerate(calls):
        record = a.answers[call].record
        assert record is not None
        assert bytes(record[2]).decode() == str(number)
    for number, answers in enumerate(surveys):
        assert answers.replies == dict.fromkeys("bc", f"s{number}")


def test_a_survey_that_is_late_already_ends() -> None:
    world = World()
    a, b = providers(world, "a", "b")
    b.handlers["status"] = never
    answers = survey(a, "status", timeout=0.0)
    world.run(0.1)
    assert answers.failures == {"b": CallFailure.DEADLINE}
    assert answers.ended


def test_a_partition_costs_only_those_behind_it() -> None:
    world = World()
    a, b, _ = providers(world, "a", "b", "c")
    world.network.set_weather(a.index, b.index, Weather(loss=1.0))
    answers = survey(a, "status", timeout=1.0)
    world.run(1.1)
    assert (answers.replies, answers.failures) == ({"c": "c"}, {"b": CallFailure.DEADLINE})
    world.network.set_weather(a.index, b.index, None)
    world.run(5.0)
    assert not b.handled


def test_closing_ends_it() -> None:
    world, (a, b) = cameras("a", "b")
    b.serve("status", never)
    world.run(0.1)
    answers = survey(a, "status", timeout=60.0)
    world.run(0.1)
    a.do(CloseNode())
    world.run(0.1)
    assert answers.ended == SurveyEnded(answers.number, CallFailure.CLOSED)
