"""What peers say of files: names from the wire are hostile."""

import pytest

from zmesh.errors import ProtocolError
from zmesh.face.file_terms import check_name, offer_of

HOSTILE = [
    "", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "..\\x", "a\0b", "a\nb", "\x1b[2J",
    ".bashrc", ".a.zmesh-part", "a.zmesh-part",
    "x" * 244, "ä" * 122, "\ud800", "a\u202eb", "\u2028",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_is_found_out(name: str) -> None:
    assert check_name(name)


@pytest.mark.parametrize("name", ["a", "a.txt", "Grüße aus 東京.pdf", "x" * 243, "~", "-rf", "C:"])
def test_plain_name_is_fine(name: str) -> None:
    assert check_name(name) == ""


def test_an_offer_has_a_name_and_a_size() -> None:
    assert offer_of(["a", 5]) == ("a", 5)
    for body in (None, [], ["a"], ["a", -1], ["a", True], [5, "a"], ["a", 5, 6], {"a": 5}, b"a"):
        with pytest.raises(ProtocolError):
            offer_of(body)
