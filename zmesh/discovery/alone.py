"""Why nobody is there: one line for a node that found no peer for some seconds. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from zmesh.events import PathCause

_TOLD_MAX = 3
"""Endpoints named in the line: enough to act on."""

_CAUSES = {
    PathCause.REFUSED: "refused, nobody listens there",
    PathCause.UNREACHABLE: "no answer",
    PathCause.CLOSED: "closed the connection",
    PathCause.UNROUTABLE: "closed the connection",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a lone node knows of its surroundings."""

    mesh: str
    mdns: bool  # switched on
    mdns_failure: str = ""  # why it does not work nevertheless
    mdns_addresses: tuple[str, ...] = ()  # of the interfaces it uses
    other_meshes: int = 0  # seen by mDNS
    written_down: int = 0  # static peers and seeds
    unresolved: Mapping[str, str] = field(default_factory=dict)  # of these, and why
    causes: Mapping[str, PathCause] = field(default_factory=dict)  # of failed dials, by endpoint
    itself: int = 0  # dials that reached this very node
    wrong_mesh: int = 0  # dials that reached another mesh
    not_trusted: int = 0  # nodes that answered whose keys are not trusted here
    not_trusted_there: int = 0  # nodes that answered and do not trust this one
    revoked_there: int = 0  # of these, the ones that say that its key was revoked
    wrong_node: int = 0  # dials that reached somebody else than was announced
    edges: int = 0  # dials that reached an edge, as this node is


def why_alone(seen: Surroundings) -> str:
    """Return in one line why there are no peers, as far as can be told, and what to do."""
    reasons = [*_dialed(seen), *_heard(seen)] or ["still dialing those written down"]
    return f"no peers in mesh {seen.mesh!r}: " + "; ".join(reasons)


def _dialed(seen: Surroundings) -> list[str]:
    reasons = []
    if seen.unresolved:
        names = [f"{name} ({why})" for name, why in seen.unresolved.items()]
        reasons.append(f"cannot use {_some(names)}: check the names")
    strangers = [each for each, cause in seen.causes.items() if cause is PathCause.WRONG_KEY]
    if strangers:
        reasons.append(
            f"who listens at {_some(strangers)} uses another mesh key, or only one side uses any: "
            "give all nodes the same key="
        )
    dials = [
        f"{endpoint} ({_CAUSES[cause]})"
        for endpoint, cause in seen.causes.items()
        if cause in _CAUSES
    ]
    if dials:
        reasons.append(f"cannot reach {_some(dials)}: start the peers, or look at the firewall")
    return [*reasons, *_answered(seen)]


def _answered(seen: Surroundings) -> list[str]:
    reasons = []
    if seen.wrong_mesh:
        reasons.append("nodes of another mesh answer: give all nodes the same mesh=")
    if seen.not_trusted_there > seen.revoked_there:
        reasons.append(
            "nodes answer that do not list this node's key: add its public key to their trust"
        )
    if seen.revoked_there:
        reasons.append(
            "nodes answer that revoked this node's key: with a new storage= it has a new one, "
            "which may be added to their trust"
        )
    if seen.not_trusted:
        reasons.append("nodes answer whose keys are not listed here: add them to trust=")
    if seen.wrong_node:
        reasons.append("others answer where peers were announced: the records are out of date")
    if seen.edges:
        reasons.append(
            "edges answer, as this node is, and two edges have no link: write down hubs, which "
            'are nodes without role="edge"'
        )
    if seen.itself and seen.itself >= seen.written_down > 0:
        reasons.append("the only peers written down are this node itself")
    return reasons


def _heard(seen: Surroundings) -> list[str]:
    if not seen.mdns:
        if seen.written_down:
            return []
        return ["mDNS is off and no peers are written down: set peers=, seeds= or ZMESH_PEERS"]
    if seen.mdns_failure:
        return [f"mDNS does not work ({seen.mdns_failure}): set peers= or ZMESH_PEERS"]
    if not seen.mdns_addresses:
        return ["no network interface is up: waiting for one"]
    if seen.other_meshes:
        others = f"mDNS shows {seen.other_meshes} other mesh(es) only"
        return [f"{others}: give all nodes the same mesh= and key="]
    if all(address.startswith("127.") for address in seen.mdns_addresses):
        return ["mDNS shows nobody on this machine, and loopback reaches no other"]
    where = _some(list(seen.mdns_addresses))
    advice = "containers, VPNs and clouds seldom pass multicast on, there set peers= or seeds="
    return [f"mDNS shows nobody on {where}: {advice}"]


def _some(items: list[str]) -> str:
    more = len(items) - _TOLD_MAX
    return ", ".join(items[:_TOLD_MAX]) + (f" and {more} more" if more > 0 else "")
