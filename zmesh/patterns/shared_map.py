"""A last-writer-wins map as a value: what one replica holds, and how two become equal.

Every entry carries its stamp and its origin, one life of one replica. Of two entries of a key the
greater wins, stamp first, so all replicas choose alike in whatever order they learn of them. A
deletion is an entry as well (a tombstone), kept for a while.

Beside the entries a map knows how far it has *seen* each origin: everything that origin wrote up
to a stamp was here, or what replaced it. So where one of two replicas lacks a key, both can tell
why: it has seen the other's entry, which was deleted since; or it has not, and gets it. What a
deletion saw therefore stays deleted long after the tombstone was dropped (an observed-remove set
with a version vector: Bieniusa et al., "An Optimized Conflict-free Replicated Set", 2012).

Two replicas find what differs by sums of hashes over 256 buckets of keys.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum
from hashlib import blake2b
from typing import Final, NamedTuple
from zlib import crc32

from zmesh.ids import NODE_ID_BYTES, NodeId
from zmesh.options import NodeOptions

BUCKETS: Final = 256
LIFE_BYTES: Final = 8
ORIGIN_BYTES: Final = NODE_ID_BYTES + LIFE_BYTES
"""An origin is a node id and a random token: a replica that starts anew does not know its past."""

DELETED: Final = 255
"""Stands in the place of an entry's encoding where the key was deleted."""

ENTRY_OVERHEAD_BYTES: Final = 64
"""What an entry takes on the wire beside its key and value, and counts for in memory."""


class Entry(NamedTuple):
    """What a key holds. Entries of one key compare as tuples: the greatest wins."""

    stamp: int
    origin: bytes
    encoding: int
    value: bytes

    @property
    def deleted(self) -> bool:
        """Whether it says that the key was deleted."""
        return self.encoding == DELETED

    @property
    def node(self) -> NodeId:
        """Who wrote it."""
        return NodeId(self.origin[:NODE_ID_BYTES])


class Verdict(Enum):
    """What became of an entry that was offered."""

    TAKEN = "taken"
    KNOWN = "known"  # it, or what replaced it, has been here
    REFUSED = "refused"  # it is over a limit, or there is no room


def digest_of(key: str, entry: Entry) -> int:
    """Return 8 bytes that tell a key and its entry from all others."""
    name = key.encode()
    data = b"%d %d %d %b%b%b" % (
        entry.stamp, entry.encoding, len(name), entry.origin, name, entry.value,
    )  # fmt: skip
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def bucket_of(key: str) -> int:
    """Return the number of the bucket a key is in."""
    return crc32(key.encode()) % BUCKETS


