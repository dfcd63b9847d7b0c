"""What applications pass, and bytes: bodies, headers, and the texts that travel with them."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Final, cast

from msgpack import Packer, unpackb

from zmesh.errors import BodyNotEncodable, InvalidOption, ProtocolError
from zmesh.message import COMPRESSED, Encoding, Record, encoding_of
from zmesh.options import WireLimits
from zmesh.wire.compression import decompressed
from zmesh.wire.scan import scan

HeaderValue = str | int | float | bool | bytes | None
"""What a header can be: subscribers compare it, so it has no inside."""

_HEADER_TYPES: Final = (str, int, float, bytes, type(None))
_DEPTH_SAFE_BYTES: Final = 1024
"""A body this short cannot be nested deeper than a receiver can follow."""

_LIMITS: Final = WireLimits()


# Bodies


def encode_body(body: object) -> tuple[Encoding, bytes | memoryview]:
    """Return how `body` was encoded, and its bytes, which nobody can change any more.

    `bytes` pass untouched, and so does a read-only `memoryview`, uncopied: whoever passes one
    promises that what it shows stays as it is until the message is settled. Other buffers are
    copied. Everything else becomes msgpack: None, booleans, numbers, texts, lists and tuples
    (which arrive as lists), dicts, and datetimes with a time zone (which arrive in UTC); and
    dataclasses, `msgspec.Struct`s and pydantic models, which arrive as the dicts of their fields.

    Raises:
        BodyNotEncodable: msgpack cannot carry it, or receivers could not take it apart.
    """
    if type(body) is bytes:
        return Encoding.RAW, body
    if isinstance(body, memoryview):
        return Encoding.RAW, _as_bytes(body)
    if isinstance(body, bytes | bytearray):
        return Encoding.RAW, bytes(body)
    try:
        # A packer of its own: one that packs a dict may run Python code in between, and with it
        # other threads.
        data: bytes = Packer(datetime=True, default=_plain).pack(body)
    except (TypeError, ValueError, OverflowError, BufferError) as error:
        raise BodyNotEncodable(type(body).__name__, str(error)) from error
    if len(data) > _DEPTH_SAFE_BYTES:
        try:
            scan(data)
        except ProtocolError as error:
            raise BodyNotEncodable(type(body).__name__, error.detail) from error
    return Encoding.MSGPACK, data


def _plain(value: object) -> object:
    """Return what carries an object of the application's own type."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if hasattr(value, "__struct_fields__"):
        import msgspec  # noqa: PLC0415  # whoever has a Struct has it

        return msgspec.to_builtins(value, builtin_types=(bytes, datetime))
    dump = getattr(type(value), "model_dump", None)  # of pydantic
    if dump is not None:
        return dump(value)
    if isinstance(value, datetime):
        raise TypeError("a datetime needs a tzinfo")
    raise TypeError(f"can not serialize {type(value).__name__!r} object")


def _as_bytes(view: memoryview) -> bytes | memoryview:
    try:
        if not (view.readonly and view.c_contiguous):
            return view.tobytes()
        return view.cast("B")  # a view of its own: releasing the caller's does not take it away
    except ValueError as error:
        raise BodyNotEncodable("memoryview", str(error)) from error


def body_of(record: Record, limits: WireLimits = _LIMITS) -> object:
    """Return the body of a record as its sender passed it.

    Raises:
        ProtocolError: of kind "body", or "compression".
    """
    if not record[0] >> 4:  # raw, and not compressed
        return bytes(record[2])
    body = decompressed(record, limits) if record[0] >= COMPRESSED else record[2]
    return decode_body(encoding_of(record), body)


