"""Services: handlers start, wait, are cancelled, and what they do is an answer or a verdict."""

import asyncio
import contextvars
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from tests.face.support import SOURCE, Noting, record_of
from zmesh.actions import CancelRequest, Delivery
from zmesh.errors import Reject, UsageError
from zmesh.events import Event, ReplyEach, Serve, SettleDeliveries, Source, Withdraw
from zmesh.face.handlers import Handler
from zmesh.face.hosting import BLOCKING
from zmesh.face.outgoing import Outgoing, failure_of
from zmesh.face.received import Message
from zmesh.face.services import Services
from zmesh.ids import NodeId
from zmesh.message import Kind, Outcome, Record, Tag, with_extra
from zmesh.options import NodeOptions
from zmesh.wire.bodies import decode_body


class Bench:
    """Services that note the commands they give."""

    def __init__(self) -> None:
        self.noting = Noting()
        self.commands = self.noting.commands
        outgoing = Outgoing(NodeOptions())
        self.services = Services(asyncio.get_running_loop(), outgoing, self.noting)

    def serve(self, handler: Handler, concurrency: int = 8, name: str = "work") -> None:
        self.services.serve(name, handler, concurrency)
        self.commands.clear()

    def request(
        self,
        seq: int,
        body: object = None,
        name: str = "work",
        *,
        key: str | None = None,
        ttl_ms: int | None = None,
        source: Source = SOURCE,
    ) -> None:
        head, _, data = record_of(body, Kind.REQUEST)[:3]
        record: Record = (head, name, data, (Tag.CORRELATION, 1000 + seq))
        if key is not None:
            record = with_extra(record, Tag.KEY, key)
        if ttl_ms is not None:
            record = with_extra(record, Tag.TTL_MS, ttl_ms)
        self.services.deliver([Delivery(source, "printer", seq, seq, [record])])

    async def done(self, count: int) -> list[Event]:
        async with asyncio.timeout(5):
            while len(self.commands) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return self.commands


def answer_of(event: Event) -> tuple[int, int, object]:
    assert isinstance(event, ReplyEach)
    [number], [call], [record] = event.numbers, event.correlations, event.records
    return number, call, decode_body(record[0] >> 4, record[2])


def reply_in(event: Event) -> Record:
    assert isinstance(event, ReplyEach)
    [record] = event.records
    return record


def verdict_of(event: Event) -> tuple[int, Outcome, str]:
    assert isinstance(event, SettleDeliveries)
    return event.first_seq, event.outcome, event.reason


async def never(_: Message) -> None:
    await asyncio.Event().wait()


async def test_serving_and_withdrawing_are_told() -> None:
    bench = Bench()
    bench.services.serve("work", never, 1)
    assert "work" in bench.services
    bench.services.withdraw("work")
    assert bench.commands == [Serve("work"), Withdraw("work")]
    assert "work" not in bench.services


async def test_what_a_handler_returns_is_the_reply() -> None:
    bench = Bench()

    async def double(message: Message) -> int:
        assert message.topic == "work"
        assert isinstance(message.body, int)
        return 2 * message.body

    bench.serve(double)
    bench.request(7, 21)
    assert answer_of((await bench.done(1))[0]) == (7, 1007, 42)


async def test_reject_is_a_verdict_with_its_reason() -> None:
    bench = Bench()

    async def refuse(_: Message) -> None:
        raise Reject("no paper")

    bench.serve(refuse)
    bench.request(7)
    assert verdict_of((await bench.done(1))[0]) == (7, Outcome.REJECTED, "no paper")


@pytest.mark.parametrize("result", [object(), {1, 2}])
async def test_reply_that_cannot_be_sent_fails_the_call(result: object) -> None:
    bench = Bench()

    async def answer(_: Message) -> object:
        return result

    bench.serve(answer)
    bench.request(7)
    [event] = await bench.done(1)
    assert failure_of(reply_in(event))[0] == "BodyNotEncodable"


