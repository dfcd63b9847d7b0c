"""An invitation among strangers, guests and whoever changes what they say; and what people type.

Nobody gets a key who does not know the code, nobody who knows it another key, and it ends as it
should.
"""

from contextlib import suppress
from typing import Final

from tests.fuzz.script import Script
from tests.fuzz.swift_spake2 import swift
from zmesh.discovery.endpoints import dialable, in_order
from zmesh.joining_errors import InvalidCode, JoinFailed
from zmesh.options import JoiningOptions
from zmesh.security import join_frames as frames
from zmesh.security.invitation import (
    AttemptFailed,
    Connected,
    Disconnected,
    GuestJoined,
    HangUp,
    InvitationEnded,
    InvitationState,
    Inviter,
    InviterAction,
    InviterEvent,
    Received,
    SendMessage,
    TimerFired,
)
from zmesh.security.join_code import JoinCode, is_nameplate
from zmesh.security.join_frames import EXCHANGE_BYTES, SIZES, Garbage, Kind
from zmesh.security.joining import Joiner, KeysReceived, MeshNamed
from zmesh.security.joining import SendMessage as Say
from zmesh.security.key_files import default_key_file
from zmesh.security.mesh_key import MeshKey

MESH: Final = "cameras"
KEYS: Final = (MeshKey(bytes(range(32))), MeshKey(b"o" * 32))
CODE: Final = JoinCode.parse("417-7KQM-3XTA")
CODES: Final = (CODE, CODE, CODE, JoinCode.parse("417-7KQM-3XTB"), JoinCode.parse("418-7KQM-3XTA"))
OPTIONS: Final = JoiningOptions(connections_max=4, attempts_max=3)
POINTS: Final = tuple(
    number.to_bytes(32, "little")
    for number in (0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, 2**255, 2**256 - 1)
)
"""Of Curve25519 as in RFC 8032: of small order, written in other ways, and none at all."""

STEPS_MAX: Final = 200
TURNS_MAX: Final = 100
TYPED: Final = ("417-7KQM-3XTA", "4I7 7kqm_3xta", "0", "-", "\u2212", "U", "\u0661", "\u0131", "ß")
HOSTS: Final = ("192.168.1.9", "::1", "fe80::9%eth0", "fe80::9", "0.0.0.0", "a.example", "")  # noqa: S104


def run(data: bytes) -> None:
    """Do to an invitation what the script says."""
    script = Script(data)
    if script.rarely():
        _read(script)
        return
    with swift():
        scene = _Scene(script)
        for _ in script.turns(STEPS_MAX):
            scene.step()
            scene.check()
        scene.end()


def of_guests(count: int) -> bytes:
    """Return the bytes that are read as guests who know the code, one after the other."""
    return b"\0" + (b"\0\0" + b"\2\0\1" * 5) * count


def of_stranger(data: bytes) -> bytes:
    """Return the bytes that are read as an invitation that is told these by a stranger."""
    return bytes([0, 0, 5, 8, 0, 0]) + len(data).to_bytes(2, "big") + data


def of_text(text: str) -> bytes:
    """Return the bytes that are read as a code that somebody typed."""
    data = text.encode()
    return bytes([255, 0, 1, 255, 224, len(data)]) + data


class _Few:
    """Randomness that repeats soon, so that what was computed of it is known."""

    def __init__(self, first: int) -> None:
        self._next = first

    def token(self, size: int, /) -> bytes:
        self._next += 1
        return bytes([self._next % 8]) * size

    def uniform(self, low: float, high: float, /) -> float:
        return (low + high) / 2


class _Guest:
    """Somebody at the other end of a connection, who may have a code."""

    def __init__(self, code: JoinCode | None, number: int) -> None:
        self.knows = code == CODE
        self.joiner = None if code is None else Joiner(code, "host:1", _Few(8 * (number % 4)))
        self.says = b"" if self.joiner is None else self.joiner.hello
        self.hears = b""  # and was not looked at
        self.has_keys = False

    def hear(self, data: bytes) -> None:
        """Take what came; have an answer to say."""
        joiner = self.joiner
        if joiner is None:
            return
        try:
            actions = joiner.receive(data)
        except JoinFailed:
            self.joiner = None
            return
        for action in actions:
            match action:
                case Say(said):
                    self.says += said
                case MeshNamed(mesh):
                    assert self.knows, "the mesh was told to one who does not know the code"
                    assert mesh == MESH
                    self.says += joiner.accept()
                case KeysReceived(keys):
                    assert self.knows, "who does not know the code has keys"
                    assert keys == KEYS
                    self.has_keys = True
                    self.says += joiner.saved()


