"""Messages on their way out: a body and its options checked, and made into a record."""

from collections.abc import Iterable, Mapping
from itertools import chain, islice
from traceback import format_exception
from typing import Final, NamedTuple

from zmesh.errors import BodyTooLarge, ProtocolError
from zmesh.face.checks import sendable_text
from zmesh.message import RECORD_OVERHEAD_BYTES, Kind, Record, Tag, head, size_of
from zmesh.options import NodeOptions
from zmesh.wire.bodies import HeaderValue, decode_body, encode_body, encode_headers

Headers = Mapping[str, HeaderValue]

_FAILURE_TEXT_MAX: Final = 4096  # characters of a handler's exception that travel
_TRACEBACK_TEXT_MAX: Final = 16_384  # and of its traceback, the last ones: they tell the place


class RemoteFailure(NamedTuple):
    """What a caller is told of a handler's exception."""

    type: str
    message: str
    traceback: str | None = None  # where the provider allows


class Outgoing:
    """Makes records within a node's limits."""

    def __init__(self, options: NodeOptions) -> None:
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
    ) -> "Batch":
        """Return many messages, whose records are made when there is room for them."""
        return Batch(self, self._body_bytes_max, bodies, headers, kind, target)

    def reply(self, result: object) -> Record:
        """Return the reply with what a handler returned.

        Raises:
            BodyNotEncodable, BodyTooLarge: it cannot be sent.
        """
        return self.record(Kind.REPLY, "", result)

    def failure(self, error: BaseException) -> Record:
        """Return the answer that tells of a handler's exception."""
        told = [type(error).__qualname__, sendable_text(error)[:_FAILURE_TEXT_MAX]]
        if self._tells_tracebacks:
            traceback = sendable_text("".join(format_exception(error)))
            told.append(traceback[-_TRACEBACK_TEXT_MAX:])
        return self.record(Kind.FAILURE, "", told)


_END: Final = object()


class Batch:
    """Messages on their way out, piece by piece: bodies are asked for one ahead at most."""

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

    def take(self, messages_max: int, bytes_max: int) -> list[Record]:
        """Return the next records: so many messages and bytes, one message beyond at most.

        Raises:
            BodyNotEncodable, BodyTooLarge, InvalidOption: one of them cannot be sent.
        """
        records: list[Record] = []
        raw, target, headers = head(self._kind), self._target, self._headers
        limit, size = self._body_bytes_max, 0
        following, self._next = chain((self._next,), self._bodies), _END
        for body in islice(following, messages_max):
            if size >= bytes_max and records:
                self._next = body
                return records
            record: Record
            if type(body) is bytes and not headers and len(body) <= limit:
                record = (raw, target, body)
                size += len(body) + len(target) + RECORD_OVERHEAD_BYTES
            else:
                record = self._outgoing.record(self._kind, target, body, headers)
                size += size_of(record)
            records.append(record)
        self._next = next(self._bodies, _END)
        return records


def failure_of(record: Record) -> RemoteFailure:
    """Return what a FAILURE record tells of the exception, whatever the peer put there."""
    try:
        content = decode_body(record[0] >> 4, record[2])
    except ProtocolError as error:
        return RemoteFailure("an exception", str(error))
    match content:
        case [str(kind), str(message)]:
            return RemoteFailure(kind, message)
        case [str(kind), str(message), str(traceback)]:
            return RemoteFailure(kind, message, traceback)
        case _:
            return RemoteFailure("an exception", "the peer did not say which")
