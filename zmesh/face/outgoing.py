"""Messages on their way out: a body and its options checked, and made into a record."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate, chain, islice, repeat
from traceback import format_exception
from typing import Final, NamedTuple, cast

from zmesh.errors import BodyTooLarge, ProtocolError
from zmesh.face.checks import check_bodies, sendable_text
from zmesh.face.compressing import THREADED_BYTES, Compressing
from zmesh.face.signing import Sign, Signing, signed
from zmesh.message import RECORD_OVERHEAD_BYTES, Kind, Record, Tag, head, size_of
from zmesh.options import NodeOptions
from zmesh.security.signing import SIGNED_BYTES_MAX
from zmesh.terms import Compression
from zmesh.wire.bodies import HeaderValue, body_of, encode_body, encode_headers
from zmesh.wire.compression import Compressor, plain_size

Headers = Mapping[str, HeaderValue]

_FAILURE_TEXT_MAX: Final = 4096  # characters of a handler's exception, or its type, that travel
_TRACEBACK_TEXT_MAX: Final = 16_384  # and of its traceback, the last ones: they tell the place


class RemoteFailure(NamedTuple):
    """What a caller is told of a handler's exception."""

    type: str
    message: str
    traceback: str | None = None  # where the provider allows


class Outgoing:
    """Makes records within a node's limits."""

    signing: Signing  # set by who has the key

    def __init__(self, options: NodeOptions, compression: Compression | None = None) -> None:
        self.compressing = Compressing(compression, options)
        self._wire = options.wire
        self._body_bytes_max = options.link.body_bytes_max
        self._tells_tracebacks = options.tracebacks_to_callers

    def record(
        self, kind: Kind, target: str, body: object, headers: Headers | None = None
    ) -> Record:
        """Return one record.

        Raises:
            BodyNotEncodable, BodyTooLarge, InvalidOption: it cannot be sent.
        """
        if type(body) is bytes and not headers and len(body) <= self._body_bytes_max:
            return (head(kind), target, body)  # what all of the below comes to
        encoding, data = encode_body(body)
        if len(data) > self._body_bytes_max:
            raise BodyTooLarge(len(data), self._body_bytes_max)
        if not headers:
            return (head(kind, encoding), target, data)
        extras = (int(Tag.HEADERS), encode_headers(headers, self._wire))
        return (head(kind, encoding), target, data, extras)

    def batch(
        self,
        bodies: Iterable[object],
        headers: Headers | None,
        kind: Kind = Kind.DIRECT,
        target: str = "",
        compressor: Compressor | None = None,
        sign: Sign | None = None,
    ) -> "Batch":
        """Return many messages, whose records are made, and signed, when there is room for them.

        Raises:
            InvalidOption: `bodies` is one body, or nothing that can be iterated.
        """
        check_bodies(bodies)
        if compressor is not None:
            batch = CompressedBatch(
                self, self._body_bytes_max, bodies, headers, kind, target, compressor
            )
            batch.sign = sign
            return batch
        make = ListBatch if isinstance(bodies, list | tuple) else Batch
        made = make(self, self._body_bytes_max, bodies, headers, kind, target)
        made.sign = sign
        return made

    def reply(self, result: object) -> Record:
        """Return the reply with what a handler returned.

        Raises:
            BodyNotEncodable, BodyTooLarge: it cannot be sent.
        """
        return self.record(Kind.REPLY, "", result)

    def failure(self, error: BaseException) -> Record:
        """Return the answer that tells of a handler's exception."""
        told = [
            sendable_text(text)[:_FAILURE_TEXT_MAX] for text in (type(error).__qualname__, error)
        ]
        if self._tells_tracebacks:
            traceback = sendable_text("".join(format_exception(error)))
            told.append(traceback[-_TRACEBACK_TEXT_MAX:])
        return self.record(Kind.FAILURE, "", told)


_END: Final = object()


class Batch:
    """Messages on their way out, piece by piece: bodies are asked for one ahead at most."""

    sign: Sign | None = None

    def __init__(
        self,
        outgoing: Outgoing,
        body_bytes_max: int,
        bodies: Iterable[object],
        headers: Headers | None,
        kind: Kind,
        target: str,
    ) -> None:
        self._kind = kind
        self._target = target
        self._outgoing = outgoing
        self._body_bytes_max = body_bytes_max
        self._headers = headers
        self._bodies = iter(bodies)
        self._next = next(self._bodies, _END)

    @property
    def is_exhausted(self) -> bool:
        """Whether no message is left."""
        return self._next is _END

    async def prepare(self) -> None:
        """Do what takes long, before records are taken."""

    def take(self, messages_max: int, bytes_max: int) -> list[Record]:
        """Return the next records: so many messages and bytes, one message beyond at most.

        Raises:
            BodyNotEncodable, BodyTooLarge, InvalidOption: one of them cannot be sent.
        """
        records: list[Record] = []
        raw, target, headers = head(self._kind), self._target, self._headers
        limit, size = self._body_bytes_max, 0
        overhead = RECORD_OVERHEAD_BYTES + self._signed_bytes
        following, self._next = chain((self._next,), self._bodies), _END
        for body in islice(following, messages_max):
            if size >= bytes_max and records:
                self._next = body
                return self._signed(records)
            record: Record
            if not headers and type(body) is bytes and len(body) <= limit:
                record = (raw, target, body)
                size += len(body) + len(target) + overhead
            else:
                record = self._outgoing.record(self._kind, target, body, headers)
                size += size_of(record) + self._signed_bytes
            records.append(record)
        self._next = next(self._bodies, _END)
        return self._signed(records)

    @property
    def _signed_bytes(self) -> int:
        """What signing adds to a record, at most: to how many it is added is not known before."""
        return 0 if self.sign is None else SIGNED_BYTES_MAX

    def _signed(self, records: list[Record]) -> list[Record]:
        return records if self.sign is None else self.sign(records)


