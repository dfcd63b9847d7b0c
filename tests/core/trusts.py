"""What tests of trust share: rules for hosts, whose ids no key was hashed to."""

from tests.engines import Host, World
from zmesh.actions import Audited, AuditKind
from zmesh.events import TrustChanged
from zmesh.ids import NodeId
from zmesh.options import NodeOptions
from zmesh.security.refusal import from_reason
from zmesh.security.rules import Rules
from zmesh.security.trust import Trust


class HostTrust(Trust):
    """Trust in ids that are no hashes: which id stands for a key is for others to prove."""

    def __init__(
        self, names: dict[str, NodeId], rules: str | None = None, gone: tuple[NodeId, ...] = ()
    ) -> None:
        super().__init__({})
        self.rules = None if rules is None else Rules.parse(rules, names)
        self._names = {node: name for name, node in names.items()}
        self._revoked_ids = frozenset(gone)


def id_of(index: int) -> NodeId:
    """Return the id of the host that is started as the one of this index."""
    return NodeId(bytes([index + 1]) * 16)


def trust(*names: str, rules: str | None = None, but: tuple[str, ...] = ()) -> Trust:
    """Trust hosts by name, which are started in this order, but for some."""
    ids = {name: id_of(index) for index, name in enumerate(names)}
    gone = tuple(ids.pop(name) for name in but)
    return HostTrust(ids, rules, gone)


def pair(
    rules: str | None, *, on_both: bool = False, options: NodeOptions | None = None
) -> tuple[World, Host, Host]:
    """Return two hosts that are linked; `a` has rules, and `b` is whom they are about."""
    world = World(options)
    world.trusts["a"] = trust("a", "b", rules=rules)
    if on_both:
        world.trusts["b"] = trust("a", "b", rules=rules)
    a, b = world.mesh("a", "b")
    return world, a, b


def change(host: Host, *names: str, rules: str | None = None, but: tuple[str, ...] = ()) -> None:
    """Give a host another trust while it runs."""
    host.do(TrustChanged(trust(*names, rules=rules, but=but)))


def audited(host: Host, kind: AuditKind = AuditKind.FORBIDDEN) -> list[Audited]:
    return [a for a in host.actions if isinstance(a, Audited) and a.kind is kind]


def refusal(reason: str) -> tuple[str, str, str]:
    told = from_reason(reason)
    assert told is not None, f"{reason!r} is no refusal by rules"
    return told
