"""The books of calls: keys that move, and handlers that work on for nobody."""

from types import SimpleNamespace
from typing import Any, cast

from zmesh.ids import NodeId
from zmesh.message import Kind, Outcome, Ticket
from zmesh.options import LinkOptions
from zmesh.testing.application import Verdict
from zmesh.testing.call_books import CallBooks
from zmesh.testing.clock import EventQueue
from zmesh.testing.findings import Rule
from zmesh.testing.node_ledger import Handling, NodeMessage
from zmesh.testing.scenario import Fault, FaultKind, HostPlan, Scenario, Submission

B, C = NodeId(b"b" * 16), NodeId(b"c" * 16)


class Bench:
    """Books, with host a calling hosts b and c."""

    def __init__(self, *faults: Fault, disturbed: bool = False) -> None:
        self.wrong: list[Rule] = []
        self.queue = EventQueue()
        self.seen = frozenset([B, C])
        self.calls = 0
        scenario = Scenario(
            seed=0,
            level="node",
            hosts=(HostPlan(),) * 3,
            link=LinkOptions(fragment_bytes=16_384),
            faults=faults,
        )
        self.books = CallBooks(
            scenario, lambda rule, *_: self.wrong.append(rule), lambda *_: disturbed
        )

    def call(self, key: str | None = None) -> NodeMessage:
        self.calls += 1
        submission = Submission(0.0, 0, 1, 4, (20,), key=key, kind="call", name="work")
        call = NodeMessage(self.calls, Kind.REQUEST, "a1", 0, submission, b"", Ticket(), 0.0)
        self.books.on_called(call, lambda: self.seen)
        return call

    def deliver(self, call: NodeMessage, to: str = "b1", ttl: float | None = None) -> Handling:
        process: Any = SimpleNamespace(queue=self.queue, label=to, alive=True, left=False)
        handling = Handling(to, ord(to[0]) - ord("a"), 1)
        call.handlings.append(handling)
        self.books.on_delivered(cast("Any", process), call, handling, ttl)
        return handling

    def run(self, seconds: float) -> None:
        until = self.queue.now + seconds
        while (at := self.queue.next_at) is not None and at <= until:
            self.queue.step()
        self.queue.now = until


def test_a_key_stays_with_its_provider_while_its_caller_sees_the_same_ones() -> None:
    bench = Bench()
    for to, key in (("b1", "k"), ("b1", "k"), ("c1", "other"), ("b1", None), ("c1", None)):
        bench.deliver(bench.call(key), to)
    assert bench.wrong == []
    bench.deliver(bench.call("k"), "c1")
    assert bench.wrong == [Rule.MISORDERED]


def test_a_key_may_move_when_others_are_seen() -> None:
    bench = Bench()
    bench.deliver(bench.call("k"), "b1")
    late = bench.call("k")
    bench.seen = frozenset([C])
    bench.deliver(late, "c1")
    bench.deliver(bench.call("k"), "c1")
    assert bench.wrong == []


def test_who_works_on_an_ended_call_must_hear_of_it() -> None:
    for cancelled, wrong in ((True, []), (False, [Rule.LIVENESS])):
        bench = Bench()
        call = bench.call()
        handling = bench.deliver(call)
        bench.books.on_ended(call)
        handling.cancelled = cancelled
        bench.run(1.0)
        assert bench.wrong == wrong


def test_who_gets_a_call_that_has_ended_must_hear_of_it_too() -> None:
    bench = Bench()
    call = bench.call()
    bench.books.on_ended(call)
    bench.deliver(call)
    bench.run(1.0)
    assert bench.wrong == [Rule.LIVENESS]


def test_nothing_is_expected_of_who_has_ended_or_is_out_of_reach() -> None:
    bench = Bench()
    call = bench.call()
    handling = bench.deliver(call)
    bench.books.on_ended(call)
    handling.verdict = Verdict(Outcome.ACCEPTED)
    bench.run(1.0)
    apart = Bench(disturbed=True)
    call = apart.call()
    apart.deliver(call)
    apart.books.on_ended(call)
    apart.run(1.0)
    assert bench.wrong == apart.wrong == []


def test_a_handler_is_stopped_when_the_time_is_over_unless_its_host_sleeps() -> None:
    nap = Fault(1.0, FaultKind.SUSPEND, 1, 0, 5.0)
    for faults, cancelled, wrong in (
        ((), True, []),
        ((), False, [Rule.LATE]),
        ((nap,), False, []),
    ):
        bench = Bench(*faults)
        handling = bench.deliver(bench.call(), ttl=2.0)
        bench.run(2.0)
        handling.cancelled = cancelled
        bench.run(1.0)
        assert bench.wrong == wrong
