"""Messages on their way out: a body and its options checked, and made into a record."""

from collections.abc import Mapping
from typing import Final

from zmesh.errors import BodyTooLarge, InvalidOption, ProtocolError
from zmesh.message import LANES, Encoding, Kind, Record, Tag, head
from zmesh.options import NodeOptions
from zmesh.wire.bodies import HeaderValue, check_text, decode_body, encode_body, encode_headers

Headers = Mapping[str, HeaderValue]

_FAILURE_TEXT_MAX: Final = 4096  # characters of a handler's exception that travel


class Outgoing:
    """Makes records within a node's limits."""

    def __init__(self, options: NodeOptions) -> None:
        self._wire = options.wire
        self._body_bytes_max = options.link.body_bytes_max

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

    def records(
        self, kind: Kind, target: str, bodies: list[object], headers: Headers | None
    ) -> list[Record]:
        """Return a record for each body.

        Raises:
            BodyNotEncodable, BodyTooLarge, InvalidOption: one of them cannot be sent.
        """
        if headers or not all(type(body) is bytes for body in bodies):
            return [self.record(kind, target, body, headers) for body in bodies]
        raw = head(kind, Encoding.RAW)
        records: list[Record] = [(raw, target, body) for body in bodies]  # type: ignore[misc]
        largest = max(map(len, bodies), default=0)  # type: ignore[arg-type]  # all are bytes
        if largest > self._body_bytes_max:
            raise BodyTooLarge(largest, self._body_bytes_max)
        return records

    def reply(self, result: object) -> Record:
        """Return the reply with what a handler returned.

        Raises:
            BodyNotEncodable, BodyTooLarge: it cannot be sent.
        """
        return self.record(Kind.REPLY, "", result)

    def failure(self, error: BaseException) -> Record:
        """Return the answer that tells of a handler's exception: its type and its text."""
        text = str(error)[:_FAILURE_TEXT_MAX].encode(errors="replace").decode()
        return self.record(Kind.FAILURE, "", [type(error).__qualname__, text])

    def check_options(self, priority: int, key: str | None, ttl: float | None) -> None:
        """Check the options every message can have.

        Raises:
            InvalidOption: one of them cannot work.
        """
        if not 0 <= priority < LANES:
            raise InvalidOption("priority", priority, f"0 (lowest) to {LANES - 1} (highest)")
        if key is not None:
            check_text("key", key, self._wire)
        if ttl is not None and not 0 < ttl < float("inf"):
            raise InvalidOption("ttl", ttl, "seconds above 0, or None for no limit")


def failure_of(record: Record) -> tuple[str, str]:
    """Return type and text of the exception in a FAILURE record, whatever the peer put there."""
    try:
        content = decode_body(record[0] >> 4, record[2])
    except ProtocolError as error:
        return "an exception", str(error)
    match content:
        case [str(type_name), str(text)]:
            return type_name, text
        case _:
            return "an exception", "the peer did not say which"
