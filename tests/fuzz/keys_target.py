"""Files of keys, trust and rules as people leave them: read, or refused by an error that says why.

No key is trusted that nobody listed, none that is revoked, and no error repeats a secret.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.fuzz.places import place
from tests.fuzz.script import Script
from zmesh.face.storage_keys import key_in_file
from zmesh.options import KIB, TrustOptions
from zmesh.security import node_key
from zmesh.security.coverage import covers, flaw_in, matches, overlaps, tokens_of
from zmesh.security.key_files import KEYS_MAX, create_key_file, read_key_file, replace_key_file
from zmesh.security.mesh_key import MeshKey
from zmesh.security.node_key import NodeKey
from zmesh.security.rules import Action, Rules
from zmesh.security.storage_key import StorageKey
from zmesh.security.trust import Trust
from zmesh.security.trust_files import REVOKED, RULES, SUFFIX, TrustDirectory
from zmesh.security_errors import InvalidKey, InvalidTrust, KeyFileError

STEPS_MAX: Final = 60
OPTIONS: Final = TrustOptions(
    trusted_keys_max=4, file_bytes_max=16 * KIB, rules_max=4, rule_patterns_max=4
)
"""Small, so that scripts reach them."""

MESH_KEYS: Final = tuple(MeshKey(bytes([number]) * 32) for number in range(KEYS_MAX + 1))
STORAGE_KEYS: Final = tuple(StorageKey(bytes([number]) * 32) for number in range(2))
NODES: Final = tuple(NodeKey.of(bytes([number]) * 32) for number in range(5))
PUBLICS: Final = {node_key.to_text(each.public): each for each in NODES}
SECRETS: Final = (*(key.text for key in MESH_KEYS), *(key.text for key in STORAGE_KEYS))
TEXTS: Final = (*PUBLICS, *SECRETS)
NAMES: Final = ("a", "b", "c.d", "*", "e f", "é", ".", "g" * 200)
BETWEEN: Final = ("\n", " ", "#", "\n# ", "\r\n", "\t", "\x0c", "\u2028", "\ufeff", "\0")
PATTERNS: Final = ("a", "a.b", "a.*", "a.>", ">", "*", "*.b", "a..b", "", "a.>.b", "a*", "a.b.c")
VALUES: Final = (
    *('"deny"', '"allow"', "[]", "{}", "1", "nan", "1979-05-27", '["*"]', '"*"', '["a", "b"]'),
    *('["g"]', '[["a"]]', '{ publish = ["a.>"] }', '{ who = "a" }', "true", "[1]", '"""\n"""'),
    *("9" * 5000, "0x" + "f" * 5000, "[" * 300, "1e400", '"\\ud800"', "-0", '["a.b", "a.*"]'),
)
MEMBERS: Final = ("default", "who", "name", "deny", "publish", "subscribe", "call", "g", "a", "*")
TABLES: Final = ("[[rule]]", "[groups]", "[rule]", "[[groups]]", "[rule.deny]")


def run(data: bytes) -> None:
    """Have files as the script says, and look at what is made of them."""
    script = Script(data)
    with place() as directory:
        scene = _Scene(script, Path(directory))
        for _ in script.turns(STEPS_MAX):
            scene.step()
        scene.look()


def of_keys(*texts: str) -> bytes:
    """Return the bytes that are read as files with these keys, a line each."""
    lines = b"".join(bytes([0, TEXTS.index(text), 1, 0]) for text in texts)
    return b"".join(bytes([kind, 0, 2 * len(texts)]) + lines for kind in (0, 1))


def of_trust(rules: str) -> bytes:
    """Return the bytes that are read as two listed keys and rules, then one is revoked."""
    listed = b"".join(bytes([3, at, 1, 0, 0, at]) for at in range(2))
    data = rules.encode()
    told = b"\x07\xff" + len(data).to_bytes(2, "big") + data
    return listed + told + b"\x0a" + b"\x05\1\0" + b"\1\0\0\0" + b"\x0a"


class _Scene:
    def __init__(self, script: Script, directory: Path) -> None:
        self._script = script
        self._trust = directory / "trust"
        self._file = directory / "keys" / "mesh.key"
        self._trust.mkdir()
        self._directory = TrustDirectory(self._trust, OPTIONS)
        self._listed: dict[str, set[bytes]] = {}  # keys that ever stood in the file of a name

    def step(self) -> None:
        """Do one thing."""
        script = self._script
        match script.below(12):
            case 0:
                self._read_mesh_keys(_content(script))
            case 1:
                self._read_storage_key(_content(script))
            case 2:
                _read_text("".join(script.text(TEXTS) for _ in range(script.below(3))))
            case 3 | 4:
                self._list(self._trust, script.choice(NAMES))
            case 5:
                self._revoke()
            case 6:
                self._remove()
            case 7 | 8:
                self._write(self._trust / RULES, _rules(script))
            case 9:
                _compare(script.choice(PATTERNS), script.choice(PATTERNS), script.text(PATTERNS))
            case _:
                self.look()

    # Keys

    def _read_mesh_keys(self, content: bytes) -> None:
        self._write(self._file, content)
        self._file.chmod(0o600)
        try:
            read = read_key_file(self._file)
        except (KeyFileError, InvalidKey) as error:
            _check_error(error)
            return
        assert 0 < len(read.keys) <= KEYS_MAX
        assert len(set(read.keys)) == len(read.keys)
        for key in read.keys:
            assert key.text.encode() in content, "a key that nobody wrote"
        replace_key_file(self._file, read.with_keys(read.keys))
        again = read_key_file(self._file)
        assert again.keys == read.keys, "keys changed on their way"
        replace_key_file(self._file, again.with_keys((MESH_KEYS[0],)))
        assert read_key_file(self._file).keys == (MESH_KEYS[0],)
        with suppress(KeyFileError):
            create_key_file(self._file, "")
            raise AssertionError("a key file was overwritten")

    def _read_storage_key(self, content: bytes) -> None:
        self._write(self._file, content)
        self._file.chmod(0o600)
        try:
            key = key_in_file(self._file)
        except (KeyFileError, InvalidKey) as error:
            _check_error(error)
            return
        assert key.text.encode() in content, "a key that nobody wrote"

    # Trust

    def _list(self, directory: Path, name: str) -> None:
        content = _content(self._script)
        self._write(directory / f"{name}{SUFFIX}", content)
        if directory == self._trust:
            found = {each.public for text, each in PUBLICS.items() if text.encode() in content}
            self._listed.setdefault(name, set()).update(found)

    def _revoke(self) -> None:
        script, revoked = self._script, self._trust / REVOKED
        if script.flag() and not revoked.is_file():
            revoked.mkdir(exist_ok=True)
            self._list(revoked, script.choice(NAMES))
        elif not revoked.is_dir():
            self._write(revoked, _content(script))

    def _remove(self) -> None:
        files = sorted(each for each in self._trust.rglob("*") if each.is_file())
        if files:
            self._script.choice(files).unlink()

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    def look(self) -> None:
        """Read the directory, and hold what is trusted against what is there."""
        try:
            read = self._directory.read()
        except InvalidTrust as error:
            _check_error(error)
            return
        for problem in read.problems:
            _check_error(problem)
        trust = read.trust
        assert len(trust.keys) <= OPTIONS.trusted_keys_max
        for name, public in trust.keys.items():
            assert public in self._listed[name], "a key that nobody listed"
        for node in self._revoked(trust):
            assert not trust.admits(node.id), "who is revoked is let in"
            assert not trust.judge(node.id, Action.CALL, "a").allowed
        if trust.rules is not None:
            _judge(trust.rules, trust)

    def _revoked(self, trust: Trust) -> list[NodeKey]:
        """Return whom files revoke for sure."""
        revoked = self._trust / REVOKED
        if not revoked.is_dir():
            return []
        names = {each.stem for each in revoked.iterdir() if each.suffix == SUFFIX}
        publics = {public for name, public in trust.keys.items() if name in names}
        return [node for node in NODES if node.public in publics]


# What is in files


def _content(script: Script) -> bytes:
    """Return what may be in a file of keys: mostly keys, and what is between them."""
    pieces: list[bytes] = []
    for _ in range(script.choice((1, 2, 3, 20)) if script.flag() else script.below(24)):
        match script.below(16):
            case 1 | 3 | 5 | 7:
                pieces.append(script.choice(BETWEEN).encode())
            case 14:
                pieces.append(_mistyped(script, script.choice(TEXTS)).encode())
            case 15:
                pieces.append(script.data())
            case _:
                pieces.append(script.choice(TEXTS).encode())
    return b"".join(pieces)


def _mistyped(script: Script, text: str) -> str:
    at = script.byte() % len(text)
    return text[:at] + script.choice(("", "-", "=", "é")) + text[at + 1 :]


def _rules(script: Script) -> bytes:
    """Return what may be in a file of rules."""
    if script.rarely():
        return script.take(script.byte() << 8 | script.byte())
    lines: list[str] = []
    for _ in range(script.below(16)):
        match script.below(4):
            case 0:
                lines.append(script.choice(TABLES))
            case 1:
                patterns = [script.choice(PATTERNS) for _ in range(script.below(6))]
                told = ", ".join(f'"{each}"' for each in patterns)
                lines.append(f"{script.choice(tuple(Action))} = [{told}]")
            case _:
                lines.append(f"{script.text(MEMBERS)} = {script.text(VALUES)}")
    return "\n".join(lines).encode()


# What is made of it


def _read_text(text: str) -> None:
    for kind in (MeshKey, StorageKey):
        try:
            key = kind.parse(text, "here")
        except InvalidKey as error:
            _check_error(error)
            continue
        assert kind.parse(key.text) == key
    try:
        public = node_key.from_text(text, "here")
    except InvalidKey as error:
        _check_error(error)
        return
    assert node_key.from_text(node_key.to_text(public)) == public


def _check_error(error: Exception) -> None:
    told = str(error)
    assert not any(secret in told for secret in SECRETS), "an error repeats a secret"


def _compare(one: str, other: str, name: str) -> None:
    """Hold what is said of two patterns against what they say of a name."""
    if flaw_in(one) or flaw_in(other):
        return
    first, second, tokens = tokens_of(one), tokens_of(other), tokens_of(name)
    both = matches(first, tokens) and matches(second, tokens)
    assert not both or overlaps(first, second), "both match, and do not overlap"
    assert overlaps(first, second) is overlaps(second, first)
    if covers(first, second):
        assert overlaps(first, second)
        assert matches(first, tokens) or not matches(second, tokens), "covered, and not matched"


def _judge(rules: Rules, trust: Trust) -> None:
    for name in trust.keys:
        for action in (Action.CALL, Action.SUBSCRIBE):
            for target in ("a", "a.b", "b"):
                decision = rules.judge(name, action, target)
                assert rules.judge_any(name, action, target).allowed is decision.allowed
