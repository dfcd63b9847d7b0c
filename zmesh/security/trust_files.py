"""The directory of `trust=`: `NAME.pub` files, who is revoked, and `rules.toml`.

It is looked at again and again. What cannot be used leaves in force what was there before, so a
mistake lets nobody in; what can be used counts nevertheless, so a mistake keeps no revoked one in.
"""

import os
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final, Generic, TypeVar

from zmesh.options import TrustOptions
from zmesh.security import node_key
from zmesh.security.rules import Rules
from zmesh.security.trust import Trust, check_name
from zmesh.security_errors import InvalidKey, InvalidTrust

SUFFIX: Final = ".pub"
RULES: Final = "rules.toml"
REVOKED: Final = "revoked"

_RACY_NS: Final = 2_000_000_000
"""A file changed so shortly before it was read may change again without a new time."""

_Signature = tuple[int, ...]

T = TypeVar("T")

_Parse = Callable[[Path, str, T | None, list[InvalidTrust]], T]


@dataclass(frozen=True, slots=True)
class TrustRead:
    """What a look at the directory brought."""

    trust: Trust
    problems: tuple[InvalidTrust, ...] = ()
    has_changed: bool = True
    revoked_names: Mapping[str, bytes | None] = field(default_factory=dict)
    """Those that files in `revoked/` revoke, each with the key in it, where one can be read."""

    def is_revoked(self, name: str) -> bool:
        """Return whether whoever is called so is revoked."""
        return name in self.revoked_names or self.trust.keys.get(name) in self.trust.revoked


class _Files(Generic[T]):
    """Files of one sort, and what each held when it was read last.

    `parse` makes that of its text, and of what it held; it may note problems, or raise one.
    """

    def __init__(self, parse: _Parse[T], options: TrustOptions) -> None:
        self._parse = parse
        self._options = options
        self._held: dict[Path, tuple[_Signature, T]] = {}

    def __contains__(self, path: Path) -> bool:
        return path in self._held

    def keep(self, paths: set[Path]) -> None:
        """Forget all other files."""
        self._held = {path: held for path, held in self._held.items() if path in paths}

    def read(self, path: Path, problems: list[InvalidTrust]) -> T | None:
        """Return what a file holds; what it held where it cannot be used, which is noted."""
        signature, value = self._held.get(path, ((), None))
        count = len(problems)
        try:
            found, text = _text_of(path, signature, self._options.file_bytes_max)
            if text is not None:
                value = self._parse(path, text, value, problems)
            signature = found
        except InvalidTrust as error:
            problems.append(error)
        if value is not None:  # of one that cannot be used no signature: it is read again
            self._held[path] = (signature if len(problems) == count else (), value)
        return value


@dataclass(slots=True)
class _Look:
    """What one look finds."""

    keys: dict[str, bytes] = field(default_factory=dict)
    revoked: set[bytes] = field(default_factory=set)
    revoked_names: dict[str, bytes | None] = field(default_factory=dict)
    problems: list[InvalidTrust] = field(default_factory=list)


