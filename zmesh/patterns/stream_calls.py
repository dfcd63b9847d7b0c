"""Streams opened here: a provider is asked, and read from and written to until the end.

Before the first part a stream moves to another provider where the one it is with is lost or gives
it back, under a new number; nobody is asked twice. After that it lives as long as the session with
its provider, however often the connection breaks. `stream_serving` is the other side.
"""

from dataclasses import dataclass, field
from functools import partial

from zmesh.actions import CallFailure, PartsEnded, PeerState, StreamRoom
from zmesh.core.defects import Defects
from zmesh.core.peers import InternalTicket, Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines
from zmesh.events import EndParts, OpenStream, TakeParts, WritePart
from zmesh.ids import Entropy, NodeId
from zmesh.message import Outcome, Record, StreamFault, size_of
from zmesh.options import NodeOptions
from zmesh.patterns import stream_records
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.stream_flow import Inflow, Outflow
from zmesh.patterns.stream_records import Verb, fields_of, verb_of
from zmesh.reliable.link_events import Returned

_FAILURES = {
    StreamFault.RAISED: CallFailure.REMOTE_ERROR,
    StreamFault.REJECTED: CallFailure.REJECTED,
    StreamFault.RELEASED: CallFailure.BROKEN,
}


class StreamTicket(InternalTicket):
    """The ticket of what one side sends of a stream, but for the word to stop."""

    __slots__ = ("stream",)

    def __init__(self, stream: int) -> None:
        super().__init__()
        self.stream = stream


@dataclass(eq=False, slots=True)
class _Opened:
    order: OpenStream
    inflow: Inflow
    outflow: Outflow = field(default_factory=Outflow)
    wire: int = 0  # its number at the provider, another with each attempt
    provider: Peer | None = None
    ticket: StreamTicket | None = None
    asked: dict[NodeId, None] = field(default_factory=dict)
    has_begun: bool = False  # a part came or left: it stays where it is
    is_written: bool = False  # the application wrote its last part

    @property
    def service(self) -> str:
        return self.order.record[1]


