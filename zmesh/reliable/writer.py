"""Writes the packets of an open link: signs of life, control, then data lane by lane, and ACKs.

Everything of a turn shares few packets, so an acknowledgement costs a frame and not a packet.
"""

from zmesh.ids import LinkId
from zmesh.options import LinkOptions, WireLimits
from zmesh.reliable.detector import FailureDetector
from zmesh.reliable.recovery import Piece, Recovery
from zmesh.reliable.scheduler import LaneScheduler
from zmesh.reliable.sender import OutgoingLane
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
        control = session.control_out
        while True:
            # Where what was ready had become holes: if anything, the peer is to be told of those.
            ready = session.ready_lanes()
            if ready and not self._recovery.has_room:
                ready = []
            if not (
                ready
                or (control.items and control.ready)
                or self.ping_wanted
                or self.pong is not None
                or session.must_speak(now)
            ):
                return packets
            packet, is_full = self._next_packet(link, session, ready, now)
            if packet is not None:
                packets.append(packet)
            if not (is_full or (control.items and control.ready) or session.has_gaps):
                return packets

    def _next_packet(
        self, link: LinkId, session: Session, ready: list[OutgoingLane], now: float
    ) -> tuple[Packet | None, bool]:
        """Return the next packet, if it turns out to hold something, and whether it is full."""
        recovery = self._recovery
        session.gather_control(now)
        frames: list[Frame] = []
        pieces: list[Piece] = []
        number = recovery.next_number()
        eliciting = self.ping_wanted
        if eliciting or self.pong is not None:
            self._add_signs_of_life(frames, number, now)
        size, control, is_full = 0, session.control_out, False
        if control.items and control.ready:
            size = self._add_control(session, frames, pieces)
        if ready:
            size, is_full = self._add_data(ready, frames, pieces, size, now)
            if session.has_gaps:  # of numbers that a body was given, and went without
                session.gather_gaps()
                if session.control_out.ready:
                    size += self._add_control(session, frames, pieces)
        if session.is_ack_due(now):
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
        first, records, size = queue.take(self._options.packet_bytes, self._limits.records_max)
        frames.append(ControlData(first, tuple(records)))
        pieces.append((queue, first, first + len(records) - 1))
        return size

    def _next_lane(self, ready: list[OutgoingLane], now: float) -> OutgoingLane:
        waits = [(lane.lane, lane.waiting_since) for lane in ready]
        number = self._scheduler.next_lane(waits, now)
        return next(lane for lane in ready if lane.lane == number)

    def _budget(self, ready: list[OutgoingLane], size: int) -> tuple[int, int]:
        """Return how many bytes and records the packet takes beside `size`.

        More where large bodies follow each other on a fast path and nothing else waits: they are
        in parts of their own, and the head stays small.
        """
        options, burst = self._options, self._recovery.burst_bytes
        if burst > options.packet_bytes and len(ready) == 1 and not ready[0].resend.count:
            record = ready[0].items.get(ready[0].next_transmit)
            if record is not None and len(record[2]) > options.inline_bytes_max:
                budget = min(burst, options.packet_bytes_max) - size
                return budget, budget // options.inline_bytes_max + 1
        return options.packet_bytes - size, self._limits.records_max

    def _add_data(
        self,
        ready: list[OutgoingLane],
        frames: list[Frame],
        pieces: list[Piece],
        size: int,
        now: float,
    ) -> tuple[int, bool]:
        """Add records, lane by lane as the scheduler says, until the packet is full.

        Returns its bytes, and whether more is ready.
        """
        scheduler, frames_max = self._scheduler, self._limits.frames_max - 2
        while ready:
            budget, count_max = self._budget(ready, size)
            if budget <= 0 or len(frames) >= frames_max:
                return size, True
            if len(ready) == 1:
                lane = ready[0]
                scheduler.serve_alone(lane.lane, now)
            else:
                lane = self._next_lane(ready, now)
            if size and lane.block_bytes > budget:
                return size, True  # it goes whole, with the next packet
            fresh_from = lane.next_transmit
            chunk = lane.take(budget, count_max, now)
            if (lane.next_transmit >= lane.next_seq and not lane.resend.count) or not lane.ready:
                ready.remove(lane)
            if chunk is None:
                continue
            first, records, chunk_bytes = chunk
            if first < fresh_from:
                self.retransmitted += len(records)
            told = records if isinstance(records, tuple) else tuple(records)
            frames.append(Data(lane.lane, first, told))
            pieces.append((lane, first, first + len(records) - 1))
            scheduler.spent(lane.lane, chunk_bytes)
            size += chunk_bytes
        return size, False
