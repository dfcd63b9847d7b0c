"""Bodies made smaller and whole again: what travels compressed, and what is refused."""

import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.wire.vector_cases import LZ4_BODY, ZSTD_BODY
from zmesh.errors import InvalidOption, MissingPackage, ProtocolError
from zmesh.message import (
    COMPRESSED,
    Algorithm,
    Encoding,
    Extras,
    Kind,
    Record,
    Tag,
    encoding_of,
    extra,
    head,
    size_of,
)
from zmesh.options import MIB, WireLimits
from zmesh.wire import compression
from zmesh.wire.bodies import body_of, encode_body
from zmesh.wire.compression import (
    Compressor,
    algorithm_of,
    decompressed,
    flaw_of,
    plain_size,
    unpacked,
    with_plain,
)

LIMITS = WireLimits()
TEXT = b"what is said again and again " * 100
HEAD = head(Kind.DIRECT, Encoding.RAW)

each_algorithm = pytest.mark.parametrize("algorithm", Algorithm)


def record_of(body: bytes, *extras: int | str) -> Record:
    return (HEAD, "t", body, extras) if extras else (HEAD, "t", body)


def claiming(body: bytes, algorithm: int, size: int) -> Record:
    """A record that says so of its body, whether that is true or not."""
    extras: Extras = (int(Tag.COMPRESSED), (algorithm, size))
    return (HEAD | COMPRESSED, "", body, extras)


def compress(algorithm: Algorithm, body: bytes, bytes_min: int = 0) -> Record:
    return Compressor(algorithm, bytes_min).compress(record_of(body))


def refusal(record: Record, limits: WireLimits = LIMITS) -> str:
    with pytest.raises(ProtocolError) as caught:
        body_of(record, limits)
    assert caught.value.kind == "compression"
    return caught.value.detail


