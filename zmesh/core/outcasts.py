"""Connections that are not listened to: who goes on breaking rules costs others nothing more.

What is counted here is of paths. A peer's violations are its link's to count, and follow it from
one connection to the next; who has no link is known by its path alone, and the transport sees to
it that dialing anew is dear (`TransportOptions.shut_out_handshakes`).
"""

from zmesh.core.proofs import Rate
from zmesh.core.turn import Turn
from zmesh.ids import Path
from zmesh.options import NodeOptions
from zmesh.reliable.conduct import Conduct


class Outcasts:
    """What strangers' paths did wrong, and which paths nothing is taken from."""

    def __init__(self, options: NodeOptions, turn: Turn) -> None:
        self._options = options.link
        self._turn = turn
        self._paths_max = options.strangers_max
        self._vain_rate = Rate(options.path_proofs_per_second, options.path_proofs_burst)
        self._until: dict[Path, float] = {}  # oldest first, as the three are
        self._conducts: dict[Path, Conduct] = {}
        self._vain: dict[Path, float] = {}  # until when what each said in vain lasts
        self.cut_off = 0
        self.ignored = 0

    def __len__(self) -> int:
        return max(len(self._until), len(self._conducts), len(self._vain))

    def on_violation(self, path: Path) -> bool:
        """Count a broken packet of a path without peer; True where it was one too many."""
        conduct = self._conducts.pop(path, None) or Conduct(self._options, self._turn.now)
        self._conducts[path] = conduct  # to the end: who was quiet longest is forgotten first
        _trim(self._conducts, self._paths_max)
        return conduct.on_violation(self._turn.now)

    def on_vain(self, path: Path) -> bool:
        """Count an introduction without effect; True where they come faster than from anybody.

        As many are allowed as proofs are looked at: an honest node repeats a HELLO half as often.
        """
        now = self._turn.now
        busy = self._vain_rate.after(self._vain.pop(path, now), now)
        if busy is None:
            return True
        self._vain[path] = busy
        _trim(self._vain, self._paths_max)
        return False

    def add(self, path: Path, until: float) -> None:
        """Take nothing from a path until then."""
        self.forget(path)
        self._until[path] = until
        _trim(self._until, self._paths_max)
        self.cut_off += 1

    def holds(self, path: Path) -> bool:
        """Whether a packet of a path is to be dropped unread; counts it."""
        if path not in self._until:
            return False
        if self._turn.now >= self._until[path]:
            del self._until[path]
            return False
        self.ignored += 1
        return True

    def forget(self, path: Path) -> None:
        """A path ended."""
        self._until.pop(path, None)
        self._conducts.pop(path, None)
        self._vain.pop(path, None)


def _trim(table: dict[Path, Conduct] | dict[Path, float], paths_max: int) -> None:
    if len(table) > paths_max:
        del table[next(iter(table))]
