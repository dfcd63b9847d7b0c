"""The part of a link that outlives links: lanes, numbers, credit, and what waits for an outcome.

A session belongs to one peer and ends when either side forgets it. It knows nothing of packets,
paths or liveness; the link moves its records and acknowledgements.
"""

from collections.abc import Sequence
from itertools import repeat
from math import inf
from typing import Final, assert_never

from zmesh.batches import Block, TicketRun, largest_of
from zmesh.errors import BodyTooLarge, ProtocolError
from zmesh.message import CONTROL_LANE, LANES, Keys, Outcome, Record, Ticket
from zmesh.options import LinkOptions, WireLimits
from zmesh.reliable.credit import CreditPool
from zmesh.reliable.expiring import Expiries
from zmesh.reliable.fragments import Cutter
from zmesh.reliable.key_order import KeyOrder
from zmesh.reliable.lane_states import lane_states
from zmesh.reliable.link_events import (
    Accepted,
    ControlArrived,
    LinkEvent,
    Room,
)
from zmesh.reliable.receiver import ControlInbox, IncomingLane
from zmesh.reliable.send_window import ControlQueue
from zmesh.reliable.sender import OutgoingLane
from zmesh.reliable.unhurried import Unhurried
from zmesh.wire.frames import (
    Control,
    ControlNews,
    Drain,
    Gap,
    Interest,
    LaneState,
    Ranges,
    Refused,
    Settle,
)

ACKED_TOGETHER = 16
"""So many records are acknowledged by the next packet; an ACK of fewer waits for company."""

ACKED_SHARE = 4
"""The part of a lane's window that is acknowledged at once: its sender may soon wait for more."""

_NO_DETAILS: Final[dict[int, tuple[str, float]]] = {}

BLOCK_MIN = 8
"""So many records are kept together, until one of them ends out of order."""

LaneAcks = tuple[tuple[int, int, Ranges], ...]
LaneCredits = tuple[tuple[int, int, int], ...]


