from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.ids import JournalId
from zmesh.message import SIGNATURE_RECORD_BYTES, Kind, Record, Tag, extra, head, with_extra
from zmesh.security.node_key import NodeKey
from zmesh.security.signing import (
    COUNTERS_END,
    TIMES_END_MS,
    Addressing,
    Roots,
    Signature,
    Signer,
    signature_in,
)

ADA, BOB = NodeKey.of(b"a" * 32), NodeKey.of(b"b" * 32)
JOURNAL = JournalId(b"j" * 16)
JOB: Record = (head(Kind.JOB), "thumbnails", b"picture")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
bodies = st.binary(max_size=80)
counters = st.integers(0, COUNTERS_END - 1)
times_ms = st.integers(0, TIMES_END_MS - 1)


def sealed(record: Record, key: str | None = None) -> Record:
    made = Signer(ADA, JOURNAL, Addressing.TARGET, 4, None, key).sign(record, 7, 1000, 2000)
    return made if key is None else with_extra(made, Tag.KEY, key)


def holds(record: Record, destination: str | None = None, roots: Roots | None = None) -> bool:
    signature = Signature.of(extra(record, Tag.SIGNATURE))
    to = record[1] if destination is None else destination
    known = Roots(8) if roots is None else roots
    return signature is not None and signature.holds(record, to, record[2], known)


def with_signature(record: Record, data: bytes) -> Record:
    return with_extra(record, Tag.SIGNATURE, data)


def test_a_signature_holds_and_tells_who_signed_and_when() -> None:
    record = sealed(JOB)
    signature = Signature.of(extra(record, Tag.SIGNATURE))
    assert signature is not None
    assert holds(record)
    assert (signature.node, signature.public, signature.journal) == (ADA.id, ADA.public, JOURNAL)
    assert (signature.counter, signature.signed_ms, signature.expires_ms) == (7, 1000, 2000)
    assert len(signature_in(record)) == SIGNATURE_RECORD_BYTES


@given(
    target=texts, body=bodies, key=st.none() | texts, headers=st.none() | bodies,
    kind=st.none() | texts, routing=st.none() | texts,
)  # fmt: skip
def test_a_signature_holds_whatever_the_message_carries(
    target: str,
    body: bytes,
    key: str | None,
    headers: bytes | None,
    kind: str | None,
    routing: str | None,
) -> None:
    record: Record = (head(Kind.JOB), target, body)
    told = {Tag.HEADERS: headers, Tag.TYPE: kind, Tag.ROUTING_KEY: routing}
    for tag, value in told.items():
        if value is not None:
            record = with_extra(record, tag, value)
    assert holds(sealed(record, key))


