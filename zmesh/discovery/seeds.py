"""When to ask seeds again whom they know. Pure.

A seed's endpoint is dialed like any pinned one, and what it knows comes in its IAM. That is enough
to join: whoever joins later is told of us. Asking again heals the rest: nodes that forgot each
other in a partition which did not part them from the seed.
"""

from collections.abc import Sequence

from zmesh.deadlines import Agenda
from zmesh.ids import Entropy, NodeId
from zmesh.options import NodeOptions


class AskSchedule:
    """Linked seeds are asked in turns, one at a time, ever less often while nothing changes."""

    def __init__(self, options: NodeOptions, entropy: Entropy, agenda: Agenda) -> None:
        self._agenda = agenda
        self._options = options
        self._entropy = entropy
        self._seeds: list[NodeId] = []
        self._interval = options.ask_after
        self.deadline: float | None = None

    def on_seeds(self, linked: Sequence[NodeId], now: float) -> None:
        """Learn which seeds have a link now. A new one has just told whom it knows."""
        if not linked:
            self.deadline = None
        elif not set(linked) <= set(self._seeds):
            self._interval = self._options.ask_after
            self._plan(now)
        self._seeds = list(linked)

    def take(self, now: float) -> list[NodeId]:
        """Return whom to ask now, if anybody."""
        if self.deadline is None or now < self.deadline:
            return []
        self._interval = min(2 * self._interval, self._options.ask_after_max)
        self._plan(now)
        asked = self._seeds.pop(0)
        self._seeds.append(asked)
        return [asked]

    def _plan(self, now: float) -> None:
        # A quarter of jitter: the nodes of a mesh that started together do not ask together.
        self.deadline = now + self._interval * self._entropy.uniform(0.75, 1.25)
        self._agenda.look_at(self.deadline)
