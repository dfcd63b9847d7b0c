"""One link with a peer that says whatever a script makes it say, over any number of handshakes.

A link sees frames that the codec let through, so here nothing is refused for its form.
"""

from typing import Final

from tests.fuzz.script import Script
from tests.fuzz.speaker import ENDPOINTS, Speaker, link_of, parts_of
from tests.reliable.pair import End, identity, numbered
from zmesh.errors import ProtocolError
from zmesh.events import PathCause
from zmesh.ids import Path
from zmesh.message import Outcome
from zmesh.options import KIB, LinkOptions, WireLimits
from zmesh.reliable.credit import CreditPool
from zmesh.reliable.link_events import Arrived
from zmesh.wire.codec import decode, encode
from zmesh.wire.frames import Drain, Interest, Packet, Ping

OPTIONS: Final = LinkOptions(
    window_messages=32, window_messages_max=128, window_bytes=128 * KIB,
    window_bytes_max=256 * KIB, peer_bytes_max=512 * KIB, transfer_bytes_max=512 * KIB,
    body_bytes_max=256 * KIB, ranges_max=65, control_window=32, queued_messages_max=1000,
)  # fmt: skip
LIMITS: Final = WireLimits()
POOL_BYTES: Final = 512 * KIB
STEPS_MAX: Final = 600
TURNS_MAX: Final = 200
PATHS: Final[tuple[Path, ...]] = (b"\0one", b"\0two", 1, 2)


def run(data: bytes) -> None:
    """Do to a link what the script says, and look at what it holds in between."""
    script = Script(data)
    scene = _Scene(script)
    for _ in script.turns(STEPS_MAX):
        scene.step()
        scene.check()


class _Scene:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._now = 100.0
        self._end = End("a", "b", OPTIONS, now=self._now, pool=CreditPool(POOL_BYTES))
        self._end.accepts = script.flag()
        self._link = self._end.link
        self._speaker = Speaker(identity("b").node, self._link.local.node)
        self._open: list[Arrived] = []
        self._read = 0
        if script.flag():
            nothing = Script(b"")
            self._give(PATHS[0], Packet(self._speaker.link, 1, (self._speaker.hello(nothing),)))
            self._give(PATHS[0], Packet(self._speaker.link, 1, (Ping(1),)))

    def step(self) -> None:
        """Do one thing."""
        script, link, now = self._script, self._link, self._now
        match script.below(16):
            case 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7:
                count = script.choice((1, 1, 1, 2, 4))
                frames = tuple(self._speaker.frame(script) for _ in range(count))
                number = self._speaker.next_number(script)
                path = script.choice((PATHS[0], PATHS[0], *PATHS))
                self._give(path, Packet(link_of(frames[0], self._speaker.link), number, frames))
            case 8 | 9:
                self._wait(script.choice((0.001, 0.03, 0.3, 1.0, 5.0, 20.0, 120.0)))
            case 10:
                self._on_path(script.choice(PATHS))
            case 11:
                link.on_loop_late(script.choice((0.01, 1.0, 60.0)), now)
            case 12 | 13:
                self._submit()
            case 14:
                self._settle()
            case _:
                record = Drain() if script.flag() else Interest((("service", "x"),), ())
                link.send_control(record)
        self._turn()

    def check(self) -> None:
        """Assert that nothing is larger than it may be."""
        held = self._link.statistics()
        may_hold = OPTIONS.peer_bytes_max + OPTIONS.transfer_bytes_max + 11 * OPTIONS.window_bytes
        assert held.held_bytes <= may_hold, held
        assert held.held_messages <= 10 * OPTIONS.window_messages_max + OPTIONS.control_window
        assert 0 <= held.bytes_in_flight <= held.queued_bytes + 1024 * KIB, held
        assert held.queued_messages >= 0
        assert held.queued_bytes >= 0

    def _on_path(self, path: Path) -> None:
        script, link, now = self._script, self._link, self._now
        match script.below(6):
            case 0 | 1:
                link.hello(path, now)
            case 2:
                link.on_path_down(path, script.choice(tuple(PathCause)), now)
            case 3:
                link.on_path_full(path)
            case 4:
                link.on_path_writable(path)
            case _:
                link.on_probe(ENDPOINTS[0], script.choice((None, *PathCause)), now)

    def _give(self, path: Path, packet: Packet) -> None:
        try:
            heard = decode(parts_of(packet, 1024), LIMITS)
        except ProtocolError:
            return  # what the codec refuses does not get here
        self._link.on_packet(path, heard, self._now)
        self._turn()

    def _turn(self) -> None:
        for _ in range(TURNS_MAX):
            deadline = self._link.deadline
            is_due = deadline is not None and deadline <= self._now
            if is_due:
                self._link.on_timer(self._now)
            self._end.digest(self._now)
            for _, packet in self._link.packets(self._now):
                sent = [bytes(part) for part in encode(packet, LIMITS, OPTIONS.inline_bytes_max)]
                assert decode(sent, LIMITS) == packet, "it says what others do not understand"
                for frame in packet.frames:
                    self._speaker.hear(packet.link, packet.number, frame)
            self._end.digest(self._now)
            if not is_due:
                break
        else:
            raise AssertionError(f"time stands still at {self._now}")
        news = self._end.events[self._read :]
        self._read = len(self._end.events)
        self._open += [event for event in news if isinstance(event, Arrived)]

    def _wait(self, seconds: float) -> None:
        until = self._now + seconds
        for _ in range(TURNS_MAX):
            deadline = self._link.deadline
            if deadline is None or deadline > until:
                break
            self._now = max(self._now, deadline)
            self._turn()
        self._now = until
        self._turn()

    def _submit(self) -> None:
        script = self._script
        if self._link.room_messages < 4:
            return
        batch = numbered(script.below(3) + 1)
        if script.below(8) == 0:
            batch = [(0, "", b"x" * 200_000)]
        ttl = script.choice((None, None, 0.0, 1.0))
        key = script.choice((None, "k"))
        self._end.post(batch, self._now, script.choice((4, 4, 0, 9)), key, ttl)

    def _settle(self) -> None:
        if not self._open or self._end.accepts or self._end.session is None:
            return
        event = self._open.pop(self._script.below(min(len(self._open), 256)))
        outcome = self._script.choice((Outcome.ACCEPTED, *Outcome))
        self._end.settle(
            event, self._now, outcome, self._script.text(), float(self._script.flag())
        )
