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
from enum import Enum
from math import inf

from zmesh.actions import Dial, HangUp
from zmesh.deadlines import earliest
from zmesh.discovery.candidates import (
    ITSELF,
    MDNS,
    Candidate,
    Change,
    Findings,
)
from zmesh.discovery.endpoints import Endpoint, dialable, is_loopback
from zmesh.discovery.membership_facts import MembershipFacts
from zmesh.discovery.pursuit import Attempt, Phase, Pursuit, backoff, slow_backoff
from zmesh.events import PathCause
from zmesh.ids import NodeId, Path

OWN_MAX = 64
"""Endpoints remembered as our own, found by dialing ourselves: above what one host listens on."""


class Verdict(Enum):
    """What to do with a path on which somebody said who it is."""

    PROCEED = "proceed"  # make the link on it
    ITSELF = "itself"  # this very node: hung up, and not dialed there again
    WRONG_NODE = "wrong_node"  # not whom the record named: hung up, the record is stale or a lie
    REDUNDANT = "redundant"  # linked already, or about to be on another path: hung up
    EDGES = "edges"  # an edge as this node is: hung up, and tried again rarely


class Unlinked(Enum):
    """Why a peer has no link any more."""

    PATH_DOWN = "path_down"  # and it may be there still: dialed at once
    LOST = "lost"  # declared dead: the same, its restart may come any moment
    LEFT = "left"  # it said BYE: no haste until it is announced again


class Membership(MembershipFacts):
    """Finds out whom to dial, when and where, from what sources say and dials bring.

    Args:
        local_id: this node, which is never dialed.
        options: bounds and times; see `NodeOptions`.
        entropy: for jitter; the same entropy and calls give the same dials.
        agenda: told when to look at `deadline`, for who does not ask after each call.
        is_edge: whether this node has links with hubs alone.
        patience: with others, while this node is late.
    """

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
        self,
        source: str,
        node: NodeId | None,
        name: str,
        endpoints: Iterable[str],
        now: float,
        *,
        is_edge: bool = False,
    ) -> None:
        """Take in what a source says (event `CandidateFound`).

        Edges dial their hubs: one that is not known has no need to be, here.
        """
        if node == self._local_id:
            return
        known = None if node is None else self._table.get(node)
        if known is None:
            if is_edge:
                return
        elif not (is_edge and known.proven):  # a record is anybody's: it ends no acquaintance
            known.is_edge = is_edge
        self._take_in(self._table.found(source, node, name, endpoints), source, now)
        self._fill(now)

    def on_candidate_gone(self, source: str, node: NodeId, now: float) -> None:
        """Learn that a source no longer vouches (event `CandidateGone`). Links stay."""
        self._table.gone(source, node)
        pursuit = self._pursuit(node)
        if pursuit is not None:
            self._settle(pursuit, now)
            self._fill(now)

    def on_asked(self, node: NodeId, now: float) -> None:
        """Learn that a node dialed this one and asks who it is: it is about to call.

        To dial it as well would only make two links of which one is given up. It may not come to
        a link, or be somebody else who says so: it is waited for once, and not for long.
        """
        pursuit = self._pursuit(node)
        if pursuit is None or pursuit.was_asked or not pursuit.is_fresh or pursuit.due is None:
            return
        pursuit.was_asked = True
        pursuit.due = max(pursuit.due, now + self._dial_timeout(now))
        self._settle(pursuit, now)

    def on_loop_late(self, lag: float, now: float) -> None:
        """Learn that this node's loop was late: what took so long is not others' silence.

        Tell `patience` before.
        """
        for pursuit in {id(each): each for each in self._paths.values()}.values():
            for attempt in pursuit.attempts.values():
                attempt.deadline += lag
            self._settle(pursuit, now)

    # What dials bring

    def on_dial_up(self, path: int, now: float) -> None:
        """Learn that a dialed path is established; now it is to say who it is."""
        pursuit = self._paths.get(path)
        if pursuit is not None and path != pursuit.winner:
            pursuit.attempts[path].deadline = now + self._dial_timeout(now)
            self._settle(pursuit, now)

    def on_identified(
        self,
        path: int,
        node: NodeId,
        endpoints: Iterable[str],
        now: float,
        *,
        is_edge: bool = False,
    ) -> Verdict:
        """Learn who answers on a dialed path (IAM), and where else that node listens."""
        pursuit = self._paths.get(path)
        if pursuit is None:
            return Verdict.REDUNDANT  # hung up meanwhile
        if path == pursuit.winner and node == pursuit.candidate.node:
            return Verdict.PROCEED  # said twice
        if is_edge and self._is_edge and node != self._local_id:
            self._counts["edges"] += 1
            self._turn_away(path, now)
            return Verdict.EDGES
        verdict = self._judge(pursuit, path, node, tuple(endpoints), now)
        if (known := self._table.get(node)) is not None:
            known.is_edge = is_edge
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
        self,
        node: NodeId,
        now: float,
        *,
        path: Path | None = None,
        endpoints: Iterable[str] = (),
        is_edge: bool = False,
    ) -> None:
        """Learn that a link is open. Every other dial to the node is hung up.

        Args:
            node: the peer.
            now: seconds.
            path: what carries the link; None: not known, and the path that won stays.
            endpoints: where the peer says it listens.
            is_edge: whether it is an edge.
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
        candidate.linked = True
        self._table.proved(candidate)
        candidate.is_edge = is_edge
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
        self._table.proved(owner)
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

    def _dial_timeout(self, now: float) -> float:
        return self._options.dial_timeout * self._patience.factor(now)

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
            # Where an edge has hubs enough, another waits until one of them is lost.
            if endpoints and (self._places is None or self._places.take(pursuit)):
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
        if self._places is not None:
            while (next_hub := self._places.freed()) is not None:
                next_hub.due = now
                self._settle(next_hub, now)
        dials_max = self._patience.at_once(self._options.dials_max, now)
        while self._dialing < dials_max:
            pursuit = self._queue.pop(now)
            if pursuit is None:
                break
            self._last_path += 1
            endpoint = pursuit.untried.popleft()
            deadline = now + self._dial_timeout(now)
            pursuit.attempts[self._last_path] = Attempt(endpoint, deadline)
            pursuit.next_dial = now + self._options.dial_stagger
            self._paths[self._last_path] = pursuit
            self._dialing += 1
            self._counts["dials"] += 1
            self.orders.append(Dial(self._last_path, endpoint))
            self._settle(pursuit, now)
        before, self._dial_at = self._dial_at, None
        if self._dialing < dials_max:  # else the end of a dial comes first
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
        if self._places is not None:
            self._places.leave(pursuit)
        del self._pursuits[pursuit.candidate.serial]
