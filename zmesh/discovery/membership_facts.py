"""What membership is made of, and what is known of candidates and paths. Pure."""

from collections.abc import Iterable

from zmesh.actions import Dial, HangUp
from zmesh.deadlines import Agenda, Deadlines
from zmesh.discovery.candidates import Candidate, CandidateTable
from zmesh.discovery.endpoints import in_order, is_loopback, leading_to
from zmesh.discovery.hub_places import HubPlaces
from zmesh.discovery.membership_statistics import MembershipStatistics
from zmesh.discovery.pursuit import DialQueue, Phase, Pursuit
from zmesh.discovery.seeds import AskSchedule
from zmesh.events import PathCause
from zmesh.ids import Entropy, NodeId
from zmesh.options import NodeOptions
from zmesh.patience import Patience


class MembershipFacts:
    """The parts of membership, and what they know. `Membership` acts on it."""

    def __init__(
        self,
        local_id: NodeId,
        options: NodeOptions,
        entropy: Entropy,
        agenda: Agenda | None = None,
        *,
        is_edge: bool = False,
        patience: Patience | None = None,
    ) -> None:
        agenda = agenda or Agenda()
        self._patience = patience or Patience()
        self._is_edge = is_edge
        self._local_id = local_id
        self._options = options
        self._entropy = entropy
        self._table = CandidateTable(options.candidates_max, options.wire.endpoints_max)
        self._pursuits: dict[int, Pursuit] = {}  # by the candidate's serial
        self._paths: dict[int, Pursuit] = {}
        self._times: Deadlines[int] = Deadlines(agenda)
        self._queue = DialQueue(options)
        self._dial_at: float | None = None  # when a stranger's turn comes that waits for no other
        self._agenda = agenda
        self._places = HubPlaces(options.hubs_max, entropy) if is_edge else None
        self._asks = AskSchedule(options, entropy, agenda)
        self.orders: list[Dial | HangUp] = []  # to be had by `take_dials`
        self._here: tuple[str, ...] = ()  # our addresses
        self._own: dict[str, None] = {}  # our endpoints, told and found out
        self._confined = True  # to this machine
        self._last_path = 0
        self._dialing = 0
        self._counts = dict.fromkeys(
            (
                "dials",
                "failed",
                "itself",
                "wrong_node",
                "wrong_mesh",
                "unproved",
                "redundant",
                "edges",
                "forgotten",
                "not_trusted",
                "not_trusted_there",
                "revoked_there",
            ),
            0,
        )

    def expected(self, path: int) -> NodeId | None:
        """Return whom a dialed path leads to, as far as known."""
        pursuit = self._paths.get(path)
        return None if pursuit is None else pursuit.candidate.node

    def endpoint(self, path: int) -> str | None:
        """Return where a dialed path leads to; None once it ended."""
        pursuit = self._paths.get(path)
        return None if pursuit is None else pursuit.attempts[path].endpoint

    def telling(self, told: Iterable[str]) -> list[str]:
        """Return where to look whether a peer's process is there, of the endpoints it told of."""
        return leading_to(told, self._here, self._own)

    def may_be_elsewhere(self, told: Iterable[str]) -> bool:
        """Return whether a peer that told of loopback alone may be on another machine.

        Whoever dials out is a full member, wherever it listens. But nobody reaches a node that is
        confined to this machine from another.
        """
        telling = self.telling(told)
        return bool(telling) and not self._confined and all(map(is_loopback, telling))

    def judged(self, node: NodeId, endpoint: str, cause: PathCause | None) -> PathCause | None:
        """Return what the answer to a probe says of a node.

        Where its key and ours differ, that somebody accepts connections is no sign of it: it can
        never talk to us again, and is out of reach. Not gone at once, however, as where it
        refuses: it may be late with the file of a key that changes.
        """
        pursuit = self._pursuit(node)
        is_locked_out = pursuit is not None and endpoint in pursuit.locked_out
        return PathCause.UNREACHABLE if cause is None and is_locked_out else cause

    def causes(self) -> dict[str, PathCause]:
        """Return why the latest dials failed, by endpoint, of all that have no link."""
        causes: dict[str, PathCause] = {}
        for pursuit in self._pursuits.values():
            if not pursuit.candidate.linked:
                # While they are dialed again, too: that a key is another one stays as it is.
                causes.update(dict.fromkeys(pursuit.locked_out, PathCause.WRONG_KEY))
                causes.update(pursuit.causes)
        return causes

    def statistics(self) -> MembershipStatistics:
        """Return the counters."""
        linked = sum(pursuit.phase is Phase.LINKED for pursuit in self._pursuits.values())
        return MembershipStatistics(
            table=self._table.statistics(), linked=linked, dialing=self._dialing, **self._counts
        )

    def _pursuit(self, node: NodeId) -> Pursuit | None:
        candidate = self._table.get(node)
        return None if candidate is None else self._pursuits[candidate.serial]

    def _where(self, candidate: Candidate) -> list[str]:
        endpoints = candidate.endpoints(self._options.wire.endpoints_max)
        if candidate.is_edge:  # it dials us
            endpoints = [each for each in endpoints if each in candidate.pinned]
        if self._confined:
            endpoints = [
                each for each in endpoints if each in candidate.pinned or is_loopback(each)
            ]
        return [each for each in in_order(endpoints, self._here) if each not in self._own]

    def _linked_seeds(self) -> list[NodeId]:
        candidates = [(node, self._pursuit(node)) for node in self._table.seeds()]
        return [node for node, pursuit in candidates if pursuit and pursuit.phase is Phase.LINKED]
