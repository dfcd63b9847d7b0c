"""Runs in which every host is made of links alone."""

from random import Random

from zmesh.message import Kind, Record, with_body
from zmesh.reliable.link_events import Liveness
from zmesh.testing.clock import HostClock
from zmesh.testing.findings import Rule
from zmesh.testing.link_books import LinkBooks
from zmesh.testing.link_process import Leave, LinkProcess, Submit
from zmesh.testing.scenario import Scenario, Submission
from zmesh.testing.trace import Trace
from zmesh.testing.world import World
from zmesh.wire.frames import Data, Hello, Packet

GOODBYE = 0.05  # seconds between saying goodbye and the end of the process
ECHOES_MAX = 4  # handshakes remembered for each pair of hosts


class LinkWorld(World[Packet]):
    """Hosts with a link to every other host."""

    def __init__(self, scenario: Scenario, trace: Trace) -> None:
        super().__init__(scenario, trace)
        self.books = LinkBooks(self.around, self.lives, self.may_be_lost)
        self._lives: list[LinkProcess | None] = [None] * len(scenario.hosts)
        self._echoes: dict[tuple[int, int], list[Packet]] = {}

    def make_process(self, index: int, incarnation: int, clock: HostClock) -> LinkProcess:
        """Make a life of a host."""
        process = LinkProcess(self.around, self.books, index, incarnation, clock)
        self._lives[index] = process
        return process

    def _alive(self, index: int) -> LinkProcess | None:
        process = self._lives[index]
        return process if process is not None and process.alive and not process.left else None

    # What happens

    def submit(self, submission: Submission) -> None:
        """Let the application of the submission's source send it, if it lives."""
        process = self._alive(submission.source)
        if process is not None:
            process.deliver(Submit(submission))

    def leave(self, host: int) -> float:
        """Let a host say goodbye; return how many seconds that takes."""
        process = self._alive(host)
        if process is not None:
            self.lives[host].left = True
            process.deliver(Leave())
        return GOODBYE

    def slow(self, host: int, seconds: float, each: float) -> None:
        """Let the handlers of a host take `each` seconds, for a while."""
        process = self._alive(host)
        if process is not None:
            process.application.slow_down(self.queue.now + seconds, each)

    def on_death(self, label: str) -> None:
        """Note that a process died."""
        self.books.ledger.on_death(label)

    def on_sent(self, source: int, target: int, packet: Packet) -> None:
        """Look at a packet as it leaves a host."""
        process = self._lives[source]
        if process is None:
            return
        self.note(process.label, "sends", target, packet.number, len(packet.frames))
        if self.trace.readable:
            self.trace.explain(self.queue.now, process.label, "", describe(packet))
        self.books.on_sent(process.label, target, packet, process.clock.read())
        if isinstance(packet.frames[0], Hello):
            echoes = self._echoes.setdefault((source, target), [])
            echoes.append(packet)
            del echoes[:-ECHOES_MAX]

    def echo(self, host: int, other: int) -> None:
        """Let a copy of an old handshake of `host` reach `other` now."""
        echoes = self._echoes.get((host, other))
        if echoes:
            self.network.inject(host, other, self.random.choice(echoes))

    def corrupted(self, source: int, target: int, packet: Packet, random: Random) -> Packet:
        """Return the packet with a bit flipped in a fragment, if it carries one."""
        frames = list(packet.frames)
        for position, frame in enumerate(frames):
            if not isinstance(frame, Data):
                continue
            for index, record in enumerate(frame.records):
                if record[0] & 15 == Kind.FRAGMENT:
                    records = list(frame.records)
                    records[index] = _flip(record, random)
                    frames[position] = Data(frame.lane, frame.first_seq, tuple(records))
                    self.books.ledger.on_damage(source, target, frame.lane)
                    return Packet(packet.link, packet.number, tuple(frames))
        return packet

    # The end

    def busy(self) -> bool:
        """Whether handlers still run."""
        return any(p is not None and p.alive and not p.application.idle for p in self._lives)

    def settled(self) -> bool:
        """Whether everything sent has its end, and all live hosts see each other."""
        if not self.books.ledger.settled or self.busy() or self.network.black_holes:
            return False
        return not self._strangers()

    def _strangers(self) -> list[tuple[str, str]]:
        """Return who does not see whom, and why, of those who live."""
        found = []
        for one in self._lives:
            if one is None or not one.alive:
                continue
            for peer, link in one.links.items():
                other = self._lives[peer]
                if other is None or not other.alive:
                    continue
                why = self.books.strangers(one.label, one.index, other.label, peer)
                if not link.is_open or link.liveness is not Liveness.ALIVE:
                    why = f"the link is {link.state.value}, the peer {link.liveness.value}"
                if one.waits(peer):
                    why = "messages wait for room"
                if why:
                    found.append((one.label, f"{other.label}: {why}"))
        return found

    def finish(self, *, settled: bool) -> None:
        """Check what must hold in the end."""
        self.books.ledger.finish()
        for label, text in self._strangers():
            self.around.wrong(Rule.LIVENESS, label, f"does not see {text}")
        if not settled:
            return
        for process in self._lives:
            if process is not None and process.alive:
                for peer, link in process.links.items():
                    self.books.check_rest(process.label, peer, link)

    def messages(self) -> int:
        """Return how many messages were sent."""
        return len(self.books.ledger.messages)


def _flip(record: Record, random: Random) -> Record:
    body = bytearray(record[2])
    body[random.randrange(len(body))] ^= 1 << random.randrange(8)
    return with_body(record, bytes(body))


def describe(packet: Packet) -> str:
    """Return a packet in words short enough for a line."""
    return f"{packet.link.hex()[:6]} " + "; ".join(_frame(frame) for frame in packet.frames)


def _frame(frame: object) -> str:
    match frame:
        case Data(lane, first, records):
            return f"DATA lane {lane} {first}..{first + len(records) - 1}"
        case Hello():
            resume = frame.resume.hex()[:6] if frame.resume else "-"
            return f"HELLO {frame.attempt} resume {resume} fresh {frame.fresh.hex()[:6]}"
        case _:
            return str(frame)
