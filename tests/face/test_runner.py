"""The runner: turns, the timer, and what it does when the engine breaks."""

import asyncio
import logging
import time
from collections.abc import Sequence

import pytest

from tests.face.support import raw_delivery
from zmesh.actions import Action, Dial, Drained, HangUp, Probe, SendPackets, ShutOut
from zmesh.events import (
    CancelCall,
    Event,
    InboundClosed,
    KeepReplays,
    LoopLate,
    PathUp,
    SettleDeliveries,
    TimerFired,
)
from zmesh.face.received import Chunk
from zmesh.face.runner import COMMANDS_MAX, LATE, SETTLE_WITHIN, ApplicationAction, Runner
from zmesh.ids import Path
from zmesh.message import Outcome
from zmesh.ports import TransportStatistics


class FakeEngine:
    """Notes what it is told, and answers with what the test wants."""

    def __init__(self) -> None:
        self.turns: list[list[Event]] = []  # without LoopLate: a busy machine is late any time
        self.late: list[tuple[int, LoopLate]] = []  # with the number of events before it
        self.times: list[float] = []
        self.answer: list[Action] = []
        self.error: Exception | None = None
        self.deadline: float | None = None

    def handle(self, events: Sequence[Event], now: float) -> list[Action]:
        self.late += [(at, each) for at, each in enumerate(events) if isinstance(each, LoopLate)]
        self.turns.append([event for event in events if not isinstance(event, LoopLate)])
        self.times.append(now)
        if self.error is not None:
            raise self.error
        if any(isinstance(event, TimerFired) for event in events):
            self.deadline = None
        answer, self.answer = self.answer, []
        return answer


