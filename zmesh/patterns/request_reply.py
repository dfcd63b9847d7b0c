"""Calls: a request to one of the providers of a service, and the first answer to it.

A call is open until its answer, its deadline, or its cancellation. It moves to another provider
when the one it is with is lost, leaves, restarts, or gives it back; then the request travels again
with the same message id and one attempt more. `serving` is the other side.
"""

from dataclasses import dataclass, field

from zmesh.actions import CallAnswered, CallFailure, PeerState
from zmesh.core.peers import InternalTicket, Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines, earliest
from zmesh.events import Call, Source
from zmesh.ids import Entropy, NodeId
from zmesh.message import Kind, Outcome, Record, Tag, extra, head, with_extra
from zmesh.options import NodeOptions
from zmesh.patterns.interest import InterestTable
from zmesh.reliable.link_events import Returned


class CallTicket(InternalTicket):
    """The ticket of one attempt of a call."""

    __slots__ = ("call",)

    def __init__(self, call: int) -> None:
        super().__init__()
        self.call = call


@dataclass(slots=True)
class _OpenCall:
    number: int
    service: str
    record: Record
    lane: int
    deadline: float | None
    message_id: int
    provider: Peer | None = None  # None: waiting for one
    ticket: CallTicket | None = None  # of the current attempt
    attempts: int = 0
    asked: dict[NodeId, int] = field(default_factory=dict)  # how often each provider was asked
    trouble: str = "no answer"  # why it moved last


