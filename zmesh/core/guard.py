"""Who may do what to this node, by `trust=`: decided once and remembered, told to those who guard.

A node's id, proved when its link opened, stands for its key. Without trust nothing is looked at.
"""

from zmesh.actions import Audited, AuditKind
from zmesh.core.peers import Peer, RemotePeer
from zmesh.core.turn import Turn
from zmesh.ids import NodeId
from zmesh.options import TrustOptions
from zmesh.security.refusal import to_reason
from zmesh.security.rules import Action, Decision
from zmesh.security.trust import KEY_REVOKED, Trust
from zmesh.security_errors import NotAllowed


class Guard:
    """The trust of one node. Whoever has something to refuse asks here, and settles it."""

    def __init__(self, turn: Turn, trust: Trust | None, options: TrustOptions) -> None:
        self._turn = turn
        self._options = options
        self.trust = trust  # None: everybody in the mesh may do everything

    def replace(self, trust: Trust) -> None:
        """Trust others from now on; what was decided is decided anew."""
        self.trust = trust
        for peer in self._turn.peers:
            peer.decisions.clear()

    # Links

    def admits(self, node: NodeId) -> bool:
        """Return whether a node whose id is proved gets a link."""
        return self.trust is None or self.trust.admits(node)

    def turn_away(self, node: NodeId, name: str, endpoint: str) -> str:
        """Tell that a node was refused a link; return what it is told."""
        is_revoked = self.trust is not None and self.trust.is_revoked(node)
        why = KEY_REVOKED.rule if is_revoked else "its key is not listed"
        called = f"{name} ({node.hex()})" if name else node.hex()
        self._audit(AuditKind.NOT_TRUSTED, called, f"it wanted a link, but {why}", "", endpoint)
        return why

    def revoke(self, peer: RemotePeer) -> None:
        """Tell that a linked peer is not trusted any more."""
        endpoint = peer.endpoints[0] if peer.endpoints else ""
        called = f"{peer.label} ({peer.id.hex()})"
        self._audit(AuditKind.REVOKED, called, "its link was cut", "", endpoint)

    # What they do

    def decide(self, peer: Peer, action: Action, name: str) -> Decision | None:
        """Return the decision that refuses something to a peer; None where it may."""
        trust = self.trust
        if trust is None or not isinstance(peer, RemotePeer):
            return None
        decision = peer.decisions.get((action, name))
        if decision is None:
            decision = self._remember(peer, (action, name), trust.judge(peer.id, action, name))
        return None if decision.allowed else decision

    def decide_any(self, peer: Peer, action: Action, pattern: str) -> Decision | None:
        """Return the decision that refuses it for all names that match; None where it may one."""
        trust = self.trust
        if trust is None or not isinstance(peer, RemotePeer):
            return None
        key = (f"any {action}", pattern)
        decision = peer.decisions.get(key)
        if decision is None:
            decision = self._remember(peer, key, trust.judge_any(peer.id, action, pattern))
        return None if decision.allowed else decision

    def _remember(self, peer: RemotePeer, key: tuple[str, str], decision: Decision) -> Decision:
        if len(peer.decisions) >= self._options.decisions_max:
            peer.decisions.clear()
        peer.decisions[key] = decision
        return decision

    def refuse(self, peer: Peer, action: Action, name: str, decision: Decision) -> str:
        """Tell that a peer was refused something; return the reason that it is told."""
        self._audit(
            AuditKind.FORBIDDEN, self._called(peer), f"{action} {name!r}", decision.rule,
            peer.endpoints[0] if peer.endpoints else "",
        )  # fmt: skip
        return to_reason(action, name, decision.rule)

    def refused_by(self, peer: Peer, action: str, name: str, rule: str) -> None:
        """Tell that a peer's rules refuse this node something."""
        detail = f"it does not let this node {action} {name!r}"
        self._audit(AuditKind.FORBIDDEN, peer.label, detail, rule, "")

    def check_own(self, action: Action, name: str) -> None:
        """Raise NotAllowed where the rules here forbid this very node to do something.

        The same rules are on every node, as a rule. Where this node's own key is not listed they
        say nothing of it; where it was revoked, nobody lets it do anything.
        """
        trust, node = self.trust, self._turn.peers.local.id
        if trust is None or not (trust.admits(node) or trust.is_revoked(node)):
            return
        decision = trust.judge(node, action, name)
        if not decision.allowed:
            raise NotAllowed(action, name, "trust= of this very node", decision.rule)

    @property
    def own_name(self) -> str:
        """What messages for this node are sent to, as rules call it."""
        local = self._turn.peers.local
        listed = None if self.trust is None else self.trust.name_of(local.id)
        return listed or local.name

    def name_of(self, node: NodeId, otherwise: str) -> str:
        """Return what rules call a node."""
        listed = None if self.trust is None else self.trust.name_of(node)
        return listed or otherwise

    def _called(self, peer: Peer) -> str:
        return self.name_of(peer.id, peer.label)

    def _audit(self, kind: AuditKind, peer: str, detail: str, rule: str, endpoint: str) -> None:
        self._turn.actions.append(Audited(kind, peer, endpoint, detail, rule))
