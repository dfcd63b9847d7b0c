"""Calls: a request to one of the providers of a service, and the first answer to it.

A call is open until its answer, its deadline, or its cancellation. It moves to another provider
when the one it is with is lost, leaves, restarts, or gives it back; then the request travels again
with the same message id and one attempt more. Where the caller said so, a second provider is asked
as well when the first takes long (a hedge), and it is asked again where its handler raised (a
retry, with a new message id: nobody may answer it from memory); `retry_budget` limits both.
`choosing` says who is asked, `serving` is the other side.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from operator import attrgetter
from typing import Final, cast

from zmesh.actions import CallAnswered, CallFailure, CallsAnswered
from zmesh.batches import fit_runs
from zmesh.core.peers import InternalTicket, Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines, earliest
from zmesh.events import Call, CallEach, Source
from zmesh.ids import Entropy, NodeId
from zmesh.message import Kind, Outcome, Record, Tag, extra, head, with_extra
from zmesh.options import NodeOptions
from zmesh.patterns.call_later import FIRST_LATER
from zmesh.patterns.call_runs import CallRun, answered
from zmesh.patterns.choosing import NO_WISH, Choosing, Wish
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.retry_budget import RetryBudget
from zmesh.reliable.link_events import Returned

RUN_KEPT: Final = 16
"""A run with one open call of so many is one no longer: its requests would be kept for it."""


class CallTicket(InternalTicket):
    """One request of a call: whom it went to, when, and under which message id.

    Where it left in a run it has the ticket of that, and a place in it.
    """

    __slots__ = ("at", "call", "index", "message_id", "provider", "run")

    def __init__(self, call: int, provider: Peer, message_id: int, at: float) -> None:
        super().__init__()
        self.call = call
        self.provider = provider
        self.message_id = message_id
        self.at = at
        self.run: CallRun | None = None
        self.index: int | None = None


@dataclass(slots=True)
class _OpenCall:
    number: int
    service: str
    record: Record
    lane: int
    deadline: float | None
    message_id: int
    wish: Wish
    hedge_after: float | None
    retries: int  # that are left
    requests: dict[NodeId, CallTicket] = field(default_factory=dict)  # none: it waits
    attempts: int = 0
    asked: dict[NodeId, int] = field(default_factory=dict)  # how often each provider was asked
    trouble: str = "no answer"  # why it moved last


class RequestReply:
    """The calling side. Waiting calls are tried again when a provider appears."""

    def __init__(
        self, turn: Turn, interest: InterestTable, options: NodeOptions, entropy: Entropy
    ) -> None:
        self.later: Callable[[CallAnswered, NodeId | None], None]  # takes the answers to tickets
        self._turn = turn
        self._interest = interest
        self._options = options
        self._entropy = entropy
        self._run_bytes_max = min(options.link.fragment_bytes, options.link.body_bytes_max)
        self._calls: dict[int, _OpenCall] = {}
        self._runs: dict[int, CallRun] = {}  # of calls that are still in one
        self._with: dict[NodeId, dict[int | CallRun, None]] = {}  # calls and runs by provider
        self._waiting: dict[str, dict[int, None]] = {}  # calls without provider, by service
        self._deadlines: Deadlines[int | CallRun] = Deadlines(turn.agenda)
        self._pauses: Deadlines[int] = Deadlines(turn.agenda)
        self._hedges: Deadlines[int] = Deadlines(turn.agenda)
        self._message_ids = 0
        self._cancels = InternalTicket(0)
        self._budget = RetryBudget(options, turn.now)
        self.choosing = Choosing(options, entropy)
        self.failovers = 0
        self.hedged = 0
        self.retried = 0
        self.withheld = 0  # hedges and retries the budget did not allow
        self.late_replies = 0

    def __len__(self) -> int:
        """Count the open calls."""
        return len(self._calls) + len(self._runs)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return earliest(self._deadlines.next, self._pauses.next, self._hedges.next)

    # Commands

    def on_call(self, call: Call) -> None:
        """Ask a provider, or fail at once where none is known."""
        refusal = self._refusal(call)
        if refusal is not None:
            failure, reason = refusal
            self._tell(CallAnswered(call.call, None, failure, "", reason))
            return
        message_id = self._next_message_id()
        open_call = _OpenCall(
            call.call,
            call.record[1],
            _with_numbers(call.record, message_id, call.call),
            call.lane,
            call.deadline,
            message_id,
            NO_WISH if call.key is None and call.prefer is None else Wish(call.key, call.prefer),
            call.hedge_after,
            call.retries,
        )
        provider = self._choose(open_call)
        if provider is None:
            self._tell(CallAnswered(call.call, None, CallFailure.NO_PROVIDER, "", call.record[1]))
            return
        self._budget.on_calls()
        self._calls[call.call] = open_call
        self._ask(open_call, provider)

    def _refusal(self, call: Call) -> tuple[CallFailure, str] | None:
        if call.deadline is not None and call.deadline <= self._turn.now:
            return CallFailure.DEADLINE, "its deadline had passed"
        if len(self) >= self._options.calls_max:
            return CallFailure.EXHAUSTED, f"{len(self)} calls are open already"
        if len(call.record[2]) > self._options.link.body_bytes_max:
            return CallFailure.REJECTED, "its body is too large"
        return None

    def _next_message_id(self) -> int:
        self._message_ids += 1
        return self._message_ids

    def on_cancel(self, number: int) -> None:
        """Forget a call nobody waits for, and tell its providers."""
        call = self._find(number)
        if call is not None:
            self._end(call)

    # Runs: see `call_runs`

    def on_call_each(self, each: CallEach) -> None:
        """Ask with calls that ask for nothing special: a run of them at each provider."""
        records, first, count = each.records, each.first, len(each.records)
        shares = self._shares(each)
        if not shares:
            for number, record in enumerate(records, first):
                self.on_call(Call(number, record, each.lane, each.deadline))
            return
        self._budget.on_calls(count)
        for provider, places in shares:
            if len(places) == count:
                self._ask_together(each, provider, range(first, first + count), records)
            else:
                some = [records[place] for place in places]
                self._ask_together(each, provider, [first + place for place in places], some)

    def _shares(self, each: CallEach) -> list[tuple[Peer, Sequence[int]]]:
        """Return which provider gets which of the calls; nothing where each goes by itself."""
        records, now, options = each.records, self._turn.now, self._options
        if (
            (each.deadline is not None and each.deadline <= now)
            or len(self) + len(records) > options.calls_max
            or not fit_runs(records, self._run_bytes_max)
        ):
            return []
        service = records[0][1]
        providers = self._interest.providers(service)
        return self.choosing.share(service, providers, len(records), now)

    def _ask_together(
        self, each: CallEach, provider: Peer, numbers: Sequence[int], records: Sequence[Record]
    ) -> None:
        now, deadline = self._turn.now, each.deadline
        first_id = self._message_ids + 1
        self._message_ids += len(records)
        run = CallRun(provider, numbers, records, each.lane, deadline, first_id, now)
        self._runs.update(dict.fromkeys(numbers, run))
        provider.calls += len(records)
        self._with.setdefault(provider.id, {})[run] = None
        ttl = None
        if deadline is not None:
            self._deadlines.set(run, deadline)
            ttl = deadline - now
        self._turn.submit(provider, each.lane, run.records, run, ttl=ttl)

    def _find(self, number: int) -> _OpenCall | None:
        """Return an open call; if it is in a run, it goes on by itself."""
        run = self._runs.get(number)
        if run is None:
            return self._calls.get(number)
        call = self._part(run, number)
        self._thin_out(run)
        return call

    def _part(self, run: CallRun, number: int) -> _OpenCall:
        """Let a call of a run go on as if it had been made alone."""
        provider, index = run.provider, run.numbers.index(number)
        message_id = run.first_id + index
        call = self._calls[number] = _OpenCall(
            number, run.service, run.records[index], run.lane, run.deadline, message_id,
            NO_WISH, None, 0, attempts=1, asked={provider.id: 1},
        )  # fmt: skip
        ticket = call.requests[provider.id] = CallTicket(number, provider, message_id, run.at)
        ticket.run, ticket.index = run, index
        self._with[provider.id][number] = None
        if run.deadline is not None:
            self._deadlines.set(number, run.deadline)
        del self._runs[number]
        self._left(run, 1)
        return call

    def _part_all(self, run: CallRun) -> list[_OpenCall]:
        numbers = [number for number in run.numbers if self._runs.get(number) is run]
        return [self._part(run, number) for number in numbers]

    def _thin_out(self, run: CallRun) -> None:
        """Let the last ones go on by themselves: they must not keep what all others sent."""
        if 0 < run.open * RUN_KEPT < len(run.numbers):
            self._part_all(run)

    def _left(self, run: CallRun, count: int) -> None:
        """Note that calls of a run are no longer in it."""
        run.open -= count
        if not run.open:
            run.records = ()
            self._deadlines.discard(run)
            self._no_longer_with(run.provider, run)

    # Asking

    def _choose(self, call: _OpenCall) -> Peer | None:
        """Return the best provider there is now, of those that do not have the call."""
        return self.choosing.choose(
            call.service,
            self._interest.providers(call.service),
            call.wish,
            call.asked,
            self._turn.now,
            but=call.requests,
        )

    def _ask(self, call: _OpenCall, provider: Peer) -> None:
        now = self._turn.now
        record = call.record
        if call.attempts:
            self._leave_waiting(call)
        call.attempts += 1
        if call.attempts > 1:
            record = with_extra(record, Tag.ATTEMPT, call.attempts)
        call.asked[provider.id] = call.asked.get(provider.id, 0) + 1
        ticket = CallTicket(call.number, provider, call.message_id, now)
        call.requests[provider.id] = ticket
        provider.calls += 1
        self._with.setdefault(provider.id, {})[call.number] = None
        ttl = None
        if call.deadline is not None:
            self._deadlines.set(call.number, call.deadline)
            ttl = call.deadline - now
        else:
            self._deadlines.discard(call.number)
        if call.hedge_after is not None and len(call.requests) == 1:
            self._hedges.set(call.number, now + call.hedge_after)
        self._turn.submit(provider, call.lane, [record], ticket, key=call.wish.key, ttl=ttl)

    def _hedge(self, call: _OpenCall) -> None:
        """Ask a second provider, if there is another; the first one keeps the request."""
        provider = self._choose(call)
        if (
            provider is None
            or provider.id in call.asked
            or call.attempts >= self._options.attempts_max
        ):
            return
        if self._budget.take(self._turn.now):
            self.hedged += 1
            self._ask(call, provider)
        else:
            self.withheld += 1

    # Answers

    def on_replies(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        """Take REPLY and FAILURE records; those of calls no longer open are dropped."""
        self._turn.settle(source, first, last, Outcome.ACCEPTED, lazy=True)
        now = self._turn.now
        if self._runs:
            records = self._end_together(peer, records)
        for record in records:
            if len(record) == 4 and record[3][0] == Tag.CORRELATION:  # as it mostly has no other
                number: object = record[3][1]
            else:
                number = extra(record, Tag.CORRELATION)
            call = self._find(number) if isinstance(number, int) else None
            # An earlier provider may answer first, but nobody who was never asked.
            if call is None or peer.id not in call.asked:
                self.late_replies += 1
                continue
            ticket = call.requests.get(peer.id)
            if ticket is not None:
                self._release(call, ticket)
            if record[0] & 15 == Kind.FAILURE:
                if not self._goes_on(call):
                    self._answer(call, peer, record, CallFailure.REMOTE_ERROR)
                continue
            if ticket is not None:
                self.choosing.on_answer(peer, call.service, now - ticket.at, now)
            self._answer(call, peer, record, None)

    def _end_together(self, peer: Peer, records: Sequence[Record]) -> Sequence[Record]:
        """Give calls of runs the replies of the peer that has them; return what is left."""
        numbers = answered(records)
        if numbers is None:
            return records
        left: Sequence[Record] = ()
        if not self._runs.keys() >= set(numbers):
            are_here = [call in self._runs for call in numbers]
            left = [each for each, is_here in zip(records, are_here, strict=True) if not is_here]
            records = list(compress(records, are_here))
            numbers = list(compress(numbers, are_here))
        now, counts = self._turn.now, Counter(map(self._runs.__getitem__, numbers))
        if any(run.provider.id != peer.id for run in counts):
            return [*left, *records]  # it answers what it was never asked
        for number in numbers:
            del self._runs[number]
        for run, count in counts.items():
            self.choosing.on_answer(peer, run.service, now - run.at, now)
            run.provider.calls -= count
            self._left(run, count)
            self._thin_out(run)
        if numbers:
            self._turn.actions.append(CallsAnswered(numbers, list(records), peer.label))
        return left

    def _answer(
        self, call: _OpenCall, peer: Peer, record: Record, failure: CallFailure | None
    ) -> None:
        self._end(call)
        answer = CallAnswered(call.number, record, failure, peer.label)
        if call.number < FIRST_LATER:
            self._turn.actions.append(answer)
        else:
            self.later(answer, peer.id)

    def _goes_on(self, call: _OpenCall) -> bool:
        """Return whether a call goes on although a handler of it raised.

        Who else has it may still do better; else it is asked again, if the budget allows. How long
        an exception took is not measured: who fails fast must not look fast.
        """
        if not call.retries:
            return False
        is_with_others = bool(call.requests)
        if not is_with_others:
            if call.attempts >= self._options.attempts_max:
                return False
            if not self._budget.take(self._turn.now):
                self.withheld += 1
                return False
            self.retried += 1
        call.retries -= 1
        # Who raised has answered the old id: whoever is asked from now on is asked something new.
        call.message_id = self._next_message_id()
        call.record = with_extra(call.record, Tag.MESSAGE_ID, call.message_id)
        if not is_with_others:
            self._move(call, "its handler raised", 0.0)
        return True

    def on_returned(self, returned: Returned) -> None:
        """Decide on a request that was not accepted, unless its call has moved on."""
        found = self._call_of(returned)
        if found is None:
            return
        call, ticket = found
        self._release(call, ticket)
        peer = ticket.provider.label
        match returned.outcome:
            case Outcome.REJECTED:
                self._fail(call, CallFailure.REJECTED, returned.reason, peer)
            case Outcome.EXPIRED:
                reason = "nobody began to handle it in time"
                self._fail(call, CallFailure.DEADLINE, reason, peer)
            case _:
                reason = returned.reason or returned.outcome.name.lower()
                self._lose(call, reason, returned.delay)

    def _call_of(self, returned: Returned) -> tuple[_OpenCall, CallTicket] | None:
        """Return whose request it was, where its call still waits for that one."""
        ticket = returned.ticket
        if isinstance(ticket, CallTicket):
            call = self._calls.get(ticket.call)
        elif isinstance(ticket, CallRun):
            number = extra(returned.record, Tag.CORRELATION)
            call = self._find(number) if isinstance(number, int) else None
        else:
            return None
        own = None if call is None else call.requests.get(ticket.provider.id)
        if call is None or own is None or ticket not in (own, own.run):
            return None
        return call, own

    def on_provider_gone(self, peer: Peer, reason: str) -> None:
        """Move all calls from a provider that was lost, left or restarted."""
        for each in list(self._with.get(peer.id, ())):
            if isinstance(each, CallRun):
                self._part_all(each)
        for number in sorted(cast("dict[int, None]", self._with.get(peer.id, {}))):
            call = self._calls[number]
            ticket = call.requests[peer.id]
            self._withdraw(ticket)
            self._release(call, ticket)
            self._lose(call, reason, 0.0)

    # Moving on

    def _lose(self, call: _OpenCall, reason: str, delay: float) -> None:
        """Find another provider for a call that lost one, unless there is one that has it."""
        self.failovers += 1
        if not call.requests:
            self._move(call, reason, delay)

    def _move(self, call: _OpenCall, reason: str, delay: float) -> None:
        if call.attempts >= self._options.attempts_max:
            why = f"given up after {call.attempts} attempts, the last: {reason}"
            self._fail(call, CallFailure.EXHAUSTED, why)
            return
        call.trouble = reason
        provider = self._choose(call)
        if provider is not None and provider.id not in call.asked:
            self._ask(call, provider)
            return
        self._hedges.discard(call.number)
        self._waiting.setdefault(call.service, {})[call.number] = None
        if provider is None:
            self._wait(call)
        else:
            options = self._options
            ceiling = min(options.redeliver_max, options.redeliver_min * 2.0**call.attempts)
            pause = max(delay, ceiling * self._entropy.uniform(0.5, 1.0))
            self._pauses.set(call.number, self._turn.now + pause)

    def on_provider(self, service: str) -> None:
        """Try the calls that wait for a provider of a service; one just appeared."""
        for number in list(self._waiting.get(service, ())):
            call = self._calls[number]
            provider = self._choose(call)
            paused = number in self._pauses
            if provider is not None and not (paused and provider.id in call.asked):
                self._ask(call, provider)

    def on_timer(self) -> None:
        """Ask again where the pause is over, hedge, and give up what was not answered in time."""
        now = self._turn.now
        for number in self._pauses.due(now):
            call = self._calls[number]
            provider = self._choose(call)
            if provider is not None:
                self._ask(call, provider)
            else:
                self._wait(call)
        due = self._deadlines.due(now)
        runs = [self._part_all(each) for each in due if isinstance(each, CallRun)]
        alone = [self._calls[each] for each in due if not isinstance(each, CallRun)]
        for call in chain(alone, *runs):
            why = CallFailure.PEER_LOST if call.deadline is None else CallFailure.DEADLINE
            labels = [ticket.provider.label for ticket in call.requests.values()]
            self._fail(call, why, call.trouble, labels[0] if labels else "")
        for number in self._hedges.due(now):
            self._hedge(self._calls[number])

    def _wait(self, call: _OpenCall) -> None:
        """Let a call wait for a provider: until its deadline, or as long as a session lingers."""
        if call.deadline is None:
            patience = self._options.link.session_linger
            self._deadlines.set(call.number, self._turn.now + patience)

    # Ends

    def _fail(self, call: _OpenCall, failure: CallFailure, reason: str, peer: str = "") -> None:
        self._end(call)
        self._tell(CallAnswered(call.number, None, failure, peer, reason))

    def _tell(self, answer: CallAnswered, by: NodeId | None = None) -> None:
        """Tell whoever made the call: the application, or another pattern."""
        if answer.call < FIRST_LATER:
            self._turn.actions.append(answer)
        else:
            self.later(answer, by)

    def _end(self, call: _OpenCall) -> None:
        """Forget a call; who has it still is told that nobody waits for its answer."""
        if call.requests:
            for ticket in list(call.requests.values()):
                self._recall(call, ticket)
                self._release(call, ticket)
        if self._waiting:
            self._leave_waiting(call)
        self._deadlines.discard(call.number)
        if call.hedge_after is not None:
            self._hedges.discard(call.number)
        del self._calls[call.number]

    def _recall(self, call: _OpenCall, ticket: CallTicket) -> None:
        provider, now = ticket.provider, self._turn.now
        self.choosing.on_silence(provider, call.service, now - ticket.at, now)
        # What never left needs no cancelling: else these would pile up for a provider that stalls.
        if self._withdraw(ticket) and provider.present:
            cancel = _with_numbers(
                (head(Kind.CANCEL), call.service, b""), ticket.message_id, call.number
            )
            self._turn.submit(provider, call.lane, [cancel], self._cancels)

    def _withdraw(self, ticket: CallTicket) -> bool:
        return self._turn.withdraw(ticket.provider, ticket.run or ticket, ticket.index)

    def _release(self, call: _OpenCall, ticket: CallTicket) -> None:
        """Note that a provider does not have a call any more."""
        provider = ticket.provider
        provider.calls -= 1
        del call.requests[provider.id]
        self._no_longer_with(provider, call.number)

    def _no_longer_with(self, provider: Peer, call: int | CallRun) -> None:
        calls = self._with[provider.id]
        del calls[call]
        if not calls:
            del self._with[provider.id]

    def _leave_waiting(self, call: _OpenCall) -> None:
        waiting = self._waiting.get(call.service)
        if waiting is None or call.number not in waiting:
            return
        self._pauses.discard(call.number)
        del waiting[call.number]
        if not waiting:
            del self._waiting[call.service]

    def close(self) -> None:
        """End every open call: the node closes, which tells the providers as well."""
        for run in dict.fromkeys(self._runs.values()):
            self._part_all(run)
        for call in sorted(self._calls.values(), key=attrgetter("number")):
            tickets = list(call.requests.values())
            for ticket in tickets:
                self._release(call, ticket)
            peer = tickets[0].provider.label if tickets else ""
            self._fail(call, CallFailure.CLOSED, "the node was closed", peer)


def _with_numbers(record: Record, message_id: int, call: int) -> Record:
    if len(record) == 3:  # as most are
        extras = (int(Tag.MESSAGE_ID), message_id, int(Tag.CORRELATION), call)
        return (*record, extras)
    record = with_extra(record, Tag.MESSAGE_ID, message_id)
    return with_extra(record, Tag.CORRELATION, call)
