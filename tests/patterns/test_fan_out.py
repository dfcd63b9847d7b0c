"""Fan-outs between whole nodes on a simulated network."""

from tests.engines import World
from tests.patterns.gathering import cameras, fan_out, join, leave
from zmesh.actions import DeliverGroup, FanOutEnded, MemberState, SendPackets
from zmesh.events import CloseNode, DrainNode, SettleDeliveries
from zmesh.message import FailureKind, Outcome, Tag, extra
from zmesh.options import LinkOptions, NodeOptions
from zmesh.testing.network import Weather


def test_every_member_gets_the_message_once_and_the_report_says_so() -> None:
    world, (a, b, c, d) = cameras("a", "b", "c", "d")
    leave(d)
    world.run(0.1)
    report = fan_out(a, "firmware")
    world.run_until(lambda: report.ended is not None, 1.0)
    assert (report.accepted, report.failed, report.pending) == (["b", "c"], [], [])
    assert [host.grouped for host in (a, b, c, d)] == [[], *[[("cameras", "firmware")]] * 2, []]
    assert a.engine.statistics().fan_outs == 0
    assert report.standings["b"].reason == ""


def test_this_node_counts_where_it_is_a_member() -> None:
    world = World()
    a = world.host("a")
    join(a)
    report = fan_out(a, "note to self")
    world.run(0.1)
    assert report.ended == FanOutEnded(report.number)
    assert (report.accepted, a.grouped) == (["a"], [("cameras", "note to self")])


def test_the_body_is_encoded_once_and_shared_by_all_who_get_it() -> None:
    world, (a, *_) = cameras("a", "b", "c")
    report = fan_out(a, "x" * 40_000)  # travels as a part of its own
    world.run_until(lambda: report.ended is not None, 1.0)
    parts = [
        part for action in a.actions if isinstance(action, SendPackets)
        for packet in action.packets for part in packet if len(part) == 40_000
    ]  # fmt: skip
    assert len(parts) == 2
    assert parts[0] is parts[1]


def test_a_group_nobody_is_in_is_reported_at_once_without_members() -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    report = fan_out(a, "firmware")
    world.run(0.0)
    assert report.ended == FanOutEnded(report.number)
    assert report.standings == {}


def test_progress_is_told_while_it_runs() -> None:
    world, (a, b, _) = cameras("a", "b", "c")
    b.accepts = False
    report = fan_out(a, "firmware")
    world.run(0.5)
    assert (report.accepted, report.pending, report.ended) == (["c"], ["b"], None)
    assert report.standings["b"].reason == "it has not answered yet"


def test_who_does_not_answer_is_pending_at_the_deadline() -> None:
    world, (a, b, _) = cameras("a", "b", "c")
    b.accepts = False
    report = fan_out(a, "firmware", timeout=2.0)
    took = world.run_until(lambda: report.ended is not None)
    assert 1.9 < took < 2.1
    assert (report.accepted, report.failed, report.pending) == (["c"], [], ["b"])


def test_who_rejects_has_failed_with_its_reason() -> None:
    world, (a, b, _) = cameras("a", "b", "c")
    b.accepts = False
    report = fan_out(a, "firmware")
    world.run(0.1)
    [delivery] = [d for x in b.actions if isinstance(x, DeliverGroup) for d in x.deliveries]
    first, last = delivery.first_seq, delivery.last_seq
    b.do(SettleDeliveries(delivery.source, first, last, Outcome.REJECTED, "wrong model"))
    world.run(0.1)
    assert report.ended
    assert (report.accepted, report.failed) == (["c"], ["b"])
    standing = report.standings["b"]
    assert (standing.failure, standing.reason) == (FailureKind.REJECTED, "wrong model")


def test_a_handler_that_keeps_failing_ends_as_a_dead_letter() -> None:
    world, (a, b) = cameras("a", "b", world=World(NodeOptions(attempts_max=3)))
    b.group_verdict = Outcome.MODIFIED
    report = fan_out(a, "firmware")
    world.run_until(lambda: report.ended is not None)
    assert len(b.grouped) == 3
    assert report.standings["b"].failure is FailureKind.DEAD_LETTERED
    assert [letter.topic for letter in a.engine.dead_letters()] == ["cameras"]
    assert [d.records[0] for x in b.actions if isinstance(x, DeliverGroup) for d in x.deliveries]
    attempts = [
        extra(d.records[0], Tag.ATTEMPT)
        for x in b.actions if isinstance(x, DeliverGroup) for d in x.deliveries
    ]  # fmt: skip
    assert attempts == [None, 2, 3]


