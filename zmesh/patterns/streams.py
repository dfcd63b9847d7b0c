"""Streams: calls whose answers or bodies come in parts, each side at the other's pace.

`stream_calls` is the side that opens them, `stream_serving` the one that answers; here records and
commands find their side. The bytes are in docs/protocol.md, section 17.2.
"""

from collections.abc import Sequence
from typing import assert_never

from zmesh.batches import runs
from zmesh.core.defects import Defects
from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.events import (
    BeginStream,
    CancelStream,
    EndParts,
    OpenStream,
    RefuseStream,
    Source,
    StreamCommand,
    TakeParts,
    WritePart,
)
from zmesh.ids import Entropy
from zmesh.message import Kind, Outcome, Record
from zmesh.options import NodeOptions
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.stream_calls import StreamCalls
from zmesh.patterns.stream_records import Verb, fields_of, verb_of
from zmesh.patterns.stream_serving import StreamServing
from zmesh.reliable.link_events import Returned


class Streams:
    """All streams of a node."""

    def __init__(
        self,
        turn: Turn,
        interest: InterestTable,
        options: NodeOptions,
        entropy: Entropy,
        defects: Defects,
    ) -> None:
        self._turn = turn
        self._defects = defects
        self.calls = StreamCalls(turn, interest, options, entropy, defects)
        self.serving = StreamServing(turn, options, defects)

    def on_command(self, command: StreamCommand) -> None:
        """Do what the application says about a stream; one that is over has no effect."""
        match command:
            case WritePart(stream):
                self._side(stream).on_write(command)
            case TakeParts(stream):
                self._side(stream).on_take(command)
            case EndParts(stream):
                self._side(stream).on_end(command)
            case OpenStream():
                self.calls.on_open(command)
            case CancelStream(stream):
                self.calls.on_cancel(stream)
            case BeginStream(stream):
                self.serving.on_begin(stream)
            case RefuseStream():
                self.serving.on_refuse(command)
            case _:
                assert_never(command)

    def room(self, stream: int) -> tuple[int, int]:
        """Return how many parts and bytes may be written; `StreamRoom` follows (0, 0)."""
        return self._side(stream).room(stream)

    def _side(self, stream: int) -> StreamCalls | StreamServing:
        return self.calls if stream % 2 else self.serving

    # Records

    def on_records(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        """Take STREAM and STREAM_CONTROL records; all but those that open are settled at once.

        What a slow reader has not taken is bounded by the credit of its stream.
        """
        said = [fields_of(record) for record in records]
        verbs = [
            verb_of(fields) if record[0] & 15 == Kind.STREAM_CONTROL else None
            for record, fields in zip(records, said, strict=True)
        ]
        opens = [verb is Verb.OPEN for verb in verbs]
        for is_open, low, high, _ in runs(first, last, records, opens):
            if not is_open:
                self._turn.settle(source, low, high, Outcome.ACCEPTED, lazy=True)
        single = len(records) == 1
        for seq, (record, fields, verb) in enumerate(
            zip(records, said, verbs, strict=True), first
        ):
            if verb is Verb.OPEN:
                self.serving.on_open(peer, source, (seq, last if single else seq), fields, record)
            elif verb is not None:
                self._on_control(peer, source.lane, verb, fields, record)
            elif record[0] & 15 == Kind.STREAM and len(fields) == 2:
                self._on_part(peer, source.lane, fields, record)
            else:
                self._defects.note(peer.id, "stream", f"a record that says {fields}")

    def _on_part(self, peer: Peer, lane: int, fields: tuple[int, ...], record: Record) -> None:
        if record[1]:
            self.serving.on_part(peer, fields[0], fields[1], record)
        else:
            self.calls.on_part(peer, lane, fields[0], fields[1], record)

    def _on_control(
        self, peer: Peer, lane: int, verb: Verb, fields: tuple[int, ...], record: Record
    ) -> None:
        if record[1] or verb is Verb.STOP:
            self.serving.on_control(peer, verb, fields)
        else:
            self.calls.on_control(peer, lane, verb, fields, record)

    def on_returned(self, peer: Peer, returned: Returned) -> None:
        """Take what was not accepted."""
        self.calls.on_returned(peer, returned)
        self.serving.on_returned(returned)

    # The node

    def on_session_ended(self, peer: Peer, reason: str) -> None:
        """End what lived in a session."""
        self.calls.on_session_ended(peer, reason)
        self.serving.on_session_ended(peer)
