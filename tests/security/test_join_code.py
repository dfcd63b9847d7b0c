import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.joining_pair import Seeded
from zmesh.joining_errors import InvalidCode
from zmesh.security.join_code import JoinCode


@given(st.integers())
def test_a_code_is_read_back_however_it_is_typed(seed: int) -> None:
    code = JoinCode.new(Seeded(seed))
    assert JoinCode.parse(code.text) == code
    assert JoinCode.parse(f"  {code.text.lower().replace('-', ' ')}\n") == code
    assert JoinCode.parse(code.text.replace("-", "")) == code
    assert JoinCode.parse(code.text.replace("0", "o").replace("1", "l")) == code
    assert JoinCode.parse(code.text.replace("1", "I").replace("-", "\N{EN DASH}")) == code


def test_codes_are_spread_over_nameplates_and_passwords() -> None:
    entropy = Seeded(5)
    codes = [JoinCode.new(entropy) for _ in range(2000)]
    assert len({code.password for code in codes}) == 2000
    assert len({code.nameplate for code in codes}) > 700
    for place in range(8):
        assert len({code.password[place] for code in codes}) == 32, "5 bits each"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 symbols"),
        ("417-7KQM-3XT", "10 symbols"),
        ("417-7KQM-3XTAA", "12 symbols"),
        ("O17-7KQM-3XTA", "three digits"),
        ("A17-7KQM-3XTA", "three digits"),
        ("417-7KQM-3XTU", "without U"),
        ("417-7KQM-3XT%", "without U"),
        ("\u0664\u0661\u0667-7KQM-3XTA", "three digits"),  # digits, and not ours
    ],
)
def test_what_is_no_code_is_refused_and_not_repeated(text: str, why: str) -> None:
    with pytest.raises(InvalidCode, match=why) as caught:
        JoinCode.parse(text)
    assert "7KQM" not in str(caught.value)


@given(st.text(max_size=20))
def test_any_text_is_a_code_or_refused(text: str) -> None:
    try:
        code = JoinCode.parse(text)
    except InvalidCode:
        return
    assert JoinCode.parse(code.text) == code


def test_the_password_is_not_shown() -> None:
    assert "7KQM" not in repr(JoinCode.parse("417-7KQM-3XTA"))
