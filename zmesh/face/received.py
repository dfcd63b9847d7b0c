"""A received message, and how the verdict on it finds its way back to the sender."""

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

from zmesh.actions import Delivery
from zmesh.errors import AlreadySettled, InvalidBody, InvalidOption, ProtocolError, UsageError
from zmesh.events import SettleDeliveries, Source
from zmesh.face.checks import is_seconds, sendable_text
from zmesh.face.databases import Connection
from zmesh.face.parts import BodyParts, WholeBody
from zmesh.face.transactions import Transaction, Transactions, identity_of
from zmesh.face.typed import convert
from zmesh.message import Outcome, Record, Tag, extra
from zmesh.wire.bodies import body_of, decode_headers

T = TypeVar("T")

ACCEPTED_TOGETHER: Final = 512
"""So many acceptances are told with the end of a turn; fewer wait for more, for milliseconds."""


_LAST_MS: Final = 253_402_300_799_999  # what a datetime can tell: the end of the year 9999


class Settler(Protocol):
    """Takes verdicts on the records `first..last` (indexes) of a delivery.

    `is_open` tells whether the application gives them; else its handler's end does.
    """

    is_open: bool

    @property
    def transactions(self) -> Transactions:
        """Makes the transactions of messages."""
        ...

    def settle(
        self,
        delivery: Delivery,
        first: int,
        last: int,
        outcome: Outcome,
        reason: str = "",
        delay: float = 0.0,
    ) -> None:
        """Pass the verdict on."""
        ...

    def abandon(self, delivery: Delivery, first: int, last: int) -> None:
        """Say that the consumer is gone and gives no verdict on these."""
        ...


def numbers(delivery: Delivery, first: int, last: int) -> tuple[int, int]:
    """Return the sequence numbers of the records `first..last` (indexes)."""
    # A record put together from fragments is alone in its delivery and spans several numbers.
    is_end = last == len(delivery.records) - 1
    return delivery.first_seq + first, delivery.last_seq if is_end else delivery.first_seq + last


class Chunk:
    """A run of records of one delivery that one reader has taken.

    Reading on accepts what was read before, so a whole run costs one settlement: `current` moves
    with the reader, and `accept_read` settles everything before it.
    """

    __slots__ = (
        "_apart",
        "_settled",
        "count",
        "current",
        "delivery",
        "gap",
        "messages",
        "noted",
        "scope",
        "settler",
        "stop",
    )

    def __init__(self, settler: Settler, delivery: Delivery, start: int, stop: int) -> None:
        self.count = stop - start
        self._settled = start  # everything below has its verdict
        self._apart: set[int] | None = None  # judged one by one by the application
        self.settler = settler
        self.delivery = delivery
        self.stop = stop
        self.current: Message | None = None
        self.noted = False  # whether the settlements know that reading went on
        self.gap = 0  # dropped before its first message
        self.scope: str | None = None  # the name of the subscription it was read by
        records = delivery.records
        self.messages = iter(
            [Message(self, records[index], index) for index in range(start, stop)]
        )

    def accept_read(self) -> None:
        """Accept what was read before the current message."""
        self.noted = False  # reading on is to be noted again
        if self.current is not None:
            self._accept_until(self.current.index)

    def accept_all(self) -> None:
        """Accept the whole chunk: its reader asked for more."""
        self.current = None
        self._accept_until(self.stop)

    def give_up(self) -> int:
        """Leave to others what was not read; return the index where that begins."""
        unread = list(self.messages)
        if unread:
            self.stop = unread[0].index
        return self.stop

    def leave(self, outcome: Outcome | None) -> int:
        """Settle the current message so and accept those before; leave all alone with None.

        Returns the index of the first message that was not read.
        """
        message, self.current = self.current, None
        if message is None:
            return self.stop
        if outcome is not None:
            self.noted = False
            self._accept_until(message.index)
            if not self._is_settled(message.index):
                self.judge(message.index, outcome)
        return message.index + 1

    def judge_rest(self, outcome: Outcome) -> None:
        """Settle so whatever has no verdict yet."""
        self.current = None
        for index in range(self._settled, self.stop):
            if not self._is_settled(index):
                self.judge(index, outcome)

    def judge(self, index: int, outcome: Outcome, reason: str = "", delay: float = 0.0) -> None:
        """Settle one record by the application's own word.

        Raises:
            AlreadySettled: the record has its verdict.
        """
        if self._is_settled(index):
            raise AlreadySettled
        if self._apart is None:
            self._apart = set()
        self._apart.add(index)
        self.settler.settle(self.delivery, index, index, outcome, reason, delay)

    def accept(self, index: int) -> None:
        """Accept one record, unless it has its verdict."""
        if self.settler.is_open and not self._is_settled(index):
            self.judge(index, Outcome.ACCEPTED)

    def refuse(self, index: int, reason: str) -> None:
        """Reject one record that turned out to be unfit, unless it has its verdict."""
        if self.settler.is_open and not self._is_settled(index):
            self.judge(index, Outcome.REJECTED, reason)

    def _is_settled(self, index: int) -> bool:
        if isinstance(self.settler, ClosableSettler) and not self.settler.is_open:
            return True
        return index < self._settled or (self._apart is not None and index in self._apart)

    def _accept_until(self, stop: int) -> None:
        start = self._settled
        self._settled = max(start, stop)
        apart = self._apart or ()
        for index in sorted(index for index in apart if start <= index < stop):
            if start < index:
                self.settler.settle(self.delivery, start, index - 1, Outcome.ACCEPTED)
            start = index + 1
        if start < stop:
            self.settler.settle(self.delivery, start, stop - 1, Outcome.ACCEPTED)


