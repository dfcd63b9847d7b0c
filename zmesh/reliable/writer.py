"""Writes the packets of an open link: signs of life, control, then data lane by lane, and ACKs.

Everything of a turn shares few packets, so an acknowledgement costs a frame and not a packet.
"""

from zmesh.ids import LinkId
from zmesh.options import LinkOptions, WireLimits
from zmesh.reliable.detector import FailureDetector
from zmesh.reliable.recovery import Piece, Recovery
from zmesh.reliable.scheduler import LaneScheduler
from zmesh.reliable.session import Session
from zmesh.wire.frames import Ack, ControlData, Data, Frame, Packet, Ping, Pong

PACKET_OVERHEAD_BYTES = 64
"""About what a packet costs beside its records, for the in-flight limit."""


class PacketWriter:
    """What goes next on the current link. Set `ping_wanted` and `pong` as they become due."""

    def __init__(
        self,
        options: LinkOptions,
        limits: WireLimits,
        recovery: Recovery,
        detector: FailureDetector,
    ) -> None:
        self._options = options
        self._limits = limits
        self._recovery = recovery
        self._detector = detector
        self._scheduler = LaneScheduler(options)
        self._largest = 0
        self._largest_at = 0.0
        self.ping_wanted = False
        self.pong: int | None = None  # the nonce to answer
        self.retransmitted = 0

    def start(self, now: float) -> None:
        """Begin a new link."""
        self._largest = 0
        self._largest_at = now
        self.ping_wanted = False
        self.pong = None

    def on_packet(self, number: int, now: float) -> None:
        """Note the number of a packet that came: the next ACK names the largest."""
        if number > self._largest:
            self._largest = number
            self._largest_at = now

    def next_packet(self, link: LinkId, session: Session, now: float) -> Packet | None:
        """Return the next packet to send now, or None where there is nothing or no room."""
        recovery = self._recovery
        session.gather_gaps()
        room = recovery.bytes_in_flight < recovery.in_flight_max
        if not (
            self.ping_wanted
            or self.pong is not None
            or session.control_out.ready
            or session.must_speak(now)
            or (room and session.has_ready_lane)
        ):
            return None
        session.gather_control()
        frames: list[Frame] = []
        pieces: list[Piece] = []
        number = recovery.next_number()
        eliciting = self.ping_wanted
        self._add_signs_of_life(frames, number, now)
        size = self._add_control(session, frames, pieces)
        if room:
            size += self._add_data(session, frames, pieces, size, now)
        if session.ack_lanes:
            lanes, credit = session.take_acks(now, recovery.round_trip.smoothed)
            delay_us = max(0, round((now - self._largest_at) * 1_000_000))
            frames.insert(0, Ack(self._largest, delay_us, lanes, credit))
        if not frames:
            # What was ready had become holes: if anything, the peer is to be told of those.
            return self.next_packet(link, session, now) if session.has_gaps else None
        if pieces or eliciting:
            recovery.on_sent(number, pieces, size + PACKET_OVERHEAD_BYTES, now)
        return Packet(link, number, tuple(frames))

    def _add_signs_of_life(self, frames: list[Frame], number: int, now: float) -> None:
        if self.pong is not None:
            frames.append(Pong(self.pong))
            self.pong = None
        if self.ping_wanted:
            frames.append(Ping(number))
            self.ping_wanted = False
            self._detector.on_ping_sent(now)

    def _add_control(self, session: Session, frames: list[Frame], pieces: list[Piece]) -> int:
        queue = session.control_out
        if not queue.ready:
            return 0
        first, records, size = queue.take(self._options.packet_bytes, self._limits.records_max)
        frames.append(ControlData(first, tuple(records)))
        pieces.append((queue, first, first + len(records) - 1))
        return size

    def _add_data(
        self,
        session: Session,
        frames: list[Frame],
        pieces: list[Piece],
        used: int,
        now: float,
    ) -> int:
        """Add records, lane by lane as the scheduler says, until the packet is full."""
        total = 0
        while (budget := self._options.packet_bytes - used - total) > 0:
            ready = [
                (lane.lane, lane.waiting_since) for lane in session.outgoing.values() if lane.ready
            ]
            number = self._scheduler.next_lane(ready, now)
            if number is None or len(frames) >= self._limits.frames_max - 1:
                break
            lane = session.outgoing[number]
            fresh_from = lane.next_transmit
            chunk = lane.take(budget, self._limits.records_max, now)
            if chunk is None:
                continue
            first, records, size = chunk
            if first < fresh_from:
                self.retransmitted += len(records)
            frames.append(Data(number, first, tuple(records)))
            pieces.append((lane, first, first + len(records) - 1))
            self._scheduler.spent(number, size)
            total += size
        return total