class TrustDirectory:
    """Reads a directory of trust. Every call does I/O; threads wait for each other."""

    def __init__(
        self,
        path: Path,
        options: TrustOptions = TrustOptions(),  # noqa: B008  # frozen
    ) -> None:
        self.path = path
        self._options = options
        self._keys = _Files(_key_in, options)
        self._lists = _Files(_keys_in, options)
        self._texts = _Files(_whole, options)
        self._lock = Lock()
        self._had_revoked = False  # a directory of them
        self._trust: Trust | None = None
        self._facts: tuple[object, ...] = ()
        self._rules: Rules | None = None
        self._rules_of: tuple[str, frozenset[str]] | None = None  # text, and names of keys
        self._flaw: InvalidTrust | None = None  # of that text

    def open(self) -> Trust:
        """Read it for the first time.

        Raises:
            InvalidTrust: something in it cannot be used; it names the file and the line.
        """
        read = self.read()
        if read.problems:
            raise read.problems[0]
        return read.trust

    def read(self) -> TrustRead:
        """Look at it. `problems` tell what cannot be used: what was there before holds.

        Raises:
            InvalidTrust: it cannot be read at all, and never could.
        """
        with self._lock:
            return self._read()

    def read_keys(self) -> TrustRead:
        """Look at its keys and at who is revoked, but not at its rules.

        Raises:
            InvalidTrust: it cannot be read at all.
        """
        look = _Look()
        with self._lock:
            trust, _ = self._look(look, with_rules=False)
        return TrustRead(trust, tuple(look.problems), revoked_names=look.revoked_names)

    def _read(self) -> TrustRead:
        look = _Look()
        try:
            trust, rules = self._look(look)
        except InvalidTrust as error:
            if self._trust is None:
                raise
            look, trust = self._look_at_revoked_alone(self._trust)
            rules = trust.rules
            look.problems.insert(0, error)
        facts = (look.keys, trust.revoked, rules)
        if self._trust is not None and facts == self._facts:
            return TrustRead(self._trust, tuple(look.problems), False, look.revoked_names)
        self._trust, self._facts = trust, facts
        return TrustRead(trust, tuple(look.problems), revoked_names=look.revoked_names)

    def _look(self, look: _Look, *, with_rules: bool = True) -> tuple[Trust, Rules | None]:
        try:
            self._look_at_keys(look)
            self._look_at_revoked(look)
            rules = self._look_at_rules(look) if with_rules else None
        except OSError as error:  # where not even whether something is there can be found out
            why = f"it cannot be looked at: {error.strerror}"
            raise InvalidTrust(str(error.filename or self.path), why) from error
        return self._make(look, rules), rules

    def _make(self, look: _Look, rules: Rules | None) -> Trust:
        try:
            return Trust.of(look.keys, look.revoked, look.revoked_names, rules, self._options)
        except InvalidTrust as error:
            raise InvalidTrust(str(self.path), error.why) from error

    def _look_at_keys(self, look: _Look) -> None:
        entries = self._listing(self.path)
        for entry in entries:
            key = self._keys.read(entry, look.problems)
            if key is not None:
                look.keys[entry.stem] = key
        place = self.path / REVOKED
        self._keys.keep({*entries, *(self._listing(place) if place.is_dir() else ())})

    def _look_at_revoked(self, look: _Look) -> None:
        """Note who is revoked: by a file of this name, whatever is in it, and by the key in it."""
        place = self.path / REVOKED
        if place.is_dir():
            self._had_revoked = True
            for entry in self._listing(place):
                key = self._keys.read(entry, look.problems)
                look.revoked_names[entry.stem] = key
                look.revoked |= set() if key is None else {key}
        elif self._had_revoked and not place.exists():
            raise InvalidTrust(str(place), "it is gone: remove files from it to trust their keys")
        elif place.exists() or place in self._lists:
            look.revoked |= self._lists.read(place, look.problems) or frozenset()

    def _look_at_revoked_alone(self, before: Trust) -> tuple[_Look, Trust]:
        """Return the trust of before but for whom to revoke: nothing else holds that up."""
        look = _Look(keys=before.keys)
        with suppress(OSError, InvalidTrust):  # what is wrong was noted with the rest
            _check_mode(self.path, self.path.stat())  # or anybody could revoke
            self._look_at_revoked(look)
            revoked = before.revoked | look.revoked
            return look, Trust.of(
                look.keys, revoked, look.revoked_names, before.rules, self._options
            )
        return look, before

    def _look_at_rules(self, look: _Look) -> Rules | None:
        """Return the rules in force; their file, once there, is not gone for nothing."""
        place = self.path / RULES
        if not place.exists() and place not in self._texts:
            return None
        text = self._texts.read(place, look.problems)
        names = frozenset(look.keys) | look.revoked_names.keys()
        if text is not None and (text, names) != self._rules_of:
            self._rules_of, self._flaw = (text, names), None
            try:
                self._rules = Rules.parse(text, names, RULES, self._options)
            except InvalidTrust as error:
                self._flaw = error
        if self._flaw is not None:
            look.problems.append(self._flaw)
        return self._rules

    def _listing(self, place: Path) -> list[Path]:
        """Return the files of keys in a directory."""
        try:
            _check_mode(place, place.stat())
            entries = sorted(each for each in place.iterdir() if each.suffix == SUFFIX)
        except OSError as error:
            why = f"it cannot be listed: {error.strerror}"
            if isinstance(error, FileNotFoundError):
                why += "; `zmesh trust add DIR NAME KEY` makes it with its first key"
            raise InvalidTrust(str(place), why) from error
        if len(entries) > self._options.trusted_keys_max:
            limit = self._options.trusted_keys_max
            raise InvalidTrust(str(place), f"{len(entries)} keys are more than {limit}")
        return entries


