"""An observer on the wire: it reads every packet, and trusts no counter of the code under test.

It holds senders to the credit they were told of, counts what is sent again, and sees who floods a
peer that does not answer.
"""

from collections.abc import Iterable
from math import inf

from zmesh.ids import LinkId, SessionId
from zmesh.message import LANES, Record, Tag, extra, size_of
from zmesh.options import LinkOptions
from zmesh.testing.findings import Findings, Rule
from zmesh.testing.ledger import TTL_SLACK, Ledger, Message
from zmesh.wire.frames import Ack, Data, Hello, LaneState, Packet, Ping, Welcome

# What one side may send into silence: so many at once, and so many a second. Measured over
# thousands of seeds it stays below half of this.
RESENT_BURST = 3  # of the same data
RESENT_RATE = 0.5
PINGS_BURST = 9
PINGS_RATE = 1.0
HELLOS_BURST = 9
HELLOS_RATE = 1.0


class _Lane:
    """What one side has sent in one lane of one session, and what it may send."""

    __slots__ = ("bytes_limit", "sent", "sent_bytes", "seq_limit")

    def __init__(self, options: LinkOptions) -> None:
        self.seq_limit = options.window_messages
        self.bytes_limit = options.window_bytes
        self.sent: set[int] = set()
        self.sent_bytes = 0


class _Silence:
    """What one process sent another since it last heard of it."""

    __slots__ = ("_repeats", "hellos", "pings", "resent", "since")

    def __init__(self, since: float) -> None:
        self.restart(since)

    def restart(self, since: float) -> None:
        """Begin anew: the other one was heard."""
        self.since = since
        self.pings = 0
        self.hellos = 0
        self.resent = 0  # how often the same data was sent again
        self._repeats: dict[tuple[int, int], int] = {}

    def on_resent(self, lane: int, seq: int) -> None:
        """Note that data was sent again, up to `seq`."""
        count = self._repeats[lane, seq] = self._repeats.get((lane, seq), 0) + 1
        self.resent = max(self.resent, count)


