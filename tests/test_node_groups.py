"""Groups, fan-outs, surveys and presence between nodes on loopback."""

import asyncio
import logging
from collections.abc import Callable

import pytest

import zmesh
from tests.nodes import QUICK, nodes, read
from zmesh import Joined, Left, MemberState, Node, NodeOptions, Updated
from zmesh.face.fan_outs import FanOut


async def joined(node: Node, *names: str, group: str = "cameras") -> None:
    await node.peers.wait_for(group=group, count=len(names), timeout=10)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # statistics tell nobody when they change
            await asyncio.sleep(0.01)


# Groups and fan-outs


async def test_a_fan_out_reports_who_accepted() -> None:
    async with nodes("office", "one", "two") as (office, one, two):
        async with one.join("cameras") as first, two.join("cameras") as second:
            await joined(office, "one", "two")
            fan_out = office.fan_out("cameras", {"version": 7}, headers={"urgent": True})
            [a], [b] = await read(first, 1), await read(second, 1)
            report = await fan_out
            assert [each.name for each in report.accepted] in (["one", "two"], ["two", "one"])
            assert report.is_complete
            assert (a.body, b.body, a.topic, a.sender) == (
                {"version": 7}, {"version": 7}, "cameras", "office",
            )  # fmt: skip
            assert a.headers["urgent"] is True
        assert office.statistics().open_fan_outs == 0


async def test_members_are_those_who_joined_this_node_included() -> None:
    async with nodes("one", "two") as (one, two):
        async with two.join("cameras"), one.join("cameras"):
            await joined(one, "two")
            assert sorted(peer.name for peer in one.members("cameras")) == ["one", "two"]
            [me] = [peer for peer in one.members("cameras") if peer.name == "one"]
            assert (me.id, list(me.endpoints)) == (one.id, one.endpoints)
            assert one.members("printers") == []
        assert [peer.name for peer in one.members("cameras")] in (["two"], [])


async def test_refusals_and_failures_are_told_with_reasons() -> None:
    async with (
        nodes("office", "one", "two") as (office, one, two),
        one.join("cameras", settle="manual") as first,
        two.join("cameras") as second,
    ):
        await joined(office, "one", "two")
        fan_out = office.fan_out("cameras", "firmware")
        message = await anext(first)
        await message.reject("wrong model")

        async def fail() -> None:
            async for _ in second:
                raise OSError("disk full")

        for _ in range(QUICK.attempts_max):
            with pytest.raises(OSError, match="disk full"):
                await fail()
        report = await fan_out
        failed = {each.name: (each.failure, each.reason) for each in report.failed}
        assert failed["one"] == (zmesh.FailureKind.REJECTED, "wrong model")
        assert failed["two"][0] is zmesh.FailureKind.DEAD_LETTERED
        assert not report.is_complete
        assert [letter.topic for letter in office.dead_letters()] == ["cameras"]


async def test_progress_can_be_watched_and_the_silent_are_pending_at_the_end() -> None:
    async with (
        nodes("office", "one", "two") as (office, one, two),
        one.join("cameras") as first,
        two.join("cameras"),
    ):
        await joined(office, "one", "two")
        fan_out = office.fan_out("cameras", "firmware", timeout=2)
        await read(first, 1)
        seen = [(each.name, each.state) async for each in fan_out]
        assert seen == [("one", MemberState.ACCEPTED), ("two", MemberState.PENDING)]
        assert fan_out.done
        report = await fan_out
        assert [(each.name, each.reason) for each in report.pending] == [
            ("two", "it has not answered yet")
        ]
        assert [each.name async for each in fan_out] == ["one", "two"], "a loop sees all"


async def test_a_member_whose_process_is_replaced_gets_it() -> None:
    async with nodes("office", "one", "two") as (office, one, two):
        group = one.join("cameras")
        await group.__aenter__()
        await joined(office, "one")
        fan_out = office.fan_out("cameras", "firmware", timeout=20)
        await asyncio.sleep(0)
        await one.close()
        again = Node("one", peers=two.endpoints + office.endpoints, mdns=False, options=QUICK)
        async with again, again.join("cameras") as members:
            await read(members, 1)
            report = await fan_out
            assert [(each.name, each.id) for each in report.accepted] == [("one", again.id)]


