"""Messages that are signed together: each is verified alone, and the signature once for all."""

import json
from hashlib import blake2b
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from tests.security.test_signing import ADA, BOB, FULL, JOB, JOURNAL, holds, with_signature
from tests.wire.vector_cases import PATH
from zmesh.message import SIGNATURE_RECORD_BYTES, Kind, Record, Tag, head, size_of, with_extra
from zmesh.security.signing import (
    HASH_BYTES,
    PATH_MAX,
    SIGNED_BYTES_MAX,
    TOGETHER_MAX,
    Addressing,
    Roots,
    Signature,
    Signer,
    signature_in,
)

FACTS = SIGNATURE_RECORD_BYTES - 64
SIGNER = Signer(ADA, JOURNAL, Addressing.TARGET, 4, None, None)


def jobs(count: int) -> list[Record]:
    return [(head(Kind.JOB), "thumbnails", b"picture %d" % at) for at in range(count)]


def together(count: int) -> list[Record]:
    return SIGNER.sign_all(jobs(count), 7, 1000, 2000)


# What `docs/protocol.md` section 6.4 says, once more and in other words


def hashed(*parts: bytes) -> bytes:
    return blake2b(b"".join(parts), digest_size=32).digest()


def leaf(record: Record, destination: str) -> bytes:
    data = signature_in(record)
    to = destination.encode()
    assert len(record) == 4
    assert record[3][::2] == (Tag.SIGNATURE,)
    return hashed(
        b"zmesh message v1\0", data[:75], bytes([record[0] & 15, record[0] >> 4 & 7]),
        len(to).to_bytes(4), to, b"\xff" * 16, bytes(record[2]),
    )  # fmt: skip


def branch(one: bytes, other: bytes) -> bytes:
    return hashed(b"zmesh branch v1\0", *sorted((one, other)))


def root(record: Record, destination: str) -> bytes:
    data = signature_in(record)
    digest = leaf(record, destination)
    for at in range(139, len(data), 32):
        digest = branch(digest, data[at : at + 32])
    return digest


def is_by_the_book(record: Record, destination: str) -> bool:
    data = signature_in(record)
    told = b"zmesh batch v1\0" + root(record, destination)
    try:
        VerifyKey(data[3:35]).verify(told, data[75:139])
    except BadSignatureError:
        return False
    return True


@pytest.mark.parametrize("count", [1, 2, 3, 7, 32, 33])
def test_signatures_are_as_the_protocol_says(count: int) -> None:
    assert all(is_by_the_book(each, "thumbnails") for each in together(count))


def test_the_vectors_are_as_the_protocol_says() -> None:
    cases: list[Any] = json.loads(PATH.read_text())["valid"]
    found = [case for case in cases if "signature" in case["name"]]
    for case in found:
        (tag, value) = case["packet"]["frames"][0]["records"][0][3]
        data = bytes.fromhex(value["hex"])
        assert is_by_the_book((0, "", b"x", (tag, data)), "bob")
    assert len(found) == 2


# What holds