def test_what_was_given_back_unhandled_comes_again_uncounted() -> None:
    world, (a, b) = cameras("a", "b")
    b.group_verdict = Outcome.RELEASED
    report = fan_out(a, "firmware")
    world.run(0.02)
    b.group_verdict = Outcome.ACCEPTED
    world.run_until(lambda: report.ended is not None, 1.0)
    assert (report.accepted, report.standings["b"].attempts) == (["b"], 1)
    assert len(b.grouped) == 2


def test_a_member_that_restarts_gets_it_again_as_soon_as_it_is_back() -> None:
    world, (a, b) = cameras("a", "b")
    b.accepts = False
    report = fan_out(a, "firmware")
    world.run(0.5)
    b.kill()
    world.run(3.0)
    assert report.standings["b"].reason.startswith("it is gone: ")
    again = world.host("b")
    world.introduce(a, again)
    join(again)
    took = world.run_until(lambda: report.ended is not None)
    assert took < 2.0
    assert report.accepted == ["b"]
    assert report.standings["b"].attempts == 2  # the first process may have begun
    assert again.grouped == [("cameras", "firmware")]


def test_a_member_that_restarts_before_it_is_missed_gets_it_again() -> None:
    world, (a, b) = cameras("a", "b")
    b.accepts = False
    report = fan_out(a, "firmware")
    world.run(0.5)
    b.kill()
    again = world.host("b")
    world.introduce(a, again)
    join(again)
    world.run_until(lambda: report.ended is not None)
    assert (report.accepted, again.grouped) == (["b"], [("cameras", "firmware")])


def test_a_process_under_another_id_takes_the_place_of_one_of_its_name() -> None:
    world, (a, b, _) = cameras("a", "b", "c")
    b.accepts = False
    report = fan_out(a, "firmware")
    world.run(0.5)
    b.kill()
    world.run(5.0)
    stranger = world.host("d")
    twin = world.host("twin", known_as="b")
    for host in (stranger, twin):
        world.introduce(a, host)
    join(stranger, twin)
    world.run_until(lambda: report.ended is not None)
    assert sorted(report.standings) == ["b", "c"]
    assert (report.accepted, report.standings["b"].node) == (["b", "c"], twin.id)
    assert (twin.grouped, stranger.grouped) == ([("cameras", "firmware")], [])


def test_a_twin_that_is_there_before_the_loss_is_sure_takes_the_place_then() -> None:
    world, (a, b) = cameras("a", "b")
    b.accepts = False
    report = fan_out(a, "firmware")
    world.run(0.5)
    b.kill()
    world.run(0.1)  # its session lingers still
    twin = world.host("twin", known_as="b")
    world.introduce(a, twin)
    join(twin)
    world.run_until(lambda: report.ended is not None, 5.0)
    assert (report.accepted, report.standings["b"].node) == (["b"], twin.id)


def test_a_twin_takes_the_place_though_nothing_was_on_its_way_when_the_session_ended() -> None:
    world, (a, b) = cameras("a", "b")
    b.group_verdict = Outcome.RELEASED
    report = fan_out(a, "firmware")
    world.run(0.02)  # it was given back, and waits to be sent again
    b.kill()
    world.run(0.1)
    twin = world.host("twin", known_as="b")
    world.introduce(a, twin)
    join(twin)
    world.run_until(lambda: report.ended is not None, 5.0)
    assert (report.accepted, report.standings["b"].node) == (["b"], twin.id)


def test_a_member_behind_a_partition_gets_it_when_that_heals() -> None:
    world, (a, b, _) = cameras("a", "b", "c")
    world.part(a, b)
    report = fan_out(a, "firmware", timeout=300.0)
    world.run(40.0)
    assert (report.accepted, report.pending) == (["c"], ["b"])
    assert report.standings["b"].reason.startswith("it is gone: ")
    world.join(a, b)
    world.run_until(lambda: report.ended is not None, 60.0)
    assert (report.accepted, b.grouped) == (["b", "c"], [("cameras", "firmware")])


