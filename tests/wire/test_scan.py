import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import ProtocolError
from zmesh.wire.scan import scan


def complaint(data: bytes, kind: str = "malformed") -> str:
    with pytest.raises(ProtocolError) as caught:
        scan(data, kind)
    assert caught.value.kind == kind
    return caught.value.detail


@pytest.mark.parametrize("value", [None, 5, "text", b"bytes", [], [1, [2]], {"a": 1}])
def test_one_complete_object_passes(value: object) -> None:
    scan(msgpack.packb(value))
    scan(memoryview(msgpack.packb(value)))


def test_an_object_cut_off_is_refused() -> None:
    assert "cut off" in complaint(b"\xc4\x05abcd")
    assert "cut off" in complaint(b"\xdd\xff\xff\xff\xff\x00")
    assert "cut off" in complaint(b"\xdf\xff\xff\xff\xff\x00")


def test_nothing_is_no_object() -> None:
    assert "nothing" in complaint(b"")


def test_bytes_after_the_object_are_refused() -> None:
    assert complaint(b"\x01\x02\x03") == "2 bytes after the msgpack object"


def test_the_byte_msgpack_never_uses_is_refused() -> None:
    assert complaint(b"\xc1") == "not msgpack"


def test_nesting_is_limited() -> None:
    scan(b"\x91" * 1023 + b"\xc0")
    assert complaint(b"\x91" * 1100 + b"\xc0") == "nested too deep"


def test_the_kind_is_the_callers() -> None:
    assert complaint(b"\xc1", "body") == "not msgpack"


@given(st.binary(max_size=50))
def test_arbitrary_bytes_pass_or_raise_protocol_error(data: bytes) -> None:
    try:
        scan(data)
    except ProtocolError:
        return
    if b"\xff" not in data:  # timestamps are looked into when they are unpacked
        msgpack.unpackb(
            data, raw=True, strict_map_key=False, object_pairs_hook=list, ext_hook=lambda *_: None
        )
