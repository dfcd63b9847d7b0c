"""Shared maps on disk: each as it was after one of its changes, with what it had seen by then.

What a map has changed since it was last on disk goes there in one batch, keys and how far origins
were seen alike; the next batch waits for its answer, and takes in whatever changed meanwhile. So
the disk never says that something was seen which is not there, nor replaced: another replica
would take that for a deletion.

Peers are told of changes at once, and not when they are on disk. A process that dies before loses
what the others know: it pulls it from them like everything else it missed.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, cast

from msgpack import packb, unpackb

from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines
from zmesh.message import Ticket
from zmesh.options import NodeOptions
from zmesh.patterns.shared_map import Entry, ReplicaMap
from zmesh.storage import Command, EntryKind, RemoveEntries, SetEntries
from zmesh.storage import Entry as StoredEntry
from zmesh.storage_errors import StorageError

AGAIN_S: Final = 1.0
"""Seconds until what found no room is tried again."""

_KEY: Final = b"k"
_SEEN: Final = b"s"
"""What the key of a stored entry begins with: then comes a key of the map, or an origin."""


class SavedMap:
    """What is on disk of a map, open or not, and what is to go there."""

    def __init__(self, name: str, entries: ReplicaMap) -> None:
        self.name = name
        self.map = entries
        self.keys: dict[str, None] = {}  # changed since they were ordered to the disk
        self.origins: dict[bytes, None] = {}  # whose `seen` did
        self.waiting: list[Ticket] = []  # for what is to go there
        self.is_writing = False
        self.is_forgotten = False
        entries.record(self.keys, self.origins)


class SharedSaving:
    """The maps that a node with a journal keeps."""

    def __init__(self, turn: Turn, options: NodeOptions) -> None:
        self._turn = turn
        self._options = options
        self._maps: dict[str, SavedMap] = {}
        self._touched: dict[str, None] = {}
        self._again: Deadlines[str] = Deadlines(turn.agenda)
        self.gathered = (self._touched,)  # empty: nothing to flush

    def __contains__(self, name: object) -> bool:
        return name in self._maps

    @property
    def names(self) -> list[str]:
        """Of the maps that are kept, those that are not open too."""
        return list(self._maps)

    # Another life

    def on_entry(self, stored: StoredEntry) -> None:
        """Take in what an earlier life kept."""
        own = self._saved(stored.name).map
        if stored.key[:1] == _SEEN:
            own.note_seen(stored.key[1:], int.from_bytes(stored.value))
        else:
            stamp, origin, encoding, value = cast(
                "tuple[int, bytes, int, bytes]", unpackb(stored.value, use_list=False)
            )
            entry = Entry(stamp, origin, encoding, value)
            own.restore(stored.key[1:].decode(), entry, self._turn.now)
        saved = self._maps[stored.name]
        saved.keys.clear()  # it comes from there
        saved.origins.clear()

    def open(self, name: str) -> ReplicaMap:
        """Return the entries of a map, which are kept from now on."""
        return self._saved(name).map

    def _saved(self, name: str) -> SavedMap:
        saved = self._maps.get(name)
        if saved is None:
            saved = self._maps[name] = SavedMap(name, ReplicaMap(self._options))
        return saved

    # Writing

    def wait(self, name: str, ticket: Ticket) -> None:
        """Tell when all that was changed in a map up to now is on disk."""
        saved = self._maps.get(name)
        if saved is None:
            self._turn.stored(ticket, None)
            return
        saved.waiting.append(ticket)
        self._touched[name] = None

    def touch(self, name: str) -> None:
        """Take note that a map may have changed."""
        if name in self._maps:
            self._touched[name] = None

    def flush(self) -> None:
        """Have on disk what changed."""
        touched = list(self._touched)
        self._touched.clear()
        for name in touched:
            saved = self._maps.get(name)
            if saved is not None and not saved.is_writing:
                self._save(saved)

    def _save(self, saved: SavedMap) -> None:
        keys, origins = list(saved.keys), list(saved.origins)
        waiting, saved.waiting = saved.waiting, []
        commands = _commands(saved, keys, origins)
        if not commands:
            for ticket in waiting:
                self._turn.stored(ticket, None)
            return
        saved.keys.clear()
        saved.origins.clear()
        saved.is_writing = True
        then = partial(self._on_saved, saved, keys, origins, waiting)
        self._turn.keeper.write(*commands, then=then)

    def _on_saved(
        self,
        saved: SavedMap,
        keys: list[str],
        origins: list[bytes],
        waiting: list[Ticket],
        error: StorageError | None,
    ) -> None:
        saved.is_writing = False
        if error is not None:
            saved.keys.update(dict.fromkeys(keys))
            saved.origins.update(dict.fromkeys(origins))
        for ticket in waiting:
            self._turn.stored(ticket, error)
        if saved.is_forgotten:
            return
        if error is None:
            if saved.keys or saved.origins or saved.waiting:
                self._touched[saved.name] = None
        elif self._turn.keeper.error is None:
            self._again.set(saved.name, self._turn.now + AGAIN_S)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._again.next

    def on_timer(self) -> None:
        """Try again what found no room."""
        for name in self._again.due(self._turn.now):
            self._touched[name] = None

    # Ends

    def forget(self, name: str, then: Callable[[StorageError | None], None]) -> None:
        """Remove a map from the disk, and tell when it is gone."""
        saved = self._maps.pop(name, None)
        if saved is not None:
            saved.is_forgotten = True
            self._again.discard(name)
            self._touched.pop(name, None)
            waiting, saved.waiting = saved.waiting, []
            for ticket in waiting:
                self._turn.stored(ticket, None)
        self._turn.keeper.write(RemoveEntries(EntryKind.SHARED, name), then=then)


def _commands(saved: SavedMap, keys: list[str], origins: list[bytes]) -> list[Command]:
    """Return what makes the disk say of these what the map says."""
    put: list[StoredEntry] = []
    gone: list[Command] = []
    name = saved.name
    for key in keys:
        entry = saved.map.entry(key)
        place = _KEY + key.encode()
        if entry is None:
            gone.append(RemoveEntries(EntryKind.SHARED, name, place))
        else:
            value = cast("bytes", packb(tuple(entry)))
            put.append(StoredEntry(EntryKind.SHARED, name, place, value))
    for origin in origins:
        stamp = saved.map.seen.get(origin)
        place = _SEEN + origin
        if stamp is None:
            gone.append(RemoveEntries(EntryKind.SHARED, name, place))
        else:
            put.append(StoredEntry(EntryKind.SHARED, name, place, stamp.to_bytes(8)))
    return [SetEntries(tuple(put)), *gone] if put else gone