@settings(max_examples=40)
@given(count=st.integers(1, 2 * TOGETHER_MAX + 3), seed=st.integers(0, 99))
def test_each_holds_in_any_order_and_costs_one_signature_a_batch(count: int, seed: int) -> None:
    signed = together(count)
    assert [(each[0], each[1], each[2]) for each in signed] == jobs(count)
    Random(seed).shuffle(signed)
    roots = Roots(8)
    assert all(holds(each, roots=roots) for each in signed)
    assert roots.verified == len(roots) == -(-count // TOGETHER_MAX)
    found = [Signature.of(signature_in(each)) for each in signed]
    assert {each.counter for each in found if each} == set(range(7, 7 + count))


@pytest.mark.parametrize("count", [1, 2, 31, 32, 100])
def test_each_holds_alone(count: int) -> None:
    assert all(map(holds, together(count)))


def test_they_grow_by_no_more_than_is_counted_for() -> None:
    grown = [
        size_of(signed) - size_of(plain)
        for count in (1, 2, 3, 5, TOGETHER_MAX - 1, TOGETHER_MAX, 100)
        for plain, signed in zip(jobs(count), together(count), strict=True)
    ]
    assert max(grown) == SIGNED_BYTES_MAX
    assert min(grown) == SIGNATURE_RECORD_BYTES


def test_none_are_signed_where_there_are_none() -> None:
    assert SIGNER.sign_all([], 1, 1000, 2000) == []


@settings(deadline=None)
@given(levels=st.integers(0, PATH_MAX + 1))
def test_larger_trees_of_others_hold_up_to_a_bound(levels: int) -> None:
    facts = signature_in(together(1)[0])[:FACTS]
    record = with_signature(JOB, facts)
    path = b"".join(hashed(bytes([level])) for level in range(levels))
    with_path = with_signature(record, facts + bytes(64) + path)
    told = b"zmesh batch v1\0" + root(with_path, "thumbnails")
    proof = SigningKey(ADA.seed).sign(told).signature
    signed = with_signature(record, facts + proof + path)
    assert is_by_the_book(signed, "thumbnails")
    assert holds(signed) is (levels <= PATH_MAX)


# What does not


@given(at=st.integers(0, 4), data=st.data())
def test_any_bit_of_a_signature_breaks_it_though_its_batch_was_verified(
    at: int, data: st.DataObject
) -> None:
    signed, roots = together(5), Roots(8)
    assert all(holds(each, roots=roots) for each in signed)
    changed = bytearray(signature_in(signed[at]))
    bit = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[bit // 8] ^= 1 << bit % 8
    assert not holds(with_signature(signed[at], bytes(changed)), roots=roots)
    assert len(roots) == 1


@given(
    one=st.integers(0, 8), other=st.integers(0, 8), cut=st.integers(-3, 3),
    more=st.binary(max_size=64),
)  # fmt: skip
def test_no_message_has_the_path_of_another_or_another_length(
    one: int, other: int, cut: int, more: bytes
) -> None:
    signed, roots = together(9), Roots(8)
    assert all(holds(each, roots=roots) for each in signed)
    mine, others = signature_in(signed[one]), signature_in(signed[other])
    path = others[SIGNATURE_RECORD_BYTES:]
    changed = mine[:SIGNATURE_RECORD_BYTES] + path[max(0, -cut) * HASH_BYTES :]
    changed += bytes(max(0, cut) * HASH_BYTES) + more
    assert holds(with_signature(signed[one], changed), roots=roots) is (changed == mine)


@pytest.mark.parametrize("what", ["body", "target", "kind", "encoding", *map(str, range(4))])
def test_any_change_of_a_message_breaks_it_though_its_batch_was_verified(what: str) -> None:
    signer = Signer(ADA, JOURNAL, Addressing.TARGET, 4, None, "user-7")
    assert len(FULL) == 4
    roots = Roots(8)
    record = signer.sign_all([FULL, *jobs(3)], 7, 1000, 2000)[0]
    assert holds(record, roots=roots)
    changed: dict[str, Record] = {
        "body": (record[0], record[1], b"another", *record[3:]),
        "target": (record[0], "orders.us", *record[2:]),
        "kind": (head(Kind.GROUP), *record[1:]),
        "encoding": (record[0] | 1 << 4, *record[1:]),
        "0": with_extra(record, Tag.HEADERS, b"\x81"),
        "1": with_extra(record, Tag.TYPE, "other"),
        "2": with_extra(record, Tag.ROUTING_KEY, "eu"),
        "3": with_extra(record, Tag.KEY, "user-8"),
    }
    assert not holds(changed[what], roots=roots)


def test_a_branch_is_no_message_and_a_message_no_branch() -> None:
    # Without their prefixes two hashes could be passed off as a message, with a path one shorter.
    prefixes = [b"zmesh message v1\0", b"zmesh branch v1\0", b"zmesh batch v1\0"]
    assert not any(
        one.startswith(other) for one in prefixes for other in prefixes if one is not other
    )
    first, second, *_ = together(4)
    assert signature_in(first)[139:171] == leaf(second, "thumbnails")
    assert signature_in(first)[171:] == signature_in(second)[171:]
    both = b"".join(sorted((leaf(first, "thumbnails"), leaf(second, "thumbnails"))))
    shorter = signature_in(first)[:139] + signature_in(first)[171:]
    for body in (both, prefixes[1] + both, branch(both[:32], both[32:])):
        forged = with_signature((first[0], first[1], body), shorter)
        assert not holds(forged)
        assert not holds(with_signature((0, "", body), shorter), "")


# What is remembered


def test_a_known_root_helps_no_other_key_and_no_other_proof() -> None:
    record = together(2)[0]
    data, told = signature_in(record), root(record, "thumbnails")
    roots = Roots(8)
    assert roots.are_signed(ADA.public, told, data[75:139])
    assert not roots.are_signed(BOB.public, told, data[75:139])
    assert not roots.are_signed(ADA.public, told, bytes(64))
    assert not roots.are_signed(ADA.public, hashed(told), data[75:139])
    assert roots.are_signed(ADA.public, told, data[75:139])
    assert (roots.verified, len(roots)) == (4, 1)


def test_the_oldest_roots_are_forgotten_and_verified_anew() -> None:
    signed = [SIGNER.sign_all(jobs(2), 10 * at, 1000, 2000) for at in range(4)]
    roots = Roots(2)
    for first, _ in signed:
        assert holds(first, roots=roots)
    assert len(roots) == 2
    assert holds(signed[3][1], roots=roots)
    assert roots.verified == 4
    assert holds(signed[0][1], roots=roots)
    assert (roots.verified, len(roots)) == (5, 2)
