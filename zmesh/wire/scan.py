"""Look over msgpack bytes before they become objects.

An array header may claim millions of items that never follow, and msgpack makes room for an array
when it sees its header: in nested arrays a few kilobytes so claim gigabytes. In an object that is
complete every item claimed takes at least one byte, so what it becomes stays within a small factor
of its size. The scan makes no objects, and costs a fifth of unpacking.
"""

from msgpack import FormatError, OutOfData, StackError, Unpacker

from zmesh.errors import ProtocolError


def scan(data: bytes | memoryview, kind: str = "malformed") -> None:
    """Check that `data` is one msgpack object, complete and with nothing after it.

    Raises:
        ProtocolError: of the given kind; also where it is nested more than 1024 deep.
    """
    size = len(data)
    if size == 0:
        raise ProtocolError(kind, "nothing where a msgpack object should be")
    unpacker = Unpacker(read_size=size, max_buffer_size=size)
    unpacker.feed(data)
    try:
        unpacker.skip()
    except OutOfData:
        raise ProtocolError(kind, f"msgpack cut off after {size} bytes") from None
    except FormatError:
        raise ProtocolError(kind, "not msgpack") from None
    except StackError:
        raise ProtocolError(kind, "nested too deep") from None
    rest = size - unpacker.tell()
    if rest:
        raise ProtocolError(kind, f"{rest} bytes after the msgpack object")