class Message:
    """A message from a peer.

    In an `async for`, asking for the next message accepts this one; leaving the loop by an
    exception gives it back, to be delivered again. `accept`, `reject` and `release` say it
    outright.
    """

    __slots__ = ("_body", "_chunk", "_headers", "_record", "flaw", "index")

    _body: Any
    _headers: Mapping[str, object]
    flaw: ProtocolError  # set where the body cannot be read

    def __init__(self, chunk: Chunk, record: Record, index: int) -> None:
        self._chunk = chunk
        self._record = record
        self.index = index

    @property
    def body(self) -> Any:
        """What the sender passed: bytes as they were, anything else as msgpack carries it.

        Raises:
            ProtocolError: the peer sent something that is not msgpack, or does not decompress. The
                message is rejected.
        """
        try:
            return self._body
        except AttributeError:
            pass
        try:
            self._body = body_of(self._record)
        except ProtocolError as error:
            self.flaw = error
            self._chunk.refuse(self.index, sendable_text(error.detail))
            raise
        return self._body

    def as_(self, wanted: type[T]) -> T:
        """Return the body as the type wanted: a dataclass, `msgspec.Struct`, pydantic model, or
        anything else that msgspec converts to, such as `dict[str, int]` or a union of types.

        A body that is not one is rejected, with the field at fault as the reason.

        Raises:
            InvalidBody: it is none.
            MissingPackage: the library that converts is not installed.
            ProtocolError: the peer sent something that is not msgpack.
        """
        try:
            return convert(self.body, wanted)
        except InvalidBody as error:
            self._chunk.refuse(self.index, sendable_text(str(error)))
            raise

    @property
    def parts(self) -> AsyncIterator[Any]:
        """The body in parts: `async for part in message.parts`. One that came whole is one part.

        Reading raises `StreamBroken` where the rest of a body in parts will not come.
        """
        return WholeBody(lambda: self.body)

    @property
    def headers(self) -> Mapping[str, object]:
        """The sender's headers; empty where there are none.

        Raises:
            ProtocolError: the peer sent something that is not a msgpack map.
        """
        try:
            return self._headers
        except AttributeError:
            data = extra(self._record, Tag.HEADERS)
            self._headers = decode_headers(data) if isinstance(data, bytes) else {}
            return self._headers

    @property
    def sender(self) -> str:
        """The name of the node that sent it."""
        return self._chunk.delivery.sender_name

    @property
    def sender_id(self) -> str:
        """The id of the node that sent it, as hex: what to answer to where names are doubled."""
        return self._chunk.delivery.source.node.hex()

    @property
    def topic(self) -> str:
        """The topic it was published on; the service it calls; empty for a direct message."""
        return self._record[1]

    @property
    def priority(self) -> int:
        """0 (lowest) to 9 (highest)."""
        return self._chunk.delivery.source.lane

    @property
    def key(self) -> str | None:
        """Messages of one key keep their order."""
        key = extra(self._record, Tag.KEY)
        return key if isinstance(key, str) else None

    @property
    def attempt(self) -> int:
        """1 at the first delivery, one more each time it was given back."""
        attempt = extra(self._record, Tag.ATTEMPT)
        return attempt if isinstance(attempt, int) else 1

    @property
    def deadline(self) -> float | None:
        """When the caller of this request stops waiting, on the event loop's clock.

        None where it waits for ever, and for what is no request.
        """
        return None

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0: `timeout=message.remaining` for nested calls."""
        return None

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the reply any more: for plain handlers, which run on."""
        return False

    @property
    def type(self) -> str | None:
        """What kind of message it is, to those who sent it: the `type=` of a publication."""
        kind = extra(self._record, Tag.TYPE)
        return kind if isinstance(kind, str) else None

    @property
    def routing_key(self) -> str | None:
        """What it was published to an exchange with; None where it was not."""
        key = extra(self._record, Tag.ROUTING_KEY)
        return key if isinstance(key, str) else None

    @property
    def retained(self) -> bool:
        """Whether it was published before the subscription began, and kept for late joiners."""
        return extra(self._record, Tag.RETAINED) is not None

    @property
    def position(self) -> int | None:
        """Where it is in the log of its publisher; None where it is in none.

        `since={message.sender_id: message.position}` goes on after it.
        """
        position = extra(self._record, Tag.POSITION)
        return position if isinstance(position, int) else None

    @property
    def published(self) -> datetime | None:
        """When it was published, by its publisher's clock; None for what is not durable."""
        at_ms = extra(self._record, Tag.PUBLISHED)
        if not isinstance(at_ms, int) or at_ms > _LAST_MS:
            return None
        return datetime.fromtimestamp(at_ms / 1000, UTC)

    @property
    def gap(self) -> int:
        """How many publications the subscription missed just before this one.

        Always 0 with `when_full="block"`, but for a subscription with a name or `since`: so many
        were gone from the log when it came to them.
        """
        chunk = self._chunk
        return chunk.gap if self.index == chunk.stop - chunk.count else 0

    async def accept(self) -> None:
        """Tell the sender that it was handled.

        Raises:
            AlreadySettled: it has its outcome.
        """
        self._chunk.judge(self.index, Outcome.ACCEPTED)

    async def reject(self, reason: str) -> None:
        """Refuse it for good: the sender's receipt fails with `Rejected` and the reason.

        Raises:
            AlreadySettled: it has its outcome.
        """
        self._chunk.judge(self.index, Outcome.REJECTED, sendable_text(reason))

    async def release(self, delay: float = 0.0) -> None:
        """Give it back, to be delivered again after `delay` seconds; it counts as no attempt.

        Raises:
            AlreadySettled: it has its outcome.
            InvalidOption: the delay is negative, or no number of seconds.
        """
        if not (is_seconds(delay) and delay >= 0):
            raise InvalidOption("delay", delay, "seconds, 0 or more")
        self._chunk.judge(self.index, Outcome.RELEASED, "", delay)

    async def fail(self, reason: str = "", delay: float = 0.0) -> None:
        """Say that handling it failed: it comes again later, with `attempt` one higher.

        After the last attempt that is allowed it is a dead letter.

        Args:
            reason: why, for the sender.
            delay: seconds, where it should be longer than the pause between attempts.

        Raises:
            AlreadySettled: it has its outcome.
            InvalidOption: the delay is negative, or no number of seconds.
        """
        if not (is_seconds(delay) and delay >= 0):
            raise InvalidOption("delay", delay, "seconds, 0 or more")
        self._chunk.judge(self.index, Outcome.MODIFIED, sendable_text(reason), delay)

    def transaction(self, connection: Connection | None = None) -> Transaction:
        """Commit what its handler writes to a database together with its outcome.

        ```python
        async with message.transaction() as db:
            await db.execute("INSERT INTO orders VALUES (?)", (message.body["order"],))
        ```

        The end of the block commits, and accepts the message; an exception rolls back. Where the
        process dies before the sender hears of it, the message comes again, and is known: its
        handler does not run. In a plain function, whose handler runs in a thread, it is
        `with message.transaction() as connection`, the database's own.

        Args:
            connection: of another database than the node's own (`Storage.database`): any DB-API
                connection. Only one transaction at a time has it.

        Raises (those from `NotDurable` on where the block is entered or left):
            UsageError: this node has no storage.
            NotDurable: the sender has none, or the subscription no name: it could not be known.
            AlreadyHandled: it was, by another node with this database: go on with the next one.
            TransactionFailed: the database; nothing was written, and the message has no outcome.
        """
        chunk, index = self._chunk, self.index
        known = identity_of(self._record, chunk.delivery.source, chunk.scope)
        return chunk.settler.transactions.begin(known, lambda: chunk.accept(index), connection)

    def __repr__(self) -> str:
        """Show where it came from, never what it says."""
        where = f" on {self.topic!r}" if self.topic else ""
        return f"<Message from {self.sender!r}{where}, attempt {self.attempt}>"


