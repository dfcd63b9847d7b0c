"""What tests of streams share: an application that reads and writes them at its own pace."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tests.engines import Host, body
from zmesh.actions import (
    Action,
    CancelRequest,
    PartsArrived,
    PartsEnded,
    StreamOffered,
    StreamRoom,
)
from zmesh.events import (
    BeginStream,
    CancelStream,
    EndParts,
    OpenStream,
    RefuseStream,
    Serve,
    TakeParts,
    WritePart,
)
from zmesh.ids import NodeId
from zmesh.message import Kind, Outcome, Record, StreamFault, Ways, head, size_of

Answer = Callable[[str], Iterable[str]]
"""Makes of a request the parts of its answer."""


@dataclass(eq=False)
class Stream:
    """One stream as an application sees it."""

    number: int
    ways: Ways
    target: str  # of the records it writes
    place: tuple[object, int] | None = None  # where the request came from
    text: str = ""
    out: Iterator[str] | None = None
    written: int = 0
    parts: list[str] = field(default_factory=list)
    waiting: list[Record] = field(default_factory=list)  # came, and are not taken
    end: PartsEnded | None = None
    cancelled: bool = False
    has_begun: bool = False
    is_written: bool = False


class Application:
    """Opens and serves streams on one host.

    With `takes` it takes every part at once; else `take` does. With `hears_out` it ends no answer
    before the body has ended.
    """

    def __init__(self, host: Host, *, takes: bool = True, begins: bool = True) -> None:
        self.host = host
        self.takes = takes
        self.begins = begins
        self.hears_out = True
        self.answers: dict[str, Answer] = {}
        self.streams: dict[int, Stream] = {}
        self.served: list[Stream] = []
        self._opened = -1
        host.listeners.append(self._hear)

    def serve(self, service: str, answer: Answer) -> None:
        self.answers[service] = answer
        self.host.do(Serve(service))

    def open(
        self,
        service: str,
        text: str = "",
        *,
        out: Iterable[str] | None = None,
        deadline: float | None = None,
        provider: NodeId | None = None,
    ) -> Stream:
        self._opened += 2
        ways = Ways.ANSWER if out is None else Ways.ANSWER | Ways.BODY
        stream = Stream(self._opened, ways, service, out=None if out is None else iter(out))
        self.streams[stream.number] = stream
        record = (head(Kind.STREAM_CONTROL), service, text.encode())
        self.host.do(OpenStream(stream.number, record, 4, ways, deadline, provider))
        return stream

    def cancel(self, stream: Stream) -> None:
        stream.out = None
        self.host.do(CancelStream(stream.number))

    def take(self, stream: Stream, count: int | None = None) -> None:
        """Take parts that came, all by default."""
        taken, stream.waiting = (
            stream.waiting[:count],
            stream.waiting[len(stream.waiting[:count]) :],
        )
        self.host.do(TakeParts(stream.number, len(taken), sum(map(size_of, taken))))

    def _hear(self, action: Action) -> None:
        match action:
            case StreamOffered():
                self._on_offered(action)
            case PartsArrived(number, records):
                stream = self.streams[number]
                assert stream.end is None, "a part came after the end"
                stream.parts += [body(record).decode() for record in records]
                stream.waiting += records
                if self.takes:
                    self.take(stream)
            case PartsEnded(number):
                stream = self.streams[number]
                assert stream.end is None, "a stream ends once"
                stream.end = action
                if stream.is_written and not stream.number % 2:
                    self.host.do(EndParts(number))
            case StreamRoom(number):
                self.pump(self.streams[number])
            case CancelRequest(source, first):
                place = (source, first)
                [stream] = [each for each in self.served if each.place == place]
                stream.cancelled, stream.out = True, None
                if stream.has_begun:
                    self.host.do(EndParts(stream.number, StreamFault.RELEASED))
                else:
                    self.refuse(stream, Outcome.RELEASED)
            case _:
                pass

    def _on_offered(self, offer: StreamOffered) -> None:
        [record] = offer.delivery.records
        place = (offer.delivery.source, offer.delivery.first_seq)
        stream = Stream(offer.stream, offer.ways, "", place, body(record).decode())
        self.streams[stream.number] = stream
        self.served.append(stream)
        if self.begins:
            self.begin(stream, self.answers[record[1]])

    def begin(self, stream: Stream, answer: Answer) -> None:
        stream.has_begun = True
        self.host.do(BeginStream(stream.number))
        if stream.ways & Ways.BODY:
            self.host.do(TakeParts(stream.number, 0, 0))
        stream.out = iter(answer(stream.text))
        self.pump(stream)

    def refuse(self, stream: Stream, outcome: Outcome, reason: str = "") -> None:
        self.host.do(RefuseStream(stream.number, outcome, reason))

    def pump(self, stream: Stream) -> None:
        """Write what there is room for, and the end."""
        parts, size = before = self.host.engine.stream_room(stream.number)
        while stream.out is not None and parts > 0 and size > 0:
            text = next(stream.out, None)
            if text is None:
                stream.out, stream.is_written = None, True
                is_heard_out = stream.number % 2 or not stream.ways & Ways.BODY or stream.end
                if is_heard_out or not self.hears_out:
                    self.host.do(EndParts(stream.number))
                return
            record = (head(Kind.STREAM), stream.target, text.encode())
            stream.written += 1
            parts, size = parts - 1, size - size_of(record)
            self.host.do(WritePart(stream.number, record))
        if stream.out is not None and (parts, size) != before:
            self.host.world.queue.after(0.0, self.pump, stream)  # to be told when there is room

    def fail(self, stream: Stream, fault: StreamFault) -> None:
        stream.out = None
        record = (head(Kind.STREAM_CONTROL), "", b"why")
        self.host.do(EndParts(stream.number, fault, record))
