"""The code of an invitation: short, to be read aloud and typed, and good for one device.

It is written `417-7KQM-3XTA`: a *nameplate* of three digits that anybody may know, by which the
invitation is found, and a password of eight symbols of Crockford's base32, 40 bits.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from zmesh.ids import Entropy
from zmesh.joining_errors import InvalidCode

NAMEPLATE_DIGITS: Final = 3
PASSWORD_SYMBOLS: Final = 8

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base32: without I, L and O, which look like digits, and U."""

_BETWEEN: Final = re.compile(r"[\s\-_.\u2010-\u2015\u2212]+")
_LOOK_ALIKES: Final = str.maketrans("OIL", "011")


@dataclass(frozen=True, slots=True)
class JoinCode:
    """A code. What is secret of it is not shown."""

    nameplate: str
    password: str = field(repr=False)

    @classmethod
    def new(cls, entropy: Entropy) -> "JoinCode":
        """Return a code nobody can guess."""
        number = int.from_bytes(entropy.token(8), "big")
        nameplate = f"{number % 900 + 100}"  # no zero first: nobody leaves one out
        password = "".join(_ALPHABET[byte % 32] for byte in entropy.token(PASSWORD_SYMBOLS))
        return cls(nameplate, password)

    @classmethod
    def parse(cls, text: str) -> "JoinCode":
        """Read what somebody typed: case, spaces, dashes, O for 0 and I or L for 1 do not matter.

        Raises:
            InvalidCode: it is none. The error does not repeat it.
        """
        if not isinstance(text, str):
            raise InvalidCode("it is no text")
        symbols = _BETWEEN.sub("", text).upper().translate(_LOOK_ALIKES)
        if len(symbols) != NAMEPLATE_DIGITS + PASSWORD_SYMBOLS:
            expected = NAMEPLATE_DIGITS + PASSWORD_SYMBOLS
            raise InvalidCode(f"it has {len(symbols)} symbols and not {expected}")
        nameplate, password = symbols[:NAMEPLATE_DIGITS], symbols[NAMEPLATE_DIGITS:]
        if not is_nameplate(nameplate):
            raise InvalidCode("it begins with three digits, the first not 0")
        if not set(password) <= set(_ALPHABET):
            raise InvalidCode("after the digits come letters and digits, without U")
        return cls(nameplate, password)

    @property
    def text(self) -> str:
        """The code as people read and type it."""
        half = PASSWORD_SYMBOLS // 2
        return f"{self.nameplate}-{self.password[:half]}-{self.password[half:]}"


def is_nameplate(text: str) -> bool:
    """Return whether this is the public part of a code."""
    return re.fullmatch(r"[1-9][0-9]{2}", text, re.ASCII) is not None
