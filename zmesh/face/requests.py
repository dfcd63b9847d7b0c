"""A request as its handler has it: it knows how long its caller waits."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from zmesh.actions import Delivery
from zmesh.errors import UsageError
from zmesh.face.databases import Connection
from zmesh.face.parts import BodyParts
from zmesh.face.received import Chunk, Message
from zmesh.face.transactions import Transaction
from zmesh.message import Record, Tag, extra


class RequestMessage(Message):
    """A request, which knows how long its caller waits."""

    __slots__ = ("_clock", "_deadline", "body_parts", "is_cancelled")

    def __init__(
        self,
        chunk: Chunk,
        record: Record,
        index: int,
        clock: Callable[[], float],
        deadline: float | None,
    ) -> None:
        # What `Message` does is written out: this is one of few things done for each request.
        self._chunk = chunk
        self._record = record
        self.index = index
        self._clock = clock
        self._deadline = deadline
        self.is_cancelled = False
        self.body_parts: BodyParts | None = None

    @property
    def delivery(self) -> Delivery:
        """What it came in, at its index."""
        return self._chunk.delivery

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