async def test_late_members_get_it_where_they_are_asked_for() -> None:
    async with nodes("office", "one") as (office, one):
        fan_out = office.fan_out("cameras", "firmware", timeout=3, include_late=True)
        async with one.join("cameras") as members:
            await read(members, 1)
            report = await fan_out
            assert [each.name for each in report.accepted] == ["one"]


async def test_nobody_in_the_group_is_said_at_once() -> None:
    async with nodes("office", "one") as (office, one), one.join("printers"):
        await joined(office, "one", group="printers")
        with pytest.raises(zmesh.NoMembers, match=r"'camras'.*in sight: printers"):
            office.fan_out("camras", "firmware")


async def test_a_cancelled_wait_takes_the_message_back() -> None:
    async with nodes("office", "one") as (office, one), one.join("cameras") as members:
        await joined(office, "one")
        fan_out = office.fan_out("cameras", "firmware")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fan_out, 0.05)
        assert fan_out.done
        assert office.statistics().open_fan_outs == 0
        with pytest.raises(asyncio.CancelledError):
            await fan_out
        with pytest.raises(asyncio.CancelledError):
            async for _ in fan_out:
                pass
        assert [each.name for each in fan_out.report.pending] == ["one"]
        del members


async def test_a_cancelled_look_at_progress_leaves_it_alone() -> None:
    async with nodes("office", "one") as (office, one), one.join("cameras") as members:
        await joined(office, "one")
        fan_out = office.fan_out("cameras", "firmware")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(aiter(fan_out)), 0.01)
        await read(members, 1)
        assert (await fan_out).is_complete


async def test_closing_the_node_ends_it_with_the_reason() -> None:
    async with nodes("office", "one") as (office, one), one.join("cameras"):
        await joined(office, "one")
        fan_out = office.fan_out("cameras", "firmware")
        waiting = asyncio.ensure_future(_report(fan_out))
        await asyncio.sleep(0)
        await office.close()
        with pytest.raises(zmesh.Closed):
            await waiting
        with pytest.raises(zmesh.Closed):
            async for _ in fan_out:
                pass


async def _report(fan_out: FanOut) -> zmesh.FanOutReport:
    return await fan_out


async def test_a_fan_out_nobody_looks_at_says_in_the_log_who_did_not_accept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "zmesh"):
        async with nodes("office", "one") as (office, one), one.join("cameras"):
            await joined(office, "one")
            office.fan_out("cameras", "firmware", timeout=0.05)
            await until(lambda: not office.statistics().open_fan_outs)
    [record] = [r for r in caplog.records if "fan out incomplete" in r.getMessage()]
    assert "cameras" in record.getMessage()


async def test_what_nobody_read_goes_back_when_the_group_is_left() -> None:
    async with nodes("office", "one") as (office, one):
        async with one.join("cameras"):
            await joined(office, "one")
            fan_out = office.fan_out("cameras", "firmware", timeout=10)
            await until(lambda: one.statistics().engine.group_messages == 1)
        async with one.join("cameras") as again:
            assert [message.body for message in await read(again, 1)] == ["firmware"]
            assert (await fan_out).is_complete


async def test_a_node_that_joined_twice_gets_each_message_once_and_stays_until_the_last() -> None:
    async with nodes("office", "one") as (office, one):
        async with one.join("cameras") as first:
            async with one.join("cameras") as second:
                await joined(office, "one")
                fan_out = office.fan_out("cameras", "firmware")
                tasks = [asyncio.create_task(read(each, 1)) for each in (first, second)]
                done, waiting = await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
                assert (await fan_out).is_complete
                assert len(done) == 1
                for task in waiting:
                    task.cancel()
            assert [peer.name for peer in one.members("cameras")] == ["one"]
        assert one.members("cameras") == []


async def test_a_group_is_used_once_and_inside_its_block() -> None:
    async with nodes("one") as (one,):
        group = one.join("cameras")
        with pytest.raises(zmesh.UsageError):
            await anext(group)
        with pytest.raises(zmesh.UsageError):
            aiter(group)
        async with group:
            with pytest.raises(zmesh.UsageError):
                await group.__aenter__()


async def test_bounds_of_groups_and_fan_outs_are_told() -> None:
    options = NodeOptions(groups_max=1, fan_outs_max=1, surveys_max=1, attributes_max=1)
    async with nodes("one", options=options) as (one,):
        async with one.join("cameras"):
            with pytest.raises(zmesh.UsageError, match="1 groups"):
                await one.join("printers").__aenter__()
            fan_out = one.fan_out("cameras", "x")
            with pytest.raises(zmesh.UsageError, match="1 fan-outs"):
                one.fan_out("cameras", "y")
            fan_out.cancel()
            one.fan_out("cameras", "z").cancel()
        one.describe(a=1)
        with pytest.raises(zmesh.UsageError, match="1 attributes"):
            one.describe(b=2)
        one.describe(a=None, b=2)