def decode_body(encoding: int, body: bytes | memoryview) -> object:
    """Return what the sender passed; bytes for a raw body.

    What a msgpack body becomes takes up to 72 times its size (empty maps), so the caller bounds
    the size. Keys of maps may be of any type; arrays as keys become tuples. Of equal keys the
    last one counts.

    Raises:
        ProtocolError: of kind "body".
    """
    if encoding == Encoding.RAW:
        return bytes(body)
    if encoding != Encoding.MSGPACK:
        raise ProtocolError("body", f"encoding {encoding} is not known here")
    scan(body, "body")
    try:
        try:
            return unpackb(body, timestamp=3, strict_map_key=False)
        except TypeError:  # an array as the key of a map
            return unpackb(
                body, timestamp=3, strict_map_key=False, object_pairs_hook=_dict_of_any_keys
            )
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError("body", f"{type(error).__name__}: {error}") from error


def _dict_of_any_keys(pairs: list[tuple[object, object]]) -> dict[object, object]:
    return {_hashable(key): value for key, value in pairs}


def _hashable(key: object) -> object:
    return tuple(map(_hashable, key)) if isinstance(key, list) else key


# Headers


def encode_headers(headers: Mapping[str, HeaderValue], limits: WireLimits = _LIMITS) -> bytes:
    """Return the headers as a msgpack map.

    Raises:
        InvalidOption: no mapping, too many or too large, a key that is no text, a value that is
            no scalar.
    """
    if not isinstance(headers, Mapping):
        raise InvalidOption("headers", headers, 'a dict, as in {"unit": "C"}')
    if len(headers) > limits.headers_max:
        raise InvalidOption("len(headers)", len(headers), f"at most {limits.headers_max}")
    for key, value in headers.items():
        if not isinstance(key, str):
            raise InvalidOption("headers key", key, "a str")
        if not isinstance(value, _HEADER_TYPES):
            raise InvalidOption(f"headers[{key!r}]", value, "str, int, float, bool, bytes or None")
    try:
        data: bytes = Packer().pack(dict(headers))
    except (ValueError, OverflowError) as error:
        raise InvalidOption(
            "headers", list(headers), f"what msgpack can carry ({error})"
        ) from error
    if len(data) > limits.headers_bytes_max:
        raise InvalidOption(
            "size of headers", len(data), f"at most {limits.headers_bytes_max} bytes, encoded"
        )
    return data


def decode_headers(data: bytes, limits: WireLimits = _LIMITS) -> dict[str, HeaderValue]:
    """Return the headers in a msgpack map.

    Raises:
        ProtocolError: of kind "headers"; also where a key comes twice, since two readers would
            not agree on which counts.
    """
    if len(data) > limits.headers_bytes_max:
        raise ProtocolError("headers", f"{len(data)} bytes, at most {limits.headers_bytes_max}")
    scan(data, "headers")
    try:
        headers = unpackb(data, object_pairs_hook=_header_map, max_map_len=limits.headers_max)
    except ValueError as error:
        raise ProtocolError("headers", str(error)) from error
    if type(headers) is not dict:
        raise ProtocolError("headers", "not a map")
    return headers


def _header_map(pairs: list[tuple[object, object]]) -> dict[str, HeaderValue]:
    for key, value in pairs:
        if type(key) is not str:
            raise ProtocolError("headers", "a key is not a text")
        if not isinstance(value, _HEADER_TYPES):
            raise ProtocolError("headers", f"the value of {key!r} is not a scalar")
    headers = dict(cast("list[tuple[str, HeaderValue]]", pairs))
    if len(headers) < len(pairs):
        raise ProtocolError("headers", "a key comes twice")
    return headers


# Texts


def check_text(option: str, value: str, limits: WireLimits = _LIMITS) -> None:
    """Check that a target, key, name or pattern can travel: `codec.encode` relies on it.

    Raises:
        InvalidOption: too long, or with surrogates, which UTF-8 has no bytes for.
    """
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidOption(option, value, "a text without surrogates") from None
    if size > limits.text_bytes_max:
        raise InvalidOption(
            f"size of {option}", size, f"at most {limits.text_bytes_max} bytes of UTF-8"
        )
