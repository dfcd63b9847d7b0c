"""What peers write into tables that all share, and wish for in filters: looked at, and bounded.

Declarations of exchanges, attributes of nodes, and expressions over bodies.
"""

from typing import Final

from tests.fuzz import bounded
from tests.fuzz.script import Script
from zmesh.errors import InvalidOption, MapFull, ProtocolError
from zmesh.message import Encoding
from zmesh.options import WireLimits
from zmesh.patterns import bindings
from zmesh.patterns.bindings import Declared, key_of, to_value
from zmesh.patterns.content import ContentError, Expression
from zmesh.patterns.declarations import Declarations
from zmesh.security.refusal import HEAD, error_of, from_reason, of_application, to_reason
from zmesh.wire.attributes import attribute_text, attributes_of, is_attribute
from zmesh.wire.bodies import decode_body, encode_body

LIMITS: Final = WireLimits()
STEPS_MAX: Final = 100
KEYS_MAX: Final = 8
CONTENT_STEPS: Final = 2000
MEMORY_MAX: Final = 4 * 1024 * 1024
ME: Final = "01" * 16
OTHER: Final = "02" * 16
EXCHANGES: Final = ("orders", "logs", "dead", "")
KINDS: Final = ("direct", "topic", "fanout", "headers", "none", "")
ROUTING_KEYS: Final = ("a.b", "a", "", "*", "#", "a.#", "#.#.#.#.#", "a.*.b", "a..b", ">", "*a")
PLACES: Final = ("queue", "subject", "exchange", "other")
WORDS: Final = (*EXCHANGES, *KINDS, *ROUTING_KEYS, *PLACES, "any", ME, OTHER)
EXPRESSIONS: Final = (
    *("a", ".b", "[*]", "[?a]", "[?a == `1`]", "@", "length(@)", "sort(@)", "[]", ".*", "|", "||"),
    *("{a: @}", "[@, @]", "join(',', a)", "max_by(@, &a)", "[::2]", "!", "(", ")", "`[1]`", "'x'"),
    *("&", "map(&[@, @], [@, @])", "to_string(@)", "[0]", "no(a)", "<", '"a"', "reverse(@)"),
)
ATTRIBUTES: Final = (
    *("a=1", 'a="b"', "=", "a=", "a=[1]", "a=NaN", "b=true", "a=1e999", "a=null"),
    *("a==1", "a=-0", "a=" + "9" * 5000, "a=" + "[" * 2000, r'a="\ud800"', r'a="\u0000"'),
)
REASONS: Final = (
    *(
        "no",
        "signature refused: ",
        HEAD,
        "[",
        "]",
        '"call"',
        '"svc"',
        ", ",
        r'"\ud800"',
        "1",
        "{}",
    ),
    *(HEAD + '["call", "svc", "a rule"]', HEAD + '["call", "svc"]', HEAD + "[" * 2000),
)


def run(data: bytes) -> None:
    """Take in what the script says."""
    script = Script(data)
    scene = _Scene(script)
    for _ in script.turns(STEPS_MAX):
        scene.step()
    scene.check()


def of_declared(*declared: Declared) -> bytes:
    """Return the bytes that are read as declarations in the map of a peer."""
    told = bytearray()
    for each in declared:
        body = bytes(encode_body(to_value(each))[1])
        told += b"\0" + len(body).to_bytes(2, "big") + body
    return bytes(told)