class WireWatch:
    """Follows every session by the packets its two sides send and read."""

    def __init__(
        self, options: LinkOptions, findings: Findings, ledger: Ledger | None, *, calm: bool
    ) -> None:
        self._options = options
        self._findings = findings
        self._ledger = ledger
        self._calm = calm
        self._offers: dict[LinkId, Hello] = {}
        self._sessions: dict[LinkId, SessionId] = {}
        self._lanes: dict[tuple[SessionId, str, int], _Lane] = {}  # by session, sender, lane
        self._silences: dict[tuple[str, int], _Silence] = {}
        self.resent = 0

    def on_sent(self, sender: str, to: int, packet: Packet, now: float, at: float) -> None:
        """Look at a packet as it leaves. `now` is on the sender's clock, `at` virtual."""
        for frame in packet.frames:
            match frame:
                case Data():
                    self._on_data(sender, to, packet.link, frame, now, at)
                case Hello():
                    self._offers[packet.link] = frame
                    self._count(sender, to, at).hellos += 1
                case Welcome():
                    self._on_welcome(sender, packet.link, frame)
                case Ping():
                    self._count(sender, to, at).pings += 1
                case _:
                    pass
        silence = self._silences.get((sender, to))
        if silence is not None:
            self._check_flood(sender, silence, at)

    def on_read(self, reader: str, source: int, packet: Packet, now: float, at: float) -> None:
        """Look at a packet as it is read. `now` is on the reader's clock, `at` virtual."""
        silence = self._silences.get((reader, source))
        if silence is not None:
            silence.restart(at)
        session = self._sessions.get(packet.link)
        for frame in packet.frames:
            match frame:
                case Ack() if session is not None:
                    self._grant(session, reader, frame.credit)
                case Welcome():
                    self._grant(frame.session, reader, _credit_in(frame.lanes))
                case Data() if self._ledger is not None:
                    self._note_ttl(self._ledger, frame, now)
                case _:
                    pass

    # Credit

    def _on_data(
        self, sender: str, to: int, link: LinkId, frame: Data, now: float, at: float
    ) -> None:
        session = self._sessions.get(link)
        if session is None:
            self._findings.add(at, Rule.IDENTITY, sender, "sends data on a link without WELCOME")
            return
        lane = self._lane(session, sender, frame.lane)
        seq = frame.first_seq - 1
        again = False
        for record in frame.records:
            seq += 1
            if seq in lane.sent:
                again = True
                self.resent += 1
            else:
                lane.sent.add(seq)
                lane.sent_bytes += size_of(record)
            if len(record) == 4 and self._ledger is not None:
                self._check_ttl(sender, self._ledger.peek(record), record, now, at)
        if seq > lane.seq_limit:
            text = f"sends {seq} in lane {frame.lane}, allowed are {lane.seq_limit}"
            self._findings.add(at, Rule.CREDIT, sender, text)
        if lane.sent_bytes > lane.bytes_limit:
            text = (
                f"sends {lane.sent_bytes} bytes in lane {frame.lane} up to {seq}, "
                f"allowed are {lane.bytes_limit}"
            )
            self._findings.add(at, Rule.CREDIT, sender, text)
        if again:
            self._count(sender, to, at).on_resent(frame.lane, seq)
            if self._calm:
                text = f"sends {frame.first_seq}..{seq} of lane {frame.lane} again"
                self._findings.add(at, Rule.RESENT, sender, text)

    def _on_welcome(self, sender: str, link: LinkId, frame: Welcome) -> None:
        """The sides agree on a session, and the sender of WELCOME has its caller's credit."""
        offer = self._offers.get(link)
        self._sessions.setdefault(link, frame.session)
        if offer is not None and offer.resume in (None, frame.session):
            self._grant(frame.session, sender, _credit_in(offer.lanes))

    def _grant(
        self, session: SessionId, sender: str, credit: Iterable[tuple[int, int, int]]
    ) -> None:
        for number, seq_limit, bytes_limit in credit:
            lane = self._lane(session, sender, number)
            lane.seq_limit = max(lane.seq_limit, seq_limit)
            lane.bytes_limit = max(lane.bytes_limit, bytes_limit)

    def _lane(self, session: SessionId, sender: str, number: int) -> _Lane:
        key = (session, sender, number)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(self._options)
        return lane

    # Time to live

    def _check_ttl(
        self, sender: str, message: Message | None, record: Record, now: float, at: float
    ) -> None:
        """A sender may not promise more time than is left by its own clock, nor send too late."""
        ttl_ms = extra(record, Tag.TTL_MS)
        if message is None or message.ttl is None:
            return
        left = message.ttl - (now - message.submitted_at)
        told = ttl_ms / 1000 if isinstance(ttl_ms, int) else inf
        if left < -TTL_SLACK or told > max(0.001, left) + TTL_SLACK:
            text = f"sends {message} with {ttl_ms!r} ms to live, {left * 1000:.0f} are left"
            self._findings.add(at, Rule.LATE, sender, text)

    @staticmethod
    def _note_ttl(ledger: Ledger, frame: Data, now: float) -> None:
        for record in frame.records:
            if len(record) == 4:
                ttl_ms = extra(record, Tag.TTL_MS)
                message = ledger.peek(record)
                if message is not None and isinstance(ttl_ms, int):
                    message.expires_at = max(message.expires_at or 0.0, now + ttl_ms / 1000)

    # Floods

    def _count(self, sender: str, to: int, at: float) -> _Silence:
        silence = self._silences.get((sender, to))
        if silence is None:
            silence = self._silences[sender, to] = _Silence(at)
        return silence

    def _check_flood(self, sender: str, silence: _Silence, at: float) -> None:
        elapsed = at - silence.since
        for what, count, burst, rate in (
            ("data again", silence.resent, RESENT_BURST, RESENT_RATE),
            ("PING", silence.pings, PINGS_BURST, PINGS_RATE),
            ("HELLO", silence.hellos, HELLOS_BURST, HELLOS_RATE),
        ):
            if count > burst + rate * elapsed:
                text = f"sent {what} {count} times in {elapsed:.1f} s without an answer"
                self._findings.add(at, Rule.FLOOD, sender, text)
                silence.restart(at)
                return


def _credit_in(lanes: Iterable[LaneState]) -> list[tuple[int, int, int]]:
    return [(s.lane, s.seq_limit, s.bytes_limit) for s in lanes if s.lane < LANES]