@pytest.mark.parametrize("group", ["", 7, "x" * 2000, "\udc80"])
async def test_a_group_that_cannot_be_called_so_is_refused(group: str) -> None:
    async with nodes("one") as (one,):
        for use in (one.join, one.members, lambda name: one.fan_out(name, 1)):
            with pytest.raises(zmesh.InvalidOption, match="group"):
                use(group)
        with pytest.raises(zmesh.InvalidOption, match="group"):
            one.survey("status", group=group)


@pytest.mark.parametrize("seconds", [0, -1, None, "1", True, float("nan"), float("inf")])
async def test_a_deadline_that_cannot_be_kept_is_refused(seconds: float) -> None:
    async with nodes("one") as (one,), one.join("cameras"):
        with pytest.raises(zmesh.InvalidOption, match="timeout"):
            one.fan_out("cameras", 1, timeout=seconds)
        with pytest.raises(zmesh.InvalidOption, match="timeout"):
            one.survey("status", timeout=seconds)


# Surveys


async def test_all_providers_are_asked_and_their_replies_come_with_their_senders() -> None:
    async with nodes("desk", "one", "two") as (desk, one, two):
        for node in (one, two):

            @node.service("status")
            async def status(message: zmesh.Message, name: str = node.name) -> str:
                return f"{name} at {message.body}"

        await desk.peers.wait_for(service="status", count=2, timeout=10)
        survey = desk.survey("status", "noon", timeout=10)
        replies = {reply.sender: reply.body async for reply in survey}
        assert replies == {"one": "one at noon", "two": "two at noon"}
        assert survey.failures == ()
        assert desk.statistics().open_surveys == 0


async def test_leaving_the_loop_stops_those_who_still_work() -> None:
    async with nodes("desk", "quick", "slow") as (desk, quick, slow):
        begun, stopped = asyncio.Event(), asyncio.Event()

        @quick.service("status")
        async def once_the_other_is_at_work(_: zmesh.Message) -> str:
            await begun.wait()
            return "fine"

        @slow.service("status")
        async def never(_: zmesh.Message) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        await desk.peers.wait_for(service="status", count=2, timeout=10)
        async for reply in desk.survey("status", timeout=60):
            assert reply.body == "fine"
            break
        await asyncio.wait_for(stopped.wait(), 5)
        assert desk.statistics().open_surveys == 0
        begun.clear()
        stopped.clear()
        async for reply in desk.survey("status", timeout=60, count=1):
            assert reply.sender == "quick"
        await asyncio.wait_for(stopped.wait(), 5)


async def test_providers_without_a_reply_are_told_with_the_error_of_a_call() -> None:
    async with nodes("desk", "broken", "strict", "silent") as (desk, broken, strict, silent):

        @broken.service("status")
        async def breaks(_: zmesh.Message) -> None:
            raise ValueError("no sensor")

        @strict.service("status")
        async def refuses(_: zmesh.Message) -> None:
            raise zmesh.Reject("not you")

        @silent.service("status")
        async def waits(_: zmesh.Message) -> None:
            await asyncio.Event().wait()

        await desk.peers.wait_for(service="status", count=3, timeout=10)
        survey = desk.survey("status", timeout=2)
        assert [reply async for reply in survey] == []
        errors = {failure.name: failure.error for failure in survey.failures}
        assert isinstance(errors["broken"], zmesh.RemoteError)
        assert errors["broken"].type == "ValueError"
        assert isinstance(errors["strict"], zmesh.Rejected)
        assert isinstance(errors["silent"], zmesh.DeliveryTimeout)


async def test_nobody_to_ask_is_an_error_of_the_loop() -> None:
    async with nodes("desk", "one") as (desk, one):
        with pytest.raises(zmesh.NoProvider):
            await anext(aiter(desk.survey("status")))
        with pytest.raises(zmesh.NoMembers):
            await anext(aiter(desk.survey("status", group="cameras")))
        async with one.join("cameras"):
            await joined(desk, "one")
            with pytest.raises(zmesh.NoProvider):
                await anext(aiter(desk.survey("status", group="cameras")))


