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

    def packets(self, link: LinkId, session: Session, now: float) -> list[Packet]:
        """Return what is to be sent now, as far as there is something and room for it."""
        packets: list[Packet] = []
        session.gather_gaps()
        while self._is_wanted(session, now):
            packet, is_full = self._next_packet(link, session, now)
            if packet is not None:
                packets.append(packet)
            elif not session.has_gaps:
                break
            # What was ready had become holes: if anything, the peer is to be told of those.
            session.gather_gaps()
            if not (is_full or session.control_out.ready):
                break
        return packets

    def _is_wanted(self, session: Session, now: float) -> bool:
        return (
            session.must_speak(now)
            or self.ping_wanted
            or self.pong is not None
            or session.control_out.ready
            or (self._recovery.has_room and session.has_ready_lane)
        )

    def _next_packet(
        self, link: LinkId, session: Session, now: float
    ) -> tuple[Packet | None, bool]:
        """Return the next packet, if it turns out to hold something, and whether it is full."""
        recovery = self._recovery
        session.gather_control()
        frames: list[Frame] = []
        pieces: list[Piece] = []
        number = recovery.next_number()
        eliciting = self.ping_wanted
        if eliciting or self.pong is not None:
            self._add_signs_of_life(frames, number, now)
        size = self._add_control(session, frames, pieces)
        is_full = False
        if recovery.has_room:
            size, is_full = self._add_data(session, frames, pieces, size, now)
        if session.ack_lanes:
            lanes, credit = session.take_acks(now, recovery.round_trip.smoothed)
            delay_us = max(0, round((now - self._largest_at) * 1_000_000))
            frames.insert(0, Ack(self._largest, delay_us, lanes, credit))
        if not frames:
            return None, is_full
        if pieces or eliciting:
            recovery.on_sent(number, pieces, size + PACKET_OVERHEAD_BYTES, now)
        return Packet(link, number, tuple(frames)), is_full

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
        size: int,
        now: float,
    ) -> tuple[int, bool]:
        """Add records, lane by lane as the scheduler says, until the packet is full.

        Returns its bytes, and whether more is ready.
        """
        while True:
            ready = [
                (lane.lane, lane.waiting_since) for lane in session.outgoing.values() if lane.ready
            ]
            budget = self._options.packet_bytes - size
            if not ready or budget <= 0 or len(frames) >= self._limits.frames_max - 1:
                return size, bool(ready)
            number = self._scheduler.next_lane(ready, now)
            lane = session.outgoing[number]
            fresh_from = lane.next_transmit
            chunk = lane.take(budget, self._limits.records_max, now)
            if chunk is None:
                continue
            first, records, chunk_bytes = chunk
            if first < fresh_from:
                self.retransmitted += len(records)
            frames.append(Data(number, first, tuple(records)))
            pieces.append((lane, first, first + len(records) - 1))
            self._scheduler.spent(number, chunk_bytes)
            size += chunk_bytes
