"""What the two ends of a file say to each other, over a stream of the service `zmesh.files`.

The caller opens it with `[name, size]`, and then writes, as parts of the body: the offset it
begins at; the file from there on, as bytes; and `[digest]`. What the provider answers are lists
that begin with one of the words below. `None` and `WAIT` mean that somebody is at work.
The bytes are in docs/protocol.md, section 17.5.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from zmesh.errors import ProtocolError
from zmesh.face.partial_file import NAME_BYTES_MAX, PARTIAL_SUFFIX

SERVICE: Final = "zmesh.files"

HAVE: Final = "have"  # size and digest of what is there
WAIT: Final = "wait"
WRITTEN: Final = "written"  # how much of the file
KEPT: Final = "kept"  # all of it, verified and in its place
FAILED: Final = "failed"  # a code, and what it means

CORRUPTED: Final = "corrupted"
"""The code of a file that is not what was sent; others are names of system errors."""

BEAT: Final = 2.0
"""Seconds after which the other end is told that one is still at work."""

SILENT: Final = 5.0
"""Seconds without a word of the sender after which others need not wait for its file to end."""


@dataclass(frozen=True, slots=True)
class FileOffer:
    """A file that a peer would like to send here.

    The name is a plain one, without directories, and safe to be joined to a path.
    """

    name: str
    size: int  # in bytes
    sender: str
    sender_id: str  # hex
    headers: Mapping[str, object]


def offer_of(body: object) -> tuple[str, int]:
    """Return the name and the size a peer offers.

    Raises:
        ProtocolError: it says something else.
    """
    match body:
        case [str(name), int(size)] if size >= 0 and type(size) is int:
            return name, size
        case _:
            raise ProtocolError("files", "a stream that does not begin with a name and a size")


def check_name(name: str) -> str:
    """Return what is wrong with the name of a file, as it may come from anybody; empty if fine."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it cannot be written as UTF-8"
    if not name or size > NAME_BYTES_MAX:
        return f"it needs 1 to {NAME_BYTES_MAX} bytes"
    if not name.isprintable() or any(each in name for each in "/\\"):
        return "a name has neither directories nor what cannot be printed"
    if name.startswith(".") or name.endswith(PARTIAL_SUFFIX):
        return "it would be hidden, or taken for a part of another"
    return ""