class RequestMessage(Message):
    """A request, which knows how long its caller waits."""

    __slots__ = ("_clock", "_deadline", "body_parts", "is_cancelled")

    def __init__(
        self, chunk: Chunk, record: Record, index: int, clock: Callable[[], float]
    ) -> None:
        super().__init__(chunk, record, index)
        ttl_ms = extra(record, Tag.TTL_MS)
        self._clock = clock
        self._deadline = clock() + ttl_ms / 1000 if isinstance(ttl_ms, int) else None
        self.is_cancelled = False
        self.body_parts: BodyParts | None = None

    def transaction(self, connection: Connection | None = None) -> Transaction:
        """Commit what its handler writes together with the fact that it ran, once for a ticket.

        Where a copy comes (its caller has no answer yet) `AlreadyHandled` is raised: the handler
        answers from what it wrote then.

        Raises (those from `AlreadyHandled` on where the block is entered or left):
            UsageError: it is a plain call, or there is no database.
            AlreadyHandled, TransactionFailed: as for other messages.
        """
        if extra(self._record, Tag.STORED) is None:
            raise UsageError(
                "a plain call has no transaction: it is not on its caller's disk, and copies of "
                "it cannot be known; ask with call_later, or let the body carry an id of your own"
            )
        return super().transaction(connection)

    @property
    def parts(self) -> AsyncIterator[Any]:
        """The body in parts; the caller's next ones come as these are read."""
        return super().parts if self.body_parts is None else self.body_parts

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, on the event loop's clock; None: it waits for ever."""
        return self._deadline

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0; may be read in a handler's thread."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the reply any more."""
        return self.is_cancelled


