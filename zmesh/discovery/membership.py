"""Membership: whom to dial, when and where. Pure; the engine owns one and forwards what happens.

Call every `on_...` when its fact happens, then perform `take_dials()` in order, and send WHO to
each of `take_asks(now)`. Call `on_timer(now)` when `deadline` has come.

- A dialed path is established: `on_dial_up`, and send WHO on it.
- IAM arrives on it: `on_identified` (of another mesh: `on_wrong_mesh`). Only with
  `Verdict.PROCEED` is a link to be made on the path; else the path is hung up already.
- A path ends by itself, whichever it was: `on_dial_failed` (no `HangUp` follows). Asking
  `expected` and `endpoint` before that tells whose it was: a refusal is evidence about the peer.
- A link opens, on whichever path: `on_linked`; it loses its path: `on_unlinked`.
- A `HangUp` of a path on which a handshake takes too long (`greeting_timeout`) must be told to its
  link as the end of the path.
- Peers named in IAM are `on_candidate(PEER, ...)`. IAM on a path that carries a link (the answer
  to an ask) brings nothing else.

Whom the operator did not write down is forgotten at last: `forget_after` seconds after the last
source vouched for it and the last link to it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from math import inf

from zmesh.actions import Dial, HangUp
from zmesh.deadlines import Agenda, Deadlines, earliest
from zmesh.discovery.candidates import (
    ITSELF,
    MDNS,
    Candidate,
    CandidateStatistics,
    CandidateTable,
    Change,
    Findings,
)
from zmesh.discovery.endpoints import Endpoint, dialable, in_order, is_loopback, leading_to
from zmesh.discovery.pursuit import Attempt, DialQueue, Phase, Pursuit, backoff, slow_backoff
from zmesh.discovery.seeds import AskSchedule
from zmesh.events import PathCause
from zmesh.ids import Entropy, NodeId, Path
from zmesh.options import NodeOptions

OWN_MAX = 64
"""Endpoints remembered as our own, found by dialing ourselves: above what one host listens on."""


class Verdict(Enum):
    """What to do with a path on which somebody said who it is."""

    PROCEED = "proceed"  # make the link on it
    ITSELF = "itself"  # this very node: hung up, and not dialed there again
    WRONG_NODE = "wrong_node"  # not whom the record named: hung up, the record is stale or a lie
    REDUNDANT = "redundant"  # linked already, or about to be on another path: hung up


class Unlinked(Enum):
    """Why a peer has no link any more."""

    PATH_DOWN = "path_down"  # and it may be there still: dialed at once
    LOST = "lost"  # declared dead: the same, its restart may come any moment
    LEFT = "left"  # it said BYE: no haste until it is announced again


@dataclass(frozen=True, slots=True)
class MembershipStatistics:
    """Counters since the start, and how many are what now."""

    table: CandidateStatistics
    linked: int
    dialing: int  # paths being tried now
    dials: int
    failed: int  # dials nobody answered in time
    itself: int
    wrong_node: int
    wrong_mesh: int
    unproved: int  # answers by somebody who did not prove to be whom it said
    not_trusted: int  # answers by nodes whose keys are not trusted here
    not_trusted_there: int  # answers by nodes that do not trust this node's key
    revoked_there: int  # of these, by nodes that say it was revoked
    redundant: int
    forgotten: int


class Membership:
    """Finds out whom to dial, when and where, from what sources say and dials bring.

    Args:
        local_id: this node, which is never dialed.
        options: bounds and times; see `NodeOptions`.
        entropy: for jitter; the same entropy and calls give the same dials.
        agenda: told when to look at `deadline`, for who does not ask after each call.
    """

    def __init__(
        self,
        local_id: NodeId,
        options: NodeOptions,
        entropy: Entropy,
        agenda: Agenda | None = None,
    ) -> None:
        agenda = agenda or Agenda()
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
                "forgotten",
                "not_trusted",
                "not_trusted_there",
                "revoked_there",
            ),
            0,
        )

    # What sources say

    def on_local_endpoints(self, endpoints: Iterable[str], now: float) -> None:
        """Learn where this node listens: not to be dialed, and the measure of near and far."""
        own, _ = dialable(endpoints, OWN_MAX)
        self._own = dict.fromkeys(own)
        self._here = tuple(dict.fromkeys(Endpoint.parse(text).host for text in own))
        # Who listens on loopback alone talks on loopback alone, whatever hints say: what goes over
        # a network has to be secured there first. What the operator wrote down is not a hint.
        self._confined = all(is_loopback(text) for text in own)
        # Another network: what failed may work now, and what was us may be somebody else.
        self.on_trust(now)

    def on_candidate(
        self, source: str, node: NodeId | None, name: str, endpoints: Iterable[str], now: float
    ) -> None:
        """Take in what a source says (event `CandidateFound`)."""
        if node != self._local_id:
            self._take_in(self._table.found(source, node, name, endpoints), source, now)
            self._fill(now)

    def on_candidate_gone(self, source: str, node: NodeId, now: float) -> None:
        """Learn that a source no longer vouches (event `CandidateGone`). Links stay."""
        self._table.gone(source, node)
        pursuit = self._pursuit(node)
        if pursuit is not None:
            self._settle(pursuit, now)
            self._fill(now)

    # What dials bring

    def on_dial_up(self, path: int, now: float) -> None:
        """Learn that a dialed path is established; now it is to say who it is."""
        pursuit = self._paths.get(path)
        if pursuit is not None and path != pursuit.winner:
            pursuit.attempts[path].deadline = now + self._options.dial_timeout
            self._settle(pursuit, now)

    def on_identified(
        self, path: int, node: NodeId, endpoints: Iterable[str], now: float
    ) -> Verdict:
        """Learn who answers on a dialed path (IAM), and where else that node listens."""
        pursuit = self._paths.get(path)
        if pursuit is None:
            return Verdict.REDUNDANT  # hung up meanwhile
        if path == pursuit.winner and node == pursuit.candidate.node:
            return Verdict.PROCEED  # said twice
        verdict = self._judge(pursuit, path, node, tuple(endpoints), now)
        if verdict is not Verdict.PROCEED:
            self._counts[verdict.value] += 1
        self._asks.on_seeds(self._linked_seeds(), now)
        self._fill(now)
        return verdict

    def on_wrong_mesh(self, path: int, now: float) -> None:
        """Learn that a node of another mesh answers on a dialed path."""
        if path in self._paths:
            self._counts["wrong_mesh"] += 1
            self._turn_away(path, now)

    def on_not_trusted(
        self, path: Path, now: float, *, by_them: bool = False, is_revoked: bool = False
    ) -> None:
        """Learn that a node is not to be linked: its key is not trusted, or ours not `by_them`."""
        self._counts["not_trusted_there" if by_them else "not_trusted"] += 1
        self._counts["revoked_there"] += is_revoked and by_them
        pursuit = self._paths.get(path) if isinstance(path, int) else None
        if isinstance(path, int) and pursuit is not None and pursuit.phase is not Phase.LINKED:
            self._turn_away(path, now)

    def _turn_away(self, path: int, now: float) -> None:
        """Hang up, and try again rarely."""
        pursuit = self._paths[path]
        has_won = path == pursuit.winner  # it said who it is
        pursuit.slow = True
        self._hang_up(pursuit, path)
        if has_won:
            self._round_failed(pursuit, now)
        self._settle(pursuit, now)
        self._fill(now)

    def on_trust(self, now: float) -> None:
        """Try again soon whom we have no link with: others are trusted now."""
        for pursuit in list(self._pursuits.values()):
            self._prompt(pursuit, now)
            self._settle(pursuit, now)
        self._fill(now)

    def on_unproved(self, path: int, now: float) -> None:
        """Learn that who answers on a dialed path does not prove to be whom it says.

        Whom the record named may well be at its other addresses: those go on being tried.
        """
        pursuit = self._paths.get(path)
        if pursuit is not None:
            self._counts["unproved"] += 1
            self._hang_up(pursuit, path)
            pursuit.next_dial = now
            self._settle(pursuit, now)
            self._fill(now)

    def on_dial_failed(self, path: int, cause: PathCause, now: float) -> None:
        """Learn that a dialed path ended, at whatever stage."""
        pursuit = self._paths.get(path)
        if pursuit is not None:
            self._fail(pursuit, path, cause, now)
            self._settle(pursuit, now)
            self._fill(now)

    # What links do

    def on_linked(
        self, node: NodeId, now: float, *, path: Path | None = None, endpoints: Iterable[str] = ()
    ) -> None:
        """Learn that a link is open. Every other dial to the node is hung up.

        Args:
            node: the peer.
            now: seconds.
            path: what carries the link; None: not known, and the path that won stays.
            endpoints: where the peer says it listens.
        """
        findings = self._table.ensure(node)
        for gone in findings.gone:
            self._drop(self._pursuits[gone.serial])
        candidate = findings.seen[0][0]
        pursuit = self._pursuits.get(candidate.serial) or self._pursue(candidate)
        keep = pursuit.winner if path is None else path
        self._hang_up_others(pursuit, keep)
        if isinstance(keep, int) and keep in pursuit.attempts:
            self._win(pursuit, keep, until=inf)
        pursuit.phase = Phase.LINKED
        pursuit.locked_out.clear()
        pursuit.due = pursuit.forget_at = None
        candidate.linked = candidate.proven = True
        candidate.failures = 0
        self._vouch_itself(node, endpoints, now)
        self._settle(pursuit, now)
        self._asks.on_seeds(self._linked_seeds(), now)
        self._fill(now)

    def on_unlinked(self, node: NodeId, now: float, reason: Unlinked = Unlinked.PATH_DOWN) -> None:
        """Learn that a peer's link has no path any more; one that was dialed is hung up."""
        pursuit = self._pursuit(node)
        if pursuit is None:
            return
        if reason is Unlinked.LEFT:
            self._retire(pursuit, now + slow_backoff(self._options, self._entropy))
        elif pursuit.phase is Phase.GREETED:
            self._round_failed(pursuit, now)
        elif pursuit.phase is Phase.LINKED:
            # Both ends dial, so a little jitter; a link that opens and falls at once waits longer.
            jitter = self._entropy.uniform(0.0, self._options.reconnect_min)
            self._retire(pursuit, max(now + jitter, pursuit.began + self._options.redial_gap))
        self._settle(pursuit, now)
        self._asks.on_seeds(self._linked_seeds(), now)
        self._fill(now)

    # Time, and what comes out

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due, in seconds; None: when something changes."""
        return earliest(self._times.next, self._asks.deadline, self._dial_at)

    def on_timer(self, now: float) -> None:
        """Do what is due."""
        for serial in self._times.due(now):
            pursuit = self._pursuits.get(serial)
            if pursuit is not None:
                self._settle(pursuit, now)
        self._fill(now)

    def take_dials(self) -> list[Dial | HangUp]:
        """Return the orders for the transport since the last call, to be performed in order."""
        orders, self.orders = self.orders, []
        return orders

    def take_asks(self, now: float) -> list[NodeId]:
        """Return the linked nodes to send WHO to, on the paths of their links."""
        return self._asks.take(now)

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

    # Within

    def _take_in(self, findings: Findings, source: str, now: float) -> None:
        for candidate in findings.gone:
            self._drop(self._pursuits[candidate.serial])
        for candidate, change in findings.seen:
            pursuit = self._pursuits.get(candidate.serial)
            if pursuit is None:
                pursuit = self._pursue(candidate)
                pursuit.due = now
                if candidate.node is not None and candidate.node < self._local_id:
                    pursuit.due += self._options.higher_id_dials_after
            elif change is Change.CHANGED and pursuit.phase is Phase.DIALING:
                pursuit.extend(self._where(candidate))
            elif change is Change.CHANGED or source == MDNS:
                self._prompt(pursuit, now)
            pursuit.forget_at = None
            self._settle(pursuit, now)

    def _vouch_itself(self, node: NodeId, endpoints: Iterable[str], now: float) -> None:
        said = tuple(endpoints)
        if said:
            self._take_in(self._table.found(ITSELF, node, "", said), ITSELF, now)

    def _pursuit(self, node: NodeId) -> Pursuit | None:
        candidate = self._table.get(node)
        return None if candidate is None else self._pursuits[candidate.serial]

    def _pursue(self, candidate: Candidate) -> Pursuit:
        pursuit = Pursuit(candidate)
        self._pursuits[candidate.serial] = pursuit
        return pursuit

    def _prompt(self, pursuit: Pursuit, now: float) -> None:
        """Begin the next round soon, for there is news (the first has its time already)."""
        if pursuit.phase is not Phase.RESTING or (pursuit.is_fresh and pursuit.due is not None):
            return
        soon = max(now, pursuit.began + self._options.redial_gap)
        pursuit.due = soon if pursuit.due is None else min(pursuit.due, soon)

    def _where(self, candidate: Candidate) -> list[str]:
        endpoints = candidate.endpoints(self._options.wire.endpoints_max)
        if self._confined:
            endpoints = [
                each for each in endpoints if each in candidate.pinned or is_loopback(each)
            ]
        return [each for each in in_order(endpoints, self._here) if each not in self._own]

    def _judge(
        self, pursuit: Pursuit, path: int, node: NodeId, endpoints: Iterable[str], now: float
    ) -> Verdict:
        attempt = pursuit.attempts[path]
        if path == pursuit.winner:  # was somebody else a moment ago
            self.orders.append(HangUp(path))
            self._fail(pursuit, path, PathCause.CLOSED, now)
            self._settle(pursuit, now)
            return Verdict.WRONG_NODE
        if node == self._local_id:
            self._own[attempt.endpoint] = None
            if len(self._own) > OWN_MAX:
                del self._own[next(iter(self._own))]
            return self._refuse(pursuit, path, Verdict.ITSELF, now)
        identified = self._table.identified(pursuit.candidate, attempt.endpoint, node)
        if identified is None:
            pursuit.slow = True
            return self._refuse(pursuit, path, Verdict.WRONG_NODE, now)
        owner, absorbed = identified
        target = self._pursuits.get(owner.serial) or self._pursue(owner)
        if target is not pursuit:
            target.attempts[path] = pursuit.attempts.pop(path)
            self._paths[path] = target
            if absorbed is None:
                self._settle(pursuit, now)
            else:
                self._drop(pursuit)
        owner.proven = True
        # It has answered: a loop that ran late must not hang it up for the time-out it just met.
        target.attempts[path].deadline = now + self._options.greeting_timeout
        self._vouch_itself(node, endpoints, now)
        if owner.linked:
            return self._refuse(target, path, Verdict.REDUNDANT, now)
        self._hang_up_others(target, path)
        self._win(target, path, until=now + self._options.greeting_timeout)
        target.phase = Phase.GREETED
        owner.linked = True
        self._settle(target, now)
        return Verdict.PROCEED

    def _refuse(self, pursuit: Pursuit, path: int, verdict: Verdict, now: float) -> Verdict:
        self._hang_up(pursuit, path)
        self._settle(pursuit, now)
        return verdict

    def _win(self, pursuit: Pursuit, path: int, until: float) -> None:
        if pursuit.winner != path:
            pursuit.winner = path
            self._dialing -= 1
        pursuit.attempts[path].deadline = until

    def _settle(self, pursuit: Pursuit, now: float) -> None:
        """Bring a pursuit up to the time, and note when to look at it again."""
        for path, attempt in list(pursuit.attempts.items()):
            if attempt.deadline <= now:
                self.orders.append(HangUp(path))
                self._fail(pursuit, path, PathCause.UNREACHABLE, now)
        if pursuit.is_over:
            self._round_failed(pursuit, now)
        if pursuit.phase is Phase.RESTING and not self._is_sought(pursuit, now):
            self._counts["forgotten"] += 1
            self._table.forget(pursuit.candidate)
            self._drop(pursuit)
            return
        if pursuit.phase is Phase.RESTING and pursuit.due is not None and pursuit.due <= now:
            endpoints = self._where(pursuit.candidate)
            pursuit.due = None
            if endpoints:
                pursuit.begin(endpoints, now)
        if pursuit.phase is Phase.DIALING and pursuit.untried and pursuit.next_dial <= now:
            self._queue.add(pursuit)
        self._times.set(pursuit.candidate.serial, pursuit.next_wake())

    def _is_sought(self, pursuit: Pursuit, now: float) -> bool:
        """Tell whether a candidate without link or dials is to be kept."""
        candidate = pursuit.candidate
        if candidate.is_lasting:
            pursuit.forget_at = None
            return True
        if not candidate.endpoints(1):
            return False
        if pursuit.forget_at is None:
            pursuit.forget_at = now + self._options.forget_after
        return now < pursuit.forget_at

    def _fill(self, now: float) -> None:
        """Dial for whoever's turn it is, while dials are free and strangers have a share left."""
        while self._dialing < self._options.dials_max:
            pursuit = self._queue.pop(now)
            if pursuit is None:
                break
            self._last_path += 1
            endpoint = pursuit.untried.popleft()
            deadline = now + self._options.dial_timeout
            pursuit.attempts[self._last_path] = Attempt(endpoint, deadline)
            pursuit.next_dial = now + self._options.dial_stagger
            self._paths[self._last_path] = pursuit
            self._dialing += 1
            self._counts["dials"] += 1
            self.orders.append(Dial(self._last_path, endpoint))
            self._settle(pursuit, now)
        before, self._dial_at = self._dial_at, None
        if self._dialing < self._options.dials_max:  # else the end of a dial comes first
            self._dial_at = self._queue.due
        if self._dial_at is not None and self._dial_at != before:
            self._agenda.look_at(self._dial_at)

    def _fail(self, pursuit: Pursuit, path: int, cause: PathCause, now: float) -> None:
        """Take note that a path ended."""
        won = path == pursuit.winner
        attempt = self._release(pursuit, path)
        if not won:
            self._counts["failed"] += 1
            pursuit.fail(attempt.endpoint, cause)
            pursuit.next_dial = now  # the next address need not wait out its stagger
        elif pursuit.phase is Phase.GREETED:
            pursuit.fail(attempt.endpoint, cause)
            self._round_failed(pursuit, now)

    def _round_failed(self, pursuit: Pursuit, now: float) -> None:
        pursuit.candidate.failures += 1
        if pursuit.slow and not pursuit.causes:  # else a lie at one address would delay the others
            wait = slow_backoff(self._options, self._entropy)
        else:
            wait = backoff(pursuit.candidate.failures, self._options, self._entropy)
        self._retire(pursuit, now + wait)

    def _retire(self, pursuit: Pursuit, due: float) -> None:
        self._hang_up_others(pursuit, keep=None)
        pursuit.rest(due)

    def _hang_up_others(self, pursuit: Pursuit, keep: Path | None) -> None:
        """End the round, whatever of it is left, but for the path that serves."""
        self._queue.discard(pursuit)
        pursuit.untried.clear()
        for path in list(pursuit.attempts):
            if path != keep:
                self._hang_up(pursuit, path)

    def _hang_up(self, pursuit: Pursuit, path: int) -> None:
        self.orders.append(HangUp(path))
        self._release(pursuit, path)

    def _release(self, pursuit: Pursuit, path: int) -> Attempt:
        del self._paths[path]
        if path == pursuit.winner:
            pursuit.winner = None
        else:
            self._dialing -= 1
        return pursuit.attempts.pop(path)

    def _drop(self, pursuit: Pursuit) -> None:
        """Stop caring about a candidate that left the table."""
        self._hang_up_others(pursuit, keep=None)
        self._times.discard(pursuit.candidate.serial)
        del self._pursuits[pursuit.candidate.serial]

    def _linked_seeds(self) -> list[NodeId]:
        candidates = [(node, self._pursuit(node)) for node in self._table.seeds()]
        return [node for node, pursuit in candidates if pursuit and pursuit.phase is Phase.LINKED]