class _Scene:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._now_s = 1000.0
        self._inviter = Inviter(
            CODE, MESH, KEYS, now_s=self._now_s, entropy=_Few(100), options=OPTIONS
        )
        self._guests: dict[int, _Guest] = {}  # that were not hung up on
        self._number = 0
        self._wrong = 0  # answers to those who do not know the code
        self._keys_went: list[int] = []
        self._news: list[InviterAction] = []
        self._is_over = False

    def step(self) -> None:
        """Do one thing."""
        script = self._script
        match script.below(12):
            case 0 | 1:
                code = script.choice((*CODES, None))
                self._connect(code)
            case 2 | 3 | 4 | 5:
                self._talk(self._somebody(), is_changed=False)
            case 6 | 7:
                self._talk(self._somebody(), is_changed=True)
            case 8:
                self._say_anything(self._somebody())
            case 9:
                self._leave(self._somebody())
            case 10:
                self._wait(script.choice((0.001, 1.0, 2.0, 5.0, 10.0, 60.0, 700.0)))
            case _:
                _read(script)

    def check(self) -> None:
        """Assert that it is within its bounds, and has ended for good where it has."""
        inviter = self._inviter
        assert inviter.connections <= OPTIONS.connections_max
        assert 0 <= inviter.attempts_left <= OPTIONS.attempts_max
        assert self._wrong <= OPTIONS.attempts_max, "more attempts than there may be"
        assert len(self._keys_went) <= 1, "two have the key"
        is_open = inviter.state is InvitationState.OPEN
        assert not (is_open and self._is_over), "open again"
        assert is_open or inviter.connections <= 1
        self._is_over = not is_open
        assert is_open or inviter.state is not InvitationState.USED or self._keys_went

    def end(self) -> None:
        """Let all be silent; where the invitation is open then, a guest still gets the key."""
        for number in list(self._guests):
            self._leave(number)
        self._wait(OPTIONS.pause + 1.0)
        assert self._inviter.connections == 0
        self.check()
        if self._inviter.state is InvitationState.OPEN:
            self._connect(CODE)
            guest = self._guests[self._number]
            for _ in range(4):
                self._talk(self._number, is_changed=False, in_pieces=False)
            assert guest.has_keys, "a guest got no key"
            self.check()
            assert self._news[-1] == GuestJoined(f"host{self._number}", is_saved=True)
        self._wait(OPTIONS.expires + 1.0)
        endings = [each for each in self._news if isinstance(each, GuestJoined | InvitationEnded)]
        assert len(endings) == 1, endings
        assert self._inviter.deadline_s is None

    # What guests do

    def _somebody(self) -> int:
        if not self._guests:
            self._connect(self._script.choice(CODES))
        numbers = [*self._guests] or [self._number]
        return self._script.choice(numbers)

    def _connect(self, code: JoinCode | None) -> None:
        self._number += 1
        self._guests[self._number] = _Guest(code, self._number)
        self._handle(Connected(self._number, f"host{self._number}"))

    def _talk(self, number: int, *, is_changed: bool, in_pieces: bool = True) -> None:
        """Have a guest hear what was sent to it, and say what it has to."""
        script, guest = self._script, self._guests.get(number)
        if guest is None:
            return
        heard, guest.hears = guest.hears, b""
        is_heard_right = not is_changed or script.flag()
        guest.hear(heard if is_heard_right else _changed(script, heard))
        said, guest.says = guest.says, b""
        if is_changed and is_heard_right:
            said = _changed(script, said)
        if not in_pieces or script.below(4):
            self._handle(Received(number, said))
            return
        cut = script.byte() % (len(said) + 1)
        self._handle(Received(number, said[:cut]))
        if script.flag():
            guest.says = said[cut:]  # later
        else:
            self._handle(Received(number, said[cut:]))

    def _say_anything(self, number: int) -> None:
        script = self._script
        if number not in self._guests:
            return
        if script.flag():
            kind = script.choice(tuple(Kind))
            rest = script.take(SIZES[kind] - 1).ljust(SIZES[kind] - 1, b"\0")
            data = bytes([kind]) + rest
            if kind in {Kind.HELLO, Kind.ANSWER} and script.flag():
                point = script.choice((*POINTS, data[-EXCHANGE_BYTES:][1:]))
                data = frames.hello(b"A" + point)
        else:
            data = script.take(script.byte() << 8 | script.byte())
        self._handle(Received(number, data))

    def _leave(self, number: int) -> None:
        if self._guests.pop(number, None) is not None:
            self._handle(Disconnected(number))

    # Driving

    def _wait(self, seconds: float) -> None:
        until_s = self._now_s + seconds
        for _ in range(TURNS_MAX):
            deadline_s = self._inviter.deadline_s
            if deadline_s is None or deadline_s > until_s:
                break
            self._now_s = max(self._now_s, deadline_s)
            self._handle(TimerFired())
        else:
            raise AssertionError(f"time stands still at {self._now_s}")
        self._now_s = until_s

    def _handle(self, event: InviterEvent) -> None:
        for action in self._inviter.handle(event, self._now_s):
            match action:
                case SendMessage(number, data):
                    self._send(number, data)
                case HangUp(number):
                    del self._guests[number]
                case _:
                    self._news.append(action)
                    if isinstance(action, AttemptFailed):
                        assert action.attempts_left >= 0

    def _send(self, number: int, data: bytes) -> None:
        guest, kind = self._guests[number], Kind(data[0])
        assert len(data) == SIZES[kind]
        if kind is Kind.ANSWER and not guest.knows:
            self._wrong += 1
        if kind in {Kind.WELCOME, Kind.KEYS}:
            assert guest.knows, f"{kind.name} to one who does not know the code"
        if kind is Kind.KEYS:
            self._keys_went.append(number)
        guest.hears += data


