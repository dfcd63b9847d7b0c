"""The receiving half of a lane: each record once, in order, and what became of it.

What was received is a watermark and never a clock: a duplicate is known as one for as long as the
session lasts. Records are released in order; one whose key has a predecessor in another lane
waits for it. A released record is held against credit until it is settled.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import inf
from operator import itemgetter
from typing import cast

from zmesh.batches import Block
from zmesh.errors import ProtocolError
from zmesh.message import (
    Fragments,
    Kind,
    Outcome,
    Predecessors,
    Record,
    Tag,
    extra,
    head,
    size_of,
    sizes_of,
    tags_of,
)
from zmesh.options import LinkOptions
from zmesh.reliable.credit import CreditPool, LaneCredit
from zmesh.reliable.fragments import Assembly
from zmesh.reliable.link_events import Arrived
from zmesh.reliable.ranges import RangeSet, Watermark
from zmesh.wire.frames import Control, Settle

REASON_CHARACTERS_MAX = 200
"""Longer reasons are cut: a settlement must stay a small control record."""

_HEAD = itemgetter(0)
_FRAGMENT_HEAD = head(Kind.FRAGMENT)
_NOT_PLAIN = frozenset((Tag.PREDECESSORS, Tag.FRAGMENTS))

IsReleased = Callable[[int, int], bool]
"""Whether `(lane, seq)` has been released: asked for a record's predecessor."""


class ControlInbox:
    """The control lane's receiving half: each control record once, in order."""

    __slots__ = ("_released", "_window", "early", "received")

    def __init__(self, window: int) -> None:
        self._window = window
        self.early: dict[int, Control] = {}
        self._released = 0
        self.received = Watermark(window)

    def on_data(self, first: int, records: Sequence[Control]) -> list[Control]:
        """Return the records that are next in order; ProtocolError for numbers far ahead."""
        last = first + len(records) - 1
        received = self.received
        if last > received.cum + self._window:
            raise ProtocolError("credit", f"control record {last} is too far ahead")
        if first == received.cum + 1 and not self.early:  # in order, as nearly all are
            self._released = received.cum = last
            return list(records)
        for start, end in self.received.add(first, last) or []:
            for seq in range(start, end + 1):
                self.early[seq] = records[seq - first]
        released: list[Control] = []
        while self._released < self.received.cum:
            self._released += 1
            released.append(self.early.pop(self._released))
        return released


@dataclass(slots=True)
class Transfer:
    """A large body: being put together, or whole and not yet settled.

    `total_bytes` were drawn for it at its first fragment, if `reserved`; then it costs no credit.
    Without them each fragment holds its credit (`messages`, `size`) until the body is settled or
    the room is found. After its `deadline` it is not delivered. One that came whole has no
    `assembly`.
    """

    first: int
    last: int
    deadline: float
    total_bytes: int
    reserved: bool
    assembly: Assembly | None = None
    messages: int = 0
    size: int = 0


@dataclass(slots=True)
class _HeldBlock:
    """Released records that are not settled, and end in order: the last of a block."""

    first: int
    last: int
    block: Block


