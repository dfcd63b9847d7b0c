"""What is under way on one link, and how its loss shows (RFC 9002 sections 5 and 6).

TCP repairs what is lost within a connection, so on a healthy link nothing here ever resends: a
probe is a PING, whose answer tells exactly what the peer lacks.
"""

from collections.abc import Sequence
from math import inf
from typing import Any

from zmesh.errors import ProtocolError
from zmesh.ids import Entropy
from zmesh.options import LinkOptions
from zmesh.reliable.delivery_rate import DeliveryRate, Snapshot
from zmesh.reliable.round_trip import RoundTrip
from zmesh.reliable.send_window import SendWindow

Piece = tuple[SendWindow[Any], int, int]
"""Numbers `first..last` of a lane, as a packet carried them."""


class SentPacket:
    """One ack-eliciting packet until it is acknowledged or given up as lost."""

    __slots__ = ("pieces", "sent_at", "size", "snapshot")

    def __init__(
        self, pieces: Sequence[Piece], size: int, sent_at: float, snapshot: Snapshot
    ) -> None:
        self.pieces = pieces
        self.size = size
        self.sent_at = sent_at
        self.snapshot = snapshot

    def is_covered(self) -> bool:
        """Return whether the peer has everything that was in it."""
        for window, first, last in self.pieces:  # one or two: no generator
            if last > window.acked.cum and not window.covers(first, last):
                return False
        return True


class Recovery:
    """Packets in flight on the current link: round trip, probe timer, loss."""

    def __init__(self, options: LinkOptions, entropy: Entropy) -> None:
        self._options = options
        self._entropy = entropy
        self.round_trip = RoundTrip(options)
        self._rate = DeliveryRate()
        self._sent: dict[int, SentPacket] = {}
        self._next_number = 1
        self.loss_at = inf  # this and the next: when `on_timer` wants to be called
        self.probe_at = inf
        self._largest = 0  # packet the peer has acknowledged
        self._jitter = 1.0  # of the probe timer: another with every link and probe
        self.probes_unanswered = 0
        self.packets_lost = 0
        self.burst_bytes = 0  # what the path carries within `burst_time`; 0: nobody knows
        self._time_out()

    def start(self) -> None:
        """Begin a new link: its packets are numbered from 1, its path is another one."""
        self.round_trip.reset()
        self._next_number = 1
        self._jitter = self._draw_jitter()
        self.stop()
        self._time_out()

    def stop(self) -> None:
        """Forget what is under way: the link was given up."""
        self._sent.clear()
        self.loss_at = self.probe_at = inf
        self._largest = 0
        self.probes_unanswered = 0
        self._rate = DeliveryRate()
        self.burst_bytes = 0

    @property
    def bytes_in_flight(self) -> int:
        """Bytes sent and neither acknowledged nor lost."""
        return self._rate.in_flight_bytes

    @property
    def has_room(self) -> bool:
        """Whether more may be under way."""
        in_flight = self._rate.in_flight_bytes
        return in_flight < self._options.in_flight_bytes_min or in_flight < self.in_flight_max

    @property
    def in_flight_max(self) -> int:
        """How many bytes may be under way: twice what the path holds, and a floor."""
        return self._rate.in_flight_max(self.round_trip, self._options.in_flight_bytes_min)

    def next_number(self) -> int:
        """Return the number of the next packet."""
        number = self._next_number
        self._next_number = number + 1
        return number

    def on_sent(self, number: int, pieces: Sequence[Piece], size: int, now: float) -> None:
        """Note an ack-eliciting packet: one with data, or a PING."""
        self._sent[number] = SentPacket(pieces, size, now, self._rate.on_sent(size, now))
        self._arm(now)

    def on_ack(self, largest: int, delay: float, now: float) -> list[Piece]:
        """Take an ACK, after its lanes have been noted; return what turned out lost.

        Raises ProtocolError where the peer acknowledges a packet never sent.
        """
        if largest >= self._next_number:
            raise ProtocolError("unsent", f"peer acknowledges packet {largest}, never sent")
        sent = self._sent
        arrived: list[int] = []
        size = 0
        for number, packet in sent.items():
            if number > largest:
                break
            if packet.is_covered():
                arrived.append(number)
                size += packet.size
        if arrived:
            number = arrived.pop()
            newest = sent.pop(number)
            for earlier in arrived:
                del sent[earlier]
            self._rate.on_acked(newest.snapshot, size, now)
            self.burst_bytes = int(self._rate.bytes_per_s * self._options.burst_time)
            if number == largest:
                self.round_trip.on_sample(now - newest.sent_at, delay)
            self.probes_unanswered = 0
            self._time_out()
            self._arm(now)
        self._largest = max(self._largest, largest)
        if not sent:
            self.loss_at = inf
            return []
        return self._find_lost(now)

    def _find_lost(self, now: float) -> list[Piece]:
        """Give up packets that later ones overtook, by count or by time (section 6.1)."""
        largest = self._largest
        self.loss_at = inf
        delay = self.round_trip.loss_delay()
        lost: list[int] = []
        for number, packet in self._sent.items():
            if number >= largest:
                break
            if number <= largest - self._options.packet_threshold or packet.sent_at + delay <= now:
                lost.append(number)
            elif self.loss_at == inf:
                self.loss_at = packet.sent_at + delay
        pieces: list[Piece] = []
        for number in lost:
            packet = self._sent.pop(number)
            self._rate.on_lost(packet.size)
            self.packets_lost += 1
            pieces += packet.pieces
        if not self._sent:
            self.probe_at = inf
        return pieces

    def on_timer(self, now: float) -> tuple[list[Piece], bool]:
        """Return what is lost by now, and whether a PING is due as a probe."""
        lost: list[Piece] = []
        if self.loss_at <= now:
            lost = self._find_lost(now)
        probe = self.probe_at <= now
        if probe:
            self.probes_unanswered += 1
            self._jitter = self._draw_jitter()
            self._time_out()
            self._arm(now)
        return lost, probe

    def _arm(self, now: float) -> None:
        self.probe_at = now + self._timeout if self._sent else inf

    def _time_out(self) -> None:
        """Find out anew how long an ACK may take: what that depends on has changed."""
        self._timeout = self.round_trip.probe_timeout(self.probes_unanswered, self._jitter)

    def _draw_jitter(self) -> float:
        return self._entropy.uniform(0.8, 1.2)
