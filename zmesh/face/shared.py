"""Shared maps as the application holds them: reading, writing and watching a replica."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Final, Protocol, Self
from weakref import WeakSet

from zmesh.actions import KeyChange
from zmesh.errors import Closed, InvalidOption, UsageError, ZmeshError
from zmesh.events import Event
from zmesh.face.checks import check_is_text, check_timeout, check_yes_no
from zmesh.face.storing import Storing
from zmesh.map_events import CloseState, OpenState, WallClockRead, WriteState
from zmesh.message import Ticket
from zmesh.options import NodeOptions
from zmesh.patterns.shared_map import Entry, ReplicaMap
from zmesh.patterns.shared_state import SharedState
from zmesh.wire.bodies import check_text, decode_body, encode_body

CLOCK_EVERY: Final = 1.0
"""Seconds between looks at the wall clock, while there are shared maps."""

_WRITE_OVERHEAD: Final = 512
"""What a write takes on disk beside its key and value, at most: `ROW_OVERHEAD_BYTES`, stamps."""


class Absent(Enum):
    """What `compare_and_set` expects of a key that is to be new: `zmesh.ABSENT`."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "zmesh.ABSENT"


ABSENT: Final = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Change:
    """A key of a shared map has another value, or none any more."""

    key: str
    deleted: bool
    by: str  # the id of the node that wrote it, as hex
    _encoding: int = field(repr=False)
    _value: bytes = field(repr=False)

    @property
    def value(self) -> Any:
        """The new value, decoded anew each time; None where the key was deleted."""
        return None if self.deleted else decode_body(self._encoding, self._value)


