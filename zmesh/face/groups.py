"""Groups of this node: joining, reading what is fanned out to them, and describing the node."""

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from zmesh.actions import Delivery
from zmesh.errors import Closed, UsageError
from zmesh.events import Describe, Event, JoinGroup, LeaveGroup
from zmesh.face.inbox import BatchReader, DeliveryQueue, Inbox, Reader, Settle
from zmesh.face.received import Message
from zmesh.face.verdicts import Settlements
from zmesh.face.verifying import Guard
from zmesh.options import NodeOptions
from zmesh.wire.attributes import Scalar, attribute_text, check_key


class Group(Inbox):
    """Membership in a group, for as long as the `async with` block runs.

    What is fanned out to the group is read as an inbox is. Where this node joined the group more
    than once, each message goes to one of them. What was not read when the last block ends is
    given back.
    """

    def __init__(
        self, registry: "Groups", queue: DeliveryQueue, name: str, settle: Settle
    ) -> None:
        super().__init__(queue, settle)
        self.name = name
        self._registry = registry
        self._is_entered = False

    def __aiter__(self) -> Reader:
        self._check_entered()
        return super().__aiter__()

    async def __anext__(self) -> Message:
        self._check_entered()
        return await super().__anext__()

    def batches(self, max_count: int = 1000, max_wait: float = 0.0) -> BatchReader:
        """Read many messages at once, in a loop; see `Inbox.batches`."""
        self._check_entered()
        return super().batches(max_count, max_wait)

    def _check_entered(self) -> None:
        if not self._is_entered:
            raise UsageError("a group is joined by `async with`: read it inside the block")

    async def __aenter__(self) -> Self:
        """Join. Peers hear of it at once, and count this node in from then on.

        Raises:
            UsageError: it was entered before, or there are too many.
            Closed: the node was closed.
        """
        if self._is_entered:
            raise UsageError("this membership was used before: call node.join(...) again")
        self._registry.add(self.name, self._queue)
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave; what was not read is given back."""
        self._registry.remove(self.name, self._queue)


class Groups:
    """All memberships of a node, by group, and what describes it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        command: Callable[[Event], None],
        settlements: Settlements,
        options: NodeOptions,
    ) -> None:
        self._loop = loop
        self._command = command
        self._settlements = settlements
        self._options = options
        self._queues: dict[str, list[DeliveryQueue]] = {}
        self._attributes: dict[str, str] = {}
        self._closed: str | None = None

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def group(self, name: str, settle: Settle, guard: Guard | None = None) -> Group:
        """Return a membership that begins when it is entered, behind a guard of signatures."""
        return Group(self, DeliveryQueue(self._loop, self._settlements, guard), name, settle)

    def add(self, name: str, queue: DeliveryQueue) -> None:
        """Join a group, unless this node is in it already."""
        if self._closed is not None:
            raise Closed(self._closed)
        limit = self._options.groups_max
        if len(self) >= limit:
            raise UsageError(f"this node joined {limit} groups already: leave some first")
        queues = self._queues.setdefault(name, [])
        queues.append(queue)
        if len(queues) == 1:
            self._command(JoinGroup(name))

    def remove(self, name: str, queue: DeliveryQueue) -> None:
        """End a membership, and leave the group with the last one."""
        queues = self._queues.get(name, [])
        if queue not in queues:
            return
        queues.remove(queue)
        if not queues:
            del self._queues[name]
            self._command(LeaveGroup(name))
        queue.close()

    def drain(self) -> None:
        """Leave all groups: nothing more is wanted."""
        for name, queues in list(self._queues.items()):
            for queue in list(queues):
                self.remove(name, queue)

    def close(self, failure: str | None = None) -> None:
        """End all loops over all groups, and join no more."""
        self._closed = failure or "node"
        while self._queues:
            for queue in self._queues.popitem()[1]:
                queue.close(failure)

    def deliver(self, deliveries: list[Delivery]) -> None:
        """Hand out what was fanned out, to who has least to read."""
        for delivery in deliveries:
            count = len(delivery.records)
            queues = self._queues.get(delivery.records[0][1])
            if queues:
                min(queues, key=len).put(self._settlements, delivery, 0, count)
            else:
                self._settlements.abandon(delivery, 0, count - 1)

    def describe(self, attributes: Mapping[str, Scalar | None]) -> None:
        """Tell peers these attributes, beside those told before; None takes one back.

        Raises:
            InvalidOption, UsageError: one of them cannot be told, or there are too many.
        """
        texts: dict[str, str | None] = {}
        for key, value in attributes.items():
            check_key(key)
            wire = self._options.wire
            texts[key] = None if value is None else attribute_text(key, value, wire)
        told = self._attributes | {key: text for key, text in texts.items() if text is not None}
        for key in [key for key, text in texts.items() if text is None]:
            told.pop(key, None)
        limit = self._options.attributes_max
        if len(told) > limit:
            raise UsageError(f"a node has at most {limit} attributes: take some back with None")
        self._attributes = told
        self._command(Describe(texts))