def test_a_process_that_took_it_is_not_given_it_again_by_another_session() -> None:
    options = NodeOptions(link=LinkOptions(session_linger=4.0))
    world, (a, b) = cameras("a", "b", world=World(options))
    b.accepts = False
    report = fan_out(a, "firmware", timeout=300.0)
    world.run(0.5)
    world.part(a, b)
    world.run(30.0)
    [delivery] = [d for x in b.actions if isinstance(x, DeliverGroup) for d in x.deliveries]
    world.join(a, b)
    world.run(30.0)
    assert b.grouped == [("cameras", "firmware")]
    assert b.engine.statistics().duplicate_group_messages == 1
    first, last = delivery.first_seq, delivery.last_seq
    b.do(SettleDeliveries(delivery.source, first, last, Outcome.ACCEPTED))
    world.run_until(lambda: report.ended is not None, 5.0)
    assert report.accepted == ["b"]
    assert b.engine.statistics().group_messages == 0


def test_the_outcome_of_what_was_handled_meanwhile_is_told_to_the_new_session() -> None:
    options = NodeOptions(link=LinkOptions(session_linger=4.0))
    for verdict, state in (
        (Outcome.ACCEPTED, MemberState.ACCEPTED),
        (Outcome.REJECTED, MemberState.FAILED),
    ):
        world, (a, b) = cameras("a", "b", world=World(options))
        b.accepts = False
        report = fan_out(a, "firmware", timeout=300.0)
        world.run(0.5)
        world.part(a, b)
        world.run(10.0)
        [delivery] = [d for x in b.actions if isinstance(x, DeliverGroup) for d in x.deliveries]
        first, last = delivery.first_seq, delivery.last_seq
        b.do(SettleDeliveries(delivery.source, first, last, verdict))
        world.run(20.0)
        world.join(a, b)
        world.run_until(lambda report=report: report.ended is not None, 60.0)  # type: ignore[misc]
        assert report.standings["b"].state is state
        assert b.grouped == [("cameras", "firmware")]


def test_who_joins_late_is_left_out_unless_asked_for() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    join(b)
    world.run(0.1)
    b.accepts = False
    without = fan_out(a, "early", timeout=5.0)
    report = fan_out(a, "all", timeout=5.0, include_late=True)
    world.run(1.0)
    join(c)
    world.run(1.0)
    assert c.grouped == [("cameras", "all")]
    assert (report.accepted, report.pending, report.ended) == (["c"], ["b"], None)
    took = world.run_until(lambda: report.ended is not None)
    assert 2.9 < took < 3.1
    assert sorted(report.standings) == ["b", "c"]
    assert sorted(without.standings) == ["b"]


def test_with_late_members_it_lasts_until_the_deadline_though_all_accepted() -> None:
    world, (a, _) = cameras("a", "b")
    report = fan_out(a, "firmware", timeout=5.0, include_late=True)
    world.run(4.9)
    assert (report.accepted, report.ended) == (["b"], None)
    world.run(0.2)
    assert report.ended == FanOutEnded(report.number)


def test_a_member_that_leaves_the_group_is_waited_for_and_says_why() -> None:
    world, (a, b) = cameras("a", "b")
    leave(b)  # on its way when the fan-out begins
    report = fan_out(a, "firmware")
    world.run(1.0)
    assert (report.pending, report.standings["b"].reason) == (["b"], "it is not in the group")
    assert not b.grouped
    join(b)
    world.run_until(lambda: report.ended is not None, 1.0)
    assert (report.accepted, b.grouped) == (["b"], [("cameras", "firmware")])


def test_cancelling_takes_back_what_has_not_arrived() -> None:
    world, (a, b, c) = cameras("a", "b", "c")
    world.network.set_weather(a.index, b.index, Weather(loss=1.0))
    report = fan_out(a, "firmware")
    world.run(0.1)
    report.cancel()
    world.run(0.1)
    world.network.set_weather(a.index, b.index, None)
    world.run(10.0)
    assert (b.grouped, c.grouped) == ([], [("cameras", "firmware")])
    assert report.ended is None
    statistics = a.engine.statistics()
    assert (statistics.fan_outs, statistics.queued_messages) == (0, 0)