async def test_a_survey_is_asked_once_and_a_reply_is_not_settled() -> None:
    async with nodes("one") as (one,):

        @one.service("status")
        async def status(_: zmesh.Message) -> str:
            return "fine"

        survey = one.survey("status")
        async for reply in survey:
            with pytest.raises(zmesh.UsageError, match="not settled"):
                await reply.accept()
        with pytest.raises(zmesh.UsageError, match="asked already"):
            aiter(survey)


async def test_closing_ends_surveys_too() -> None:
    async with nodes("desk", "one") as (desk, one):

        @one.service("status")
        async def waits(_: zmesh.Message) -> None:
            await asyncio.Event().wait()

        await desk.peers.wait_for(service="status", timeout=10)
        replies = aiter(desk.survey("status", timeout=60))
        waiting = asyncio.ensure_future(anext(replies))
        await asyncio.sleep(0.05)
        await desk.close()
        with pytest.raises(zmesh.Closed):
            await waiting


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"count": True}, {"quorum": 1.0}, {"quorum": -0.1}, {"priority": 10}]
)
async def test_an_option_of_a_survey_that_cannot_work_is_refused(
    options: dict[str, int],
) -> None:
    async with nodes("one") as (one,):
        with pytest.raises(zmesh.InvalidOption, match=next(iter(options))):
            one.survey("status", **options)  # type: ignore[arg-type]


# Presence


async def test_what_describes_a_node_is_seen_by_its_peers() -> None:
    async with nodes("desk", "one") as (desk, one):
        one.describe(room="kitchen", floor=2, heated=True, area=12.5)
        [peer] = await desk.peers.wait_for(where={"room": "kitchen", "floor": 2}, timeout=10)
        assert peer.attributes == {"room": "kitchen", "floor": 2, "heated": True, "area": 12.5}
        one.describe(room="cellar", floor=None)
        [peer] = await desk.peers.wait_for(where={"room": "cellar"}, timeout=10)
        assert peer.attributes == {"room": "cellar", "heated": True, "area": 12.5}
        assert desk.peers.select(where={"floor": 2}) == []
        assert len({peer}) == 1, "a peer can be a key"


async def test_a_watch_tells_of_changes_and_with_a_filter_who_comes_and_goes() -> None:
    async with nodes("desk", "one") as (desk, one):
        everything, kitchen = desk.peers.watch(), desk.peers.watch(where={"room": "kitchen"})
        cameras = desk.peers.watch(group="cameras")
        assert isinstance(await anext(everything), Joined)
        one.describe(room="kitchen")
        changed = await asyncio.wait_for(anext(everything), 5)
        assert isinstance(changed, Updated)
        assert changed.peer.attributes == {"room": "kitchen"}
        event = await asyncio.wait_for(anext(kitchen), 5)
        assert isinstance(event, Joined)
        async with one.join("cameras"):
            event = await asyncio.wait_for(anext(cameras), 5)
            assert isinstance(event, Joined)
            assert event.peer.groups == {"cameras"}
        event = await asyncio.wait_for(anext(cameras), 5)
        assert isinstance(event, Left)
        assert event.reason == "no longer in 'cameras'"


@pytest.mark.parametrize(
    "attributes",
    [
        {"": 1}, {"a=b": 1}, {"a": b"x"}, {"a": [1]}, {"a": float("nan")}, {"a": "x" * 2000},
        {"a": 10**5000}, {"a": "\udc80"},
    ],
)  # fmt: skip
async def test_an_attribute_that_cannot_be_told_is_refused(attributes: dict[str, int]) -> None:
    async with nodes("one") as (one,):
        with pytest.raises(zmesh.InvalidOption, match="attribute"):
            one.describe(**attributes)


@pytest.mark.parametrize("wanted", [{"group": 7}, {"where": "room"}, {"service": b"x"}])
async def test_a_filter_that_cannot_match_is_refused(wanted: dict[str, str]) -> None:
    async with nodes("one") as (one,):
        for use in (one.peers.select, one.peers.watch):
            with pytest.raises(zmesh.InvalidOption, match=next(iter(wanted))):
                use(**wanted)  # type: ignore[arg-type]
        with pytest.raises(zmesh.InvalidOption, match=next(iter(wanted))):
            await one.peers.wait_for(**wanted)  # type: ignore[arg-type]