class FakeNetwork:
    """Notes the orders; with `runner`, answers each packet with news in the middle of the turn."""

    def __init__(self) -> None:
        self.orders: list[tuple[object, ...]] = []
        self.runner: Runner | None = None

    def open(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        self.orders.append(("close",))

    def statistics(self) -> TransportStatistics:
        raise NotImplementedError

    def send(self, path: Path, packets: Sequence[Sequence[bytes | memoryview]]) -> None:
        self.orders.append(("send", path, packets))
        if self.runner is not None:
            self.runner.news([InboundClosed()])

    def dial(self, path: int, endpoint: str) -> None:
        self.orders.append(("dial", path, endpoint))

    def hang_up(self, path: int) -> None:
        self.orders.append(("hang_up", path))

    def shut_out(self, path: bytes, seconds: float) -> None:
        self.orders.append(("shut_out", path, seconds))

    def probe(self, endpoint: str, timeout: float) -> None:
        self.orders.append(("probe", endpoint, timeout))


class FakeApplication:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.actions: list[ApplicationAction] = []
        self.error: Exception | None = None

    def perform(self, action: ApplicationAction) -> None:
        self.actions.append(action)

    def broken(self, error: Exception) -> None:
        self.error = error


class Bench:
    """A running runner with fakes all around."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.network = FakeNetwork()
        self.application = FakeApplication()
        self.runner = Runner(asyncio.get_running_loop(), self.engine, self.application)
        self.runner.start(self.network)


def command(number: int) -> Event:
    return CancelCall(number)


async def test_lone_command_goes_at_once() -> None:
    bench = Bench()
    bench.runner.command(command(1))
    assert bench.engine.turns == [[command(1)]]
    bench.runner.stop()


async def test_further_commands_of_an_iteration_go_together() -> None:
    bench = Bench()
    for number in range(5):
        bench.runner.command(command(number))
    assert len(bench.engine.turns) == 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.engine.turns[1:] == [[command(number) for number in range(1, 5)]]
    for _ in range(3):
        await asyncio.sleep(0)
    bench.runner.command(command(9))
    assert bench.engine.turns[2:] == [[command(9)]]
    bench.runner.stop()


async def test_commands_gathered_are_bounded() -> None:
    bench = Bench()
    for number in range(2 * COMMANDS_MAX + 10):
        bench.runner.command(command(number))
        assert bench.runner.backlog < COMMANDS_MAX
    assert len(bench.engine.turns) == 3
    bench.runner.stop()


async def test_news_join_the_commands_that_wait() -> None:
    bench = Bench()
    bench.runner.command(command(1))
    bench.runner.command(command(2))
    bench.runner.news([PathUp(3)])
    assert bench.engine.turns[1:] == [[command(2), PathUp(3)]]
    bench.runner.stop()


async def test_orders_are_performed_in_order() -> None:
    bench = Bench()
    drained = Drained(0, 0)
    bench.engine.answer = [
        Dial(1, "tcp://127.0.0.1:9"), SendPackets(1, [[b"x"]]), drained,
        Probe("tcp://127.0.0.1:9", 1.5), HangUp(1), ShutOut(b"path", 15.0),
    ]  # fmt: skip
    bench.runner.command(command(1))
    assert bench.network.orders == [
        ("dial", 1, "tcp://127.0.0.1:9"), ("send", 1, [[b"x"]]),
        ("probe", "tcp://127.0.0.1:9", 1.5), ("hang_up", 1),
        ("shut_out", b"path", 15.0),
    ]  # fmt: skip
    assert bench.application.actions == [drained]
    bench.runner.stop()


async def test_news_in_the_middle_of_a_turn_wait_for_the_next() -> None:
    bench = Bench()
    bench.network.runner = bench.runner
    bench.engine.answer = [SendPackets(1, [[b"x"]])]
    bench.runner.command(command(1))
    assert bench.engine.turns == [[command(1)]]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.engine.turns[1:] == [[InboundClosed()]]
    bench.runner.stop()


async def test_verdicts_go_with_the_next_turn() -> None:
    bench = Bench()
    chunk = Chunk(bench.runner.settlements, raw_delivery(1, 3), 0, 3)
    chunk.current = list(chunk.messages)[2]
    bench.runner.settlements.note(chunk)
    assert bench.engine.turns == []
    bench.runner.command(command(1))
    [[_, verdict]] = bench.engine.turns
    assert isinstance(verdict, SettleDeliveries)
    assert (verdict.first_seq, verdict.last_seq, verdict.outcome) == (1, 2, Outcome.ACCEPTED)
    bench.runner.stop()


async def test_verdicts_go_by_themselves_within_milliseconds() -> None:
    bench = Bench()
    chunk = Chunk(bench.runner.settlements, raw_delivery(1, 3), 0, 3)
    chunk.current = list(chunk.messages)[2]
    bench.runner.settlements.note(chunk)
    await asyncio.sleep(0)
    assert bench.engine.turns == []
    await asyncio.sleep(10 * SETTLE_WITHIN)
    [[verdict]] = bench.engine.turns
    assert isinstance(verdict, SettleDeliveries)
    assert (verdict.first_seq, verdict.last_seq, verdict.outcome) == (1, 2, Outcome.ACCEPTED)
    bench.runner.stop()


async def test_timer_fires_at_the_deadline_and_never_before() -> None:
    bench = Bench()
    deadline = asyncio.get_running_loop().time() + 0.02
    bench.engine.deadline = deadline
    bench.runner.command(command(1))
    await asyncio.sleep(0.05)
    assert bench.engine.turns[1:] == [[TimerFired()]]
    assert bench.engine.times[1] >= deadline
    bench.runner.stop()


async def test_timer_that_wakes_early_tells_the_deadline_itself() -> None:
    bench = Bench()
    deadline = asyncio.get_running_loop().time() + 5.0
    bench.engine.deadline = deadline
    bench.runner._wake_at = deadline
    bench.runner._on_timer()
    assert bench.engine.turns == [[TimerFired()]]
    assert bench.engine.times == [deadline]
    bench.runner.command(command(1))
    assert bench.engine.times[1] >= deadline
    bench.runner.stop()


async def test_earlier_deadline_moves_the_timer_and_later_does_not() -> None:
    bench = Bench()
    now = asyncio.get_running_loop().time()
    bench.engine.deadline = now + 0.4
    bench.runner.command(command(1))
    first = bench.runner._timer
    bench.engine.deadline = now + 0.45
    bench.runner.news([PathUp(1)])
    assert bench.runner._timer is first
    bench.engine.deadline = now + 0.01
    bench.runner.news([PathUp(1)])
    assert bench.runner._timer is not first
    await asyncio.sleep(0.03)
    assert bench.engine.turns[-1] == [TimerFired()]
    bench.runner.stop()


async def test_stalled_loop_is_told_once_and_before_anything_else() -> None:
    bench = Bench()
    bench.engine.deadline = asyncio.get_running_loop().time() + 0.01
    bench.runner.command(command(1))
    bench.engine.late.clear()
    time.sleep(0.01 + 2 * LATE)  # noqa: ASYNC251  # the stall itself
    bench.runner.news([PathUp(1)])
    assert bench.engine.turns[1:] == [[PathUp(1)]]
    [(position, late)] = bench.engine.late
    assert position == 0
    assert late.lag >= LATE
    await asyncio.sleep(0.01)
    assert bench.engine.turns[2:] == [[TimerFired()]]
    bench.runner.stop()


async def test_engine_that_breaks_stops_everything(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    error = KeyError("a bug")
    bench.engine.error = error
    bench.runner.command(command(1))
    assert bench.application.error is error
    record = caplog.records[0]
    assert record.levelno == logging.CRITICAL
    assert "CancelCall" in record.getMessage()
    bench.engine.error = None
    bench.runner.command(command(2))
    bench.runner.news([PathUp(1)])
    await asyncio.sleep(0.01)
    assert len(bench.engine.turns) == 1


async def test_verdicts_that_break_stop_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    error = OverflowError("a bug")

    def fail() -> list[KeepReplays]:
        raise error

    monkeypatch.setattr(bench.runner.settlements, "take_changes", fail)
    bench.runner.settlements.settle(raw_delivery(1, 1), 0, 0, Outcome.ACCEPTED)
    bench.runner.news([PathUp(1)])
    assert bench.application.error is error


async def test_nothing_happens_after_stopping() -> None:
    bench = Bench()
    bench.engine.deadline = asyncio.get_running_loop().time()
    bench.runner.command(command(1))
    bench.runner.command(command(2))
    bench.runner.stop()
    await asyncio.sleep(0.01)
    bench.runner.command(command(3))
    bench.runner.flush()
    assert bench.engine.turns == [[command(1)]]


async def test_command_after_news_goes_at_once() -> None:
    bench = Bench()
    for number in range(3):
        bench.runner.command(command(number))
        bench.runner.news([PathUp(number)])
    assert bench.engine.turns == [
        [command(0)], [PathUp(0)], [command(1)], [PathUp(1)], [command(2)], [PathUp(2)],
    ]  # fmt: skip
    bench.runner.stop()


async def test_command_that_waits_goes_with_the_next_iteration() -> None:
    bench = Bench()
    bench.runner.command(command(1))
    await asyncio.sleep(0.01)
    bench.runner.command(command(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.engine.turns == [[command(1)], [command(2)]]
    bench.runner.stop()


async def test_commands_that_are_held_reach_the_engine_when_they_are_let_go() -> None:
    bench = Bench()
    bench.runner.hold()
    for call in range(3):
        bench.runner.command(CancelCall(call))
    assert bench.engine.turns == []
    bench.runner.let_go()
    assert bench.engine.turns == [[CancelCall(call) for call in range(3)]]
    bench.runner.hold()
    bench.runner.let_go()
    assert len(bench.engine.turns) == 1
    bench.runner.stop()


async def test_no_more_commands_than_so_many_are_held() -> None:
    bench = Bench()
    bench.runner.hold()
    for call in range(COMMANDS_MAX + 1):
        bench.runner.command(CancelCall(call))
    assert [len(turn) for turn in bench.engine.turns] == [COMMANDS_MAX]
    bench.runner.let_go()
    assert [len(turn) for turn in bench.engine.turns] == [COMMANDS_MAX, 1]
    bench.runner.stop()


async def test_news_that_nobody_waits_for_go_with_the_command_that_follows() -> None:
    bench = Bench()
    engine, runner = bench.engine, bench.runner
    told, asked = InboundClosed(), command(1)
    runner.gather([told])
    assert engine.turns == []
    runner.command(asked)
    assert engine.turns == [[told, asked]]
    await asyncio.sleep(0)
    assert engine.turns == [[told, asked]]
    runner.stop()


async def test_a_command_that_follows_news_nobody_waits_for_goes_at_once() -> None:
    """Of who posts one after the other each is let go of by news, and the next is a command."""
    bench = Bench()
    engine, runner = bench.engine, bench.runner
    told, asked = InboundClosed(), [command(number) for number in range(3)]
    runner.command(asked[0])
    runner.command(asked[1])  # in the same iteration, so it waits for others
    assert engine.turns == [[asked[0]]]
    runner.gather([told])
    runner.command(asked[2])
    assert engine.turns == [[asked[0]], [asked[1], told, asked[2]]]
    runner.stop()


async def test_news_that_nobody_waits_for_go_with_the_next_iteration() -> None:
    bench = Bench()
    engine, runner = bench.engine, bench.runner
    told = InboundClosed()
    runner.gather([told])
    await asyncio.sleep(0)
    assert engine.turns == [[told]]
    runner.stop()
    runner.gather([told])
    runner.catch_up()
    assert engine.turns == [[told]]


async def test_engine_that_is_asked_something_hears_what_was_gathered_before() -> None:
    bench = Bench()
    engine, runner = bench.engine, bench.runner
    told = InboundClosed()
    runner.catch_up()
    assert engine.turns == []
    runner.gather([told])
    runner.catch_up()
    assert engine.turns == [[told]]
    runner.stop()
