"""What happened in a simulated run: a hash of all of it, and readable lines where asked for."""

from collections import deque
from collections.abc import Callable
from hashlib import blake2b

import msgpack

Fact = int | float | str | bytes | None


class Trace:
    """Notes every fact of a run. Two runs of one seed have the same digest.

    Hashing is cheap and always on. Lines cost much more, so a run that fails is run again with
    `lines_max` set, which changes nothing else.
    """

    __slots__ = ("_hash", "_pack", "lines", "readable")

    def __init__(self, lines_max: int = 0) -> None:
        self._hash = blake2b(digest_size=16)
        self._pack: Callable[[object], bytes] = msgpack.Packer().pack
        self.readable = lines_max > 0
        self.lines: deque[str] = deque(maxlen=lines_max)

    def note(self, now: float, host: str, what: str, *facts: Fact) -> None:
        """Add a fact that happened at `now` (virtual seconds) to `host`."""
        self._hash.update(self._pack((now, host, what, facts)))
        if self.readable:
            shown = " ".join(_shown(fact) for fact in facts)
            self.lines.append(f"{now:11.6f} {host:>4} {what:<10} {shown}".rstrip())

    def absorb(self, data: bytes | memoryview) -> None:
        """Add bytes to the digest that no line shows."""
        self._hash.update(data)

    def explain(self, now: float, host: str, what: str, text: str) -> None:
        """Add a line only, for people; the digest must not depend on it."""
        if self.readable:
            self.lines.append(f"{now:11.6f} {host:>4} {what:<10} {text}".rstrip())

    def digest(self) -> str:
        """Return the hash of everything noted so far, in hex."""
        return self._hash.hexdigest()


def _shown(fact: Fact) -> str:
    if isinstance(fact, bytes):
        return fact[:8].hex()
    if isinstance(fact, float):
        return f"{fact:.6g}"
    return str(fact)
