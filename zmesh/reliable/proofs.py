"""What a node says of itself when it meets another, as it is signed: from the frames that say it.

Who dialed has learned by IAM which incarnation answers, and names it in HELLO. Who was dialed
knows no such thing, and names none: the connection is of the present process of who dialed anyway.
"""

from typing import Final

from zmesh.ids import LinkId, MeshTag, NodeId, Path, connection_of
from zmesh.security.proof import Claim, Role
from zmesh.wire.frames import Evidence, Hello, Iam, Welcome

UNNAMED: Final = 0
"""The incarnation of who is told, where the claim names none."""


def iam_claim(iam: Iam, asker: NodeId, connection: bytes) -> Claim:
    """Return what IAM says to who asked, over a connection."""
    return Claim(
        role=Role.IAM,
        mesh=iam.mesh,
        to=asker,
        incarnation=iam.incarnation,
        to_incarnation=UNNAMED,
        connection=connection,
    )


def hello_claim(hello: Hello, link: LinkId, connection: bytes, to_incarnation: int) -> Claim:
    """Return what HELLO says to whom it calls, over a connection."""
    return Claim(
        role=Role.HELLO,
        mesh=hello.mesh,
        to=hello.to,
        incarnation=hello.incarnation,
        to_incarnation=to_incarnation,
        connection=connection,
        link=link,
        attempt=hello.attempt,
        journal=hello.journal,
    )


def heard_hello(hello: Hello, link: LinkId, path: Path, own: bytes, incarnation: int) -> Claim:
    """Return what a HELLO must have said to this node, that came on a path.

    `own` is the public key of the connections this node dials, `incarnation` its own.
    """
    named = UNNAMED if isinstance(path, int) else incarnation  # the caller did not dial: see above
    return hello_claim(hello, link, connection_of(path, own), named)


def welcome_claim(
    welcome: Welcome,
    mesh: MeshTag,
    caller: NodeId,
    incarnation: int,
    link: LinkId,
    connection: bytes,
) -> Claim:
    """Return what WELCOME says to a caller of some incarnation, over a connection."""
    return Claim(
        role=Role.WELCOME,
        mesh=mesh,
        to=caller,
        incarnation=welcome.incarnation,
        to_incarnation=incarnation,
        connection=connection,
        link=link,
        attempt=welcome.attempt,
        journal=welcome.journal,
    )


def evidence_of(claim: Claim, proof: bytes) -> Evidence:
    """Return what shows others that a claim was made."""
    return Evidence(
        claim.role,
        claim.incarnation,
        claim.journal,
        claim.to_incarnation,
        claim.connection,
        claim.link,
        claim.attempt,
        proof,
    )


def claim_in(evidence: Evidence, mesh: MeshTag, told: NodeId) -> Claim:
    """Return the claim that evidence is of; `told` is who has it."""
    return Claim(
        role=Role(evidence.role),
        mesh=mesh,
        to=told,
        incarnation=evidence.incarnation,
        to_incarnation=evidence.to_incarnation,
        connection=evidence.connection,
        link=evidence.link,
        attempt=evidence.attempt,
        journal=evidence.journal,
    )