class Session:
    """All lanes to and from one peer. What happens is appended to `events`, in order."""

    def __init__(
        self,
        options: LinkOptions,
        limits: WireLimits,
        pool: CreditPool | None,
        events: list[LinkEvent],
    ) -> None:
        self._options = options
        self._single_bytes_max = min(options.fragment_bytes, options.body_bytes_max)
        self._limits = limits
        self._events = events
        self._pool = CreditPool(options.peer_bytes_max, pool)
        self._rooms = CreditPool(options.transfer_bytes_max, pool)
        self.outgoing: dict[int, OutgoingLane] = {}
        self.incoming: dict[int, IncomingLane] = {}
        self._granted: dict[int, tuple[int, int]] = {}  # credit of lanes not used yet
        self.cutter = Cutter(options, limits)
        self.control_out = ControlQueue(options.ranges_max, options.control_window)
        self.control_in = ControlInbox(options.control_window)
        self._expiries = Expiries(self.outgoing)
        self._keys = KeyOrder(self.outgoing)
        self._was_full = False  # and somebody was told so
        self.ack_lanes: set[int] = set()  # lanes whose state the peer does not know
        self.ack_at = inf  # when it is to be told at the latest
        self._ack_messages = 0  # that came and are not acknowledged
        self._ack_bytes = 0
        self._ack_after = -inf  # from when on every packet carries an ACK
        self._ack_together = min(ACKED_TOGETHER, options.ack_every_messages)
        self._settle_now = False
        self.settle_at = inf  # when verdicts that may wait are to be told at the latest
        self._unhurried = Unhurried(options.packet_bytes)

    # What waits

    @property
    def queued_messages(self) -> int:
        """Records without outcome yet."""
        return sum(lane.kept for lane in self.outgoing.values())

    @property
    def queued_bytes(self) -> int:
        """Their bytes, as counted against credit."""
        return sum(lane.queued_bytes for lane in self.outgoing.values())

    @property
    def room_messages(self) -> int:
        """How many more records `submit` is meant to get now; at most 0 where it is full.

        Whoever found it so hears by `Room` when it no longer is.
        """
        messages = size = 0
        for lane in self.outgoing.values():
            messages += lane.kept
            size += lane.queued_bytes
        room = self._options.queued_messages_max - messages
        if size >= self._options.queued_bytes_max:
            room = min(room, 0)
        self._was_full = self._was_full or room <= 0
        return room

    @property
    def duplicates(self) -> int:
        """Records that came more than once."""
        return sum(lane.duplicates for lane in self.incoming.values())

    def ready_lanes(self) -> list[OutgoingLane]:
        """Return the lanes that could transmit now; the gaps of all are gathered before."""
        ready: list[OutgoingLane] = []
        for lane in self.outgoing.values():  # what has nothing to send is told at a glance
            if lane.gaps:
                self.gather_gaps()
            if (lane.next_transmit < lane.next_seq or lane.resend.count) and lane.ready:
                ready.append(lane)
        return ready

    @property
    def data_pending(self) -> bool:
        """Whether something is not yet with the peer."""
        if self.control_out.items:
            return True
        for lane in self.outgoing.values():  # one or two: no generator
            if lane.waiting or lane.acked.cum < lane.next_transmit - 1:
                return True
        return False

    # Commands

    def submit(
        self,
        lane: int,
        records: Sequence[Record],
        ticket: Ticket,
        now: float,
        key: Keys,
        ttl: float | None,
    ) -> tuple[int, int]:
        """Number the records; see `Link.submit`."""
        out = self.outgoing.get(lane) or self._outgoing(lane)
        if key is not None or len(records) > 1 or type(records) is Block:
            return self._submit_many(out, records, ticket, now, key, ttl)
        if len(records[0][2]) > self._single_bytes_max:
            return self._submit_many(out, records, ticket, now, key, ttl)
        seq = out.submit_single(records[0], ticket, now)
        if ttl is not None:
            self._expiries.add(out, seq, now + ttl)
        return seq, seq

    def _submit_many(
        self,
        out: OutgoingLane,
        records: Sequence[Record],
        ticket: Ticket,
        now: float,
        key: Keys,
        ttl: float | None,
    ) -> tuple[int, int]:
        largest = largest_of(records)
        if largest > self._options.body_bytes_max:
            raise BodyTooLarge(largest, self._options.body_bytes_max)
        if key is not None:
            records = self._keys.write(out.lane, records, key)
        if largest <= self._options.fragment_bytes:
            records = self._together(records, largest, None if ttl is None else now + ttl)
            first, last = out.submit(records, ticket, now)
            if ttl is not None:
                self._expiries.add_all(out, first, records, now + ttl)
            ends: Sequence[int] = range(first, last + 1)
        else:
            first = out.next_seq
            each = ticket.part() if isinstance(ticket, TicketRun) else repeat(ticket)
            ends = [
                self._submit_one(out, record, own, now, ttl)
                for record, own in zip(records, each, strict=False)
            ]
        if key is not None:
            self._keys.note(out.lane, ends, key)
        return first, ends[-1]

    def _together(
        self, records: Sequence[Record], largest: int, deadline: float | None
    ) -> Sequence[Record]:
        """Return small records as a block, where that is worth it."""
        if type(records) is Block:
            if deadline is None:
                return records
            records = list(records)  # what it becomes is no other's
        if largest > self._options.inline_bytes_max or len(records) < BLOCK_MIN:
            return records  # there is little to pack
        block = Block(records)
        block.deadline = deadline
        return block

    def _submit_one(
        self, out: OutgoingLane, record: Record, ticket: Ticket, now: float, ttl: float | None
    ) -> int:
        if len(record[2]) > self._options.fragment_bytes:
            first, last = out.submit_large(record, ticket, now)
        else:
            first, last = out.submit([record], ticket, now)
        if ttl is not None:
            self._expiries.add(out, first, now + ttl)
        return last

    @property
    def has_too_much_control(self) -> bool:
        """Whether the peer acknowledges so few control records that it is given up."""
        queue, options = self.control_out, self._options
        return (
            len(queue.items) > options.control_queued_max
            or queue.size > options.control_queued_bytes_max
        )

    def send_control(self, record: ControlNews) -> None:
        """Queue a control record."""
        self.control_out.enqueue([record])

    def settle(
        self, lane: int, first: int, last: int, outcome: Outcome, reason: str, delay: float
    ) -> bool:
        """Note the application's verdict; see `Link.settle`."""
        if self._unhurried.ranges:
            self._take_in()  # in the same range, as mostly
        incoming = self.incoming.get(lane)
        if incoming is None or not incoming.settle(first, last, outcome, reason, delay):
            return False
        self.ack_lanes.add(lane)
        self._offer_room()
        self._settle_now = True
        return True

    def accept_later(self, lane: int, first: int, last: int, now: float) -> bool:
        """Note what was accepted, and nobody waits to hear of; see `Link.accept_later`."""
        self._unhurried.add(lane, first, last)
        if self._rooms.used or self._unhurried.are_large:
            self._take_in()  # others may wait for the room, or credit, of one of these
        elif self.settle_at < inf:
            return False
        self._settle_within(now)
        return True

    def _take_in(self) -> None:
        self.ack_lanes.update(self._unhurried.take_in(self.incoming))
        self._offer_room()

    def _settle_within(self, now: float) -> None:
        if self.settle_at == inf:
            self.settle_at = now + self._options.ack_delay_max

    def withdraw(self, ticket: Ticket, index: int | None = None) -> bool:
        """Give up what was submitted with the ticket; see `Link.withdraw`."""
        for lane in self.outgoing.values():
            if index is None:
                self._events += lane.withdraw(ticket)
            elif (seq := lane.number_of(ticket, index)) is not None:
                self._events += lane.give_up(seq, Outcome.RELEASED)
                self._note_room()
                return seq in lane.items
        self._note_room()
        return any(lane.open_numbers(ticket) for lane in self.outgoing.values())

    def open_of(self, ticket: Ticket) -> list[tuple[Record, bool]]:
        """Return what has no outcome; see `Link.open_of`."""
        return [each for lane in self.outgoing.values() for each in lane.open_of(ticket)]

    def refuse(self, lane: int, seq: int, reason: str) -> None:
        """End a record that cannot be sent; see `Link.refuse`."""
        self._events += self.outgoing[lane].refuse(seq, reason)
        self._note_room()

    def expire(self, now: float) -> None:
        """Give up what has outlived its time to live."""
        if self._expiries.heap and self._expiries.heap[0][0] <= now:
            self._events += self._expiries.due(now)
        self._note_room()

    def _note_room(self) -> None:
        """Tell once that a queue which was found full has room again."""
        if self._was_full and self.room_messages > 0:
            self._was_full = False
            self._events.append(Room())

    @property
    def expiry(self) -> float:
        """When `expire` has something to do; infinity: never."""
        heap = self._expiries.heap
        return heap[0][0] if heap else inf

    def abandon(self) -> None:
        """End the session, and return every record without outcome. Use another from now on."""
        for incoming in self.incoming.values():
            incoming.close()
        for lane in self.outgoing.values():
            self._events += lane.abandon()
        self._note_room()

    # From the peer

    def on_data(self, lane: int, first: int, records: Sequence[Record], now: float) -> bool:
        """Take in DATA; ProtocolError where it is over credit.

        Returns whether that is all: nothing is to be told because of it, at once or at a new time.
        """
        incoming = self.incoming.get(lane) or self._incoming(lane)
        self.ack_lanes.add(lane)
        duplicates, bytes_before = incoming.duplicates, incoming.received_bytes
        before, rooms_used = incoming.released, self._rooms.used
        self._events += incoming.on_data(first, records, now, self._is_released)
        self._ack_messages += len(records)
        size = incoming.received_bytes - bytes_before
        self._ack_bytes += size
        if size > len(records) * self._unhurried.light_bytes:
            self._unhurried.are_large = True
        is_all = self.ack_at < inf and self._ack_messages < self._options.ack_every_messages
        is_much = self._ack_bytes >= incoming.credit.window_bytes // ACKED_SHARE
        if is_much or incoming.duplicates > duplicates or incoming.received.above.count:
            self.ack_at = now  # the sender must learn of it at once (RFC 9000 section 13.2.1)
            is_all = False
        elif self.ack_at == inf:
            self.ack_at = now + self._options.ack_delay_max
        if self.settle_at == inf and incoming.unsettled:  # what is refused, or came too late
            self._settle_within(now)
            is_all = False
        if incoming.released > before:
            if len(self.incoming) > 1:
                self._release_successors(now)
            if self._rooms.used < rooms_used:
                self._offer_room()
        return is_all and len(self.incoming) == 1 and self._rooms.used >= rooms_used

    def on_control(self, first: int, records: Sequence[Control], now: float) -> None:
        """Take in control records, each once and in order."""
        self.ack_lanes.add(CONTROL_LANE)
        if self.ack_at == inf:
            self.ack_at = now + self._options.ack_delay_max
        news: list[ControlNews] = []
        for record in self.control_in.on_data(first, records):
            match record:
                case Settle():
                    self._on_settle(record)
                case Gap():
                    self._on_gap(record, now)
                case Interest() | Drain() | Refused():
                    news.append(record)
                case _:
                    assert_never(record)
        if news:
            self._events.append(ControlArrived(news))

    def on_ack(self, lanes: LaneAcks, credit: LaneCredits) -> None:
        """Note what the peer has, and what more it allows; ProtocolError where it lies."""
        outgoing = self.outgoing
        for number, cum, ranges in lanes:
            if number == CONTROL_LANE:
                self.control_out.acknowledge(cum, ranges)
            elif number in outgoing:
                outgoing[number].on_ack(cum, ranges)
            elif cum or ranges:
                self._outgoing(number).on_ack(cum, ranges)
        for number, seq_limit, bytes_limit in credit:
            if number in outgoing:
                outgoing[number].grant(seq_limit, bytes_limit)
            else:
                self._grant(number, seq_limit, bytes_limit)

    def _on_settle(self, record: Settle) -> None:
        lane = self.outgoing.get(record.lane) or self._outgoing(record.lane)
        details = _NO_DETAILS
        if record.details:
            details = {seq: (reason, delay / 1000) for seq, reason, delay in record.details}
        for outcome, first, last in record.outcomes:
            tickets, returned = lane.on_settled(outcome, first, last, details)
            if tickets:
                self._events.append(Accepted(tickets))
            self._events += returned
        if self._was_full:
            self._note_room()

    def _on_gap(self, record: Gap, now: float) -> None:
        incoming = self._incoming(record.lane)
        self.ack_lanes.add(record.lane)
        for first, last, size in record.ranges:
            incoming.on_gap(first, last, size)
        self._settle_now = self._settle_now or incoming.unsettled
        self._events += incoming.release(now, self._is_released)
        if incoming.unsettled:  # a body that lacks a piece now
            self._settle_within(now)
        self._release_successors(now)
        self._offer_room()

    def _offer_room(self) -> None:
        """Let transfers that wait for room have what was freed; they hold credit until then."""
        for number, lane in self.incoming.items():
            if lane.transfer is not None and lane.find_room():
                self.ack_lanes.add(number)
                self._ack_after = -inf

    def _is_released(self, lane: int, seq: int) -> bool:
        incoming = self.incoming.get(lane)
        return incoming is not None and incoming.released >= seq

    def _release_successors(self, now: float) -> None:
        """Release what waited in other lanes for a predecessor of its key."""
        progress = True
        while progress:
            progress = False
            for lane in self.incoming.values():
                if lane.early:
                    before = lane.released
                    self._events += lane.release(now, self._is_released)
                    if lane.unsettled:
                        self._settle_within(now)
                    progress = progress or lane.released > before

    # For packets

    def must_speak(self, now: float) -> bool:
        """Whether an acknowledgement or a settlement is due by itself."""
        return (
            self._settle_now
            or self.ack_at <= now
            or self.settle_at <= now
            or self._ack_messages >= self._options.ack_every_messages
        )

    def gather_control(self, now: float) -> None:
        """Turn verdicts into control records, unless they may wait: a packet is about to go."""
        unhurried = self._unhurried
        if not (
            self._settle_now
            or self.settle_at <= now
            or (unhurried.messages and unhurried.is_enough)
        ):
            return
        if unhurried.ranges:
            self._take_in()
        unhurried.told()
        self._settle_now = False
        self.settle_at = inf
        for incoming in self.incoming.values():
            if incoming.unsettled:
                self.ack_lanes.add(incoming.lane)
                self.control_out.enqueue(incoming.take_settlements(self._limits.ranges_max))

    @property
    def has_gaps(self) -> bool:
        """Whether a lane has passed numbers that will not come, and nobody was told."""
        for lane in self.outgoing.values():  # noqa: SIM110  # one or two: no generator
            if lane.gaps:
                return True
        return False

    def gather_gaps(self) -> None:
        """Turn the gaps of all lanes into control records."""
        for lane in self.outgoing.values():
            if lane.gaps:
                step = self._limits.ranges_max
                for index in range(0, len(lane.gaps), step):
                    some = tuple(lane.gaps[index : index + step])
                    self.control_out.enqueue([Gap(lane.lane, some)])
                lane.gaps.clear()

    def is_ack_due(self, now: float) -> bool:
        """Whether a packet that goes now is to carry an ACK.

        Where one went a moment ago, few more records wait for company: packets that follow each
        other closely need not all tell of the one before. At their end the last goes alone.
        """
        return bool(self.ack_lanes) and (
            now >= self._ack_after
            or self.ack_at <= now
            or self.ack_at == inf
            or self._ack_messages >= self._ack_together
            or self._ack_bytes >= self._options.packet_bytes // 2
        )

    def take_acks(self, now: float, round_trip: float | None) -> tuple[LaneAcks, LaneCredits]:
        """Return the state of the lanes the peer must be told of, and their credit."""
        acks: list[tuple[int, int, Ranges]] = []
        granted: list[tuple[int, int, int]] = []
        if self._unhurried.ranges:
            self._take_in()  # it is credit
        for number in sorted(self.ack_lanes):
            if number == CONTROL_LANE:
                received = self.control_in.received
            else:
                incoming = self.incoming.get(number) or self._incoming(number)
                received = incoming.received
                granted.append((number, *incoming.credit.grant(now, round_trip)))
            above = received.above
            ranges = above.as_tuple(self._limits.ranges_max) if above.count else ()
            acks.append((number, received.cum, ranges))
        self.ack_lanes.clear()
        self.ack_at = inf
        self._ack_messages = self._ack_bytes = 0
        self._ack_after = now + self._options.ack_delay_max / 2
        return tuple(acks), tuple(granted)

    def tell_all(self) -> None:
        """Let the next packet acknowledge every lane: a grant or an ACK may have been lost."""
        self.ack_lanes.update(self.incoming, (CONTROL_LANE,))
        self._ack_after = -inf
        self._offer_room()  # another peer may have freed some; a sender that waits asks by PING

    def grant_all(self) -> None:
        """Let the next packet grant every lane its first window: no HELLO did."""
        self.ack_lanes.update(range(LANES))
        self._ack_after = -inf

    def forget_credit(self) -> None:
        """Begin anew with another peer's word, where nothing was transmitted yet."""
        self._granted.clear()
        for lane in self.outgoing.values():
            lane.forget_credit()

    def lane_states(self) -> tuple[LaneState, ...]:
        """Return what HELLO and WELCOME say of every lane."""
        return lane_states(
            self.outgoing, self.incoming, self.control_out, self.control_in, self._options,
            self._limits.ranges_max,
        )  # fmt: skip

    def resume(self, lanes: Sequence[LaneState]) -> None:
        """Begin a link: take the peer's word for what it has, and resend the rest, in order.

        Raises ProtocolError where the peer claims what was never sent, or forgot what it acked.
        """
        told = {state.lane: state for state in lanes}
        control = told.get(CONTROL_LANE)
        cum, ranges = (control.received_cum, control.received_ranges) if control else (0, ())
        self.control_out.acknowledge(cum, ranges, resume=True)
        for number in sorted(told.keys() | self.outgoing.keys()):
            state = told.get(number)
            if number == CONTROL_LANE:
                continue
            if state is None:
                self._outgoing(number).resume(0, ())
            elif state.received_cum or number in self.outgoing or state.received_ranges:
                self._outgoing(number).resume(state.received_cum, state.received_ranges)
            if state is not None:
                self._grant(number, state.seq_limit, state.bytes_limit)
        self.ack_lanes.clear()  # the handshake has just told everything
        self.ack_at = inf
        self._ack_messages = self._ack_bytes = 0

    def _grant(self, lane: int, seq_limit: int, bytes_limit: int) -> None:
        """Note credit; a lane that was never used is not made for it."""
        if lane in self.outgoing or not 0 <= lane < LANES:
            self._outgoing(lane).grant(seq_limit, bytes_limit)
        else:
            messages, size = self._granted.get(lane, (0, 0))
            self._granted[lane] = (max(messages, seq_limit), max(size, bytes_limit))

    def _outgoing(self, lane: int) -> OutgoingLane:
        out = self.outgoing.get(lane)
        if out is None:
            if not 0 <= lane < LANES:
                raise ProtocolError("lane", f"there is no lane {lane}")
            out = self.outgoing[lane] = OutgoingLane(
                lane, self._options.ranges_max, self.cutter, self._options.packet_bytes
            )
            out.grant(*self._granted.pop(lane, (0, 0)))
        return out

    def _incoming(self, lane: int) -> IncomingLane:
        incoming = self.incoming.get(lane)
        if incoming is None:
            if not 0 <= lane < LANES:
                raise ProtocolError("lane", f"there is no lane {lane}")
            incoming = IncomingLane(lane, self._options, self._pool, self._rooms)
            self.incoming[lane] = incoming
        return incoming
