"""Broken rules: each counted, and traced once a culprit and kind: no peer fills a log."""

from zmesh.core.turn import Turn
from zmesh.ids import NodeId


class Defects:
    """Counts defects by kind. What was traced is forgotten, oldest first, beyond `traced_max`."""

    def __init__(self, turn: Turn, traced_max: int) -> None:
        self._turn = turn
        self._traced_max = traced_max
        self._traced: dict[tuple[bytes, str], None] = {}
        self.counts: dict[str, int] = {}

    def note(self, whose: bytes, kind: str, detail: str) -> None:
        """Count a defect of a peer (its id) or of a stranger (its path)."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if (whose, kind) in self._traced:
            return
        self._traced[whose, kind] = None
        if len(self._traced) > self._traced_max:
            del self._traced[next(iter(self._traced))]
        peer = self._turn.peers.get(NodeId(whose))
        name = peer.label if peer is not None else whose.hex()
        self._turn.trace("defect", 30, peer=name, kind=kind, detail=detail)
