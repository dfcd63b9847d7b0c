import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.joining_pair import CODE, WRONG, Seeded
from zmesh.errors import MissingPackage
from zmesh.security.join_code import JoinCode
from zmesh.security.join_exchange import Exchange, check_installed
from zmesh.security.join_frames import Garbage


def pair(code: JoinCode = CODE, other: JoinCode = CODE) -> tuple[Exchange, Exchange]:
    inviter = Exchange("inviter", code, Seeded(1))
    joiner = Exchange("joiner", other, Seeded(2))
    inviter.finish(joiner.message)
    joiner.finish(inviter.message)
    return inviter, joiner


def test_one_code_makes_one_secret() -> None:
    inviter, joiner = pair()
    assert joiner.check("a", inviter.prove("a"))
    assert joiner.unseal("b", inviter.seal("b", b"content")) == b"content"


@pytest.mark.parametrize("other", [WRONG, JoinCode("418", CODE.password)], ids=["code", "plate"])
def test_another_password_or_nameplate_makes_another_secret(other: JoinCode) -> None:
    inviter, joiner = pair(CODE, other)
    assert not joiner.check("a", inviter.prove("a"))
    with pytest.raises(Garbage):
        joiner.unseal("b", inviter.seal("b", b"content"))


def test_a_proof_is_for_its_purpose_its_transcript_and_what_is_with_it() -> None:
    inviter, joiner = pair()
    proof = inviter.prove("a", b"more")
    assert joiner.check("a", proof, b"more")
    assert not joiner.check("b", proof, b"more")
    assert not joiner.check("a", proof, b"less")
    inviter.note(b"one")
    joiner.note(b"two")
    assert not joiner.check("a", inviter.prove("a"))
    with pytest.raises(Garbage):
        joiner.unseal("b", inviter.seal("b", b"content"))


def test_the_first_message_is_as_likely_under_every_code() -> None:
    """With the same secret number two codes send two messages; each fits both codes."""
    messages = {Exchange("joiner", code, Seeded(3)).message for code in (CODE, WRONG)}
    assert len(messages) == 2
    for message in messages:
        for code in (CODE, WRONG):
            Exchange("inviter", code, Seeded(4)).finish(message)


def test_what_is_reflected_is_refused() -> None:
    joiner = Exchange("joiner", CODE, Seeded(2))
    with pytest.raises(Garbage):
        joiner.finish(joiner.message)
    again = Exchange("joiner", CODE, Seeded(2))
    with pytest.raises(Garbage):
        again.finish(b"B" + again.message[1:])


@given(st.binary(min_size=32, max_size=32))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    inviter = Exchange("inviter", CODE, Seeded(1))
    try:
        inviter.finish(b"A" + data)
    except Garbage:
        return
    assert len(inviter.prove("a")) == 32


SMALL_ORDER = [  # all points of order 1, 2, 4 and 8, and two ways to write the first
    bytes([1]) + bytes(31),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes(32),
    bytes(31) + b"\x80",
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
]


@pytest.mark.parametrize("point", SMALL_ORDER, ids=[point.hex()[:4] for point in SMALL_ORDER])
def test_points_of_small_order_are_refused(point: bytes) -> None:
    with pytest.raises(Garbage):
        Exchange("inviter", CODE, Seeded(1)).finish(b"A" + point)


def test_a_point_written_out_of_range_gives_no_secret_one_can_know_without_the_code() -> None:
    """1 + (2^255 - 19) is the neutral point once more, and the library takes it."""
    neutral = ((2**255 - 19) + 1).to_bytes(32, "little")
    proofs = set()
    for code in (CODE, WRONG):
        inviter = Exchange("inviter", code, Seeded(1))
        inviter.finish(b"A" + neutral)
        proofs.add(inviter.prove("a"))
    assert len(proofs) == 2


def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spake2", None)
    with pytest.raises(MissingPackage, match=r"zmesh\[join\]"):
        check_installed()