class Settlements:
    """Verdicts gathered in one turn, consecutive ones merged into ranges."""

    is_open = True
    transactions: Transactions  # set by who has the database

    def __init__(
        self, soon: Callable[[], None], later: Callable[[], None], now: Callable[[], None]
    ) -> None:
        """Begin with nothing gathered.

        Args:
            soon: has what is pending taken when the loop's turn ends.
            later: has it taken within milliseconds.
            now: has it taken at once.
        """
        self._soon = soon
        self._later = later
        self._now = now
        self._verdicts: list[SettleDeliveries] = []
        self._accepted = 0
        self._read_on: list[Chunk] = []
        self.pending = False  # whether there is something to take

    def note(self, chunk: Chunk) -> None:
        """Remember that the chunk is being read: what was read is accepted with the next turn."""
        chunk.noted = True
        self.pending = True
        self._read_on.append(chunk)
        self._later()

    def hurry(self) -> None:
        """Have verdicts sent at once: their reader goes idle, and the sender may wait for them."""
        if self._verdicts:
            self._now()

    def settle(
        self,
        delivery: Delivery,
        first: int,
        last: int,
        outcome: Outcome,
        reason: str = "",
        delay: float = 0.0,
    ) -> None:
        """Add a verdict on the records `first..last` (indexes) of the delivery.

        A reader that is busy has many to accept, so those wait a little for each other: what
        tells of them costs as much for one as for hundreds.
        """
        first_seq, last_seq = numbers(delivery, first, last)
        is_accepted = outcome is Outcome.ACCEPTED
        previous = self._verdicts[-1] if is_accepted and self._verdicts else None
        if (
            previous is not None
            and previous.outcome is Outcome.ACCEPTED
            and previous.last_seq + 1 == first_seq
            and _same(previous.source, delivery.source)
        ):
            previous.last_seq = last_seq
        else:
            self._verdicts.append(
                SettleDeliveries(delivery.source, first_seq, last_seq, outcome, reason, delay)
            )
        self.pending = True
        self._accepted += last - first + 1
        if is_accepted and self._accepted < ACCEPTED_TOGETHER:
            self._later()
        else:
            self._soon()

    def abandon(self, delivery: Delivery, first: int, last: int) -> None:
        """Give back what nobody here reads any more."""
        self.settle(delivery, first, last, Outcome.RELEASED)

    def take(self) -> list[SettleDeliveries]:
        """Return what was gathered, and begin anew."""
        chunks, self._read_on = self._read_on, []
        for chunk in chunks:
            chunk.accept_read()
        verdicts, self._verdicts = self._verdicts, []
        self._accepted = 0
        self.pending = False
        return verdicts


class ClosableSettler:
    """Passes verdicts on until it is closed: then what had none has gone back."""

    def __init__(self, settlements: Settlements) -> None:
        self._settlements = settlements
        self.is_open = True

    @property
    def transactions(self) -> Transactions:
        """Makes the transactions of messages."""
        return self._settlements.transactions

    def settle(
        self,
        delivery: Delivery,
        first: int,
        last: int,
        outcome: Outcome,
        reason: str = "",
        delay: float = 0.0,
    ) -> None:
        """Pass a verdict on, while it counts."""
        if self.is_open:
            self._settlements.settle(delivery, first, last, outcome, reason, delay)

    def abandon(self, delivery: Delivery, first: int, last: int) -> None:
        """Give back what was not read."""
        self.settle(delivery, first, last, Outcome.RELEASED)


def _same(left: Source, right: Source) -> bool:
    return left is right or left == right
