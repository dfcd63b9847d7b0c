"""What makes a peer be believed: its proofs, for one connection, and whom the node trusts."""

from dataclasses import replace
from typing import Final

from tests.fuzz.script import Script
from tests.fuzz.speaker import KEYS, NODES
from tests.fuzz.victim import Victim
from zmesh.ids import NO_JOURNAL, LinkId, Path, connection_of
from zmesh.reliable.proofs import (
    evidence_of,
    heard_hello,
    iam_claim,
    welcome_claim,
)
from zmesh.security.node_key import NodeKey, to_text
from zmesh.security.proof import Claim, Role
from zmesh.security.trust import Trust
from zmesh.wire.frames import Error, Fenced, Frame, Hello, Iam, Welcome

HONEST: Final = NodeKey.of(b"honest" + bytes(26))
NAMES: Final = ("me", "b", "c", "d")
"""Of those whom the node may trust; others are strangers with the mesh key."""

RULES: Final = (
    None,
    'default = "allow"',
    """
    [[rule]]
    who = "b"
    call = ">"
    publish = ["topic.>"]
    subscribe = [">"]
    serve = "*"
    deny = { publish = ["topic.b"], subscribe = ["topic.a.>"] }
    [[rule]]
    who = "*"
    pull = ["queue"]
    push = ["queue"]
    join = ["group"]
    share = ["map"]
    send = ["*"]
    """,
)


def trust_of(script: Script) -> Trust:
    """Return whom to trust: some, and perhaps none of those who are there."""
    keys = {name: to_text(KEYS[node].public) for name, node in zip(NAMES, NODES, strict=False)}
    keys["honest"] = to_text(HONEST.public)
    revoked = [name for name in NAMES[1:] if script.rarely()]
    return Trust(keys, revoked=revoked, rules=script.choice(RULES))


def proved(victim: Victim, frame: Frame, link: LinkId, path: Path) -> Frame:
    """Return what is said with what shows that it is true, as far as it is."""
    match frame:
        case Iam():
            claim = iam_claim(frame, victim.id, _connection(victim, path))
        case Hello():
            local = victim.local
            claim = heard_hello(frame, link, path, local.connection, local.incarnation)
        case Welcome():
            claim = welcome_claim(
                frame, victim.local.mesh, victim.id, victim.local.incarnation, link,
                _connection(victim, path),
            )  # fmt: skip
        case _:
            return frame
    return _signed(frame, claim)


def with_evidence(victim: Victim, script: Script, frame: Fenced | Error) -> Frame:
    """Return a farewell that shows what the node itself is said to have said elsewhere."""
    local = victim.local
    claim = Claim(
        role=script.choice(tuple(Role)), mesh=local.mesh, to=NODES[1],
        incarnation=script.choice((local.incarnation, local.incarnation + 1, script.count())),
        to_incarnation=script.below(2), connection=script.take(32).ljust(32, b"\0"),
        attempt=script.below(4), journal=script.choice((local.journal, NO_JOURNAL)),
    )  # fmt: skip
    proof = bytes(64) if script.flag() else claim.prove(KEYS[victim.id])
    return replace(frame, evidence=evidence_of(claim, proof))


def _connection(victim: Victim, path: Path) -> bytes:
    return connection_of(path, victim.local.connection)


def _signed(frame: Iam | Hello | Welcome, claim: Claim) -> Frame:
    key = HONEST if frame.node == HONEST.id else KEYS.get(frame.node)
    if key is None:
        return frame
    return replace(frame, key=key.public, proof=claim.prove(key))