class _Scene:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._map: dict[str, tuple[int, bytes]] = {}
        self._tables = Declarations(ME, LIMITS, 4, self._write, lambda owner: owner == OTHER)

    def _write(self, key: str, encoding: int | None, value: bytes) -> None:
        """Do what the node's own declaring does."""
        if encoding is None:
            self._map.pop(key, None)
        elif key not in self._map and len(self._map) >= KEYS_MAX:
            raise MapFull("zmesh.exchanges", len(self._map), 0)
        else:
            self._map[key] = encoding, value
        self._tables.on_change(key, encoding, value)

    def step(self) -> None:
        """Do one thing."""
        script = self._script
        match script.below(8):
            case 0:
                self._hear(script.take(script.byte() << 8 | script.byte()))
            case 1 | 2:
                self._hear(bytes(encode_body(_told(script))[1]))
            case 3:
                self._forget()
            case 4:
                self._tables.on_left(script.choice((ME, OTHER, "", "03" * 16)))
                self._tables.tend()
            case 5:
                self._route()
            case 6:
                _filter(script)
            case 7 if script.flag():
                _read_reason("".join(script.text(REASONS) for _ in range(script.below(8))))
            case _:
                _describe([script.text(ATTRIBUTES) for _ in range(script.below(4))])

    def _hear(self, value: bytes) -> None:
        """Have a peer write a value, mostly at the key that it belongs to."""
        script = self._script
        encoding = Encoding.MSGPACK if script.below(16) else script.byte()
        key = script.text(("k", "")) if script.rarely() else _key_of(encoding, value)
        if key in self._map or len(self._map) < KEYS_MAX:
            self._map[key] = encoding, value
            self._tables.on_change(key, encoding, value)

    def _forget(self) -> None:
        if self._map:
            key = self._script.choice(list(self._map))
            del self._map[key]
            self._tables.on_change(key, None, b"")

    def _route(self) -> None:
        script, table = self._script, self._tables.table
        headers = {script.choice(("unit", "a")): script.choice((1, True, "C", None, 1.0))}
        routing_key = script.choice(("a.b", "a", "", "a.b.a.b.a.b", "b"))
        for name in EXCHANGES:
            found = table.route(name, routing_key, headers, lambda topic: topic != "a")
            assert len(set(found)) == len(found), "a message goes somewhere twice"
            assert not found or table.kind(name) is not None

    def check(self) -> None:
        """Assert that the table is what stands in the map, and nothing of it stays."""
        table = self._tables.table
        for key in self._map:
            declared = table.get(key)
            assert declared is None or key_of(declared) == key
        for key in list(self._map):
            del self._map[key]
            self._tables.on_change(key, None, b"")
        assert not table.exchanges()
        assert not table.owners()
        assert not table._exchanges  # nothing else tells


def _told(script: Script) -> object:
    """Return what may be a declaration."""
    match script.below(6):
        case 0:
            claim: list[object] = ["exchange", script.text(EXCHANGES), script.text(KINDS)]
            return [*claim, script.choice((0, 1, -1, True, script.below(256), 2**64 - 1))]
        case 1:
            return ["alternate", script.text(EXCHANGES), script.text(EXCHANGES), script.below(4)]
        case 2:
            return script.value(WORDS)
        case _:
            to = script.choice(PLACES)
            told = ["binding", script.text(EXCHANGES), script.choice(KINDS), to]
            told += [script.text(EXCHANGES), script.text(ROUTING_KEYS)]
            told.append(script.choice(("", OTHER, ME, "03" * 16)))
            where: object = {script.text(("unit", "a")): script.value() for _ in range(2)}
            return [*told, script.choice(("any", "all", "x", 1)), where] if script.flag() else told


def _key_of(encoding: int, value: bytes) -> str:
    """Return the key a value belongs to; any where it is no declaration."""
    try:
        told = decode_body(encoding, value)
    except ProtocolError:
        return "none"
    try:
        return key_of(bindings._declared(told, LIMITS))
    except (ProtocolError, InvalidOption, ValueError):
        return "none"


def _filter(script: Script) -> None:
    text = "".join(script.text(EXPRESSIONS) for _ in range(script.below(8)))
    text = text[:256]  # of four bytes each, at most: a text is no longer
    body = script.value(("a", "b", "C"))
    if script.flag():
        body = [body] * script.byte()
    with bounded.memory(MEMORY_MAX, f"filtering by {text!r}"):
        try:
            holds, steps = Expression(text).holds(body, CONTENT_STEPS)
        except ContentError:
            return
    assert isinstance(holds, bool)
    assert 0 < steps <= CONTENT_STEPS


def _describe(texts: list[str]) -> None:
    found = attributes_of(texts)
    assert len(found) <= sum(map(is_attribute, texts))
    for key, value in found.items():
        assert attributes_of([attribute_text(key, value, LIMITS)]) == {key: value}


def _read_reason(reason: str) -> None:
    str(error_of("b", reason)).encode()
    told = from_reason(reason)
    if told is not None:
        again = from_reason(to_reason(*told))
        assert again is not None, "a refusal that is not read again"
        assert again[0] == told[0]
    assert from_reason(of_application(reason)) is None, "an application speaks for rules"