@given(st.integers(0, SIGNATURE_RECORD_BYTES * 8 - 1))
def test_any_bit_of_the_signature_breaks_it(bit: int) -> None:
    record = sealed(JOB)
    data = bytearray(signature_in(record))
    data[bit // 8] ^= 1 << bit % 8
    assert not holds(with_signature(record, bytes(data)))


FULL: Record = sealed(
    (
        head(Kind.PUBLICATION), "orders.eu", b"a body",
        (int(Tag.HEADERS), b"\x80", int(Tag.TYPE), "order", int(Tag.ROUTING_KEY), "eu.paid"),
    ),
    "user-7",
)  # fmt: skip


@pytest.mark.parametrize("tag", [Tag.HEADERS, Tag.TYPE, Tag.ROUTING_KEY, Tag.KEY])
@given(value=st.none() | texts)
def test_any_change_of_an_extra_it_covers_breaks_it(tag: Tag, value: str | None) -> None:
    before = extra(FULL, tag)
    changed: bytes | str | None = value
    if tag is Tag.HEADERS and value is not None:
        changed = value.encode()
    if changed == before:
        return
    extras = {t: extra(FULL, t) for t in Tag if extra(FULL, t) is not None and t is not tag}
    record: Record = FULL[:3]
    for other, kept in extras.items():
        assert kept is not None
        record = with_extra(record, other, kept)
    if changed is not None:
        record = with_extra(record, tag, changed)
    assert holds(FULL)
    assert not holds(record)


CHANGES: dict[str, Callable[[Record], Record]] = {
    "kind": lambda it: (head(Kind.GROUP), *it[1:]),
    "encoding": lambda it: (it[0] | 1 << 4, *it[1:]),
    "target": lambda it: (it[0], it[1] + "x", *it[2:]),
    "body": lambda it: (it[0], it[1], bytes(it[2]) + b"x", *it[3:]),
    "target and body": lambda it: (it[0], it[1] + "a", bytes(it[2])[1:], *it[3:]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_of_the_record_breaks_it(what: str) -> None:
    assert not holds(CHANGES[what](FULL))


def test_what_changes_on_the_way_is_not_covered() -> None:
    record = FULL
    for tag in (
        Tag.TTL_MS,
        Tag.MESSAGE_ID,
        Tag.ATTEMPT,
        Tag.CORRELATION,
        Tag.STORED,
        Tag.POSITION,
    ):
        record = with_extra(record, tag, 3)
    assert holds(record)


def test_it_is_for_one_destination() -> None:
    record = Signer(ADA, JOURNAL, Addressing.NODE, 4, BOB.id.hex(), None).sign(
        (head(Kind.DIRECT), "", b"x"), 1, 1000, 2000
    )
    assert holds(record, BOB.id.hex())
    assert not holds(record, ADA.id.hex())
    assert not holds(record, "")


def test_another_key_does_not_make_it() -> None:
    record = sealed(JOB)
    data = signature_in(record)
    assert not holds(with_signature(record, data[:3] + BOB.public + data[35:]))


@given(st.binary(max_size=2 * SIGNATURE_RECORD_BYTES))
def test_arbitrary_bytes_are_no_signature(data: bytes) -> None:
    assert not holds(with_signature(JOB, data))


@given(
    names=st.binary(min_size=48, max_size=48),
    numbers=st.tuples(counters, times_ms, times_ms),
    proof=st.binary(min_size=64, max_size=64),
)
def test_arbitrary_bytes_in_the_form_of_one_do_not_hold(
    names: bytes, numbers: tuple[int, int, int], proof: bytes
) -> None:
    data = bytes([1, 0, 4]) + names + b"".join(each.to_bytes(8) for each in numbers) + proof
    record = with_signature(JOB, data)
    assert Signature.of(extra(record, Tag.SIGNATURE)) is not None
    assert not holds(record)


def test_what_is_no_bytes_or_of_a_later_version_is_none() -> None:
    data = signature_in(sealed(JOB))
    assert Signature.of(7) is None
    assert Signature.of(b"\x02" + data[1:]) is None
    assert Signature.of(data[:1] + b"\x03" + data[2:]) is None


@pytest.mark.parametrize(
    ("counter", "signed_ms", "expires_ms"),
    [(COUNTERS_END, 0, 0), (0, TIMES_END_MS, 0), (0, 0, TIMES_END_MS), (2**64 - 1,) * 3],
)
def test_numbers_that_cannot_be_remembered_are_none(
    counter: int, signed_ms: int, expires_ms: int
) -> None:
    signer = Signer(ADA, JOURNAL, Addressing.TARGET, 4, None, None)
    assert not holds(signer.sign(JOB, counter, signed_ms, expires_ms))
    assert holds(signer.sign(JOB, COUNTERS_END - 1, TIMES_END_MS - 1, TIMES_END_MS - 1))


def test_fields_cannot_lend_bytes_to_each_other() -> None:
    values = [("ab", None), ("a", "b"), ("", "ab"), (None, "ab")]
    made = []
    for kind, routing in values:
        record = JOB
        for tag, value in ((Tag.TYPE, kind), (Tag.ROUTING_KEY, routing)):
            if value is not None:
                record = with_extra(record, tag, value)
        made.append(signature_in(sealed(record)))
    assert all(one != other for one, other in pairwise(sorted(made)))
