"""Trace actions as log lines: what goes wrong again and again is said once per peer and kind."""

import logging
from typing import Final

from zmesh.actions import Trace

logger = logging.getLogger("zmesh")

KINDS_MAX: Final = 4096
"""Peers and kinds remembered as already told; a flood of new ones pushes out the oldest."""


class TraceLog:
    """Writes the traces of one node."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._counts: dict[tuple[str, object, object], int] = {}

    def write(self, trace: Trace) -> None:
        """Log a trace; warnings that were told before go to the debug level, with their count."""
        level = trace.level
        fields = trace.fields
        if level >= logging.WARNING:
            count = self._count(trace)
            if count > 1:
                level, fields = logging.DEBUG, {**fields, "times": count}
        if logger.isEnabledFor(level):
            # As repr: what a peer put into a field cannot forge a line.
            told = " ".join(f"{name}={value!r}" for name, value in fields.items())
            logger.log(level, "%s: %s %s", self._node, trace.name.replace("_", " "), told)

    def count(self, name: str, peer: object = None, kind: object = None) -> int:
        """Return how often a warning came."""
        return self._counts.get((name, peer, kind), 0)

    def _count(self, trace: Trace) -> int:
        about = trace.fields.get("peer", trace.fields.get("queue"))
        key = (trace.name, about, trace.fields.get("kind"))
        count = self._counts.get(key, 0) + 1
        if count == 1 and len(self._counts) >= KINDS_MAX:
            del self._counts[next(iter(self._counts))]
        self._counts[key] = count
        return count