async def test_any_other_exception_is_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()

    async def fail(_: Message) -> None:
        raise KeyError("paper")

    bench.serve(fail)
    bench.request(7)
    [event] = await bench.done(1)
    record = reply_in(event)
    assert record[0] & 15 == Kind.FAILURE
    assert failure_of(record)[:2] == ("KeyError", "'paper'")
    assert "the handler of 'work' raised" in caplog.text


async def test_no_more_than_concurrency_run_and_the_rest_wait_in_order() -> None:
    bench = Bench()
    running: list[object] = []
    peak = 0
    order: list[object] = []
    gate = asyncio.Semaphore(0)

    async def work(message: Message) -> object:
        nonlocal peak
        running.append(message.body)
        order.append(message.body)
        peak = max(peak, len(running))
        await gate.acquire()
        running.remove(message.body)
        return message.body

    bench.serve(work, concurrency=2)
    for seq in range(1, 7):
        bench.request(seq, seq)
    for number in range(6):
        await asyncio.sleep(0.001)
        gate.release()
        await bench.done(number + 1)
    assert peak == 2
    assert order == [1, 2, 3, 4, 5, 6]


async def test_request_for_an_unknown_service_is_given_back() -> None:
    bench = Bench()
    bench.request(7)
    assert [verdict_of(event) for event in bench.commands] == [(7, Outcome.RELEASED, "")]


async def test_request_nobody_could_answer_is_rejected() -> None:
    bench = Bench()
    bench.serve(never)
    bench.services.deliver(
        [Delivery(SOURCE, "printer", 7, 7, [record_of(None, Kind.REQUEST, "work")])]
    )
    assert verdict_of(bench.commands[0])[:2] == (7, Outcome.REJECTED)


async def test_cancelled_request_cancels_its_handler() -> None:
    bench = Bench()
    bench.serve(never, concurrency=1)
    bench.request(1)
    bench.request(2)
    await asyncio.sleep(0)
    bench.services.cancel(CancelRequest(SOURCE, 1))
    bench.services.cancel(CancelRequest(SOURCE, 99))
    assert verdict_of((await bench.done(1))[0]) == (1, Outcome.RELEASED, "")
    await asyncio.sleep(0)
    bench.services.cancel(CancelRequest(SOURCE, 2))
    assert verdict_of((await bench.done(2))[1]) == (2, Outcome.RELEASED, "")


async def test_cancelled_request_that_waits_never_runs() -> None:
    bench = Bench()
    bench.serve(never, concurrency=1)
    bench.request(1)
    bench.request(2)
    bench.services.cancel(CancelRequest(SOURCE, 2))
    assert [verdict_of(event) for event in bench.commands] == [(2, Outcome.RELEASED, "")]
    await bench.services.close()


async def test_handler_that_was_cancelled_by_itself_fails_the_call() -> None:
    bench = Bench()

    async def await_cancelled(_: Message) -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    bench.serve(await_cancelled)
    bench.request(7)
    [event] = await bench.done(1)
    assert failure_of(reply_in(event))[0] == "CancelledError"


async def test_withdrawing_finishes_what_runs_and_releases_what_waits() -> None:
    bench = Bench()
    gate = asyncio.Event()

    async def work(_: Message) -> str:
        await gate.wait()
        return "done"

    bench.serve(work, concurrency=1)
    bench.request(1)
    bench.request(2)
    await asyncio.sleep(0)
    bench.services.withdraw("work")
    assert verdict_of(bench.commands[1]) == (2, Outcome.RELEASED, "")
    gate.set()
    assert answer_of((await bench.done(3))[2]) == (1, 1001, "done")


async def test_closing_cancels_what_runs() -> None:
    bench = Bench()
    bench.serve(never, concurrency=2)
    for seq in (1, 2, 3):
        bench.request(seq)
    await bench.services.close()
    await asyncio.sleep(0)
    assert sorted(verdict_of(event) for event in bench.commands) == [
        (seq, Outcome.RELEASED, "") for seq in (1, 2, 3)
    ]


async def test_request_cannot_be_settled_by_hand() -> None:
    bench = Bench()

    async def settle(message: Message) -> None:
        await message.accept()

    bench.serve(settle)
    bench.request(7)
    [event] = await bench.done(1)
    assert failure_of(reply_in(event))[0] == UsageError.__name__