class IncomingLane:
    """One priority's records as they come from one peer."""

    __slots__ = (
        "_deadlines",
        "_detailed",
        "_held",
        "_held_blocks",
        "_options",
        "_outcomes",
        "_rooms",
        "_skipping",
        "_transfers",
        "_voided",
        "credit",
        "duplicates",
        "early",
        "lane",
        "received",
        "received_bytes",
        "released",
        "transfer",
    )

    def __init__(
        self, lane: int, options: LinkOptions, pool: CreditPool, rooms: CreditPool
    ) -> None:
        self.lane = lane
        self.credit = LaneCredit(options, pool)
        self.received = Watermark(options.ranges_max)
        self.received_bytes = 0
        self.released = 0  # 1..released went to the application, or never will
        self.duplicates = 0
        self._options = options
        self._rooms = rooms
        self.early: dict[int, Record] = {}  # received, not yet released
        self._voided = RangeSet()  # will never come, not yet passed by `released`
        self._deadlines: dict[int, float] = {}
        self._held: dict[int, int] = {}  # released, not yet settled: number -> bytes of credit
        self._held_blocks: deque[_HeldBlock] = deque()  # of such ones, which are not in `_held`
        self.transfer: Transfer | None = None  # the one being put together
        self._transfers: dict[int, Transfer] = {}  # whole, not yet settled, by first number
        self._skipping: tuple[int, Outcome, str] | None = None  # fragments of a failed transfer
        self._outcomes: list[tuple[Outcome, int, int]] = []
        self._detailed: list[tuple[tuple[Outcome, int, int], tuple[int, str, int]]] = []

    @property
    def held_messages(self) -> int:
        """How many messages count against credit now."""
        return self.received.cum + self.received.above.count - self.credit.consumed_messages

    @property
    def held_bytes(self) -> int:
        """How many bytes count against credit now."""
        return self.received_bytes - self.credit.consumed_bytes

    # Arrival

    def on_data(
        self, first: int, records: Sequence[Record], now: float, is_released: IsReleased
    ) -> list[Arrived]:
        """Take records in; return what is released by them.

        Raises ProtocolError where the peer exceeds its credit; nothing is kept then.
        """
        last, credit = first + len(records) - 1, self.credit
        sizes: list[int] = []
        if type(records) is Block:
            size = records.size
        elif first == last:
            size = size_of(records[0])
        else:
            sizes = sizes_of(records)
            size = sum(sizes)
        if last > credit.seq_limit or self.received_bytes + size > credit.bytes_limit:
            self._check_credit(first, last, records)
        received = self.received
        if first == received.cum + 1 == self.released + 1 and self._is_plain(records):
            received.cum = self.released = last
            self.received_bytes += size
            if type(records) is Block:
                self._held_blocks.append(_HeldBlock(first, last, records))
                return [Arrived(self.lane, first, last, records)]
            if first == last and size <= self._options.fragment_bytes:
                self._held[first] = size
            else:
                self._hold_all(first, records, sizes or [size])
            return [Arrived(self.lane, first, last, list(records))]
        return self._sort_in(first, last, records, size, now, is_released)

    def _sort_in(
        self,
        first: int,
        last: int,
        records: Sequence[Record],
        size: int,
        now: float,
        is_released: IsReleased,
    ) -> list[Arrived]:
        """Take in records that are not simply the next."""
        new = self.received.add(first, last)
        if not new:
            self.duplicates += len(records)
            return []
        if new == [(first, last)]:
            self.received_bytes += size
        else:
            sizes = sizes_of(records)
            self.duplicates += len(records)
            for start, end in new:
                self.duplicates -= end - start + 1
                self.received_bytes += sum(sizes[start - first : end - first + 1])
        for start, end in new:
            for seq in range(start, end + 1):
                self._keep(seq, records[seq - first], now)
        return self.release(now, is_released)

    def _check_credit(self, first: int, last: int, records: Sequence[Record]) -> None:
        """Refuse what is over credit; what came before was counted then."""
        if last > self.credit.seq_limit:
            raise ProtocolError("credit", f"number {last} is over {self.credit.seq_limit}")
        fresh = sum(
            size_of(record)
            for seq, record in enumerate(records, first)
            if seq not in self.received
        )
        if self.received_bytes + fresh > self.credit.bytes_limit:
            raise ProtocolError("credit", f"{fresh} bytes are over {self.credit.bytes_limit}")

    def _is_plain(self, records: Sequence[Record]) -> bool:
        """Whether the next records can be released as they are: whole, and waiting for nothing."""
        if self.early or self._voided.count or self.transfer or self._skipping:
            return False
        if len(records) == 1:
            record = records[0]
            return record[0] != _FRAGMENT_HEAD and (
                len(record) == 3 or _NOT_PLAIN.isdisjoint(record[3][::2])
            )
        if type(records) is Block and records.is_bare:
            return _FRAGMENT_HEAD not in records.heads
        if _FRAGMENT_HEAD in set(map(_HEAD, records)):
            return False
        # A time to live cannot be over yet.
        return _NOT_PLAIN.isdisjoint(tags_of(records))

    def _keep(self, seq: int, record: Record, now: float) -> None:
        self.early[seq] = record
        if len(record) == 4:
            ttl_ms = extra(record, Tag.TTL_MS)
            if isinstance(ttl_ms, int):
                self._deadlines[seq] = now + ttl_ms / 1000

    def on_gap(self, first: int, last: int, size: int) -> None:
        """Note that these numbers will never come; call `release` next.

        `size` is what the sender counted against credit: where it is not 0, the (one) number had
        been sent, and the sender waits for a verdict. Raises ProtocolError beyond the credit.
        """
        if last > self.credit.seq_limit:
            raise ProtocolError("credit", f"gap {last} is over {self.credit.seq_limit}")
        if size and first != last:
            raise ProtocolError("gap", f"{size} bytes for more than one number")
        over = self.received_bytes + size > self.credit.bytes_limit
        if size and over and first not in self.received:
            raise ProtocolError("credit", f"gap of {size} bytes is over credit")
        for start, end in self.received.add(first, last) or []:
            self._voided.add(start, end)
            self.received_bytes += size
            self.credit.consume(end - start + 1, size)
            if size:
                self._outcome(Outcome.EXPIRED, start, end)

    # Release

    def release(self, now: float, is_released: IsReleased) -> list[Arrived]:
        """Return the records whose turn has come, in order."""
        arrived: list[Arrived] = []
        run: list[Record] = []
        while True:
            seq = self.released + 1
            if self._voided.count and self._voided.first == seq:
                self._close_run(run, arrived)
                run = []
                self._fail_transfer(self.released, Outcome.EXPIRED, "")
                self.released = self._voided.pop_first()[1]
                continue
            record = self.early.get(seq)
            if record is None:
                break
            if len(record) == 4 and not self._may_follow(record, is_released):
                break  # released with the lane that holds a predecessor
            del self.early[seq]
            self.released = seq
            deadline = self._deadlines.pop(seq, inf) if self._deadlines else inf
            if record[0] == _FRAGMENT_HEAD:
                self._close_run(run, arrived, seq - 1)
                run = []
                arrived += self._on_fragment(seq, record, now)
            elif self._admit(seq, record, deadline, now):
                self._hold(seq, record)
                run.append(record)
            else:
                self._close_run(run, arrived, seq - 1)
                run = []
        self._close_run(run, arrived)
        return arrived

    def _may_follow(self, record: Record, is_released: IsReleased) -> bool:
        """Whether what was submitted before with the same key has been released."""
        predecessors = cast("Predecessors", extra(record, Tag.PREDECESSORS) or ())
        return all(is_released(lane, seq) for lane, seq in predecessors)

    def _close_run(self, run: list[Record], arrived: list[Arrived], last: int = 0) -> None:
        if run:
            last = last or self.released
            arrived.append(Arrived(self.lane, last - len(run) + 1, last, run))

    def _admit(self, seq: int, record: Record, deadline: float, now: float) -> bool:
        """Return whether the record goes to the application as it is.

        Otherwise it has expired and is settled, or it is the first piece of a large body.
        """
        self._fail_transfer(seq - 1, Outcome.REJECTED, "its fragments end early")
        self._skipping = None
        fragments = cast("Fragments | None", extra(record, Tag.FRAGMENTS))
        if deadline < now:
            self._refuse(seq, record, Outcome.EXPIRED, "")
            if fragments is not None:
                self._skipping = (seq + fragments[0] - 1, Outcome.EXPIRED, "")
            return False
        if fragments is not None:
            self._begin(seq, seq + fragments[0] - 1, record, deadline)
            return False
        return True

    def _hold_all(self, first: int, records: Sequence[Record], sizes: list[int]) -> None:
        if max(sizes) <= self._options.fragment_bytes:
            self._held.update(zip(range(first, first + len(sizes)), sizes, strict=True))
            return
        for seq, record in enumerate(records, first):
            self._hold(seq, record)

    def _hold(self, seq: int, record: Record) -> None:
        """Count a record until it is settled: a large one as room, any other against credit."""
        size = size_of(record)
        if len(record[2]) > self._options.fragment_bytes and self._rooms.draw(size):
            self._transfers[seq] = Transfer(seq, seq, inf, size, reserved=True)
            self.credit.consume(1, size)
        else:
            self._held[seq] = size

    def _refuse(self, seq: int, record: Record, outcome: Outcome, reason: str) -> None:
        """Settle a record that the application never sees."""
        self.credit.consume(1, size_of(record))
        self._outcome(outcome, seq, seq, reason)

    # Fragments

    def _begin(self, seq: int, last: int, record: Record, deadline: float) -> None:
        try:
            assembly = Assembly(record, self._options)
        except ProtocolError as error:
            self._refuse(seq, record, Outcome.REJECTED, error.detail)
            self._skipping = (last, Outcome.REJECTED, error.detail)
            return
        total = assembly.total_bytes
        self.transfer = Transfer(seq, last, deadline, total, self._rooms.draw(total), assembly)
        self._charge(self.transfer, record)

    def _on_fragment(self, seq: int, record: Record, now: float) -> list[Arrived]:
        """Add a fragment to the transfer under way; return the body when it is whole."""
        transfer = self.transfer
        if transfer is None or transfer.assembly is None:
            outcome, reason = Outcome.REJECTED, "a fragment of no transfer"
            if self._skipping is not None and seq <= self._skipping[0]:
                _, outcome, reason = self._skipping
            self._refuse(seq, record, outcome, reason)
            return []
        self._charge(transfer, record)
        try:
            whole = transfer.assembly.add(record)
        except ProtocolError as error:
            self._fail_transfer(seq, Outcome.REJECTED, error.detail)
            return []
        if whole is None:
            return []
        if transfer.deadline < now:
            self._fail_transfer(seq, Outcome.EXPIRED, "")
            return []
        self.transfer = None
        self._transfers[transfer.first] = transfer
        return [Arrived(self.lane, transfer.first, seq, [whole])]

    def _charge(self, transfer: Transfer, record: Record) -> None:
        """Count a fragment against credit, unless room was reserved for all of them."""
        if transfer.reserved:
            self.credit.consume(1, size_of(record))
        else:
            transfer.messages += 1
            transfer.size += size_of(record)

    def _fail_transfer(self, last: int, outcome: Outcome, reason: str) -> None:
        """Give up the transfer under way, of which fragments up to `last` have been added.

        What is still to come of it gets the same outcome.
        """
        transfer, self.transfer = self.transfer, None
        if transfer is None:
            return
        self._skipping = (transfer.last, outcome, reason)
        self._finish_transfer(transfer)
        self._outcome(outcome, transfer.first, last, reason)

    def _finish_transfer(self, transfer: Transfer) -> None:
        self.credit.consume(transfer.messages, transfer.size)
        if transfer.reserved:
            self._rooms.put_back(transfer.total_bytes)

    def find_room(self) -> bool:
        """Reserve room for the transfer under way, if now there is some; True if credit rose."""
        transfer = self.transfer
        if transfer is None or transfer.reserved or not self._rooms.draw(transfer.total_bytes):
            return False
        transfer.reserved = True
        self.credit.consume(transfer.messages, transfer.size)
        transfer.messages = transfer.size = 0
        return True

    # Settlement

    def settle(
        self, first: int, last: int, outcome: Outcome, reason: str = "", delay: float = 0.0
    ) -> bool:
        """Note the application's verdict; False where none of it was open.

        The numbers may be of records and of whole bodies, in any succession.
        """
        if not self._transfers:
            return self._settle_held(first, last, outcome, reason, delay)
        was_open = False
        for start in sorted(seq for seq in self._transfers if first <= seq <= last):
            if first < start:
                was_open |= self._settle_held(first, start - 1, outcome, reason, delay)
            transfer = self._transfers.pop(start)
            self._finish_transfer(transfer)
            self._outcome(outcome, start, transfer.last, reason, delay)
            was_open = True
            first = transfer.last + 1
        if first <= last:
            was_open |= self._settle_held(first, last, outcome, reason, delay)
        return was_open

    def _settle_held(
        self, first: int, last: int, outcome: Outcome, reason: str, delay: float
    ) -> bool:
        blocks = self._held_blocks
        if blocks and last >= blocks[0].first:
            if not (reason or delay) and self._are_in_blocks(first, last):
                self._settle_blocks(last)
                self._outcome(outcome, first, last)
                return True
            self._part_blocks(last)
        if first == last:
            size = self._held.pop(first, -1)
            if size < 0:
                return False
            self.credit.consume(1, size)
            self._outcome(outcome, first, first, reason, delay)
            return True
        numbers = range(first, last + 1)
        sizes = list(map(self._held.pop, numbers, repeat(-1)))
        if min(sizes) >= 0 and not (reason or delay):
            self.credit.consume(len(sizes), sum(sizes))
            self._outcome(outcome, first, last)
            return True
        open_before = [(seq, size) for seq, size in zip(numbers, sizes, strict=True) if size >= 0]
        for seq, size in open_before:
            self.credit.consume(1, size)
            self._outcome(outcome, seq, seq, reason, delay)
        return bool(open_before)

    def _are_in_blocks(self, first: int, last: int) -> bool:
        """Return whether these are the next of what is held in blocks."""
        for held in self._held_blocks:
            if held.first != first:
                return False
            if last <= held.last:
                return True
            first = held.last + 1
        return False

    def _settle_blocks(self, last: int) -> None:
        """Settle what is held in blocks, up to and with a number."""
        blocks = self._held_blocks
        while blocks and blocks[0].first <= last:
            held = blocks[0]
            stop = min(last, held.last)
            start = held.first - held.last + len(held.block) - 1
            count = stop - held.first + 1
            self.credit.consume(count, held.block.size_of(start, start + count))
            held.first = stop + 1
            if stop == held.last:
                blocks.popleft()

    def _part_blocks(self, last: int) -> None:
        """Note of each record of blocks up to a number what is noted of others."""
        blocks = self._held_blocks
        while blocks and blocks[0].first <= last:
            held = blocks.popleft()
            start = held.first - held.last + len(held.block) - 1
            numbers = range(held.first, held.last + 1)
            self._held.update(zip(numbers, held.block.sizes(start), strict=True))

    def _outcome(
        self, outcome: Outcome, first: int, last: int, reason: str = "", delay: float = 0.0
    ) -> None:
        if reason or delay:
            detail = (first, reason[:REASON_CHARACTERS_MAX], round(delay * 1000))
            self._detailed.append(((outcome, first, last), detail))
            return
        outcomes = self._outcomes
        if outcomes and outcomes[-1][0] is outcome and outcomes[-1][2] + 1 == first:
            outcomes[-1] = (outcome, outcomes[-1][1], last)
        else:
            outcomes.append((outcome, first, last))

    @property
    def unsettled(self) -> bool:
        """Whether there are verdicts to tell."""
        return bool(self._outcomes or self._detailed)

    def take_settlements(self, ranges_max: int) -> list[Settle]:
        """Return the verdicts since the last call, in records of at most `ranges_max` ranges."""
        plain, detailed = self._outcomes, self._detailed
        if not detailed and len(plain) <= ranges_max:  # as in most turns
            self._outcomes = []
            return [Settle(self.lane, tuple(plain))]
        settlements = [
            Settle(self.lane, tuple(plain[index : index + ranges_max]))
            for index in range(0, len(plain), ranges_max)
        ]
        for index in range(0, len(detailed), ranges_max):
            outcomes, details = zip(*detailed[index : index + ranges_max], strict=True)
            settlements.append(Settle(self.lane, outcomes, details))
        plain.clear()
        detailed.clear()
        return settlements

    def close(self) -> None:
        """Give back what the lane drew from the pools: the session is over."""
        self.credit.close()
        for transfer in (self.transfer, *self._transfers.values()):
            if transfer is not None and transfer.reserved:
                self._rooms.put_back(transfer.total_bytes)
        self.transfer = None
        self._transfers.clear()
