"""What an application does with topics and shared maps."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from zmesh.face.assembly import Assembly
from zmesh.face.checks import (
    check_is_text,
    check_message_options,
    check_receivers,
    check_retained,
    check_unreserved,
    is_at_most_once,
    kept_of,
)
from zmesh.face.inbox import Settle, check_settle
from zmesh.face.outgoing import Headers
from zmesh.face.receipts import Receipt
from zmesh.face.shared import SharedMap
from zmesh.face.signing import Sign, signed
from zmesh.face.since import Begin, terms_of
from zmesh.face.subscriptions import Subscription
from zmesh.face.verifying import Verify
from zmesh.message import PRIORITY_DEFAULT, Kind, Record, Tag, with_extra
from zmesh.options import NodeOptions
from zmesh.patterns.filters import check_type, filter_of
from zmesh.security.rules import Action
from zmesh.terms import (
    LIMIT_DEFAULT,
    Compression,
    Guarantee,
    Match,
    Policy,
    Scalar,
)

SNAPSHOT_TIMEOUT: Final = 10.0
"""Seconds `shared` waits by default for what other replicas hold."""


_NONE: Final = 0


class Publishing(ABC):
    """The part of a node that publishes, subscribes, and shares maps."""

    _options: NodeOptions

    @abstractmethod
    def _at_work(self) -> Assembly:
        """Return the node at work, or raise why there is none."""

    # Publish and subscribe

    async def publish(
        self,
        topic: str,
        body: object,
        *,
        headers: Headers | None = None,
        type: str | None = None,  # noqa: A002  # what users call it
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
        retain: bool = False,
        history: int | None = None,
        min_receivers: int = _NONE,
        timeout: float | None = None,  # noqa: ASYNC109  # the error tells who is there
        guarantee: Guarantee = "at_least_once",
        compression: Compression | None = None,
        durable: bool | None = None,
        sign: bool | None = None,
    ) -> Receipt:
        """Publish a message to every node that subscribes to its topic now, this one included.

        Returns once there is room in their queues, and a durable one is on disk. `await receipt`
        waits until all have handled it, and returns how many did: 0 at once without subscribers.
        Those that would rather miss some, or are behind, are not waited for.

        Args:
            topic: tokens separated by dots, as in "sensors.kitchen.temp".
            body, headers, priority, key, ttl, compression, sign: as for `send`.
            type: what kind of message it is; subscriptions can ask for it.
            retain: whether it is kept, in place of what was, for those who subscribe later; with
                None as the body nothing of the topic is any longer.
            history: how many of the topic are kept, this one included.
            min_receivers: how many nodes must be there to receive it.
            timeout: seconds to wait for these; None is for ever.
            guarantee: "at_least_once" until each subscriber has accepted it; "at_most_once" goes
                to those that have room now, and is forgotten: nothing is waited for, nothing
                comes again, and the receipt is done at once, with 0.
            durable: whether it is in this node's log first, for subscriptions with a name or
                `since`; by default with `storage`, unless it is at most once.

        Raises:
            InvalidOption, BodyNotEncodable, BodyTooLarge: it cannot be published.
            JournalFull, JournalBroken: it could not be stored, and is not published.
            PeersMissing: too few receivers, in time; it was not published.
        """
        assembly, keep = self._at_work(), None
        outgoing = assembly.publishes_on(topic)
        if priority is not PRIORITY_DEFAULT or key is not None or ttl is not None:
            check_message_options(self._options.wire, priority, key, ttl)
        if min_receivers is not _NONE or timeout is not None:
            check_receivers(min_receivers, timeout)
        is_once = is_at_most_once(guarantee)
        is_durable = assembly.durable.is_wanted_by_all(durable, is_once=is_once)
        if retain is not False or history is not None:
            keep = kept_of(self._options, body, retain=retain, history=history)
        record = outgoing.record(Kind.PUBLICATION, topic, body, headers)
        if type is not None:
            record = self._typed(record, type)
        record = signed(record, outgoing.signing.for_target(sign, priority, key, ttl))
        compressor = outgoing.compressing.compressor(compression)
        if compressor is not None:
            record = await outgoing.compressing.soon(record, compressor)
        if keep:
            check_retained(record, self._options)
        if min_receivers:
            await assembly.posting.wait_for_receivers(record, min_receivers, timeout)
        terms = (priority, key, ttl, keep)
        if is_durable:
            return await assembly.durable.publish(record, *terms)
        return await assembly.posting.publish(record, *terms, at_most_once=is_once)

    def _typed(self, record: Record, kind: str) -> Record:
        check_type(kind, self._options.wire)
        return with_extra(record, Tag.TYPE, kind)

    async def publish_many(
        self,
        topic: str,
        bodies: Iterable[object],
        *,
        headers: Headers | None = None,
        type: str | None = None,  # noqa: A002  # what users call it
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
        guarantee: Guarantee = "at_least_once",
        compression: Compression | None = None,
        durable: bool | None = None,
        sign: bool | None = None,
    ) -> Receipt:
        """Publish many messages on one topic, as fast as there is room, under one receipt.

        It is by far the cheapest way to publish many. They go in pieces; one that cannot be
        published raises with its piece not published. Arguments are those of `publish`.

        Raises:
            InvalidOption: `bodies` is one body, or nothing that can be iterated; and as `publish`.
        """
        assembly = self._at_work()
        outgoing = assembly.publishes_on(topic)
        check_message_options(self._options.wire, priority, key, ttl)
        is_once = is_at_most_once(guarantee)
        is_durable = assembly.durable.is_wanted_by_all(durable, is_once=is_once)
        if type is not None:
            check_type(type, self._options.wire)
        by = _typed(type, outgoing.signing.for_target(sign, priority, key, ttl))
        compressor = outgoing.compressing.compressor(compression)
        batch = outgoing.batch(bodies, headers, Kind.PUBLICATION, topic, compressor, by)
        if is_durable:
            return await assembly.durable.publish_many(topic, batch, priority, key, ttl)
        return await assembly.posting.publish_many(
            topic, batch, priority, key, ttl, at_most_once=is_once
        )

    def subscribe(
        self,
        pattern: str,
        *,
        type: str | None = None,  # noqa: A002  # what users call it
        where: Mapping[str, Scalar] | None = None,
        match: Match = "all",
        content: str | None = None,
        replay: bool = True,
        when_full: Policy = "block",
        limit: int = LIMIT_DEFAULT,
        settle: Settle = "auto",
        name: str | None = None,
        since: Begin | None = None,
        verify: Verify | None = None,
    ) -> Subscription:
        """Subscribe to topics, for as long as an `async with` block runs.

        ```python
        async with node.subscribe("sensors.*.temp", where={"unit": "C"}) as temperatures:
            async for message in temperatures:
                print(message.topic, message.body)
        ```

        Messages are settled as in `inbox`. Publishers evaluate the filters, so that what nobody
        wants does not travel.

        Args:
            pattern: a topic in which `*` stands for one token, and `>` at the end for all others.
            type: only messages that were published with this type.
            where: only messages with headers of these values.
            match: "all" of these headers, or "any" of them.
            content: only messages for whose body this JMESPath expression is true.
            replay: whether it first gets what publishers keep of its topics (`retain`, `history`).
            when_full: what becomes of messages that it is too slow for: "block" makes publishers
                wait; "drop_oldest", "drop_newest" and "latest" (of each topic) drop some, which
                `Subscription.dropped` and `Message.gap` tell; "disconnect" ends it.
            limit: how many may wait for it before some are dropped or it ends, here, and as many
                at each publisher; not with "block".
            settle: "auto" or "manual".
            name: of a durable subscription: it goes on in each publisher's log where this node
                was when it ended, in whatever life; the first time from now on. Needs `storage`.
            since: where it begins in the logs it has no position in: "first", a time, seconds
                ago, or positions by publishers' ids, to go on after them.
            verify: "required" for signed messages alone, "if-signed" where a signature that is
                there must hold; what the node says by default.

        Raises:
            InvalidOption, UsageError: it cannot work, or there are too many.
            MissingPackage: `content` needs JMESPath: `pip install 'zmesh[content]'`.
        """
        assembly = self._at_work()
        check_settle(settle)
        if name is not None:
            assembly.durable.check_storage("a subscription with a name needs")
        check_is_text("pattern", pattern)
        wanted = filter_of(type, where, match, content, self._options.wire)
        terms = terms_of(wanted, when_full, limit, replay=replay, name=name, since=since)
        assembly.engine.check_subscribe(pattern, terms)
        return assembly.subscription(pattern, settle, terms, verify)

    # Shared state

    async def shared(
        self,
        name: str,
        *,
        timeout: float | None = SNAPSHOT_TIMEOUT,  # noqa: ASYNC109  # it is no error
    ) -> SharedMap:
        """Hold a replica of a map that all nodes share which ask for it by this name.

        Returns with a snapshot from a live replica; at once where this node knows of no other, or
        after `timeout`, and then what the others hold comes later.

        ```python
        config = await node.shared("config")
        await config.set("rate", 5)
        ```

        Args:
            name: of the map.
            timeout: seconds to wait for the snapshot; None waits for ever.

        Raises:
            InvalidOption, UsageError: the name cannot work, or there are too many.
        """
        assembly = self._at_work()
        check_unreserved("name", name)
        assembly.engine.guard.check_own(Action.SHARE, name)
        return await assembly.shared.open(name, timeout, self._at_work)


def _typed(kind: str | None, sign: Sign | None) -> Sign | None:
    """Return what says of records what kind they are, and signs that as well."""
    if kind is None:
        return sign

    def finish(records: Sequence[Record]) -> list[Record]:
        typed = [with_extra(record, Tag.TYPE, kind) for record in records]
        return typed if sign is None else sign(typed)

    return finish