class ListBatch(Batch):
    """Messages whose bodies are all there: bytes become records without a look at each."""

    def __init__(
        self,
        outgoing: Outgoing,
        body_bytes_max: int,
        bodies: Iterable[object],
        headers: Headers | None,
        kind: Kind,
        target: str,
    ) -> None:
        super().__init__(outgoing, body_bytes_max, (), headers, kind, target)
        self._all = tuple(bodies)
        self._taken = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether no message is left."""
        return self._taken == len(self._all)

    def take(self, messages_max: int, bytes_max: int) -> list[Record]:
        """Return the next records, as `Batch.take`."""
        some = self._all[self._taken : self._taken + messages_max]
        records: list[Record]
        if self._headers or set(map(type, some)) != {bytes}:
            records = self._take_each(some, bytes_max)
        else:
            bodies = cast("tuple[bytes, ...]", some)
            largest = max(map(len, bodies))
            if largest > self._body_bytes_max:
                raise BodyTooLarge(largest, self._body_bytes_max)
            overhead = len(self._target) + RECORD_OVERHEAD_BYTES + self._signed_bytes
            ends = list(accumulate(map(overhead.__add__, map(len, bodies))))
            fitting = bodies[: bisect_left(ends, bytes_max) + 1]
            records = self._signed(
                list(zip(repeat(head(self._kind)), repeat(self._target), fitting))
            )
        self._taken += len(records)
        return records

    def _take_each(self, some: tuple[object, ...], bytes_max: int) -> list[Record]:
        self._bodies = iter(some)
        self._next = next(self._bodies, _END)
        return super().take(len(some), bytes_max)


class CompressedBatch(Batch):
    """Messages whose bodies are compressed: a large one in a thread, when it is prepared."""

    def __init__(
        self,
        outgoing: Outgoing,
        body_bytes_max: int,
        bodies: Iterable[object],
        headers: Headers | None,
        kind: Kind,
        target: str,
        compressor: Compressor,
    ) -> None:
        super().__init__(outgoing, body_bytes_max, bodies, headers, kind, target)
        self._compressor = compressor
        self._made: Record | None = None  # of the next body, once it was needed
        self._is_ready = False  # and it is compressed, and signed

    async def prepare(self) -> None:
        """Compress the next body, if it is large."""
        if self.is_exhausted or self._is_ready:
            return
        record = self._make()
        if len(record[2]) > THREADED_BYTES:
            record = signed(record, self.sign)
            self._made = await self._outgoing.compressing.soon(record, self._compressor)
            self._is_ready = True

    def take(self, messages_max: int, bytes_max: int) -> list[Record]:
        """Return the next records, as `Batch.take`; sizes are those before compression.

        It ends before a large body, which is to be prepared first.
        """
        ready: list[Record] = []  # the first, if any
        plain: list[Record] = []
        size = 0
        while not self.is_exhausted and len(ready) + len(plain) < messages_max:
            record = self._make()
            is_first = not ready and not plain
            if not is_first and (size >= bytes_max or self._is_to_be_prepared(record)):
                break
            size += size_of(record) - len(record[2]) + plain_size(record) + self._signed_bytes
            (ready if self._is_ready else plain).append(record)
            self._made, self._is_ready = None, False
            self._next = next(self._bodies, _END)
        compress = self._outgoing.compressing.now
        return ready + [compress(each, self._compressor) for each in self._signed(plain)]

    def _make(self) -> Record:
        if self._made is None:
            self._made = self._outgoing.record(self._kind, self._target, self._next, self._headers)
        return self._made

    def _is_to_be_prepared(self, record: Record) -> bool:
        return not self._is_ready and len(record[2]) > THREADED_BYTES


def failure_of(record: Record) -> RemoteFailure:
    """Return what a FAILURE record tells of the exception, whatever the peer put there."""
    try:
        content = body_of(record)
    except ProtocolError as error:
        return RemoteFailure("an exception", str(error))
    match content:
        case [str(kind), str(message)]:
            return RemoteFailure(kind, message)
        case [str(kind), str(message), str(traceback)]:
            return RemoteFailure(kind, message, traceback)
        case _:
            return RemoteFailure("an exception", "the peer did not say which")