async def test_requests_of_one_key_are_handled_one_at_a_time_in_order() -> None:
    bench = Bench()
    running: dict[str | None, int] = {}
    order: list[tuple[str | None, int]] = []

    async def work(message: Message) -> object:
        running[message.key] = running.get(message.key, 0) + 1
        assert message.key is None or running[message.key] == 1
        await asyncio.sleep(0.001 * (message.body % 3))
        running[message.key] -= 1
        order.append((message.key, message.body))
        return None

    bench.serve(work, concurrency=4)
    for seq in range(30):
        bench.request(seq, seq, key=(None, "a", "b")[seq % 3 if seq % 5 else 1])
    await bench.done(30)
    for key in ("a", "b"):
        mine = [body for each, body in order if each == key]
        assert mine == sorted(mine)
        assert len(mine) > 5


async def test_the_same_key_of_two_callers_is_handled_side_by_side() -> None:
    bench = Bench()
    together = asyncio.Barrier(2)

    async def work(_: Message) -> None:
        await together.wait()

    bench.serve(work)
    bench.request(1, key="k")
    bench.request(1, key="k", source=Source(NodeId(b"o" * 16), b"s" * 16, 4))
    await bench.done(2)


async def test_a_key_goes_on_when_a_request_of_it_is_cancelled_or_fails() -> None:
    bench = Bench()

    async def work(message: Message) -> object:
        if message.body == "stuck":
            await asyncio.Event().wait()
        if message.body == "bad":
            raise ValueError
        return message.body

    bench.serve(work)
    for seq, text in enumerate(("stuck", "unwanted", "bad", "good")):
        bench.request(seq, text, key="k")
    await asyncio.sleep(0)
    bench.services.cancel(CancelRequest(SOURCE, 1))
    assert [verdict_of(event) for event in bench.commands] == [(1, Outcome.RELEASED, "")]
    bench.services.cancel(CancelRequest(SOURCE, 0))
    events = await bench.done(4)
    assert verdict_of(events[1]) == (0, Outcome.RELEASED, "")
    assert answer_of(events[3])[2] == "good"


async def test_withdrawing_gives_back_what_waits_behind_a_key_as_well() -> None:
    bench = Bench()
    gate = asyncio.Event()

    async def work(_: Message) -> None:
        await gate.wait()

    bench.serve(work, concurrency=2)
    for seq in range(1, 6):
        bench.request(seq, key="k" if seq % 2 else None)
    await asyncio.sleep(0)  # the first handler waits, so the others get a task each
    await asyncio.sleep(0)
    bench.services.withdraw("work")
    assert {verdict_of(event)[0] for event in bench.commands[1:]} == {3, 4, 5}
    gate.set()
    assert [answer_of(event)[0] for event in (await bench.done(6))[4:]] == [1, 2]


async def test_what_nobody_waits_for_any_more_is_never_begun() -> None:
    bench = Bench()
    begun: list[object] = []

    async def block(message: Message) -> None:
        begun.append(message.body)
        time.sleep(0.03)  # noqa: ASYNC251

    bench.serve(block, concurrency=1)
    bench.request(1, "first")
    bench.request(2, "late", ttl_ms=10)
    bench.request(3, "in time", ttl_ms=10_000, key="k")
    bench.request(4, "late as well", ttl_ms=10, key="k")
    events = await bench.done(4)
    assert begun == ["first", "in time"]
    expired = [event for event in events if isinstance(event, SettleDeliveries)]
    assert [verdict_of(event) for event in expired] == [
        (2, Outcome.EXPIRED, ""), (4, Outcome.EXPIRED, ""),
    ]  # fmt: skip


async def test_handler_knows_how_long_its_caller_waits() -> None:
    bench = Bench()

    async def look(message: Message) -> list[object]:
        assert message.remaining is not None
        assert message.deadline is not None
        left = message.deadline - asyncio.get_running_loop().time()
        return [1.9 < message.remaining <= 2.0, abs(left - message.remaining) < 0.1]

    async def patient(message: Message) -> list[object]:
        return [message.remaining, message.deadline, message.cancelled]

    bench.serve(look)
    bench.serve(patient, name="patient")
    bench.request(1, ttl_ms=2000)
    assert answer_of((await bench.done(1))[0])[2] == [True, True]
    bench.request(2, name="patient")
    assert answer_of((await bench.done(2))[1])[2] == [None, None, False]