class MapWatcher:
    """`async for change in config.watch()`: what the keys hold, then every change.

    Of a key that changes while nobody reads, only the latest is told, and nothing of one that
    came and went: so a watcher that lags takes no more room than the map. It ends when the map or
    the node closes, after what happened was read. One task reads it.
    """

    def __init__(self, prefix: str, present: list[KeyChange]) -> None:
        self._prefix = prefix
        self._pending: dict[str, KeyChange] = {}  # the latest of each key, not read yet
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        self._failure: str | None = None
        for change in present:
            self.add(change)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        while not self._pending:
            if self._is_closed:
                if self._failure is not None:
                    raise Closed(self._failure)
                raise StopAsyncIteration
            if self._waiter is not None and not self._waiter.done():
                raise UsageError("another task waits in this watch: begin one of its own")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        change = self._pending.pop(next(iter(self._pending)))
        deleted = change.encoding is None
        return Change(change.key, deleted, change.node.hex(), change.encoding or 0, change.value)

    def add(self, change: KeyChange) -> None:
        """Tell the watcher of a change."""
        if not change.key.startswith(self._prefix):
            return
        unread = self._pending.pop(change.key, None)
        is_new = change.is_new if unread is None else unread.is_new
        if change.encoding is None and is_new:
            return  # it has not been told that the key was there
        self._pending[change.key] = KeyChange(
            change.key, change.encoding, change.value, change.node, is_new
        )
        self._wake()

    def close(self, failure: str | None) -> None:
        """End the watch once what happened has been read; a failure is told."""
        self._is_closed = True
        self._failure = failure
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class SharedMap:
    """A map that every node which asks for it by name holds as a replica of its own.

    Reading is local and immediate: `config.get("rate", 5)`, `config["rate"]`, `in`, `len`,
    iteration over the keys, `items()`. Values are decoded anew each time, so changing one changes
    nothing but the copy.

    Writing takes effect here at once and is told to all other replicas. Where several write a key
    at the same time, all replicas end with the value of the same one, the latest by a hybrid
    logical clock: the other writes are lost, and their writers are not told. It is the right place
    for configuration and status, and the wrong one for counters, locks and money.
    """

    def __init__(self, maps: "SharedMaps", name: str, check: Callable[[], object]) -> None:
        self.name = name
        self._maps = maps
        self._check_node = check  # raises where the node cannot be used
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<SharedMap {self.name!r}>"

    @property
    def is_complete(self) -> bool:
        """Whether it had a snapshot from a live replica, or knew of none to have one from."""
        self._check()
        return self._maps.is_complete(self.name)

    # Reading

    def get(self, key: str, default: Any = None) -> Any:
        """Return what a key holds here, or the default."""
        entry = self._entries.get(key)
        return default if entry is None else decode_body(entry.encoding, entry.value)

    def __getitem__(self, key: str) -> Any:
        entry = self._entries.get(key)
        if entry is None:
            raise KeyError(key)
        return decode_body(entry.encoding, entry.value)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> list[str]:
        """Return the keys there are now."""
        return list(self._entries)

    def items(self) -> list[tuple[str, Any]]:
        """Return the keys there are now, with their values."""
        return [(key, decode_body(entry.encoding, entry.value)) for key, entry in self._present()]

    def _present(self) -> list[tuple[str, Entry]]:
        return [(key, entry) for key, entry in self._entries.entries() if not entry.deleted]

    # Writing

    async def set(self, key: str, value: Any) -> None:
        """Set a key. It is so here when this returns; the other replicas hear of it.

        Where the node has storage it is on disk as well.

        Args:
            key: a text.
            value: bytes, or anything msgpack can carry.

        Raises:
            InvalidOption: a key that is no text or too long, or a value that is too large.
            BodyNotEncodable: the value cannot be encoded.
            MapFull: there is no room for it.
            JournalFull, JournalBroken: it is not on disk. Where it was clear beforehand nothing
                was set; else it is set, and is stored as soon as there is room.
        """
        await self._done(self._write(key, value))

    async def _done(self, stored: "asyncio.Future[ZmeshError | None] | None") -> None:
        if stored is None:
            await asyncio.sleep(0)  # a loop of writes lets other tasks run
            return
        error = await stored
        if error is not None:
            raise error

    async def delete(self, key: str) -> bool:
        """Delete a key everywhere; return whether it was there.

        Raises:
            InvalidOption: a key that cannot be.
            JournalFull, JournalBroken: as `set`.
        """
        self._check()
        self._maps.check_key(key)
        was_there = key in self._entries
        if was_there:
            self._maps.check_room(key, b"")
        await self._done(self._maps.write(self.name, key, None, b"") if was_there else None)
        return was_there

    async def compare_and_set(self, key: str, expected: Any, value: Any) -> bool:
        """Set a key if it holds what is expected *here and now*; return whether it was set.

        No other task of this process comes between looking and writing. Another node can: two that
        do so at the same time both return True, and the later one wins everywhere. There is no
        agreement behind it; where one is needed, let one node decide, and call it.

        Args:
            key: a text.
            expected: the value it holds, or `zmesh.ABSENT`.
            value: what it is to hold then.

        Raises:
            InvalidOption, BodyNotEncodable, MapFull, JournalFull, JournalBroken: as `set`.
        """
        self._check()
        self._maps.check_key(key)
        entry = self._entries.get(key)
        if expected is ABSENT or entry is None:
            is_as_expected = expected is ABSENT and entry is None
        else:  # as it would come back: a tuple as a list
            wanted = decode_body(*encode_body(expected))
            is_as_expected = decode_body(entry.encoding, entry.value) == wanted
        await self._done(self._write(key, value) if is_as_expected else None)
        return is_as_expected

    def _write(self, key: str, value: Any) -> "asyncio.Future[ZmeshError | None] | None":
        self._check()
        self._maps.check_key(key)
        encoding, view = encode_body(value)
        data = bytes(view)
        self._maps.check_room(key, data)
        return self._maps.write(self.name, key, int(encoding), data)

    # Watching

    def watch(self, prefix: str = "", *, initial: bool = True) -> MapWatcher:
        """Return an iterator of changes, made here or elsewhere.

        Args:
            prefix: of the keys that matter.
            initial: begin with what the keys hold now.
        """
        check_is_text("prefix", prefix)
        check_yes_no("initial", initial)
        present = [
            KeyChange(key, entry.encoding, entry.value, entry.node, is_new=True)
            for key, entry in (self._present() if initial else ())
        ]
        self._check()
        return self._maps.watch(self.name, prefix, present)

    # Ending

    async def close(self, *, forget: bool = False) -> None:
        """Hold the replica no longer, unless it is open elsewhere in this process.

        What peers were not told yet is still sent. When no replica is left, the map is gone, but
        for what nodes with storage keep of it on disk.

        Args:
            forget: remove it from this node's disk, once it is not open any more.
        """
        check_yes_no("forget", forget)
        if not self._is_closed:
            self._is_closed = True
            gone = self._maps.release(self.name, forget=forget)
            if gone is not None:
                await self._done(gone)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _check(self) -> None:
        self._check_node()
        if self._is_closed:
            raise Closed("shared map")

    @property
    def _entries(self) -> ReplicaMap:
        self._check()
        return self._maps.entries(self.name)


