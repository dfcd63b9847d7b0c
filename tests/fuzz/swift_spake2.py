"""SPAKE2 that remembers what it computed: a script runs many exchanges, and most are alike.

It is the package itself, so of a message comes what would; only the secret numbers are few.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import lru_cache
from hashlib import shake_256
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import spake2
import spake2.ed25519_basic
import spake2.spake2

from zmesh.security import join_exchange

_TOKEN_BYTES: Final = 8
_KINDS: Final = {True: spake2.SPAKE2_A, False: spake2.SPAKE2_B}

_Half = tuple[bool, bytes, bytes, bytes, bytes]
"""Whether it is A, password, both ids, and what its secret number is made of."""


@contextmanager
def swift() -> Iterator[None]:
    """Have exchanges remember, while this lasts."""
    with patch.object(join_exchange, "_spake2", lambda: _LIBRARY):
        yield


class _Side:
    """One side of an exchange, as `spake2` has them."""

    is_a: bool

    def __init__(
        self, password: bytes, *, entropy_f: Callable[[int], bytes], **ids: bytes
    ) -> None:
        self._half = (self.is_a, password, ids["idA"], ids["idB"], entropy_f(_TOKEN_BYTES))

    def start(self) -> bytes:
        return _started(self._half)[1]

    def finish(self, message: bytes) -> bytes:
        key = _finished(self._half, message)
        if isinstance(key, Exception):
            raise key
        return key


class _SideA(_Side):
    is_a = True


class _SideB(_Side):
    is_a = False


@lru_cache(maxsize=256)
def _started(half: _Half) -> tuple[Any, bytes]:
    is_a, password, one, other, token = half
    made = _KINDS[is_a](
        password, idA=one, idB=other, entropy_f=lambda size: shake_256(token).digest(size)
    )
    return made, made.start()


@lru_cache(maxsize=1024)
def _finished(half: _Half, message: bytes) -> bytes | Exception:
    side = copy(_started(half)[0])  # each finishes once
    try:
        key: bytes = side.finish(message)
    except Exception as error:  # noqa: BLE001  # raised where it would have been
        return error
    return key


_LIBRARY: Final = SimpleNamespace(
    SPAKE2_A=_SideA,
    SPAKE2_B=_SideB,
    SPAKEError=spake2.SPAKEError,
    ed25519_basic=spake2.ed25519_basic,
)
