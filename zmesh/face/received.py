"""A received message, and how the verdict on it finds its way back to the sender."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from itertools import repeat
from typing import Any, Final, TypeVar

from zmesh.actions import Delivery
from zmesh.errors import AlreadySettled, InvalidBody, InvalidOption, ProtocolError
from zmesh.face.checks import is_seconds, sendable_text
from zmesh.face.databases import Connection
from zmesh.face.parts import WholeBody
from zmesh.face.transactions import Transaction, identity_of
from zmesh.face.typed import convert
from zmesh.face.verdicts import ClosableSettler, Settler
from zmesh.face.verifying import Signed
from zmesh.message import Outcome, Record, Tag, extra
from zmesh.wire.bodies import body_of, decode_headers

T = TypeVar("T")

_KEY: Final = int(Tag.KEY)
_LAST_MS: Final = 253_402_300_799_999  # what a datetime can tell: the end of the year 9999


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
        records = delivery.records[start:stop]
        self.messages = iter(list(map(Message, repeat(self), records, range(start, stop))))

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
    def signer(self) -> str | None:
        """The id of the node that signed it, as hex: verified. None where nobody did."""
        signed = self._signed()
        return None if signed is None else signed.node.hex()

    @property
    def signer_key(self) -> bytes | None:
        """The public key of the node that signed it: 32 bytes (Ed25519), verified."""
        signed = self._signed()
        return None if signed is None else signed.public

    def _signed(self) -> Signed | None:
        found = self._chunk.delivery.signed
        signed = None if found is None else found.get(self.index)
        return signed if isinstance(signed, Signed) else None

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
        record = self._record
        if len(record) == 3:
            return None
        extras = record[3]
        # Most often it is all there is.
        key = extras[1] if len(extras) == 2 and extras[0] == _KEY else extra(record, Tag.KEY)
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