class RequestReply:
    """The calling side. Waiting calls are tried again when a provider appears."""

    def __init__(
        self, turn: Turn, interest: InterestTable, options: NodeOptions, entropy: Entropy
    ) -> None:
        self._turn = turn
        self._interest = interest
        self._options = options
        self._entropy = entropy
        self._calls: dict[int, _OpenCall] = {}
        self._with: dict[NodeId, dict[int, None]] = {}  # open calls by provider
        self._waiting: dict[str, dict[int, None]] = {}  # calls without provider, by service
        self._deadlines: Deadlines[int] = Deadlines()
        self._retries: Deadlines[int] = Deadlines()
        self._message_ids = 0
        self._cancels = InternalTicket(0)
        self.failovers = 0
        self.late_replies = 0

    def __len__(self) -> int:
        """Count the open calls."""
        return len(self._calls)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return earliest(self._deadlines.next, self._retries.next)

    # Commands

    def on_call(self, call: Call) -> None:
        """Ask a provider, or fail at once where none is known."""
        refusal = self._refusal(call)
        if refusal is not None:
            failure, reason = refusal
            self._turn.actions.append(CallAnswered(call.call, None, failure, "", reason))
            return
        self._message_ids += 1
        open_call = _OpenCall(
            call.call,
            call.record[1],
            _with_numbers(call.record, self._message_ids, call.call),
            call.lane,
            call.deadline,
            self._message_ids,
        )
        provider = self._choose(open_call)
        if provider is None:
            self._turn.actions.append(
                CallAnswered(call.call, None, CallFailure.NO_PROVIDER, "", call.record[1])
            )
            return
        self._calls[call.call] = open_call
        self._ask(open_call, provider)

    def _refusal(self, call: Call) -> tuple[CallFailure, str] | None:
        if call.deadline is not None and call.deadline <= self._turn.now:
            return CallFailure.DEADLINE, "its deadline had passed"
        if len(self._calls) >= self._options.calls_max:
            return CallFailure.EXHAUSTED, f"{len(self._calls)} calls are open already"
        if len(call.record[2]) > self._options.link.body_bytes_max:
            return CallFailure.REJECTED, "its body is too large"
        return None

    def on_cancel(self, number: int) -> None:
        """Forget a call nobody waits for, and tell its provider."""
        call = self._calls.get(number)
        if call is not None:
            self._recall(call)
            self._close(call)

    # Choosing and asking

    def _choose(self, call: _OpenCall) -> Peer | None:
        """Return the best provider there is now.

        That is one not asked yet, alive rather than silent, with the fewest of our calls open. We
        know only our own calls: where they leave several alike, chance decides, because many
        callers that all preferred the same one (the nearest, the lowest id) would all choose it.
        """
        best: list[Peer] = []
        lowest = (0, False, 0)
        for peer in self._interest.providers(call.service):
            if not peer.present or peer.draining:
                continue
            rank = (call.asked.get(peer.id, 0), peer.state is not PeerState.ALIVE, peer.calls)
            if not best or rank < lowest:
                best, lowest = [peer], rank
            elif rank == lowest:
                best.append(peer)
        if len(best) < 2:
            return best[0] if best else None
        return best[min(int(self._entropy.uniform(0, len(best))), len(best) - 1)]

    def _ask(self, call: _OpenCall, provider: Peer) -> None:
        self._leave_waiting(call)
        record = call.record
        call.attempts += 1
        if call.attempts > 1:
            record = with_extra(record, Tag.ATTEMPT, call.attempts)
        call.asked[provider.id] = call.asked.get(provider.id, 0) + 1
        call.provider = provider
        call.ticket = CallTicket(call.number)
        provider.calls += 1
        self._with.setdefault(provider.id, {})[call.number] = None
        self._deadlines.set(call.number, call.deadline)
        ttl = None if call.deadline is None else call.deadline - self._turn.now
        self._turn.submit(provider, call.lane, [record], call.ticket, ttl=ttl)

    # Answers

    def on_replies(
        self, peer: Peer, source: Source, first: int, last: int, records: list[Record]
    ) -> None:
        """Take REPLY and FAILURE records; those of calls no longer open are dropped."""
        self._turn.settle(source, first, last, Outcome.ACCEPTED, lazy=True)
        for record in records:
            number = extra(record, Tag.CORRELATION)
            call = self._calls.get(number) if isinstance(number, int) else None
            # An earlier provider may answer first, but nobody who was never asked.
            if call is None or peer.id not in call.asked:
                self.late_replies += 1
                continue
            failed = record[0] & 15 == Kind.FAILURE
            failure = CallFailure.REMOTE_ERROR if failed else None
            if call.provider is not peer:
                self._recall(call)
            self._close(call)
            self._turn.actions.append(CallAnswered(call.number, record, failure, peer.label))

    def on_returned(self, returned: Returned) -> None:
        """Decide on a request that was not accepted, unless its call has moved on."""
        ticket = returned.ticket
        call = self._calls.get(ticket.call) if isinstance(ticket, CallTicket) else None
        if call is None or call.ticket is not ticket:
            return
        match returned.outcome:
            case Outcome.REJECTED:
                self._fail(call, CallFailure.REJECTED, returned.reason)
            case Outcome.EXPIRED:
                self._fail(call, CallFailure.DEADLINE, "nobody began to handle it in time")
            case _:
                self._move(call, returned.reason or returned.outcome.name.lower(), returned.delay)

    def on_provider_gone(self, peer: Peer, reason: str) -> None:
        """Move all calls from a provider that was lost, left or restarted."""
        for number in list(self._with.get(peer.id, ())):
            call = self._calls[number]
            if call.ticket is not None:
                self._turn.withdraw(peer, call.ticket)
            self._move(call, reason, 0.0)

    # Moving on

    def _move(self, call: _OpenCall, reason: str, delay: float) -> None:
        """Take a call away from its provider, and find another."""
        self._release(call)
        self.failovers += 1
        if call.attempts >= self._options.attempts_max:
            why = f"given up after {call.attempts} attempts, the last: {reason}"
            self._fail(call, CallFailure.EXHAUSTED, why)
            return
        call.trouble = reason
        provider = self._choose(call)
        if provider is not None and provider.id not in call.asked:
            self._ask(call, provider)
            return
        self._waiting.setdefault(call.service, {})[call.number] = None
        if provider is None:
            self._wait(call)
        else:
            options = self._options
            ceiling = min(options.redeliver_max, options.redeliver_min * 2.0**call.attempts)
            pause = max(delay, ceiling * self._entropy.uniform(0.5, 1.0))
            self._retries.set(call.number, self._turn.now + pause)

    def on_provider(self, service: str) -> None:
        """Try the calls that wait for a provider of a service; one just appeared."""
        for number in list(self._waiting.get(service, ())):
            call = self._calls[number]
            provider = self._choose(call)
            paused = number in self._retries
            if provider is not None and not (paused and provider.id in call.asked):
                self._ask(call, provider)

    def on_timer(self) -> None:
        """Ask again where the pause is over, and give up what nobody answered in time."""
        now = self._turn.now
        for number in self._retries.due(now):
            call = self._calls[number]
            provider = self._choose(call)
            if provider is not None:
                self._ask(call, provider)
            else:
                self._wait(call)
        for number in self._deadlines.due(now):
            call = self._calls[number]
            self._recall(call)
            if call.deadline is None:
                self._fail(call, CallFailure.PEER_LOST, call.trouble)
            else:
                self._fail(call, CallFailure.DEADLINE, call.trouble)

    def _wait(self, call: _OpenCall) -> None:
        """Let a call wait for a provider: until its deadline, or as long as a session lingers."""
        if call.deadline is None:
            patience = self._options.link.session_linger
            self._deadlines.set(call.number, self._turn.now + patience)

    def _recall(self, call: _OpenCall) -> None:
        """Tell the provider of a call that nobody waits for its answer."""
        provider, ticket = call.provider, call.ticket
        if provider is None or ticket is None:
            return
        call.ticket = None
        # What never left needs no cancelling: else these would pile up for a provider that stalls.
        if self._turn.withdraw(provider, ticket) and provider.present:
            cancel = _with_numbers(
                (head(Kind.CANCEL), call.service, b""), call.message_id, call.number
            )
            self._turn.submit(provider, call.lane, [cancel], self._cancels)

    # Ends

    def _fail(self, call: _OpenCall, failure: CallFailure, reason: str) -> None:
        peer = "" if call.provider is None else call.provider.label
        self._close(call)
        self._turn.actions.append(CallAnswered(call.number, None, failure, peer, reason))

    def _close(self, call: _OpenCall) -> None:
        self._release(call)
        self._leave_waiting(call)
        self._deadlines.discard(call.number)
        del self._calls[call.number]

    def _release(self, call: _OpenCall) -> None:
        provider, call.provider, call.ticket = call.provider, None, None
        if provider is not None:
            provider.calls -= 1
            numbers = self._with[provider.id]
            del numbers[call.number]
            if not numbers:
                del self._with[provider.id]

    def _leave_waiting(self, call: _OpenCall) -> None:
        waiting = self._waiting.get(call.service)
        if waiting is None or call.number not in waiting:
            return
        self._retries.discard(call.number)
        del waiting[call.number]
        if not waiting:
            del self._waiting[call.service]

    def close(self) -> None:
        """End every open call: the node closes."""
        for call in list(self._calls.values()):
            self._fail(call, CallFailure.CLOSED, "the node was closed")


def _with_numbers(record: Record, message_id: int, call: int) -> Record:
    if len(record) == 3:  # as most are
        extras = (int(Tag.MESSAGE_ID), message_id, int(Tag.CORRELATION), call)
        return (*record, extras)
    record = with_extra(record, Tag.MESSAGE_ID, message_id)
    return with_extra(record, Tag.CORRELATION, call)
