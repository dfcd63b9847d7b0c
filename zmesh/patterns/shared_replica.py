"""One replica of a shared map: its entries, its clock, and what it has to tell."""

from collections.abc import Iterable
from dataclasses import dataclass

from zmesh.actions import KeyChange
from zmesh.ids import NodeId
from zmesh.options import NodeOptions
from zmesh.patterns.hybrid_clock import HybridClock
from zmesh.patterns.shared_map import DELETED, ENTRY_OVERHEAD_BYTES, Entry, ReplicaMap, Verdict
from zmesh.patterns.state_records import Delta


@dataclass(slots=True)
class Refusals:
    """Why entries that were offered are not here now."""

    ahead: int = 0  # stamped further ahead of the wall clock than is believed
    full: int = 0  # over a limit, or without room

    def __bool__(self) -> bool:
        return bool(self.ahead or self.full)


class Replica:
    """A shared map on this node.

    Args:
        name: of the map.
        node: who this is.
        life: random bytes, new with every replica.
        options: bounds and times.
        entries: what it holds from an earlier life; its writes will be later than all of it.
    """

    def __init__(
        self,
        name: str,
        node: NodeId,
        life: bytes,
        options: NodeOptions,
        entries: ReplicaMap | None = None,
    ) -> None:
        self.name = name
        self.map = ReplicaMap(options) if entries is None else entries
        self._node = node
        self._origin = node + life
        self._options = options
        self._clock = HybridClock(options.shared_drift_max)
        self._own: dict[str, int] = {}  # keys last written here, by their stamps, ascending
        self.written = 0  # the stamp of the last write
        self._changes: list[KeyChange] = []
        for _, entry in self.map.entries():
            self._clock.observe(entry.stamp)
        for origin, stamp in self.map.seen.items():
            if origin.startswith(node):
                self._clock.observe(stamp)

    @property
    def origin(self) -> bytes:
        """What its writes are signed by; another one where its clock was put back."""
        return self._origin

    def take_changes(self) -> list[KeyChange]:
        """Return what changed since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes

    # Writing

    def write(
        self, key: str, encoding: int | None, value: bytes, wall_ms: int, now: float
    ) -> None:
        """Set a key, or delete it where `encoding` is None."""
        kind = DELETED if encoding is None else encoding
        self._write(key, kind, value, wall_ms, now)
        if len(self._own) > self._options.shared_keys_max:
            self._tidy()

    def _write(self, key: str, kind: int, value: bytes, wall_ms: int, now: float) -> None:
        stamp = self._clock.tick(wall_ms)
        entry = Entry(stamp, self._origin, kind, value)
        old = self.map.get(key)
        self.map.write(key, entry, now)
        self._own.pop(key, None)
        self._own[key] = self.written = stamp
        self._note(key, old, entry)

    def _tidy(self) -> None:
        """Forget keys whose entry is gone: deletions that are not remembered any more."""
        self._own = {key: stamp for key, stamp in self._own.items() if self._is_own(key)}

    def _is_own(self, key: str) -> bool:
        entry = self.map.entry(key)
        return entry is not None and entry.origin == self._origin

    def _note(self, key: str, old: Entry | None, new: Entry) -> None:
        if new.deleted:
            if old is not None:
                self._changes.append(KeyChange(key, None, b"", new.node, is_new=False))
        elif old is None or (old.encoding, old.value) != (new.encoding, new.value):
            change = KeyChange(key, new.encoding, new.value, new.node, is_new=old is None)
            self._changes.append(change)

    def is_ahead(self, wall_ms: int) -> bool:
        """Return whether stamps here are further ahead of a wall clock than is believed."""
        return self._clock.latest > self._clock.ceiling(wall_ms)

    def put_clock_back(self, wall_ms: int, life: bytes, now: float) -> int:
        """Write anew what was stamped too far ahead here; return how many entries that was.

        This node's clock was wrong, and nobody takes what it stamped. It is of a new origin from
        now on, since the old one's stamps would not ascend any more. What others stamped too far
        ahead is theirs to put right: `adopt` is for what they did not.
        """
        ceiling = self._clock.ceiling(wall_ms)
        self._clock.reset()
        self._origin = self._node + life
        self._own.clear()
        self.written = 0
        for _, entry in self.map.entries():
            if entry.stamp <= ceiling:
                self._clock.observe(entry.stamp)
        return self._write_anew(
            [
                (key, entry)
                for key, entry in self.map.entries()
                if entry.stamp > ceiling and entry.node == self._node
            ],
            wall_ms,
            now,
        )

    def adopt(self, wall_ms: int, now: float) -> int:
        """Write anew all that is stamped too far ahead; return how many entries that was."""
        ceiling = self._clock.ceiling(wall_ms)
        return self._write_anew(
            [(key, entry) for key, entry in self.map.entries() if entry.stamp > ceiling],
            wall_ms,
            now,
        )

    def _write_anew(self, entries: list[tuple[str, Entry]], wall_ms: int, now: float) -> int:
        for key, entry in sorted(entries, key=lambda each: each[1].stamp):
            self._write(key, entry.encoding, entry.value, wall_ms, now)
        return len(entries)

    # Learning

    def take(self, entries: Iterable[tuple[str, Entry]], wall_ms: int, now: float) -> Refusals:
        """Take what others wrote, as far as it can be believed and held."""
        ceiling = self._clock.ceiling(wall_ms)
        refusals = Refusals()
        for key, entry in entries:
            if entry.stamp > ceiling:
                refusals.ahead += 1
                continue
            self._clock.observe(entry.stamp)
            old = self.map.get(key)
            verdict = self.map.offer(key, entry, now, ceiling)
            if verdict is Verdict.TAKEN:
                self._own.pop(key, None)
                self._note(key, old, entry)
            elif verdict is Verdict.REFUSED:
                refusals.full += 1
        return refusals

    def drop(self, keys: Iterable[str], by: NodeId) -> None:
        """Remove keys that another replica has seen deleted, so long ago that it forgot when."""
        for key in keys:
            if self.map.get(key) is not None:
                self._changes.append(KeyChange(key, None, b"", by, is_new=False))
            self.map.remove(key)
            self._own.pop(key, None)

    # Telling

    def delta(self, since: int) -> Delta | None:
        """Return what was written here above a stamp, oldest first, as much as makes a piece.

        Of a key only what it holds now: however far a peer lags, nothing is kept for it.
        """
        if self.written <= since:
            return None
        keys = []
        for key in reversed(self._own):
            if self._own[key] <= since:
                break
            keys.append(key)
        entries: list[tuple[str, Entry]] = []
        room, until = self._options.shared_piece_bytes, since
        for key in reversed(keys):
            entry = self.map.entry(key)
            if entry is None or entry.origin != self._origin:
                continue  # gone meanwhile
            room -= len(key) + len(entry.value) + ENTRY_OVERHEAD_BYTES
            if entries and room < 0:
                return Delta(self._origin, since, until, entries)
            entries.append((key, entry))
            until = entry.stamp
        return Delta(self._origin, since, self.written, entries)