class Listener(Protocol):
    """Who is told of all changes of a map."""

    def add(self, change: KeyChange) -> None:
        """Take in a change."""
        ...

    def close(self, failure: str | None) -> None:
        """Take note that there will be no more; a failure is the reason."""
        ...


class _Opened:
    """A map of this node, and who uses it."""

    def __init__(self) -> None:
        self.handles = 0
        self.is_forgotten = False  # on disk too, when it closes
        self.listeners: WeakSet[Listener] = WeakSet()
        self.waiters: list[asyncio.Future[None]] = []


class SharedMaps:
    """All shared maps of a node, by name.

    Args:
        loop: of the node.
        command: takes commands for the engine.
        flush: lets the engine have them now.
        state: what the engine holds.
        options: the bounds.
        storing: the journal, where there is one.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        command: Callable[[Event], None],
        flush: Callable[[], None],
        state: SharedState,
        options: NodeOptions,
        storing: Storing | None = None,
    ) -> None:
        self._loop = loop
        self._command = command
        self._flush = flush
        self._state = state
        self._options = options
        self._storing = storing
        self._waiting: dict[Ticket, asyncio.Future[ZmeshError | None]] = {}
        self._open: dict[str, _Opened] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed: str | None = None

    def __len__(self) -> int:
        return len(self._open)

    async def open(
        self,
        name: str,
        timeout: float | None,  # noqa: ASYNC109  # it ends the waiting and is no error
        check: Callable[[], object],
    ) -> SharedMap:
        """Open a map, and wait until there is something to read, for so long at most.

        Raises:
            InvalidOption, UsageError: the name cannot be, or there are too many.
            Closed: the node was closed meanwhile.
        """
        check_is_text("name", name)
        if not name:
            raise InvalidOption("name", name, 'a name, as in node.shared("config")')
        check_text("name", name, self._options.wire)
        check_timeout(timeout)
        self._state.check_open(name)
        opened = self._open.setdefault(name, _Opened())
        opened.handles += 1
        if opened.handles == 1:
            self._tell(OpenState(name, _wall_ms()))
            if self._timer is None:
                self._timer = self._loop.call_later(CLOCK_EVERY, self._read_clock)
        try:
            await self._wait(name, opened, timeout)
        except BaseException:
            self.release(name)
            raise
        return SharedMap(self, name, check)

    async def _wait(self, name: str, opened: _Opened, seconds: float | None) -> None:
        if self._state.is_whole(name):
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        opened.waiters.append(waiter)
        try:
            await asyncio.wait([waiter], timeout=seconds)
        finally:
            if waiter in opened.waiters:
                opened.waiters.remove(waiter)
            waiter.cancel()
        if self._closed is not None:
            raise Closed(self._closed)

    def release(
        self, name: str, *, forget: bool = False
    ) -> "asyncio.Future[ZmeshError | None] | None":
        """Count a handle less; with the last one the map closes.

        Return what tells that it is gone from the disk, where it is forgotten now.
        """
        opened = self._open.get(name)
        if opened is None:
            return None
        opened.handles -= 1
        opened.is_forgotten |= forget
        if opened.handles:
            return None
        del self._open[name]
        ticket, gone = self._new_ticket() if opened.is_forgotten else (None, None)
        self._tell(CloseState(name, ticket))
        _end(opened, None)
        if not self._open:
            self._stop_clock()
        return gone

    def _new_ticket(
        self,
    ) -> "tuple[Ticket, asyncio.Future[ZmeshError | None]] | tuple[None, None]":
        """Return what waits for the disk; nothing where there is none."""
        if self._storing is None:
            return None, None
        ticket = Ticket()
        stored = self._waiting[ticket] = self._loop.create_future()
        return ticket, stored

    def stored(self, tickets: list[Ticket], error: ZmeshError | None) -> None:
        """Let go those whose changes are on disk, or refused."""
        for ticket in tickets:
            stored = self._waiting.pop(ticket, None)
            if stored is not None and not stored.done():
                stored.set_result(error)

    def close(self, failure: str | None = None) -> None:
        """End all watching and waiting; the node closes."""
        self._closed = failure or "node"
        self._stop_clock()
        self.stored(list(self._waiting), Closed(self._closed))
        while self._open:
            _end(self._open.popitem()[1], failure)

    # For the handles

    def check_key(self, key: object) -> None:
        """Raise InvalidOption where a key cannot be."""
        check_is_text("key", key)
        assert isinstance(key, str)  # noqa: S101  # just checked
        limit = self._options.shared_key_bytes_max
        if not key:
            raise InvalidOption("key", key, "a text that is not empty")
        check_text("key", key, self._options.wire)
        size = len(key.encode())
        if size > limit:
            raise InvalidOption("size of key", size, f"at most {limit} bytes of UTF-8")

    def write(
        self, name: str, key: str, encoding: int | None, value: bytes
    ) -> "asyncio.Future[ZmeshError | None] | None":
        """Set or delete a key, at once; return what tells that it is on disk, where there is one.

        Raises:
            InvalidOption, MapFull: nothing was done.
        """
        self._state.check_write(name, key, len(value))
        ticket, stored = self._new_ticket()
        self._tell(WriteState(name, key, encoding, value, _wall_ms(), ticket))
        return stored

    def check_room(self, key: str, value: bytes) -> None:
        """Raise JournalFull or JournalBroken where a write clearly has no room on disk."""
        if self._storing is not None:
            self._storing.check_room(len(value) + len(key) + _WRITE_OVERHEAD)

    def entries(self, name: str) -> ReplicaMap:
        """Return what a map holds here."""
        entries = self._state.map(name)
        if entries is None:
            raise Closed("shared map")
        return entries

    def is_complete(self, name: str) -> bool:
        """Return whether a map had a snapshot, or there was none to have."""
        return self._state.is_whole(name)

    def watch(self, name: str, prefix: str, present: list[KeyChange]) -> MapWatcher:
        """Return a watcher that gets all changes of a map from now on."""
        watcher = MapWatcher(prefix, present)
        self.follow(name, watcher)
        return watcher

    def follow(self, name: str, listener: Listener) -> None:
        """Tell a listener of all changes of a map from now on, for as long as it exists."""
        self._open[name].listeners.add(listener)

    def _tell(self, command: Event) -> None:
        self._command(command)
        self._flush()  # who wrote reads what it wrote

    # What the engine tells

    def changed(self, name: str, changes: list[KeyChange]) -> None:
        """Tell those who watch a map."""
        opened = self._open.get(name)
        if opened is None:
            return
        for listener in list(opened.listeners):
            for change in changes:
                listener.add(change)

    def ready(self, name: str) -> None:
        """Let those go on who wait for a map's snapshot."""
        opened = self._open.get(name)
        if opened is not None:
            _wake(opened)

    # Wall time

    def _read_clock(self) -> None:
        self._timer = self._loop.call_later(CLOCK_EVERY, self._read_clock)
        self._command(WallClockRead(_wall_ms()))

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _wake(opened: _Opened) -> None:
    waiters, opened.waiters = opened.waiters, []
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def _end(opened: _Opened, failure: str | None) -> None:
    for listener in list(opened.listeners):
        listener.close(failure)
    _wake(opened)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
