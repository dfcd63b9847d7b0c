"""The books of calls: that a key stays where it is, and that nobody works on for nobody.

A call that ended must soon be known to whoever handles it still, and a provider must know by
itself when the time of a request is over, whatever becomes of its caller.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from zmesh.actions import CallAnswered, CallsAnswered
from zmesh.ids import NodeId
from zmesh.testing.findings import Rule
from zmesh.testing.node_ledger import Handling, NodeMessage
from zmesh.testing.node_process import NodeProcess
from zmesh.testing.scenario import Scenario

TOLD_WITHIN: Final = 0.5  # seconds after a call ended, its provider knows
NOTICED_WITHIN: Final = 0.05  # seconds after a request's time is over, its provider knows
CLOCKS_APART: Final = 0.002  # more than two clocks differ in a second
CALLS_TOGETHER: Final = 64  # more than any provider has at once in the scenarios

Seen = Callable[[], frozenset[NodeId]]
"""The providers of a service that a caller sees now, itself included."""


def answers_in(action: CallAnswered | CallsAnswered) -> list[CallAnswered]:
    """Return the answers of calls one by one, as they would be of calls made alone."""
    if isinstance(action, CallAnswered):
        return [action]
    each = zip(action.calls, action.records, strict=True)
    return [CallAnswered(call, record, None, action.peer) for call, record in each]


class _Keyed(NamedTuple):
    before: frozenset[NodeId]  # whom the caller saw when it called
    seen: Seen


class CallBooks:
    """Judges how calls are given to providers and taken from them.

    `is_disturbed` tells whether anything goes wrong between two hosts in a span of time.
    """

    def __init__(
        self,
        scenario: Scenario,
        wrong: Callable[[Rule, str, str], None],
        is_disturbed: Callable[[int, int, float, float], bool],
    ) -> None:
        self._scenario = scenario
        self._wrong = wrong
        self._is_disturbed = is_disturbed
        self._keyed: dict[int, _Keyed] = {}
        self._owners: dict[tuple[str, str, str, frozenset[NodeId]], str] = {}
        self._at: dict[Handling, NodeProcess] = {}
        self._ended: set[int] = set()

    def on_called(self, call: NodeMessage, seen: Seen) -> None:
        """Note whom a caller sees while it calls."""
        submission = call.submission
        free = submission.prefer is None and submission.hedge_after is None
        if submission.key is not None and free and self._scenario.calm:
            self._keyed[call.number] = _Keyed(seen(), seen)

    def on_delivered(
        self, process: NodeProcess, call: NodeMessage, handling: Handling, ttl: float | None
    ) -> None:
        """Note that a provider has a call; `ttl` is what it was told of the time left."""
        self._at[handling] = process
        self._check_owner(process, call)
        if call.submission.timeout is not None and ttl is None:
            self._wrong(Rule.LATE, handling.receiver, f"has {call}, and not the time it has left")
        if call.number in self._ended:
            self._expect_stop(call, handling)
        if ttl is not None:
            within = ttl * (1.0 + CLOCKS_APART) + NOTICED_WITHIN
            process.queue.after(within, self._check_in_time, call, handling, within)

    def on_ended(self, call: NodeMessage) -> None:
        """Note that a call was answered, failed, or was given up."""
        self._ended.add(call.number)
        for handling in call.handlings:
            self._expect_stop(call, handling)

    def _check_owner(self, process: NodeProcess, call: NodeMessage) -> None:
        """Calls of a key go to one provider as long as its caller sees the same ones."""
        keyed = self._keyed.pop(call.number, None)
        if keyed is None or keyed.before != keyed.seen():
            return
        submission = call.submission
        place = (call.sender, submission.name, submission.key or "", keyed.before)
        owner = self._owners.setdefault(place, process.label)
        if owner != process.label:
            text = f"{call} of key {submission.key!r}, which {owner} had before"
            self._wrong(Rule.MISORDERED, process.label, text)

    def _expect_stop(self, call: NodeMessage, handling: Handling) -> None:
        """Who works on an ended call must hear of it soon, where nothing is in the way.

        Where windows are small the news may have to wait for credit, so nothing is expected then.
        """
        link = self._scenario.link
        if link.window_messages < CALLS_TOGETHER or link.window_bytes < link.fragment_bytes * 16:
            return
        queue = self._at[handling].queue
        until = queue.now + TOLD_WITHIN
        if not self._is_disturbed(call.source, handling.index, queue.now, until):
            queue.at(until, self._check_stopped, call, handling)

    def _check_stopped(self, call: NodeMessage, handling: Handling) -> None:
        if self._is_at_work(handling):
            self._wrong(Rule.LIVENESS, handling.receiver, f"works on {call}, which has ended")

    def _check_in_time(self, call: NodeMessage, handling: Handling, within: float) -> None:
        now, index = self._at[handling].queue.now, handling.index
        asleep = any(
            fault.is_of_one
            and fault.host == index
            and fault.at <= now
            and now - within <= fault.at + fault.seconds
            for fault in self._scenario.faults
        )
        if not asleep and self._is_at_work(handling):
            self._wrong(Rule.LATE, handling.receiver, f"works on {call}, whose time is over")

    def _is_at_work(self, handling: Handling) -> bool:
        """Whether a handler has not ended, and was not told to."""
        process = self._at[handling]
        is_there = process.alive and not process.left
        return is_there and handling.verdict is None and not handling.cancelled