def zstd_frame(content: int, told: int, window: int = 0x50) -> bytes:
    """A frame that tells of one size and holds another: one block of a byte again and again."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0x80, window]) + struct.pack("<I", told)
    return header + struct.pack("<I", content << 3 | 0b011)[:3] + b"a"


# What travels compressed


@each_algorithm
@given(st.binary(max_size=20), st.integers(0, 300), st.binary(max_size=50))
@example(b"", 0, b"")
@example(b"a", 300, b"")
def test_compressed_body_is_the_one_that_was_compressed(
    algorithm: Algorithm, pattern: bytes, times: int, rest: bytes
) -> None:
    body = pattern * times + rest
    made = compress(algorithm, body)
    assert body_of(made) == body
    assert plain_size(made) == len(body)
    assert len(made[2]) <= len(body)
    assert made == record_of(body) or with_plain(made, unpacked(made)) == record_of(body)


@each_algorithm
def test_record_tells_how_its_body_is_compressed_and_keeps_the_rest(algorithm: Algorithm) -> None:
    plain = record_of(TEXT, int(Tag.KEY), "k", int(Tag.MESSAGE_ID), 7)
    made = Compressor(algorithm, 512).compress(plain)
    assert made[:2] == (HEAD | COMPRESSED, "t")
    assert made[3:] == (
        (int(Tag.KEY), "k", int(Tag.MESSAGE_ID), 7, int(Tag.COMPRESSED), (algorithm, len(TEXT))),
    )
    assert size_of(made) == len(made[2]) + 16 + len("t") + len("k")
    assert with_plain(made, unpacked(made)) == plain


@each_algorithm
def test_encoding_is_that_of_what_was_compressed(algorithm: Algorithm) -> None:
    body = {"readings": [21.5] * 200}
    encoding, data = encode_body(body)
    made = Compressor(algorithm, 512).compress((head(Kind.DIRECT, encoding), "", data))
    assert made[0] >= COMPRESSED
    assert encoding_of(made) == Encoding.MSGPACK
    assert body_of(made) == body


@each_algorithm
def test_small_bodies_travel_as_they_are(algorithm: Algorithm) -> None:
    assert compress(algorithm, TEXT[:511], bytes_min=512) == record_of(TEXT[:511])
    assert compress(algorithm, TEXT[:512], bytes_min=512)[0] >= COMPRESSED


@each_algorithm
def test_bodies_that_hardly_shrink_travel_as_they_are(algorithm: Algorithm) -> None:
    body = Random(1).randbytes(10_000)
    assert compress(algorithm, body) == record_of(body)
    assert compress(algorithm, body + bytes(1000)) == record_of(body + bytes(1000))


def test_bodies_that_shrink_beyond_what_receivers_take_travel_as_they_are() -> None:
    zeros = bytes(MIB)
    assert compress(Algorithm.ZSTD, zeros) == record_of(zeros)
    made = compress(Algorithm.LZ4, zeros)  # it cannot do so much
    assert body_of(made) == zeros


def test_bodies_beyond_what_receivers_take_travel_as_they_are() -> None:
    limits = WireLimits(decompressed_bytes_max=1000)
    record = record_of(TEXT)
    assert Compressor(Algorithm.LZ4, 0, limits).compress(record) == record


@each_algorithm
def test_a_view_of_bytes_is_compressed_like_them(algorithm: Algorithm) -> None:
    made = Compressor(algorithm, 512).compress((HEAD, "", memoryview(TEXT)))
    assert body_of(made) == TEXT


@each_algorithm
def test_many_threads_compress_and_decompress_at_once(algorithm: Algorithm) -> None:
    def work(number: int) -> bool:
        body = f"{number} of many, ".encode() * (50 + number)
        return all(body_of(compress(algorithm, body)) == body for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(32)))


@pytest.mark.parametrize(
    ("record", "body"),
    [
        (claiming(bytes.fromhex(ZSTD_BODY), 1, 74), None),
        (claiming(bytes.fromhex(LZ4_BODY), 2, 64), b"abcd" * 16),
    ],
)
def test_bodies_of_the_vectors_are_made_whole(record: Record, body: bytes | None) -> None:
    if body is None:
        record = (record[0] | Encoding.MSGPACK << 4, *record[1:])
        assert body_of(record) == {"text": "abc" * 22}
    else:
        assert body_of(record) == body


# What is refused


def test_claims_are_checked_before_anything_is_made() -> None:
    packed = compress(Algorithm.ZSTD, TEXT)[2]
    assert isinstance(packed, bytes)
    unmarked: Record = (HEAD | COMPRESSED, "", packed)
    assert "how is not told" in flaw_of(unmarked, LIMITS)
    assert "(99)" in flaw_of(claiming(packed, 99, len(TEXT)), LIMITS)
    over = flaw_of(claiming(b"x" * MIB, 1, 64 * MIB + 1), LIMITS)
    assert over == "the body becomes 67108865 bytes when decompressed, at most 67108864 are taken"
    steep = flaw_of(claiming(b"12345", 2, 256 * 5 + 1), LIMITS)
    assert steep == "5 bytes of body become 1281: more than 256 times as many"
    for record in (unmarked, claiming(packed, 99, 5), claiming(b"", 1, 5)):
        assert refusal(record) == flaw_of(record, LIMITS)
    assert flaw_of(claiming(packed, 1, len(TEXT)), LIMITS) == ""


@each_algorithm
def test_a_body_of_another_size_than_claimed_is_refused(algorithm: Algorithm) -> None:
    made = compress(algorithm, TEXT)
    packed = made[2]
    assert isinstance(packed, bytes)
    for size in (1, len(TEXT) - 1, len(TEXT) + 1):
        assert refusal(claiming(packed, algorithm, size))
    assert refusal(claiming(packed + b"x", algorithm, len(TEXT)))
    assert refusal(claiming(packed[:-1], algorithm, len(TEXT)))
    assert refusal(claiming(packed, 3 - algorithm, len(TEXT)))


@pytest.mark.parametrize("window", [0x50, 0x88, 0x90])  # 1, 128 and 256 MiB
def test_a_frame_that_lies_costs_no_more_than_its_record_claims(window: int) -> None:
    bomb = zstd_frame(content=100_000, told=3000, window=window) * 50
    honest = zstd_frame(content=3000, told=3000, window=window)
    assert body_of(claiming(honest, 1, 3000)) == b"a" * 3000
    tracemalloc.start()
    try:
        for size in (3000, 100_000):
            assert refusal(claiming(bomb, 1, size))
        # Claims of its own that nobody sees: the frame says gigabytes, the record a few bytes.
        assert "2000000000" in refusal(claiming(zstd_frame(3000, 2_000_000_000), 1, 3000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB


def test_a_frame_that_says_no_size_is_refused() -> None:
    zstandard = pytest.importorskip("zstandard")
    packer = zstandard.ZstdCompressor(write_content_size=False)
    assert refusal(claiming(packer.compress(TEXT), 1, len(TEXT)))


@given(
    st.binary(max_size=200)
    | st.builds(zstd_frame, st.integers(0, 2**20), st.integers(0, 2**31), st.integers(0, 255)),
    st.integers(1, 3),
    st.integers(1, 300_000) | st.integers(1, 2**63 - 1),
)
def test_whatever_is_claimed_comes_true_or_is_refused(
    body: bytes, algorithm: int, size: int
) -> None:
    record = claiming(body, algorithm, size)
    with suppress(ProtocolError):
        assert len(decompressed(record, LIMITS)) == size <= 256 * len(body)


@each_algorithm
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_damaged_bodies_are_refused_or_of_the_same_size(
    algorithm: Algorithm, at: int, value: int
) -> None:
    packed = bytearray(compress(algorithm, TEXT)[2])
    packed[at % len(packed)] = value
    with suppress(ProtocolError):
        assert len(decompressed(claiming(bytes(packed), algorithm, len(TEXT)))) == len(TEXT)


# What an application asks for


def test_compression_is_named() -> None:
    assert algorithm_of(None) is algorithm_of("none") is None
    assert algorithm_of("zstd") is Algorithm.ZSTD
    assert algorithm_of("lz4") is Algorithm.LZ4
    for unknown in ("gzip", "", "ZSTD", b"zstd", 1):
        with pytest.raises(InvalidOption, match='"zstd", "lz4", "none", or None'):
            algorithm_of(unknown)  # type: ignore[arg-type]


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = compress(Algorithm.ZSTD, TEXT)
    monkeypatch.setattr(compression, "AVAILABLE", (Algorithm.LZ4,))
    with pytest.raises(MissingPackage) as caught:
        algorithm_of("zstd")
    assert "pip install 'zmesh[zstd]'" in str(caught.value)
    assert algorithm_of("lz4") is Algorithm.LZ4
    assert "(1) that is not known here" in refusal(packed)


def test_only_a_compressed_body_counts_as_one() -> None:
    told: Record = (HEAD, "", TEXT, (int(Tag.COMPRESSED), (1, 5)))  # without the bit: nothing
    assert body_of(told) == TEXT
    assert plain_size(told) == len(TEXT)
    assert extra(told, Tag.COMPRESSED) == (1, 5)