def test_what_has_not_arrived_by_the_deadline_does_not_arrive_later() -> None:
    world, (a, b) = cameras("a", "b")
    world.network.set_weather(a.index, b.index, Weather(loss=1.0))
    report = fan_out(a, "firmware", timeout=1.0)
    world.run(2.0)
    assert (report.pending, report.ended) == (["b"], FanOutEnded(report.number))
    world.network.set_weather(a.index, b.index, None)
    world.run(10.0)
    assert b.grouped == []


def test_a_member_whose_queue_is_full_gets_it_when_there_is_room() -> None:
    options = NodeOptions(link=LinkOptions(queued_messages_max=3))
    world, (a, b, c) = cameras("a", "b", "c", world=World(options))
    b.accepts = False
    ticket = a.post(b, "1", "2", "3")
    world.run(0.1)
    report = fan_out(a, "firmware")
    world.run(0.5)
    assert report.standings["b"].reason == "its queue is full"
    assert a.engine.statistics().links[b.id].queued_messages == 3
    assert report.accepted == ["c"]
    b.accepts = True
    for delivery in [d for x in b.actions for d in getattr(x, "deliveries", ())]:
        b.do(
            SettleDeliveries(
                delivery.source, delivery.first_seq, delivery.last_seq, Outcome.ACCEPTED
            )
        )
    world.run_until(lambda: report.ended is not None, 1.0)
    assert ticket.done
    assert (report.accepted, c.grouped) == (["b", "c"], b.grouped)


def test_a_time_to_live_ends_what_nobody_began_and_what_comes_too_late() -> None:
    world, (a, b, c) = cameras("a", "b", "c")
    b.accepts = False
    c.group_verdict = Outcome.RELEASED  # for ever
    report = fan_out(a, "firmware", ttl=1.0)
    world.run(0.1)
    b.kill()
    world.run(3.0)
    assert (report.failed, report.pending) == (["c"], ["b"])
    again = world.host("b")
    world.introduce(a, again)
    join(again)
    world.run_until(lambda: report.ended is not None)
    assert not again.grouped
    assert {n: s.failure for n, s in report.standings.items()} == dict.fromkeys(
        "bc", FailureKind.EXPIRED
    )


def test_a_body_nobody_may_send_fails_at_every_member() -> None:
    options = NodeOptions(link=LinkOptions(body_bytes_max=100))
    world, (a, *_) = cameras("a", "b", "c", world=World(options))
    report = fan_out(a, "x" * 101)
    world.run(0.0)
    assert report.failed == ["b", "c"]
    assert "101" in report.standings["b"].reason
    assert report.ended


def test_two_fan_outs_to_one_group_are_told_apart() -> None:
    world, (a, b, c) = cameras("a", "b", "c")
    b.group_verdict = Outcome.REJECTED
    one = fan_out(a, "one")
    two = fan_out(a, "two")
    three = fan_out(c, "three")
    world.run(0.5)
    for report in (one, two, three):
        assert (report.failed, report.accepted) == (["b"], ["c"])
    assert sorted(b.grouped) == [("cameras", text) for text in ("one", "three", "two")]


def test_a_drain_waits_for_members_that_are_away() -> None:
    world, (a, b) = cameras("a", "b")
    b.accepts = False
    report = fan_out(a, "firmware", timeout=60.0)
    world.run(0.5)
    b.kill()
    world.run(5.0)
    assert a.engine.open_work() == (1, 0)
    a.do(DrainNode(world.queue.now + 2.0))
    world.run(1.0)
    again = world.host("b")
    world.introduce(a, again)
    join(again)
    world.run(0.9)
    assert report.accepted == ["b"]
    assert a.engine.open_work() == (0, 0)


def test_closing_ends_it() -> None:
    world, (a, b) = cameras("a", "b")
    b.accepts = False
    join(a)
    a.accepts = False
    report = fan_out(a, "firmware")
    world.run(0.1)
    a.do(CloseNode())
    world.run(0.1)
    assert report.ended == FanOutEnded(report.number, is_closed=True)
    assert report.pending == ["a", "b"]


def test_groups_are_told_apart() -> None:
    world, (a, b) = cameras("a", "b")
    join(a, group="others")
    world.run(0.1)
    reports = [fan_out(b, "x", group="others"), fan_out(b, "y"), fan_out(b, "z", group="others")]
    world.run(0.1)
    assert [report.accepted for report in reports] == [["a"], ["b"], ["a"]]
    assert a.grouped == [("others", "x"), ("others", "z")]