class ReplicaMap:
    """The entries of one replica. Reading it as a mapping shows keys that are not deleted."""

    def __init__(self, options: NodeOptions) -> None:
        self._options = options
        self._entries: dict[str, Entry] = {}
        self._tombstones: dict[str, float] = {}  # keys, with when they came, oldest first
        self._buckets: list[dict[str, int]] = [{} for _ in range(BUCKETS)]  # digests by key
        self._sums = [0] * BUCKETS
        self._told_sums: bytes | None = None  # as they are told, until they change
        self._seen: dict[bytes, int] = {}  # origin -> stamp, what changed longest ago first
        self._beyond: dict[bytes, dict[int, None]] = {}  # stamps of entries that came ahead of it
        self._beyond_count = 0
        self.size = 0  # bytes
        self._changed: dict[str, None] | None = None  # keys, where somebody wants to know
        self._seen_further: dict[bytes, None] | None = None  # origins, likewise

    def __len__(self) -> int:
        return len(self._entries) - len(self._tombstones)

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._entries if key not in self._tombstones)

    def __contains__(self, key: object) -> bool:
        return key in self._entries and key not in self._tombstones

    @property
    def tombstones(self) -> int:
        """How many deletions are remembered one by one."""
        return len(self._tombstones)

    @property
    def seen(self) -> Mapping[bytes, int]:
        """How far each origin was seen."""
        return self._seen

    def get(self, key: str) -> Entry | None:
        """Return what a key holds; None where there is nothing, or it was deleted."""
        entry = self._entries.get(key)
        return None if entry is None or entry.deleted else entry

    def entry(self, key: str) -> Entry | None:
        """Return the entry of a key, a tombstone as well."""
        return self._entries.get(key)

    def entries(self) -> Iterable[tuple[str, Entry]]:
        """Return all keys and entries, tombstones as well."""
        return self._entries.items()

    # Changing

    def record(self, keys: dict[str, None], origins: dict[bytes, None]) -> None:
        """Put the keys that change into the one, from now on, and origins into the other."""
        self._changed, self._seen_further = keys, origins

    def restore(self, key: str, entry: Entry, now: float) -> None:
        """Put an entry that was here in an earlier life."""
        self._put(key, entry, now)
        self._note_beyond(entry)

    def has_room(self, key: str, value_size: int) -> bool:
        """Return whether an entry of this key would be taken."""
        old = self._entries.get(key)
        growth = value_size - len(old.value) if old is not None else _cost(key, value_size)
        if self.size + growth > self._options.shared_bytes_max:
            return False
        return (
            old is not None
            or len(self._entries) < self._options.shared_keys_max
            or any(map(self._is_covered, self._tombstones))
        )

    def write(self, key: str, entry: Entry, now: float) -> None:
        """Put an entry of this replica's own, which replaces whatever there is.

        `has_room` tells beforehand whether it may.
        """
        self._make_room(key)
        self._put(key, entry, now)
        self.note_seen(entry.origin, entry.stamp)

    def offer(self, key: str, entry: Entry, now: float, ceiling: int | None = None) -> Verdict:
        """Take another replica's entry, if it says more than what is here.

        What is here and is stamped above `ceiling` is not believed any more: every other wins.
        """
        old = self._entries.get(key)
        if old is None and self._has_seen(entry):
            return Verdict.KNOWN  # it was here, and was deleted
        is_believed = old is not None and (ceiling is None or old.stamp <= ceiling)
        if old is not None and (entry <= old if is_believed else entry == old):
            self._note_beyond(entry)
            return Verdict.KNOWN
        options = self._options
        if (
            len(entry.value) > options.shared_value_bytes_max
            or len(key.encode()) > options.shared_key_bytes_max
            or not self.has_room(key, len(entry.value))
        ):
            return Verdict.REFUSED
        self._make_room(key)
        self._put(key, entry, now)
        self._note_beyond(entry)
        return Verdict.TAKEN

    def _put(self, key: str, entry: Entry, now: float) -> None:
        self.remove(key)
        self._entries[key] = entry
        if self._changed is not None:
            self._changed[key] = None
        self.size += _cost(key, len(entry.value))
        if entry.deleted:
            self._tombstones[key] = now
        digest, bucket = digest_of(key, entry), bucket_of(key)
        self._buckets[bucket][key] = digest
        self._sums[bucket] ^= digest
        self._told_sums = None

    def remove(self, key: str) -> None:
        """Take a key out as if it had never been; what was seen stays seen."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        if self._changed is not None:
            self._changed[key] = None
        self.size -= _cost(key, len(entry.value))
        self._tombstones.pop(key, None)
        bucket = bucket_of(key)
        self._sums[bucket] ^= self._buckets[bucket].pop(key)
        self._told_sums = None

    def _make_room(self, key: str) -> None:
        """Drop the oldest tombstone that was seen where a new key would be one too many."""
        if key in self._entries or len(self._entries) < self._options.shared_keys_max:
            return
        self.remove(next(filter(self._is_covered, self._tombstones)))

    def _is_covered(self, key: str) -> bool:
        """Return whether a key's entry counts as seen even when it is not here any more."""
        return self._has_seen(self._entries[key])

    def expire(self, before: float) -> None:
        """Drop tombstones that came before a time; those not seen would only come again."""
        old = []
        for key, since in self._tombstones.items():
            if since >= before:
                break
            if self._is_covered(key):
                old.append(key)
        for key in old:
            self.remove(key)

    # What was seen

    def _has_seen(self, entry: Entry) -> bool:
        origin, stamp = entry.origin, entry.stamp
        return self._seen.get(origin, 0) >= stamp or stamp in self._beyond.get(origin, ())

    def _note_beyond(self, entry: Entry) -> None:
        """Remember an entry that came while others of its origin may be missing."""
        origin, stamp = entry.origin, entry.stamp
        if self._has_seen(entry):
            return
        self._beyond.setdefault(origin, {})[stamp] = None
        self._beyond_count += 1
        if self._beyond_count > self._options.shared_keys_max:
            first = next(iter(self._beyond))
            self._forget_beyond(first, next(iter(self._beyond[first])))

    def _forget_beyond(self, origin: bytes, up_to: int) -> None:
        stamps = self._beyond.get(origin)
        if stamps is None:
            return
        left = {stamp: None for stamp in stamps if stamp > up_to}
        self._beyond_count -= len(stamps) - len(left)
        if left:
            self._beyond[origin] = left
        else:
            del self._beyond[origin]

    def note_seen(self, origin: bytes, stamp: int) -> None:
        """Learn that all an origin wrote up to a stamp is here, or what replaced it."""
        if self._seen.get(origin, 0) >= stamp:
            return
        self._seen.pop(origin, None)
        self._seen[origin] = stamp
        self._forget_beyond(origin, stamp)
        if self._seen_further is not None:
            self._seen_further[origin] = None
        if len(self._seen) > self._options.shared_origins_max:
            oldest = next(iter(self._seen))
            del self._seen[oldest]
            if self._seen_further is not None:
                self._seen_further[oldest] = None

    def absorb(self, seen: Mapping[bytes, int]) -> None:
        """Learn that this replica has all that another one had."""
        for origin, stamp in seen.items():
            self.note_seen(origin, stamp)

    # What differs from another replica

    @property
    def sums(self) -> bytes:
        """The sums of all buckets, 8 bytes each."""
        if self._told_sums is None:
            self._told_sums = b"".join(total.to_bytes(8, "big") for total in self._sums)
        return self._told_sums

    @property
    def root(self) -> bytes:
        """8 bytes that tell this map's entries from all others."""
        return blake2b(self.sums, digest_size=8).digest()

    def differing(self, sums: bytes) -> list[int]:
        """Return the buckets in which another map, of which these are the sums, is different."""
        own = self.sums
        return [n for n in range(BUCKETS) if own[8 * n : 8 * n + 8] != sums[8 * n : 8 * n + 8]]

    def digests(self, bucket: int) -> Collection[int]:
        """Return the digests of all entries in a bucket."""
        return self._buckets[bucket].values()

    def missing(
        self, buckets: Iterable[int], known: Collection[int], bytes_max: int
    ) -> tuple[list[tuple[str, Entry]], bool]:
        """Return what these buckets hold beside what is known, and whether there is more.

        Stops at the first entry that would be over `bytes_max`, but returns one at least.
        """
        found: list[tuple[str, Entry]] = []
        size = 0
        for bucket in buckets:
            for key, digest in self._buckets[bucket].items():
                if digest in known:
                    continue
                entry = self._entries[key]
                size += _cost(key, len(entry.value))
                if found and size > bytes_max:
                    return found, True
                found.append((key, entry))
        return found, False

    def absent(self, buckets: Iterable[int], known: Iterable[int]) -> list[int]:
        """Return those of the digests that no entry in these buckets has."""
        here = {digest for bucket in buckets for digest in self._buckets[bucket].values()}
        return [digest for digest in known if digest not in here]

    def outdated(
        self, buckets: Iterable[int], absent: Collection[int], seen: Mapping[bytes, int]
    ) -> list[str]:
        """Return the keys here that another replica has seen and dropped: they were deleted.

        Args:
            buckets: that were compared.
            absent: digests of entries that the other replica has no version of.
            seen: how far it had seen each origin.
        """
        return [
            key
            for bucket in buckets
            for key, digest in self._buckets[bucket].items()
            if digest in absent
            and seen.get(self._entries[key].origin, 0) >= self._entries[key].stamp
        ]


def _cost(key: str, value_size: int) -> int:
    return len(key.encode()) + value_size + ENTRY_OVERHEAD_BYTES
