import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.security import join_frames as frames
from zmesh.security import key_files
from zmesh.security.join_frames import Garbage, Incoming, Kind
from zmesh.security.mesh_key import MeshKey

HELLO = frames.hello(b"A" * frames.EXCHANGE_BYTES)


def test_sizes_are_those_of_the_document() -> None:
    assert {kind.name: size for kind, size in frames.SIZES.items()} == {
        "HELLO": 45, "ANSWER": 34, "PROOF": 33, "WELCOME": 305,
        "READY": 33, "KEYS": 274, "SAVED": 33, "REFUSED": 2,
    }  # fmt: skip


@given(st.lists(st.integers(1, 45), max_size=45))
def test_a_message_is_put_together_from_any_pieces(sizes: list[int]) -> None:
    incoming, left, found = Incoming(), HELLO, None
    for size in [*sizes, len(HELLO)]:
        piece, left = left[:size], left[size:]
        if piece:
            assert found is None
            found = incoming.add(piece, Kind.HELLO)
    assert found == HELLO


@given(st.binary(min_size=1, max_size=400))
def test_no_more_is_held_than_the_message_that_is_expected(data: bytes) -> None:
    incoming = Incoming()
    try:
        found = incoming.add(data, Kind.PROOF)
    except Garbage:
        assert data[0] != Kind.PROOF or len(data) > frames.SIZES[Kind.PROOF]
    else:
        assert len(data) < frames.SIZES[Kind.PROOF] or found == data


def test_what_comes_behind_a_message_is_garbage() -> None:
    with pytest.raises(Garbage, match="behind"):
        Incoming().add(HELLO + b"\x01", Kind.HELLO)


def test_another_protocol_or_version_is_garbage() -> None:
    for other in (HELLO[:1] + b"Z" + HELLO[2:], HELLO[:11] + b"\x02" + HELLO[12:]):
        assert len(other) == len(HELLO)
        with pytest.raises(Garbage, match="another"):
            frames.exchange_of_hello(other)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=255))
def test_a_mesh_is_read_back_and_all_are_of_one_length(name: str) -> None:
    packed = frames.pack_mesh(name)
    assert len(packed) == 256
    assert frames.unpack_mesh(packed) == name


@pytest.mark.parametrize("name", [b"", b"a\x00b", b"\xff\xfe", b"a\nb"])
def test_what_is_no_mesh_is_garbage(name: bytes) -> None:
    with pytest.raises(Garbage, match="mesh"):
        frames.unpack_mesh(bytes([len(name)]) + name.ljust(255, b"\x00"))


@pytest.mark.parametrize("count", range(1, 9))
def test_keys_are_read_back_and_all_sets_are_of_one_length(count: int) -> None:
    keys = tuple(MeshKey(bytes([number]) * 32) for number in range(count))
    packed = frames.pack_keys(keys)
    assert len(packed) == 257
    assert frames.unpack_keys(packed) == keys


def test_there_is_room_for_all_keys_of_a_file() -> None:
    assert frames.KEYS_MAX == key_files.KEYS_MAX


@pytest.mark.parametrize("count", [0, 9, 255])
def test_a_number_of_keys_that_cannot_be_is_garbage(count: int) -> None:
    with pytest.raises(Garbage, match="number"):
        frames.unpack_keys(bytes([count]) + bytes(256))
