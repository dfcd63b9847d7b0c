"""The text of a storage key: read back, and no other text taken for one."""

import pytest

from zmesh.security.mesh_key import MeshKey
from zmesh.security.storage_key import StorageKey
from zmesh.security_errors import InvalidKey

KEY = StorageKey(bytes(range(32)))


def test_text_is_read_back() -> None:
    assert StorageKey.parse(f" {KEY.text}\n") == KEY
    assert KEY.text.startswith("zms1.")
    assert len(KEY.text) == 5 + 48


def test_new_keys_are_of_the_entropy() -> None:
    class Fixed:
        def token(self, size: int) -> bytes:
            return b"e" * size

    assert StorageKey.new(Fixed()) == StorageKey(b"e" * 32)  # type: ignore[arg-type]


def test_text_with_a_letter_changed_is_refused_without_repeating_it() -> None:
    text = KEY.text
    for index in range(5, len(text) - 1):
        other = text[:index] + ("A" if text[index] != "A" else "B") + text[index + 1 :]
        with pytest.raises(InvalidKey, match="mistyped") as caught:
            StorageKey.parse(other)
        assert other[8:] not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "zms1.", "zms1.AAAA", "zms1.é", MeshKey(KEY.secret).text, KEY.text[5:]]
)
def test_other_texts_are_no_keys(text: str) -> None:
    with pytest.raises(InvalidKey):
        StorageKey.parse(text)


def test_secret_is_not_shown() -> None:
    assert "secret" not in repr(KEY)
    assert KEY.secret.hex() not in repr(KEY) + KEY.fingerprint
    assert len(KEY.fingerprint) == 8


def test_keys_of_each_purpose_and_journal_differ() -> None:
    derived = {KEY.derive(b"a", b"1"), KEY.derive(b"a", b"2"), KEY.derive(b"b", b"1")}
    assert len(derived) == 3
    assert KEY.secret not in derived


@pytest.mark.parametrize(
    "secret", [b"", b"x", bytes(31), bytes(33), "x" * 32, 5, None, bytearray(32)]
)
def test_secrets_of_another_length_or_type_are_no_key(secret: object) -> None:
    with pytest.raises(InvalidKey, match=r"StorageKey is no valid key.*32") as caught:
        StorageKey(secret)  # type: ignore[arg-type]
    assert "x" * 32 not in str(caught.value)


@pytest.mark.parametrize("text", [5, None, b"zmk1.", ["zmk1."]])
def test_what_is_no_text_is_read_as_no_key(text: object) -> None:
    with pytest.raises(InvalidKey, match="a text is needed"):
        StorageKey.parse(text)  # type: ignore[arg-type]
