"""Signed messages that were accepted: none is accepted twice by the same handler.

Whoever holds a signed message can send it again, so a receiver remembers the counters it accepted
until their signatures expire: as bits, so that a run of them costs next to nothing (the window of
RFC 4303 section 3.4.3, in the blocks of RFC 6479). What there is no room to remember is refused:
a window that is too large gives up its lowest counters, and takes none at or below them any more.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from zmesh.ids import JournalId, NodeId

BLOCK: Final = 256
"""Counters that share an entry of 150 bytes, whether one of them was accepted or all."""

EVICTED_SHARE: Final = 16
"""This part of the largest window goes at once, so that a full table costs little a message."""

Origin = tuple[NodeId, JournalId]


class Verdict(Enum):
    """What a table makes of a message."""

    NEW = "new"
    REPLAYED = "replayed"  # it was accepted before, or is being handled
    TOO_OLD = "too old"  # there is no telling any more


class Change(NamedTuple):
    """What differs from what was kept; without a value it is to be forgotten."""

    scope: str
    key: bytes  # origin, journal and number of the block; empty for the floor of the scope
    value: bytes | None


@dataclass(slots=True)
class _Window:
    """What one handler accepted from one origin."""

    born_ms: int  # nothing is known of what was signed until then
    blocks: dict[int, int] = field(default_factory=dict)  # bits by the number of the block
    pending: dict[int, int] = field(default_factory=dict)  # counters being handled: how often
    floor: int = 0  # counters below are not told apart any more
    signed_ms: int = 0  # the latest that was accepted
    until_ms: int = 0  # when all that was accepted has expired

    def begin(self, counter: int) -> None:
        """A message is being handled; one that is surely no replay perhaps once more."""
        self.pending[counter] = self.pending.get(counter, 0) + 1

    def end(self, counter: int) -> None:
        """It is not any more, or once less."""
        times = self.pending.pop(counter, 0)
        if times > 1:
            self.pending[counter] = times - 1


class ReplayTable:
    """The memory of one node. Times are in milliseconds, by its wall clock.

    Args:
        blocks_max: entries, of all windows together.
        windows_max: pairs of handler and origin.
        lost_ms: what was signed until then may have been accepted in a life of which nothing is
            known, by handlers that are the same in all lives.
    """

    def __init__(self, blocks_max: int, windows_max: int, lost_ms: int = 0) -> None:
        self.blocks = 0
        self._blocks_max = blocks_max
        self._windows_max = windows_max
        self._lost_ms = lost_ms
        self._windows: dict[tuple[str, Origin], _Window] = {}
        self._kept: set[str] = set()  # scopes of which another life must know
        self._floors: dict[str, int] = {}  # of scopes that gave up a whole window
        self._changed: dict[tuple[str, Origin | None, int], None] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def begin(
        self,
        scope: str,
        origin: Origin,
        counter: int,
        signed_ms: int,
        *,
        is_kept: bool,
        is_sure: bool = False,
    ) -> Verdict:
        """Say whether a message may be handled now; call `finish` or `forget` when it is over.

        Args:
            scope: the handler.
            origin: who signed it, and its journal.
            counter: its number there.
            signed_ms: when.
            is_kept: whether the handler is the same one in another life of this node.
            is_sure: whether it comes from its origin itself, so that it is no replay.
        """
        if is_kept:
            self._kept.add(scope)
        window = self._windows.get((scope, origin))
        if window is None:
            born_ms = max(self._floors.get(scope, 0), self._lost_ms if is_kept else 0)
            window = self._windows[scope, origin] = _Window(born_ms)
        verdict = Verdict.NEW if is_sure else _verdict(window, counter, signed_ms)
        if verdict is Verdict.NEW:
            window.begin(counter)
        elif _is_empty(window):
            del self._windows[scope, origin]
        return verdict

    def finish(
        self, scope: str, origin: Origin, counter: int, signed_ms: int, until_ms: int, now_ms: int
    ) -> None:
        """Note that a message that was begun is accepted; it counts as such until `until_ms`."""
        window = self._windows.get((scope, origin))
        if window is None:
            return  # its handler has gone meanwhile
        number, bit = divmod(counter, BLOCK)
        if number not in window.blocks and counter >= window.floor:
            self._make_room(now_ms)
        window.end(counter)
        if counter >= window.floor:  # else it is not taken again either way
            if number not in window.blocks:
                self.blocks += 1
            window.blocks[number] = window.blocks.get(number, 0) | 1 << bit
            window.signed_ms = max(window.signed_ms, signed_ms)
            window.until_ms = max(window.until_ms, until_ms)
            self._note(scope, origin, number)
        self._give_up_windows(now_ms)

    def forget(self, scope: str, origin: Origin, counter: int, now_ms: int) -> None:
        """Note that a message was not accepted, and may be when it comes again."""
        window = self._windows.get((scope, origin))
        if window is not None:
            window.end(counter)
            if _is_empty(window):
                del self._windows[scope, origin]
            self._give_up_windows(now_ms)

    def was_accepted(self, scope: str, origin: Origin, counter: int) -> bool:
        """Return whether it is known that a message was accepted: it is not being handled."""
        window = self._windows.get((scope, origin))
        if window is None:
            return False
        number, bit = divmod(counter, BLOCK)
        return counter not in window.pending and bool(window.blocks.get(number, 0) >> bit & 1)

    def drop(self, scope: str) -> None:
        """Forget a handler that has gone for good, and what it accepted."""
        self._floors.pop(scope, None)
        for key in [key for key in self._windows if key[0] == scope]:
            self.blocks -= len(self._windows.pop(key).blocks)

    # Room

    def _make_room(self, now_ms: int) -> None:
        """Make room for one block more, whose window is pending and stays."""
        if self.blocks >= self._blocks_max:
            self._remove_expired(now_ms)
        while self.blocks >= self._blocks_max:
            self._evict()

    def _give_up_windows(self, now_ms: int) -> None:
        """Have no more than there may be, but for those in which something is being handled."""
        if len(self._windows) > self._windows_max:
            self._remove_expired(now_ms)
        while len(self._windows) > self._windows_max:
            idle = [key for key, window in self._windows.items() if not window.pending]
            if not idle:
                break
            oldest = min(idle, key=lambda key: self._windows[key].signed_ms)
            # What it accepted is known by no counter from now on, only by its time.
            self._raise_floor(oldest[0], self._windows[oldest].signed_ms)
            self._remove(oldest)

    def _remove_expired(self, now_ms: int) -> None:
        for key, window in list(self._windows.items()):
            if window.until_ms < now_ms and not window.pending:
                self._remove(key)

    def _evict(self) -> None:
        """Have the largest window give up its lowest counters: who sends most pays."""
        key, window = max(self._windows.items(), key=lambda item: len(item[1].blocks))
        numbers = sorted(window.blocks)
        self._note(*key, window.floor // BLOCK)
        for number in numbers[: 1 + len(numbers) // EVICTED_SHARE]:
            del window.blocks[number]
            self.blocks -= 1
            window.floor = (number + 1) * BLOCK
            self._note(*key, number)
        self._note(*key, window.floor // BLOCK)

    def _raise_floor(self, scope: str, signed_ms: int) -> None:
        self._floors[scope] = max(self._floors.get(scope, 0), signed_ms)
        if scope in self._kept:
            self._changed[scope, None, 0] = None

    def _remove(self, key: tuple[str, Origin]) -> None:
        window = self._windows.pop(key)
        self.blocks -= len(window.blocks)
        for number in (*window.blocks, window.floor // BLOCK):
            self._note(*key, number)

    # Another life

    def _note(self, scope: str, origin: Origin, number: int) -> None:
        if scope in self._kept:
            self._changed[scope, origin, number] = None

    def take_changes(self) -> list[Change]:
        """Return what is to be kept, or forgotten, since the last time."""
        changed, self._changed = self._changed, {}
        return [self._change(*key) for key in changed]

    def _change(self, scope: str, origin: Origin | None, number: int) -> Change:
        if origin is None:
            return Change(scope, b"", self._floors[scope].to_bytes(8))
        key = b"".join((*origin, number.to_bytes(8)))
        window = self._windows.get((scope, origin))
        is_there = window is not None and (
            number in window.blocks or (window.floor > 0 and number == window.floor // BLOCK)
        )
        if window is None or not is_there:
            return Change(scope, key, None)
        times = (window.born_ms, window.floor, window.signed_ms, window.until_ms)
        bits = window.blocks.get(number, 0)
        value = b"".join(each.to_bytes(8) for each in times) + bits.to_bytes(BLOCK // 8)
        return Change(scope, key, value)

    def restore(self, kept: Iterable[tuple[str, bytes, bytes]], lost_ms: int, now_ms: int) -> None:
        """Take what another life kept; it may have ended with more than there may be now.

        Args:
            kept: scopes, keys and values of `Change`s.
            lost_ms: some of what was signed until then may be missing there.
            now_ms: what expired before is not needed.
        """
        self._lost_ms = max(self._lost_ms, lost_ms)
        for scope, key, value in kept:
            self._kept.add(scope)
            if not key:
                self._floors[scope] = int.from_bytes(value)
                continue
            origin = (NodeId(key[:16]), JournalId(key[16:32]))
            times = (int.from_bytes(value[at : at + 8]) for at in range(0, 32, 8))
            born_ms, floor, signed_ms, until_ms = times
            born_ms = max(born_ms, lost_ms)
            window = self._windows.setdefault((scope, origin), _Window(born_ms))
            window.floor = max(window.floor, floor)
            window.signed_ms = max(window.signed_ms, signed_ms)
            window.until_ms = max(window.until_ms, until_ms)
            if bits := int.from_bytes(value[32:]):
                window.blocks[int.from_bytes(key[32:])] = bits
                self.blocks += 1
        self._give_up_windows(now_ms)
        while self.blocks > self._blocks_max:
            self._evict()


def _verdict(window: _Window, counter: int, signed_ms: int) -> Verdict:
    if counter < window.floor or signed_ms <= window.born_ms:
        return Verdict.TOO_OLD
    number, bit = divmod(counter, BLOCK)
    if counter in window.pending or window.blocks.get(number, 0) >> bit & 1:
        return Verdict.REPLAYED
    return Verdict.NEW


def _is_empty(window: _Window) -> bool:
    return not (window.pending or window.blocks or window.floor)
