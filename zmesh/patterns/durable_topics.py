"""Durable publications: into the log, then to who is there, and to who reads on later.

What is retained is kept with them, in a batch with its place in the log, so that those who come
after a restart get it as those before.
"""

from functools import partial
from typing import Any, Final, cast

from msgpack import packb, unpackb

from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.events import Publish
from zmesh.message import Record, Tag, extra
from zmesh.options import NodeOptions, Retention
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.log_readers import LogReaders
from zmesh.patterns.publish_subscribe import PublishSubscribe
from zmesh.patterns.retained import Kept
from zmesh.patterns.topic_log import Logged, TopicLog
from zmesh.storage import Command, Entry, EntryKind, RemoveEntries, SetEntries
from zmesh.storage_errors import StorageError

_KEY_BYTES: Final = 8


class DurableTopics:
    """The log of one node, its readers, and what is retained on disk."""

    def __init__(
        self,
        turn: Turn,
        interest: InterestTable,
        publishing: PublishSubscribe,
        options: NodeOptions,
        retention: Retention,
    ) -> None:
        self._turn = turn
        self._publishing = publishing
        self.log = TopicLog(turn, retention)
        self.readers = LogReaders(
            turn, self.log, interest, options, self._is_for_all, publishing.filters.passes
        )
        publishing.is_resuming = self.readers.is_resuming
        self._dropped = publishing.retained.dropped
        self._restored: list[Entry] = []
        self.gathered = (*self.readers.gathered, self._dropped, self._restored)

    def on_publish(self, publish: Publish) -> None:
        """Send a publication; a durable one when it is on disk."""
        if not publish.durable:
            self._publishing.on_publish(publish)
            return
        self.log.store(publish, partial(_retaining, publish), partial(self._on_stored, publish))

    def _on_stored(
        self, publish: Publish, logged: Logged | None, error: StorageError | None
    ) -> None:
        self._turn.stored(publish.ticket, error)
        if logged is None:
            return
        publish.record = logged.record
        self.readers.on_logged(logged, publish.ticket)
        self._publishing.on_publish(publish)

    def _is_for_all(self, record: Record, peer: Peer) -> bool:
        """Return whether a peer wants a publication that it has missed."""
        return peer in self._publishing.audience(record, is_resumed=True)[0]

    def flush(self) -> None:
        """Let readers go on, and forget on disk what is no longer retained."""
        if self._restored:
            restored = self._restored[:]
            self._restored.clear()
            self._restore(restored)
        if self._dropped:
            for kept in self._dropped:
                key = _key(kept.record)
                self._turn.keeper.later(RemoveEntries(EntryKind.RETAINED, kept.record[1], key))
            self._dropped.clear()
        self.readers.flush()

    # Another life

    def on_entry(self, entry: Entry) -> None:
        """Learn what was retained in an earlier life."""
        self._restored.append(entry)

    def _restore(self, entries: list[Entry]) -> None:
        turn = self._turn
        wall_ms = turn.keeper.wall_ms(turn.now)
        for entry in entries:
            head, body, extras, lane, key, expires_ms, depth = unpackb(entry.value)
            record: Record = (head, entry.name, body, _as_tuples(extras))
            position = int.from_bytes(entry.key)
            expires = None if not expires_ms else turn.now + (expires_ms - wall_ms) / 1000
            kept = Kept(position, record, lane, key, expires)
            if expires is not None and expires <= turn.now:
                self._dropped.append(kept)
            else:
                self._publishing.retained.restore(kept, depth)


def _retaining(publish: Publish, logged: Logged) -> list[Command]:
    """Return what is done on disk with a publication: what is retained, and what came along."""
    beside: list[Command] = [SetEntries(publish.entries)] if publish.entries else []
    if publish.keep is None:
        return beside
    topic = logged.record[1]
    if not publish.keep:
        return [*beside, RemoveEntries(EntryKind.RETAINED, topic)]
    head, _, body, *extras = logged.record
    fields = [head, body, extras[0], logged.lane, logged.key, logged.expires_ms, publish.keep]
    value = cast("bytes", packb(fields))
    retained = Entry(EntryKind.RETAINED, topic, _key(logged.record), value)
    return [*beside, SetEntries((retained,))]


def _key(record: Record) -> bytes:
    position = extra(record, Tag.POSITION)
    assert isinstance(position, int), "what is on disk has its place in the log"  # noqa: S101
    return position.to_bytes(_KEY_BYTES)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
