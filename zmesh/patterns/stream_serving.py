"""Streams that peers opened: handed to the handlers of this node's services, and answered.

One ends with what its handler does, with the caller's word to stop, or with the session; in the
latter cases the handler is told to stop, and what it still does leads nowhere.
"""

from dataclasses import dataclass, field
from functools import partial

from zmesh.actions import (
    CallFailure,
    CancelRequest,
    Delivery,
    PartsEnded,
    StreamOffered,
    StreamRoom,
)
from zmesh.core.defects import Defects
from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.events import EndParts, RefuseStream, Source, TakeParts, WritePart
from zmesh.ids import NodeId
from zmesh.message import Outcome, Record, StreamFault, Ways, size_of
from zmesh.options import NodeOptions
from zmesh.patterns import stream_records
from zmesh.patterns.stream_calls import StreamTicket
from zmesh.patterns.stream_flow import Inflow, Outflow
from zmesh.patterns.stream_records import Verb
from zmesh.reliable.link_events import Returned


@dataclass(eq=False, slots=True)
class _Served:
    number: int
    peer: Peer
    wire: int
    source: Source
    first_seq: int
    last_seq: int
    ticket: StreamTicket
    inflow: Inflow
    outflow: Outflow = field(default_factory=Outflow)
    has_begun: bool = False
    is_over: bool = False  # the caller waits no longer, and the handler was told
    is_read: bool = False  # no part of the body follows
    is_written: bool = False  # the handler has ended, and parts of its answer wait for room