def _changed(script: Script, data: bytes) -> bytes:
    if not data:
        return script.take(script.byte())
    at = script.byte() % len(data)
    if data[0] == Kind.ANSWER and script.below(4) == 0:
        return data[:2] + script.choice(POINTS)
    match script.below(4):
        case 0 | 1:
            return data[:at] + bytes([data[at] ^ (script.byte() or 1)]) + data[at + 1 :]
        case 2:
            return data[:at]
        case _:
            return data + script.take(1).ljust(1, b"\0")


# What is read on the way


def _read(script: Script) -> None:
    match script.below(4):
        case 0:
            text = "".join(script.text(TYPED) for _ in range(script.below(6)))
            _read_code(text)
        case 1:
            _read_mesh(script.take(256).ljust(256, b"\0"))
        case 2:
            with suppress(Garbage):
                packed = script.take(257).ljust(257, b"\0")
                keys = frames.unpack_keys(packed)
                assert frames.pack_keys(keys)[: 1 + 32 * len(keys)] == packed[: 1 + 32 * len(keys)]
        case _:
            hosts = [f"[{script.text(HOSTS)}]:{script.number()}" for _ in range(script.below(20))]
            kept, dropped = dialable(hosts, 16)
            assert len(kept) <= 16
            assert len(kept) + dropped <= len(hosts)
            assert set(in_order(kept, ("192.168.1.7",))) == set(kept)


def _read_code(text: str) -> None:
    try:
        code = JoinCode.parse(text)
    except InvalidCode:
        return
    assert JoinCode.parse(code.text) == code
    assert is_nameplate(code.nameplate)
    assert code.text.isascii()


def _read_mesh(packed: bytes) -> None:
    try:
        mesh = frames.unpack_mesh(packed)
    except Garbage:
        return
    assert frames.unpack_mesh(frames.pack_mesh(mesh)) == mesh
    place = default_key_file(mesh, {"HOME": "/home"})
    assert place is not None
    assert str(place.parent) == "/home/.config/zmesh", "a key in another place"
    assert place.name.endswith(".key")
