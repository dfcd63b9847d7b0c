"""Broken rules: each counted, and traced once a culprit and kind: no peer fills a log."""

from typing import Final

from zmesh.actions import Audited, AuditKind
from zmesh.core.turn import Turn
from zmesh.ids import NODE_ID_BYTES, NodeId

NOT_PROVED: Final = "not proved"
FLOOD: Final = "flood"
CUT_OFF: Final = "cut off"

_AUDITED: Final = {
    NOT_PROVED: AuditKind.NOT_PROVED,
    FLOOD: AuditKind.FLOODED,
    CUT_OFF: AuditKind.FLOODED,
}
"""Kinds that who guards the mesh is told of as well."""

_ROUTING_ID_BYTES: Final = 5


class Defects:
    """Counts defects by kind. What was traced is forgotten, oldest first, beyond `traced_max`."""

    def __init__(self, turn: Turn, traced_max: int) -> None:
        self._turn = turn
        self._traced_max = traced_max
        self._traced: dict[tuple[bytes, str], None] = {}
        self.counts: dict[str, int] = {}

    def note(self, whose: bytes, kind: str, detail: str, endpoint: str = "") -> None:
        """Count a defect of a peer (its id) or of a stranger (its path, or where it answers)."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if (whose, kind) in self._traced:
            return
        self._traced[whose, kind] = None
        if len(self._traced) > self._traced_max:
            del self._traced[next(iter(self._traced))]
        peer = self._turn.peers.get(NodeId(whose))
        # Of a stranger's path not the whole: the public key in it says nothing to people.
        shown = whose if len(whose) <= NODE_ID_BYTES else whose[:_ROUTING_ID_BYTES]
        name = peer.label if peer is not None else endpoint or shown.hex()
        audited = _AUDITED.get(kind)
        if audited is None:
            self._turn.trace("defect", 30, peer=name, kind=kind, detail=detail)
        else:
            known = "" if peer is None else name
            self._turn.actions.append(Audited(audited, known, endpoint, detail))