async def test_plain_handler_sees_that_nobody_waits_any_more() -> None:
    bench = Bench()
    begun, seen = threading.Event(), threading.Event()

    def work(message: Message) -> None:
        begun.set()
        while not message.cancelled:
            time.sleep(0.001)
        seen.set()

    bench.serve(work)
    bench.request(1)
    await asyncio.to_thread(begun.wait, 5)
    bench.services.cancel(CancelRequest(SOURCE, 1))
    assert await asyncio.to_thread(seen.wait, 5)
    await bench.services.close()


async def test_plain_handler_sees_that_its_node_closes() -> None:
    bench = Bench()
    begun, seen = threading.Event(), threading.Event()

    def work(message: Message) -> None:
        begun.set()
        while not message.cancelled:
            time.sleep(0.001)
        seen.set()

    bench.serve(work)
    bench.request(1)
    await asyncio.to_thread(begun.wait, 5)
    await bench.services.close()
    assert await asyncio.to_thread(seen.wait, 5)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


async def test_plain_function_runs_in_a_thread_with_the_context() -> None:
    bench = Bench()
    here = threading.get_ident()
    variable.set("context")

    def work(_: Message) -> list[object]:
        return [threading.get_ident() == here, variable.get()]

    bench.serve(work)
    bench.request(7)
    assert answer_of((await bench.done(1))[0]) == (7, 1007, [False, "context"])
    await bench.services.close()


