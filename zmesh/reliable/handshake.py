"""HELLO and WELCOME: who is there, and whether the session goes on.

An attempt counter per incarnation tells a late copy of a HELLO from a new one. `fresh` stays the
same until a session begins, so an answer lost on the way starts no second session.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from zmesh.errors import ProtocolError
from zmesh.ids import (
    NO_LINK,
    TOKEN_BYTES,
    Entropy,
    JournalId,
    LinkId,
    MeshTag,
    NodeId,
    Path,
    SessionId,
    connection_of,
)
from zmesh.reliable.link_events import Opened, SessionEnd
from zmesh.reliable.proofs import (
    UNNAMED,
    claim_in,
    evidence_of,
    heard_hello,
    hello_claim,
    welcome_claim,
)
from zmesh.security.node_key import NodeKey
from zmesh.security.proof import Claim
from zmesh.wire.frames import Error, ErrorCode, Evidence, Fenced, Hello, LaneState, Welcome


class NotProved(ProtocolError):
    """What says that a peer sent it is signed by nobody, or not for this connection."""

    def __init__(self, detail: str) -> None:
        super().__init__("not proved", detail)


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """Who this node is.

    `connection` is the public key of the connections it dials, on a CURVE mesh; elsewhere it is
    empty, and no proofs are made or wanted.
    """

    mesh: MeshTag
    node: NodeId
    name: str
    incarnation: int
    journal: JournalId
    decompresses: tuple[int, ...] = ()  # ways in which bodies sent to it may be compressed
    key: NodeKey | None = None
    connection: bytes = b""
    is_edge: bool = False  # has links with hubs alone

    @property
    def wants_proofs(self) -> bool:
        """Whether peers have to prove who they are."""
        return bool(self.connection)


class HelloVerdict(Enum):
    """What to do with a HELLO."""

    ACCEPT = "accept"
    REPEAT = "repeat"  # a copy of the one just answered: its WELCOME may be lost
    STALE = "stale"
    FENCED = "fenced"  # of an older incarnation than one we have met
    CLASH = "clash"  # the same incarnation with another journal: a clone


@dataclass(frozen=True, slots=True)
class SessionChoice:
    """The session both sides are in after a handshake."""

    session: SessionId
    resumed: bool
    ended: SessionEnd | None  # why the one before ended, where there was one
    lanes_count: bool = True  # whether the peer's lane states are of this session


Said = TypeVar("Said", Hello, Welcome)


class Handshake:
    """What is known of the peer's identity, and the counters of both sides."""

    def __init__(self, local: LocalIdentity, peer: NodeId, entropy: Entropy) -> None:
        self._local = local
        self._peer = peer
        self._entropy = entropy
        self.name = ""
        self.incarnation = 0
        self.journal: JournalId | None = None
        self.endpoints: tuple[str, ...] = ()
        self.decompresses: tuple[int, ...] = ()
        self.session: SessionId | None = None
        self.announced: SessionId | None = None  # the session of the last Opened
        self._fresh = SessionId(entropy.token(TOKEN_BYTES))
        self._attempt = 0
        self._peer_attempt = 0
        self.told = 0  # the peer's incarnation as it said last; HELLO names it
        self._evidence: Evidence | None = None  # that the peer is of the incarnation noted

    def call(self) -> None:
        """Begin a new attempt; `hello` describes it."""
        self._attempt += 1

    def hello(
        self,
        endpoints: tuple[str, ...],
        lanes: tuple[LaneState, ...],
        path: Path = 0,
        link: LinkId = NO_LINK,
    ) -> Hello:
        """Return the HELLO of the current attempt, for a link on a path."""
        local = self._local
        hello = Hello(
            mesh=local.mesh,
            node=local.node,
            to=self._peer,
            name=local.name,
            incarnation=local.incarnation,
            journal=local.journal,
            attempt=self._attempt,
            resume=self.session,
            fresh=self._fresh,
            endpoints=endpoints,
            lanes=lanes,
            decompresses=local.decompresses,
            is_edge=local.is_edge,
        )
        connection = connection_of(path, local.connection)
        named = self.told if isinstance(path, int) else UNNAMED
        return self._signed(hello, hello_claim(hello, link, connection, named))

    def welcome(
        self,
        attempt: int,
        endpoints: tuple[str, ...],
        lanes: tuple[LaneState, ...],
        path: Path = 0,
        link: LinkId = NO_LINK,
    ) -> Welcome:
        """Return the WELCOME to the peer's `attempt`; only with a session."""
        assert self.session is not None, "a session is chosen before WELCOME"  # noqa: S101
        local = self._local
        welcome = Welcome(
            node=local.node,
            name=local.name,
            incarnation=local.incarnation,
            journal=local.journal,
            attempt=attempt,
            calls=self._attempt,
            session=self.session,
            endpoints=endpoints,
            lanes=lanes,
            decompresses=local.decompresses,
        )
        connection = connection_of(path, local.connection)
        claim = welcome_claim(welcome, local.mesh, self._peer, self.incarnation, link, connection)
        return self._signed(welcome, claim)

    def _signed(self, frame: Said, claim: Claim) -> Said:
        """Return HELLO or WELCOME with its proof, where the mesh wants one."""
        key = self._local.key
        if key is None or not self._local.wants_proofs:
            return frame
        return replace(frame, key=key.public, proof=claim.prove(key))

    def judge(self, hello: Hello, *, answered: bool) -> HelloVerdict:
        """Decide on a HELLO; `answered` tells whether its link is the current one."""
        if hello.incarnation < self.incarnation:
            return HelloVerdict.FENCED
        if hello.incarnation > self.incarnation:
            return HelloVerdict.ACCEPT
        if self.journal is not None and hello.journal != self.journal:
            return HelloVerdict.CLASH
        if hello.attempt > self._peer_attempt:
            return HelloVerdict.ACCEPT
        if hello.attempt == self._peer_attempt and answered:
            return HelloVerdict.REPEAT
        return HelloVerdict.STALE

    def accept(self, hello: Hello, path: Path = 0, link: LinkId = NO_LINK) -> SessionChoice:
        """Choose the session a HELLO leads to: the one it resumes if we hold it too, or fresh.

        Where the mesh wants proofs, that of the HELLO was looked at before.
        """
        held = self.session
        if held is not None and held in (hello.resume, hello.fresh):
            choice = SessionChoice(held, resumed=True, ended=None)
        else:
            choice = SessionChoice(hello.fresh, resumed=False, ended=self._why_ended(hello))
        # A caller that wants to resume another session tells the lanes of that one.
        choice = replace(choice, lanes_count=hello.resume in (None, choice.session))
        self._peer_attempt = hello.attempt
        local = self._local
        self._note(hello, heard_hello(hello, link, path, local.connection, local.incarnation))
        self._enter(choice.session)
        return choice

    def on_welcome(
        self, welcome: Welcome, path: Path = 0, link: LinkId = NO_LINK
    ) -> SessionChoice | None:
        """Take the answer to our HELLO; None where it answers an earlier attempt.

        Raises ProtocolError where it names a session we did not offer, or another identity;
        NotProved where nothing shows that the peer said it, to us and on this connection.
        """
        if welcome.attempt != self._attempt:
            return None
        claim = self._heard_welcome(welcome, path, link)
        if welcome.node != self._peer or welcome.incarnation < self.incarnation:
            raise ProtocolError("identity", "WELCOME from another node or an older incarnation")
        same_life = welcome.incarnation == self.incarnation
        if same_life and self.journal not in (None, welcome.journal):
            raise ProtocolError("identity", "WELCOME from a clone of the peer met before")
        if welcome.session == self.session:
            choice = SessionChoice(welcome.session, resumed=True, ended=None)
        elif welcome.session == self._fresh:
            ended = self._why_ended(welcome)
            choice = SessionChoice(welcome.session, resumed=False, ended=ended)
        else:
            raise ProtocolError("session", "WELCOME names a session that was not offered")
        self._note(welcome, claim)
        self._peer_attempt = max(self._peer_attempt, welcome.calls)
        self._enter(choice.session)
        return choice

    def _heard_welcome(self, welcome: Welcome, path: Path, link: LinkId) -> Claim:
        """Return what a WELCOME must have said; raise NotProved where it did not."""
        local = self._local
        connection = connection_of(path, local.connection)
        claim = welcome_claim(welcome, local.mesh, local.node, local.incarnation, link, connection)
        if local.wants_proofs and not claim.holds(self._peer, welcome.key, welcome.proof):
            raise NotProved("WELCOME that the node did not sign for this connection")
        return claim

    def _why_ended(self, answer: Hello | Welcome) -> SessionEnd | None:
        if self.session is None:
            return None
        known = (self.incarnation, self.journal)
        if known == (answer.incarnation, answer.journal):
            return SessionEnd.PEER_FORGOT
        return SessionEnd.PEER_RESTARTED

    def _note(self, answer: Hello | Welcome, claim: Claim) -> None:
        self._evidence = evidence_of(claim, answer.proof) if self._local.wants_proofs else None
        if answer.incarnation > self.incarnation and isinstance(answer, Welcome):
            self._peer_attempt = 0  # a new process counts its HELLOs anew
        self.name = answer.name
        self.incarnation = self.told = answer.incarnation
        self.journal = answer.journal
        self.endpoints = answer.endpoints
        self.decompresses = answer.decompresses

    def _enter(self, session: SessionId) -> None:
        if session == self._fresh:
            self._fresh = SessionId(self._entropy.token(TOKEN_BYTES))
        self.session = session

    def announce(self) -> Opened:
        """Return the news that a link is open; only with a session."""
        session = self.session
        assert session is not None, "a link opens with a session"  # noqa: S101
        resumed = session == self.announced
        self.announced = session
        return Opened(
            session,
            resumed,
            self.name,
            self.incarnation,
            self.endpoints,
            self.decompresses,
            self.journal or b"",
        )

    # Clones

    def fenced(self) -> Fenced:
        """Return what an older incarnation of the peer is told."""
        return Fenced(self.incarnation, self._evidence)

    def duplicate(self) -> Error:
        """Return what a clone of the peer is told."""
        return Error(ErrorCode.DUPLICATE_IDENTITY, "same incarnation", self._evidence)

    def check_fenced(self, fenced: Fenced) -> None:
        """Look at what the peer says of a newer incarnation of this node.

        Raises ProtocolError where it is not newer; NotProved where the peer has no evidence of it.
        """
        if fenced.incarnation <= self._local.incarnation:
            detail = f"by incarnation {fenced.incarnation}, which is not newer"
            raise ProtocolError("fenced", detail)
        said = self._said_by_us(fenced.evidence)
        if said is not None and said.incarnation <= self._local.incarnation:
            raise NotProved("FENCED with evidence of an incarnation that is not newer")

    def check_duplicate(self, error: Error) -> None:
        """Look at what the peer says of a clone; raises NotProved where it has no evidence."""
        said, local = self._said_by_us(error.evidence), self._local
        if said is not None and (
            said.incarnation < local.incarnation
            or (said.incarnation, said.journal) == (local.incarnation, local.journal)
        ):
            raise NotProved("DUPLICATE_IDENTITY with evidence of this very node")

    def _said_by_us(self, evidence: Evidence | None) -> Claim | None:
        """Return what evidence says that somebody with our key said; None: no proofs here."""
        local = self._local
        if local.key is None or not local.wants_proofs:
            return None
        if evidence is not None:
            claim = claim_in(evidence, local.mesh, self._peer)
            if claim.holds(local.node, local.key.public, evidence.proof):
                return claim
        raise NotProved("word of another process with our identity, without evidence")

    def forget_session(self) -> None:
        """The session ended on our side; the next link starts another."""
        self.session = None
