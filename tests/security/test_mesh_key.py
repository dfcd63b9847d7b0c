import pytest
import zmq
from zmq.utils import z85

from zmesh.security.mesh_key import MeshKey
from zmesh.security_errors import InvalidKey

KEY = MeshKey(bytes(range(32)))


def test_its_text_is_read_back() -> None:
    assert KEY.text.startswith("zmk1.")
    assert MeshKey.parse(f"  {KEY.text}\n") == KEY


@pytest.mark.parametrize(
    "text", ["", "zmk1.", "secret", KEY.text[:-1], KEY.text[:-4], KEY.text + "AAAA", "zmk1.é"]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidKey, match="the file"):
        MeshKey.parse(text, "the file")


@pytest.mark.parametrize("at", range(5, len(KEY.text)))
def test_a_mistyped_key_is_refused_and_not_shown(at: int) -> None:
    wrong = KEY.text[:at] + ("A" if KEY.text[at] != "A" else "B") + KEY.text[at + 1 :]
    with pytest.raises(InvalidKey) as caught:
        MeshKey.parse(wrong)
    assert wrong[5:] not in str(caught.value)


def test_the_server_pair_is_one_of_curve() -> None:
    pair = KEY.server_pair()
    public = zmq.curve_public(z85.encode(pair.secret))
    assert z85.decode(public) == pair.public


def test_what_is_derived_differs_by_key_purpose_and_mesh() -> None:
    other = MeshKey(bytes(32))
    assert KEY.server_pair() != other.server_pair()
    assert len({KEY.tag("a"), KEY.tag("b"), other.tag("a")}) == 3
    assert KEY.fingerprint != other.fingerprint


def test_no_secret_is_shown() -> None:
    shown = repr(KEY) + repr(KEY.server_pair())
    assert repr(KEY.secret) not in shown
    assert repr(KEY.server_pair().secret) not in shown


@pytest.mark.parametrize(
    "secret", [b"", b"x", bytes(31), bytes(33), "x" * 32, 5, None, bytearray(32)]
)
def test_secrets_of_another_length_or_type_are_no_key(secret: object) -> None:
    with pytest.raises(InvalidKey, match=r"MeshKey is no valid key.*32") as caught:
        MeshKey(secret)  # type: ignore[arg-type]
    assert "x" * 32 not in str(caught.value)


@pytest.mark.parametrize("text", [5, None, b"zmk1.", ["zmk1."]])
def test_what_is_no_text_is_read_as_no_key(text: object) -> None:
    with pytest.raises(InvalidKey, match="a text is needed"):
        MeshKey.parse(text)  # type: ignore[arg-type]
