"""Calls: answers, and the errors that tell why there is none."""

import asyncio
import sys

import pytest

from tests.face.support import Noting, record_of
from zmesh.actions import CallAnswered, CallFailure, CallsAnswered
from zmesh.errors import (
    Closed,
    DeadLettered,
    DeliveryTimeout,
    NoProvider,
    PeerLost,
    Rejected,
    RemoteError,
    UsageError,
    ZmeshError,
)
from zmesh.events import CallEach, CancelCall
from zmesh.face.calls import Calls
from zmesh.message import Encoding, Kind, Record, head


class Bench:
    """Calls that note the commands they give."""

    def __init__(self, calls_max: int = 10) -> None:
        self.noting = Noting()
        self.commands = self.noting.commands
        self.calls = Calls(asyncio.get_running_loop(), self.noting, calls_max)

    async def start(self, timeout: float | None = None) -> "asyncio.Task[object]":  # noqa: ASYNC109
        record = record_of("x", Kind.REQUEST, "resize")
        call = self.calls.call(
            record, 4, timeout, 100.0, lambda service: NoProvider(service, ["paint"])
        )
        task = asyncio.create_task(call)
        await asyncio.sleep(0)
        return task


async def test_reply_is_decoded() -> None:
    bench = Bench()
    task = await bench.start()
    bench.calls.answered(CallAnswered(1, record_of({"w": 3}, Kind.REPLY)))
    assert await task == {"w": 3}
    assert len(bench.calls) == 0


async def test_nothing_is_kept_of_a_request_that_was_answered() -> None:
    bench = Bench()
    record = record_of("x", Kind.REQUEST, "resize")
    before = sys.getrefcount(record)
    call = bench.calls.call(record, 4, None, 100.0, lambda service: NoProvider(service, []))
    task = asyncio.create_task(call)
    await asyncio.sleep(0)
    bench.commands.clear()  # the engine has it
    bench.calls.answered(CallAnswered(1, record_of("y", Kind.REPLY)))
    assert await task == "y"
    del task, call
    assert sys.getrefcount(record) == before


async def test_deadline_is_on_the_clock_of_the_engine() -> None:
    bench = Bench()
    tasks = [await bench.start(2.5), await bench.start(None)]
    deadlines = [command.deadline for command in bench.commands if isinstance(command, CallEach)]
    assert deadlines == [102.5, None]
    bench.calls.close("node")
    await asyncio.wait(tasks)
    assert all(isinstance(task.exception(), Closed) for task in tasks)


FAILURE = record_of(["KeyError", "'w'"], Kind.FAILURE)


@pytest.mark.parametrize(
    ("failure", "record", "error", "text"),
    [
        (CallFailure.NO_PROVIDER, None, NoProvider, "paint"),
        (CallFailure.REMOTE_ERROR, FAILURE, RemoteError, "raised KeyError: 'w'"),
        (CallFailure.REMOTE_ERROR, None, RemoteError, "why"),
        (CallFailure.REJECTED, None, Rejected, "printer rejected the message: why"),
        (CallFailure.PEER_LOST, None, PeerLost, "printer"),
        (CallFailure.EXHAUSTED, None, DeadLettered, "why"),
        (CallFailure.DEADLINE, None, DeliveryTimeout, "within 2 s"),
        (CallFailure.CLOSED, None, Closed, "closed"),
    ],
)
async def test_failure_is_raised_as_its_error(
    failure: CallFailure, record: Record | None, error: type[ZmeshError], text: str
) -> None:
    bench = Bench()
    task = await bench.start(2)
    bench.calls.answered(CallAnswered(1, record, failure, "printer", "why"))
    with pytest.raises(error, match=text):
        await task


@pytest.mark.parametrize("body", [b"\xc1", b"\x91\x01", b""])
async def test_failure_a_peer_made_up_is_still_an_error(body: bytes) -> None:
    bench = Bench()
    task = await bench.start()
    record = (head(Kind.FAILURE, Encoding.MSGPACK), "", body)
    bench.calls.answered(CallAnswered(1, record, CallFailure.REMOTE_ERROR, "printer"))
    with pytest.raises(RemoteError):
        await task


async def test_cancelled_call_is_taken_back_and_a_late_answer_ignored() -> None:
    bench = Bench()
    task = await bench.start()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert bench.commands[1:] == [CancelCall(1)]
    bench.calls.answered(CallAnswered(1, record_of(1, Kind.REPLY)))


async def test_open_calls_are_bounded() -> None:
    bench = Bench(calls_max=1)
    task = await bench.start()
    with pytest.raises(UsageError):
        await (await bench.start())
    bench.calls.close("node")
    with pytest.raises(Closed):
        await task


async def test_calls_of_one_turn_to_one_service_are_one_command() -> None:
    bench = Bench()
    bench.noting.holds = True
    tasks = [await bench.start(2.5) for _ in range(3)]
    tasks += [await bench.start(None), await bench.start(2.5)]
    commands = [each for each in bench.commands if isinstance(each, CallEach)]
    assert [(each.first, len(each.records), each.deadline) for each in commands] == [
        (1, 3, 102.5),
        (4, 1, None),
        (5, 1, 102.5),
    ]
    bench.calls.close("node")
    await asyncio.wait(tasks)
    assert all(isinstance(task.exception(), Closed) for task in tasks)


async def test_a_command_holds_so_many_calls_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.face.calls.RUN_MAX", 2)
    bench = Bench()
    bench.noting.holds = True
    tasks = [await bench.start() for _ in range(5)]
    commands = [each for each in bench.commands if isinstance(each, CallEach)]
    assert [len(each.records) for each in commands] == [2, 2, 1]
    bench.calls.close("node")
    await asyncio.wait(tasks)
    assert len([task.exception() for task in tasks]) == 5


async def test_all_of_a_run_are_given_their_answers() -> None:
    bench = Bench()
    tasks = [await bench.start() for _ in range(3)]
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    records = [record_of(number, Kind.REPLY) for number in range(3)]
    bench.calls.perform(CallsAnswered([3, 2, 1], records, "printer"))
    assert (await tasks[0], await tasks[2]) == (2, 0)
    assert tasks[1].cancelled()
    assert len(bench.calls) == 0