def read_key(path: Path, options: TrustOptions = TrustOptions()) -> bytes:  # noqa: B008  # frozen
    """Return the public key in a file.

    Raises:
        InvalidTrust: it holds none, or more than one.
    """
    _, text = _text_of(path, (), options.file_bytes_max)
    return _key_in(path, text or "", None, [])


def _text_of(path: Path, signature: _Signature, bytes_max: int) -> tuple[_Signature, str | None]:
    """Return a file's signature and its text; None where it is as it was."""
    try:
        # Not blocking: what is called so might be a pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _check_mode(path, status)
            found = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)
            if found == signature:
                return found, None
            if not stat.S_ISREG(status.st_mode):
                raise InvalidTrust(str(path), "it is no file")
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise InvalidTrust(str(path), f"it cannot be read: {error.strerror}") from error
    if len(data) > bytes_max:
        raise InvalidTrust(str(path), f"it is over {bytes_max} bytes")
    is_racy = time.time_ns() - status.st_mtime_ns < _RACY_NS
    try:
        return () if is_racy else found, data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidTrust(f"{path}: line {line}", "it is no UTF-8") from error


def _check_mode(path: Path, status: os.stat_result) -> None:
    """Raise InvalidTrust where everybody on this machine may write."""
    if os.name != "posix" or not status.st_mode & stat.S_IWOTH:
        return
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return
    raise InvalidTrust(str(path), "everybody on this machine may write it: chmod o-w")


def _lines_of(path: Path, text: str) -> list[tuple[str, str]]:
    """Return the lines of a file that are no comments, each with its place and first word."""
    lines = [line.strip() for line in text.splitlines()]
    return [
        (f"{path}: line {number}", line.split()[0])
        for number, line in enumerate(lines, 1)
        if line and not line.startswith("#")
    ]


def _key_in(path: Path, text: str, _: bytes | None, __: list[InvalidTrust]) -> bytes:
    check_name(path.stem, str(path))
    lines = _lines_of(path, text)
    if not lines:
        raise InvalidTrust(str(path), "there is no key in it")
    if len(lines) > 1:
        raise InvalidTrust(lines[1][0], "one key a file: the name of the file is its name")
    place, word = lines[0]
    return _key_of(place, word)


def _keys_in(
    path: Path, text: str, before: frozenset[bytes] | None, problems: list[InvalidTrust]
) -> frozenset[bytes]:
    """Return the keys in a list; those before as well where a line is none: they stay revoked."""
    keys: set[bytes] = set()
    count = len(problems)
    for place, word in _lines_of(path, text):
        try:
            keys.add(_key_of(place, word))
        except InvalidTrust as error:
            problems.append(error)
    return frozenset(keys) | (before or frozenset() if len(problems) > count else frozenset())


def _key_of(place: str, word: str) -> bytes:
    try:
        return node_key.from_text(word, place)
    except InvalidKey as error:
        raise InvalidTrust(place, error.why) from error


def _whole(_: Path, text: str, __: str | None, ___: list[InvalidTrust]) -> str:
    return text