class StreamCalls:
    """The side of streams that opened them."""

    def __init__(
        self,
        turn: Turn,
        interest: InterestTable,
        options: NodeOptions,
        entropy: Entropy,
        defects: Defects,
    ) -> None:
        self._turn = turn
        self._interest = interest
        self._options = options
        self._entropy = entropy
        self._defects = defects
        self._opened: dict[int, _Opened] = {}
        self._on_wire: dict[int, _Opened] = {}
        self._with: dict[NodeId, dict[int, None]] = {}  # open streams by provider
        self._deadlines: Deadlines[int] = Deadlines(turn.agenda)
        self._numbered = 0
        self._stops = InternalTicket(0)
        self._turned_away: dict[NodeId, InternalTicket] = {}  # of all words to stop, by peer
        self.late = 0  # records of streams that are over

    def __len__(self) -> int:
        """Count the open streams."""
        return len(self._opened)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._deadlines.next

    # Commands

    def on_open(self, order: OpenStream) -> None:
        """Ask a provider, or fail at once where none is known."""
        opened = _Opened(order, self._new_inflow())
        provider = self._choose(opened)
        if provider is None:
            self._tell_end(order.stream, CallFailure.NO_PROVIDER, "", order.record[1])
            return
        self._opened[order.stream] = opened
        self._deadlines.set(order.stream, order.deadline)
        self._ask(opened, provider)

    def on_cancel(self, stream: int) -> None:
        """Forget a stream nobody reads or writes, and tell its provider."""
        opened = self._opened.get(stream)
        if opened is not None:
            self._stop(opened)
            self._close(opened)

    def on_write(self, write: WritePart) -> None:
        """Send a part of the body, as soon as the provider wants it."""
        opened = self._opened.get(write.stream)
        if opened is not None:
            opened.outflow.write(write.record)
            self._flush(opened)

    def on_end(self, end: EndParts) -> None:
        """Note that the body is complete."""
        opened = self._opened.get(end.stream)
        if opened is not None:
            opened.is_written = True
            self._flush(opened)

    def on_take(self, take: TakeParts) -> None:
        """Let the provider send as much more as was taken."""
        opened = self._opened.get(take.stream)
        if opened is not None:
            inflow = opened.inflow
            inflow.grant(take.parts, take.size)
            limits = inflow.parts_limit, inflow.bytes_limit
            self._send(opened, [stream_records.grant(opened.service, opened.wire, *limits)])

    def room(self, stream: int) -> tuple[int, int]:
        """Return how many parts and bytes of the body may be written now."""
        opened = self._opened.get(stream)
        return (0, 0) if opened is None else opened.outflow.room()

    # Choosing and asking

    def _choose(self, opened: _Opened) -> Peer | None:
        """Return the best provider not asked yet: alive rather than silent, the least loaded."""
        best: list[Peer] = []
        lowest = (False, 0)
        only = opened.order.provider
        for peer in self._interest.providers(opened.service):
            if not peer.present or peer.draining or peer.id in opened.asked:
                continue
            if only is not None and peer.id != only:
                continue
            rank = (peer.state is not PeerState.ALIVE, peer.calls)
            if not best or rank < lowest:
                best, lowest = [peer], rank
            elif rank == lowest:
                best.append(peer)
        if len(best) < 2:
            return best[0] if best else None
        return best[min(int(self._entropy.uniform(0, len(best))), len(best) - 1)]

    def _ask(self, opened: _Opened, provider: Peer) -> None:
        order = opened.order
        self._numbered += 1
        opened.wire = self._numbered
        opened.provider = provider
        opened.ticket = StreamTicket(order.stream)
        opened.asked[provider.id] = None
        self._on_wire[opened.wire] = opened
        self._with.setdefault(provider.id, {})[order.stream] = None
        provider.calls += 1
        ttl = None if order.deadline is None else order.deadline - self._turn.now
        limits = opened.inflow.parts_limit, opened.inflow.bytes_limit
        record = stream_records.opening(order.record, opened.wire, order.ways, *limits)
        self._turn.submit(provider, order.lane, [record], opened.ticket, ttl=ttl)

    def _new_inflow(self) -> Inflow:
        inflow = Inflow(self._options.stream_parts, self._options.stream_bytes)
        inflow.grant(0, 0)
        return inflow

    # Writing

    def _flush(self, opened: _Opened) -> None:
        """Send what the provider has room for, and the end where that was all."""
        outflow, provider = opened.outflow, opened.provider
        if provider is None:
            return
        records = outflow.leaving(partial(self._turn.fitted, provider))
        ends = opened.is_written and not outflow.waiting and opened.outflow.parts_limit > 0
        if records or ends:
            opened.has_begun = True
            first = outflow.parts - len(records) + 1
            parts = [
                stream_records.part(record, opened.wire, number)
                for number, record in enumerate(records, first)
            ]
            if ends:
                opened.is_written = False  # said once
                parts.append(stream_records.end(opened.service, opened.wire, outflow.parts))
            self._send(opened, parts)

    def _send(self, opened: _Opened, records: list[Record]) -> None:
        if opened.provider is not None and opened.ticket is not None:
            self._turn.submit(opened.provider, opened.order.lane, records, opened.ticket)

    # What the provider says

    def on_part(self, peer: Peer, lane: int, stream: int, number: int, record: Record) -> None:
        """Take a part of the answer."""
        opened = self._find(peer, stream)
        if opened is None:
            if number == 1:
                self._turn_away(peer, lane, stream)
            return
        opened.has_begun = True
        problem = opened.inflow.take_in(number, size_of(record))
        if problem:
            self._break(opened, problem)
        else:
            self._turn.deliver_part(opened.order.stream, record)

    def on_control(
        self, peer: Peer, lane: int, verb: Verb, fields: tuple[int, ...], record: Record
    ) -> None:
        """Take a grant, or the end."""
        opened = self._find(peer, fields[0])
        if opened is None:
            if verb is Verb.GRANT:
                self._turn_away(peer, lane, fields[0])
            return
        if verb is Verb.GRANT:
            outflow = opened.outflow
            outflow.raise_limits(fields[2], fields[3])
            self._flush(opened)
            if outflow.was_full and outflow.room() != (0, 0):
                outflow.was_full = False
                self._turn.actions.append(StreamRoom(opened.order.stream))
        elif verb is Verb.END:
            if fields[2] != opened.inflow.parts:
                self._break(opened, f"{fields[2]} parts were sent, {opened.inflow.parts} came")
            else:
                self._close(opened)
                self._turn.actions.append(PartsEnded(opened.order.stream, peer=peer.label))
        elif verb is Verb.FAIL:
            self._on_fault(peer, opened, fields[2], record)

    def _on_fault(self, peer: Peer, opened: _Opened, why: int, record: Record) -> None:
        if why == StreamFault.RELEASED and not opened.has_begun:
            self._move(opened, CallFailure.BROKEN, f"{peer.label} gave it back")
            return
        fault = StreamFault(why) if why in _FAILURES else StreamFault.RAISED
        self._close(opened)
        self._turn.actions.append(
            PartsEnded(opened.order.stream, _FAILURES[fault], peer.label, "", record)
        )

    def _find(self, peer: Peer, wire: int) -> _Opened | None:
        opened = self._on_wire.get(wire)
        if opened is None or opened.provider is not peer:
            self.late += 1
            return None
        return opened

    def _turn_away(self, peer: Peer, lane: int, wire: int) -> None:
        """Stop a provider that begins what nobody waits for; it may have missed the word.

        One that begins so many and takes no answer is left to its own devices.
        """
        ticket = self._turned_away.setdefault(peer.id, InternalTicket(0))
        if ticket.expected - ticket.accepted < self._options.answers_max:
            ticket.expected += 1
            self._turn.submit(peer, lane, [stream_records.stop("", wire)], ticket)

    def on_returned(self, peer: Peer, returned: Returned) -> None:
        """Decide on what was not accepted, unless the stream has moved on."""
        ticket = returned.ticket
        opened = self._opened.get(ticket.stream) if isinstance(ticket, StreamTicket) else None
        if opened is None or opened.ticket is not ticket:
            return
        reason = returned.reason or returned.outcome.name.lower()
        if verb_of(fields_of(returned.record)) is not Verb.OPEN:
            self._break(opened, f"{peer.label} did not take a part: {reason}")
        elif returned.outcome is Outcome.REJECTED:
            self._fail(opened, CallFailure.REJECTED, reason)
        elif returned.outcome is Outcome.EXPIRED:
            self._fail(opened, CallFailure.DEADLINE, "nobody began to handle it in time")
        else:
            self._move(opened, CallFailure.BROKEN, reason)

    # Ends

    def on_away(self, peer: Peer, reason: str) -> None:
        """Move what has not begun from a provider that is not there, where another one is.

        The rest waits for its return, as long as the session does.
        """
        for stream in list(self._with.get(peer.id, ())):
            opened = self._opened[stream]
            if not opened.has_begun and self._choose(opened) is not None:
                self._stop(opened)
                self._move(opened, CallFailure.PEER_LOST, reason)

    def on_session_ended(self, peer: Peer, reason: str) -> None:
        """End what had begun with a provider, and move the rest."""
        self._turned_away.pop(peer.id, None)
        for stream in list(self._with.get(peer.id, ())):
            opened = self._opened[stream]
            opened.ticket = None  # what comes back of it tells nothing new
            if opened.has_begun:
                self._fail(opened, CallFailure.PEER_LOST, reason)
            else:
                self._move(opened, CallFailure.PEER_LOST, reason)

    def on_timer(self) -> None:
        """End what did not come to an end in time."""
        for stream in self._deadlines.due(self._turn.now):
            opened = self._opened[stream]
            self._stop(opened)
            self._fail(opened, CallFailure.DEADLINE, "it did not end in time")

    def close(self) -> None:
        """End every open stream: the node closes."""
        for opened in list(self._opened.values()):
            self._fail(opened, CallFailure.CLOSED, "the node was closed")

    def _move(self, opened: _Opened, failure: CallFailure, reason: str) -> None:
        """Take a stream away from its provider, and ask another that was not asked yet."""
        provider = self._choose(opened)
        if provider is None:
            self._fail(opened, failure, reason)
            return
        self._release(opened)
        opened.inflow = self._new_inflow()
        opened.outflow.restart()
        self._ask(opened, provider)

    def _break(self, opened: _Opened, why: str) -> None:
        """Give up a stream of which something is missing or wrong."""
        if opened.provider is not None:
            self._defects.note(opened.provider.id, "stream", why)
        self._stop(opened)
        self._fail(opened, CallFailure.BROKEN, why)

    def _stop(self, opened: _Opened) -> None:
        """Tell the provider that nobody waits, where it may know of the stream."""
        provider, ticket, opened.ticket = opened.provider, opened.ticket, None
        if provider is None or ticket is None:
            return
        may_know = self._turn.withdraw(provider, ticket) or ticket.accepted > 0
        if may_know and provider.session is not None:
            record = stream_records.stop(opened.service, opened.wire)
            self._turn.submit(provider, opened.order.lane, [record], self._stops)

    def _fail(self, opened: _Opened, failure: CallFailure, reason: str) -> None:
        label = "" if opened.provider is None else opened.provider.label
        self._close(opened)
        self._tell_end(opened.order.stream, failure, label, reason)

    def _tell_end(self, stream: int, failure: CallFailure, peer: str, reason: str) -> None:
        self._turn.actions.append(PartsEnded(stream, failure, peer, reason))

    def _close(self, opened: _Opened) -> None:
        self._release(opened)
        self._deadlines.discard(opened.order.stream)
        del self._opened[opened.order.stream]

    def _release(self, opened: _Opened) -> None:
        provider, opened.provider, opened.ticket = opened.provider, None, None
        if provider is None:
            return
        provider.calls -= 1
        del self._on_wire[opened.wire]
        streams = self._with[provider.id]
        del streams[opened.order.stream]
        if not streams:
            del self._with[provider.id]
