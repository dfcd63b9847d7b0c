"""Inbound paths that are shut out: what they still say, and their key, for a while."""

from collections.abc import Callable

from zmesh.ids import CONNECTION_KEY_BYTES, Path


class Outcasts:
    """Paths of which nothing is read, and the connection keys that are not let in.

    Args:
        outcasts_max: how many paths are remembered, the latest.
        clock: seconds.
        is_guarded: whether paths end with the key of their connection.
    """

    def __init__(self, outcasts_max: int, clock: Callable[[], float], *, is_guarded: bool) -> None:
        self._outcasts_max = outcasts_max
        self._clock = clock
        self._is_guarded = is_guarded
        self._paths: dict[Path, float] = {}  # until when, oldest first
        self._keys: dict[bytes, float] = {}
        self._ended: dict[Path, None] = {}  # of the paths, those whose connection was ended

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, path: bytes, seconds: float) -> None:
        """Shut a path out for so long."""
        until = self._clock() + seconds
        self._paths.pop(path, None)
        self._ended.pop(path, None)
        self._paths[path] = until
        if self._is_guarded:
            key = path[-CONNECTION_KEY_BYTES:]
            self._keys.pop(key, None)
            self._keys[key] = until
        if len(self._paths) > self._outcasts_max:
            self._forget(next(iter(self._paths)))
        if len(self._keys) > self._outcasts_max:
            del self._keys[next(iter(self._keys))]

    def holds(self, path: Path) -> bool:
        """Whether nothing is to be read of a path."""
        until = self._paths.get(path)
        if until is None:
            return False
        if self._clock() < until:
            return True
        self._forget(path)
        return False

    def holds_key(self, key: bytes) -> bool:
        """Whether who has this key is not let in."""
        until = self._keys.get(key)
        if until is None:
            return False
        if self._clock() < until:
            return True
        del self._keys[key]
        return False

    def is_to_end(self, path: Path) -> bool:
        """Whether the connection of a path is still to be ended; once, however much it said."""
        if path in self._ended:
            return False
        self._ended[path] = None
        return True

    def _forget(self, path: Path) -> None:
        del self._paths[path]
        self._ended.pop(path, None)
