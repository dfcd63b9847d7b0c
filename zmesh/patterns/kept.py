"""What patterns keep in entries: lists of plain values, as msgpack, with records among them."""

from typing import cast

from zmesh.message import Encoding, Extras, Record
from zmesh.wire.bodies import decode_body, encode_body


def packed(kept: list[object]) -> bytes:
    """Return the value of an entry."""
    return bytes(encode_body(kept)[1])


def unpacked(value: bytes) -> object:
    """Return what the value of an entry holds.

    Raises:
        ProtocolError: it was never packed.
    """
    return decode_body(Encoding.MSGPACK, value)


def flat(record: Record) -> list[object]:
    """Return a record as it can be packed."""
    extras = record[3] if len(record) == 4 else ()
    return [record[0], record[1], bytes(record[2]), *extras]


def record_of(kept: object) -> Record:
    """Return a record that was packed.

    Raises:
        ValueError: it is none.
    """
    match kept:
        case [int(head), str(target), bytes(body)]:
            return (head, target, body)
        case [int(head), str(target), bytes(body), *extras]:
            values = tuple(tuple(each) if isinstance(each, list) else each for each in extras)
            return (head, target, body, cast("Extras", values))
        case _:
            raise ValueError("it holds no record")