async def test_exceptions_and_reject_cross_threads(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()

    def work(message: Message) -> None:
        if message.body == "reject":
            raise Reject("no")
        raise ValueError("bad")

    bench.serve(work)
    bench.request(1, "reject")
    assert verdict_of((await bench.done(1))[0]) == (1, Outcome.REJECTED, "no")
    bench.request(2)
    event = (await bench.done(2))[1]
    assert failure_of(reply_in(event))[:2] == ("ValueError", "bad")
    assert caplog.records
    await bench.services.close()


async def test_lambda_around_a_coroutine_function_is_awaited() -> None:
    bench = Bench()

    async def answer(value: int) -> int:
        return value + 1

    bench.serve(lambda message: answer(message.body))
    bench.request(7, 1)
    assert answer_of((await bench.done(1))[0])[2] == 2
    await bench.services.close()


async def test_blocking_in_a_thread_does_not_stall_the_loop() -> None:
    bench = Bench()
    gate = threading.Event()
    bench.serve(lambda _: gate.wait(30))
    bench.request(1)
    await asyncio.sleep(0.01)
    assert bench.commands == []
    gate.set()
    assert answer_of((await bench.done(1))[0])[2] is True
    await bench.services.close()


async def test_cancelling_does_not_free_the_place_of_a_thread() -> None:
    bench = Bench()
    gate = threading.Event()
    bench.serve(lambda _: gate.wait(5), concurrency=1)
    bench.request(1)
    bench.request(2)
    await asyncio.sleep(0.01)
    bench.services.cancel(CancelRequest(SOURCE, 1))
    await asyncio.sleep(0.01)
    assert bench.commands == []
    gate.set()
    await bench.done(2)
    await bench.services.close()


@pytest.mark.parametrize("in_which_step", ["first", "second"])
async def test_coroutine_that_blocks_the_loop_is_named(
    in_which_step: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()

    async def block(_: Message) -> None:
        if in_which_step == "second":
            await asyncio.sleep(0)
        time.sleep(1.5 * BLOCKING)  # noqa: ASYNC251

    bench.serve(block, name="resize")
    bench.request(1, name="resize")
    bench.request(2, name="resize")
    await bench.done(2)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "'resize' held up the event loop" in warnings[0]


async def test_a_call_to_a_service_that_answers_in_parts_is_refused() -> None:
    async def parts(_: Message) -> AsyncIterator[int]:
        yield 1

    bench = Bench()
    bench.serve(parts)
    bench.request(1)
    [event] = await bench.done(1)
    reason = "'work' answers in parts: read them with node.stream"
    assert verdict_of(event) == (1, Outcome.REJECTED, reason)


async def test_objects_with_an_async_call_are_awaited() -> None:
    class Double:
        async def __call__(self, _: Message) -> object:
            return threading.current_thread() is threading.main_thread()

    bench = Bench()
    handler: Callable[[Message], object] = Double()
    bench.serve(handler)
    bench.request(1)
    assert answer_of((await bench.done(1))[0])[2] is True


async def test_plain_handler_that_raises_stop_iteration_is_answered() -> None:
    def exhausted(_: Message) -> object:
        return next(iter(()))

    bench = Bench()
    bench.serve(exhausted)
    bench.request(1)
    [event] = await bench.done(1)
    assert answer_of(event)[2] == ["RuntimeError", "the handler raised StopIteration"]
    await bench.services.close()


# By the run


def deliver(bench: Bench, count: int, first: int = 1, **tags: object) -> None:
    """Deliver requests together."""
    records: list[Record] = []
    for seq in range(first, first + count):
        record: Record = (*record_of(seq, Kind.REQUEST, "work")[:3], (Tag.CORRELATION, 1000 + seq))
        records.append(with_extra(record, Tag.TTL_MS, 5000) if "ttl" in tags else record)
    bench.services.deliver([Delivery(SOURCE, "printer", first, first + count - 1, records)])


async def test_what_handlers_answer_at_once_is_one_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.face.services.HOLD_UP_MAX", 60.0)
    bench = Bench()
    tasks: set[int] = set()

    async def echo(message: Message) -> object:
        tasks.add(id(asyncio.current_task()))
        return message.body

    bench.serve(echo, concurrency=64)
    bench.noting.holds = True
    deliver(bench, 20, ttl=True)
    [event] = await bench.done(1)
    assert isinstance(event, ReplyEach)
    assert (event.source, event.numbers) == (SOURCE, list(range(1, 21)))
    assert event.correlations == list(range(1001, 1021))
    assert [decode_body(record[0] >> 4, record[2]) for record in event.records] == event.numbers
    await asyncio.sleep(0)
    assert len(bench.commands) == 1
    assert len(tasks) == 1
    assert bench.services._requests == {}


async def test_no_more_than_concurrency_of_a_run_wait_at_a_time() -> None:
    bench = Bench()
    gate = asyncio.Event()
    begun: list[object] = []

    async def work(message: Message) -> None:
        begun.append(message.body)
        await gate.wait()

    bench.serve(work, concurrency=3)
    deliver(bench, 8)
    for _ in range(5):
        await asyncio.sleep(0)
    assert begun == [1, 2, 3]
    gate.set()
    events = await bench.done(8)
    assert sorted(answer_of(event)[0] for event in events) == list(range(1, 9))


async def test_handlers_that_hold_up_the_loop_let_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("zmesh.face.services.HOLD_UP_MAX", 0.0)
    bench = Bench()
    steps: list[str] = []

    async def work(_: Message) -> None:
        steps.append("handler")

    async def other() -> None:
        for _ in range(8):
            steps.append("other")
            await asyncio.sleep(0)

    bench.serve(work, concurrency=64)
    deliver(bench, 3)
    task = asyncio.create_task(other())
    await bench.done(3)
    await task
    between = steps[steps.index("handler") : len(steps) - steps[::-1].index("handler")]
    assert between.count("handler") == 3
    assert between.count("other") >= 2


async def test_one_of_a_run_that_is_cancelled_is_cancelled_alone() -> None:
    bench = Bench()
    gate = asyncio.Event()

    async def work(message: Message) -> object:
        await gate.wait()
        return message.body

    bench.serve(work)
    deliver(bench, 3)
    for _ in range(3):
        await asyncio.sleep(0)
    bench.services.cancel(CancelRequest(SOURCE, 2))
    gate.set()
    events = await bench.done(3)
    assert [verdict_of(event) for event in events if isinstance(event, SettleDeliveries)] == [
        (2, Outcome.RELEASED, "")
    ]
    answers = [answer_of(event)[::2] for event in events if isinstance(event, ReplyEach)]
    assert answers == [(1, 1), (3, 3)]


async def test_handlers_in_one_task_have_contexts_of_their_own() -> None:
    number = contextvars.ContextVar("number", default=0)
    seen: list[int] = []
    bench = Bench()

    async def work(message: Message) -> None:
        seen.append(number.get())
        number.set(1)
        if message.body == 2:
            await asyncio.sleep(0)
            seen.append(number.get())

    bench.serve(work)
    deliver(bench, 4)
    await bench.done(4)
    assert sorted(seen) == [0, 0, 0, 0, 1]


async def test_a_task_that_was_cancelled_before_its_first_step_leaves_nothing_behind() -> None:
    bench = Bench()

    async def echo(message: Message) -> object:
        return message.body

    bench.serve(echo)
    deliver(bench, 3)
    [worker] = bench.services._services["work"].workers
    worker.cancel()
    events = await bench.done(3)
    assert [answer_of(event)[0] for event in events] == [1, 2, 3]


async def test_a_handler_that_ends_the_program_leaves_its_place() -> None:
    bench = Bench()

    async def end(_: Message) -> None:
        raise SystemExit

    bench.serve(end, concurrency=1)
    service = bench.services._services["work"]
    deliver(bench, 1)
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(SystemExit):
        bench.services._handle_some(service, task)
    assert bench.services._requests == {}
    assert service.turns.begin() is None


async def test_nothing_is_kept_of_an_answer_that_left() -> None:
    bench = Bench()

    async def work(_: Message) -> bytes:
        return b"x" * 1000

    bench.serve(work)
    bench.request(1)
    record = reply_in((await bench.done(1))[0])
    bench.commands.clear()  # the engine has it
    await asyncio.sleep(0)
    assert [each for each in gc.get_referrers(record) if type(each) is list] == []


class Ends(BaseException):
    """What ends more than a handler."""


@pytest.mark.parametrize("waits", [False, True])
async def test_a_caller_is_told_of_whatever_its_handler_raised(*, waits: bool) -> None:
    bench = Bench()

    async def work(_: Message) -> None:
        if waits:
            await asyncio.sleep(0)
        raise Ends("paper")

    bench.serve(work, concurrency=1)
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    for seq in (1, 2):
        bench.request(seq)
        await bench.done(seq)
    assert [failure_of(reply_in(each))[:2] for each in bench.commands] == [("Ends", "paper")] * 2
    assert not bench.services._requests


async def test_what_a_handler_left_at_its_task_reaches_no_other() -> None:
    bench = Bench()
    ended, seen = list[object](), list[object]()
    may_end = asyncio.Event()

    def left(task: asyncio.Task[None]) -> tuple[str, object]:
        return task.get_name(), getattr(task, "owner", None)

    async def work(message: Message) -> None:
        task = asyncio.current_task()
        assert task is not None
        seen.append(left(task))
        match message.body:
            case "name":
                task.set_name("another")
            case "attribute":
                task.owner = "somebody"  # type: ignore[attr-defined]
            case "callback":
                task.add_done_callback(lambda _: ended.append("callback"))
            case _:
                await may_end.wait()

    bench.serve(work)
    for seq, body in enumerate(["name", "attribute", "callback", None]):
        bench.request(seq, body)
    async with asyncio.timeout(5):
        while not ended:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert seen == [("zmesh handler of 'work'", None)] * 4
    may_end.set()
    await bench.done(4)


async def test_handlers_do_not_begin_within_the_turn_that_brings_them() -> None:
    eager = getattr(asyncio, "eager_task_factory", None)
    if eager is None:
        pytest.skip("tasks may begin at once since Python 3.12")
    asyncio.get_running_loop().set_task_factory(eager)
    bench = Bench()
    begun: list[object] = []

    async def work(message: Message) -> None:
        begun.append(message.body)
        await asyncio.sleep(0)

    bench.serve(work, concurrency=2)
    for seq in range(4):
        bench.request(seq, seq)
        assert not begun
    await bench.done(4)
    assert begun == [0, 1, 2, 3]