class StreamServing:
    """The side of streams that answers them."""

    def __init__(self, turn: Turn, options: NodeOptions, defects: Defects) -> None:
        self._turn = turn
        self._options = options
        self._defects = defects
        self._served: dict[int, _Served] = {}
        self._of_peer: dict[NodeId, dict[int, _Served]] = {}  # not over, by number on the wire
        self._numbered = 0
        self.running = 0  # handlers that have begun

    def __len__(self) -> int:
        """Count the streams the application has."""
        return len(self._served)

    # What the caller says

    def on_open(
        self, peer: Peer, source: Source, seqs: tuple[int, int], fields: tuple[int, ...],
        record: Record,
    ) -> None:  # fmt: skip
        """Offer a stream to the application."""
        wire, _, ways, parts, size = fields
        if record[1] not in self._turn.peers.local.services:
            reason = "the service is not provided here"
            self._turn.settle(source, *seqs, Outcome.RELEASED, reason)
            return
        if wire in self._of_peer.get(peer.id, {}) or not 0 < ways <= Ways.BODY | Ways.ANSWER:
            self._defects.note(peer.id, "stream", f"opened number {wire} in ways {ways}")
            self._turn.settle(source, *seqs, Outcome.REJECTED, "this opens no stream")
            return
        self._numbered += 2
        inflow = Inflow(self._options.stream_parts, self._options.stream_bytes)
        ticket = StreamTicket(self._numbered)
        served = _Served(self._numbered, peer, wire, source, *seqs, ticket, inflow)
        served.outflow.raise_limits(parts, size)
        self._served[served.number] = served
        self._of_peer.setdefault(peer.id, {})[wire] = served
        delivery = Delivery(source, peer.label, *seqs, [record])
        self._turn.actions.append(StreamOffered(served.number, Ways(ways), delivery))

    def on_part(self, peer: Peer, stream: int, number: int, record: Record) -> None:
        """Take a part of the body."""
        served = self._find(peer, stream)
        if served is None or served.is_read:
            return
        problem = served.inflow.take_in(number, size_of(record))
        if problem:
            self._break_body(served, problem)
        else:
            self._turn.deliver_part(served.number, record)

    def on_control(self, peer: Peer, verb: Verb, fields: tuple[int, ...]) -> None:
        """Take a grant, the end of the body, or the word to stop."""
        served = self._find(peer, fields[0])
        if served is None:
            return
        if verb is Verb.GRANT:
            outflow = served.outflow
            outflow.raise_limits(fields[2], fields[3])
            self._flush(served)
            if outflow.was_full and outflow.room() != (0, 0):
                outflow.was_full = False
                self._turn.actions.append(StreamRoom(served.number))
        elif verb is Verb.END and not served.is_read:
            if fields[2] != served.inflow.parts:
                came = served.inflow.parts
                self._break_body(served, f"{fields[2]} parts were sent, {came} came")
            else:
                served.is_read = True
                self._turn.actions.append(PartsEnded(served.number, peer=peer.label))
        elif verb is Verb.STOP:
            self._turn.withdraw(peer, served.ticket)
            self._finish(served)

    def _find(self, peer: Peer, wire: int) -> _Served | None:
        return self._of_peer.get(peer.id, {}).get(wire)

    def _break_body(self, served: _Served, why: str) -> None:
        served.is_read = True
        self._defects.note(served.peer.id, "stream", why)
        self._turn.actions.append(
            PartsEnded(served.number, CallFailure.BROKEN, served.peer.label, why)
        )

    def on_returned(self, returned: Returned) -> None:
        """End a stream of which a part was not taken: the caller would wait for it."""
        ticket = returned.ticket
        served = self._served.get(ticket.stream) if isinstance(ticket, StreamTicket) else None
        if served is not None and not served.is_over:
            self._send(served, stream_records.fault(None, served.wire, StreamFault.RELEASED))
            self._finish(served)

    def on_session_ended(self, peer: Peer) -> None:
        """Have the handlers of a peer's streams stopped."""
        for served in list(self._of_peer.get(peer.id, {}).values()):
            self._finish(served)

    def _finish(self, served: _Served) -> None:
        """Have a handler stopped: nobody waits for what it does."""
        self._forget(served)
        if served.is_written:
            self._drop(served)
        else:
            self._turn.actions.append(CancelRequest(served.source, served.first_seq))

    def _forget(self, served: _Served) -> None:
        served.is_over = True
        streams = self._of_peer.get(served.peer.id, {})
        streams.pop(served.wire, None)
        if not streams:
            self._of_peer.pop(served.peer.id, None)

    # What the handler does

    def on_begin(self, stream: int) -> None:
        """Accept what opened a stream: its handler begins."""
        served = self._served.get(stream)
        if served is not None:
            served.has_begun = True
            self.running += 1
            self._settle(served, Outcome.ACCEPTED)

    def on_refuse(self, refusal: RefuseStream) -> None:
        """Give back or reject a stream that was not begun."""
        served = self._served.pop(refusal.stream, None)
        if served is not None:
            self._forget(served)
            self._settle(served, refusal.outcome, refusal.reason)

    def on_write(self, write: WritePart) -> None:
        """Send a part of the answer."""
        served = self._served.get(write.stream)
        if served is None or served.is_over:
            return
        served.outflow.write(write.record)
        self._flush(served)

    def _flush(self, served: _Served) -> None:
        """Send what the caller has room for, and the end where that was all.

        A writer asks for room first, but a part may be larger on its way than it was written: to a
        caller that cannot decompress it.
        """
        outflow = served.outflow
        records = outflow.leaving(partial(self._turn.fitted, served.peer))
        for number, record in enumerate(records, outflow.parts - len(records) + 1):
            self._send(served, stream_records.part(record, served.wire, number))
        if served.is_written and not outflow.waiting:
            self._conclude(served, stream_records.end("", served.wire, outflow.parts))

    def on_take(self, take: TakeParts) -> None:
        """Let the caller send as much more as was taken."""
        served = self._served.get(take.stream)
        if served is None or served.is_over or served.is_read:
            return
        inflow = served.inflow
        inflow.grant(take.parts, take.size)
        limits = inflow.parts_limit, inflow.bytes_limit
        self._send(served, stream_records.grant("", served.wire, *limits))

    def on_end(self, end: EndParts) -> None:
        """Tell the caller how its stream ended."""
        served = self._served.get(end.stream)
        if served is None:
            return
        if served.is_over:
            self._drop(served)
        elif end.fault is None:
            served.is_written = True
            self._flush(served)
        else:
            self._conclude(served, stream_records.fault(end.record, served.wire, end.fault))

    def _conclude(self, served: _Served, record: Record) -> None:
        self._forget(served)
        self._drop(served)
        self._send(served, record)

    def _drop(self, served: _Served) -> None:
        del self._served[served.number]
        self.running -= served.has_begun

    def room(self, stream: int) -> tuple[int, int]:
        """Return how many parts and bytes of the answer may be written now."""
        served = self._served.get(stream)
        return (0, 0) if served is None else served.outflow.room()

    def _send(self, served: _Served, record: Record) -> None:
        self._turn.submit(served.peer, served.source.lane, [record], served.ticket)

    def _settle(self, served: _Served, outcome: Outcome, reason: str = "") -> None:
        lazy = outcome is Outcome.ACCEPTED  # the first part goes with it
        self._turn.settle(
            served.source, served.first_seq, served.last_seq, outcome, reason, lazy=lazy
        )
