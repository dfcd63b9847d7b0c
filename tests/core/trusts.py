"""What tests of trust share: hosts that prove who they are, and what rules say of them."""

from tests.engines import Host, World
from zmesh.actions import Audited, AuditKind
from zmesh.events import TrustChanged
from zmesh.options import NodeOptions
from zmesh.security.node_key import NodeKey, to_text
from zmesh.security.refusal import from_reason
from zmesh.security.rules import Rules
from zmesh.security.trust import Trust


def key_of(index: int) -> NodeKey:
    """Return the key of the host that is started as the one of this index, on a secured mesh."""
    return NodeKey.of(bytes([index + 1]) * 32)


def trust(*names: str, rules: str | None = None, but: tuple[str, ...] = ()) -> Trust:
    """Trust hosts by name, which are started in this order; those of `but` are revoked."""
    keys = {name: to_text(key_of(index).public) for index, name in enumerate(names)}
    where = "rules.toml"
    made = Trust(keys, revoked=but, rules=rules)
    if made.rules is not None:
        made.rules = Rules.parse(rules or "", keys, where)
    return made


def pair(
    rules: str | None, *, on_both: bool = False, options: NodeOptions | None = None
) -> tuple[World, Host, Host]:
    """Return two hosts that are linked; `a` has rules, and `b` is whom they are about."""
    world = World(options, secured=True)
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
