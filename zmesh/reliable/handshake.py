"""HELLO and WELCOME: who is there, and whether the session goes on.

An attempt counter per incarnation tells a late copy of a HELLO from a new one. `fresh` stays the
same until a session begins, so an answer lost on the way starts no second session.
"""

from dataclasses import dataclass, replace
from enum import Enum
from math import inf

from zmesh.errors import ProtocolError
from zmesh.ids import TOKEN_BYTES, Entropy, JournalId, MeshTag, NodeId, SessionId
from zmesh.options import LinkOptions
from zmesh.reliable.link_events import Opened, SessionEnd
from zmesh.wire.frames import Hello, LaneState, Welcome

HELLO_TRIES_MAX = 4
"""HELLOs on one path without an answer; then another path is asked for."""


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """Who this node is."""

    mesh: MeshTag
    node: NodeId
    name: str
    incarnation: int
    journal: JournalId
    decompresses: tuple[int, ...] = ()  # ways in which bodies sent to it may be compressed


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

    def call(self) -> None:
        """Begin a new attempt; `hello` describes it."""
        self._attempt += 1

    def hello(self, endpoints: tuple[str, ...], lanes: tuple[LaneState, ...]) -> Hello:
        """Return the HELLO of the current attempt."""
        local = self._local
        return Hello(
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
        )

    def welcome(
        self, attempt: int, endpoints: tuple[str, ...], lanes: tuple[LaneState, ...]
    ) -> Welcome:
        """Return the WELCOME to the peer's `attempt`; only with a session."""
        assert self.session is not None, "a session is chosen before WELCOME"  # noqa: S101
        local = self._local
        return Welcome(
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

    def accept(self, hello: Hello) -> SessionChoice:
        """Choose the session a HELLO leads to: the one it resumes if we hold it too, or fresh."""
        held = self.session
        if held is not None and held in (hello.resume, hello.fresh):
            choice = SessionChoice(held, resumed=True, ended=None)
        else:
            choice = SessionChoice(hello.fresh, resumed=False, ended=self._why_ended(hello))
        # A caller that wants to resume another session tells the lanes of that one.
        choice = replace(choice, lanes_count=hello.resume in (None, choice.session))
        self._peer_attempt = hello.attempt
        self._note(hello)
        self._enter(choice.session)
        return choice

    def on_welcome(self, welcome: Welcome) -> SessionChoice | None:
        """Take the answer to our HELLO; None where it answers an earlier attempt.

        Raises ProtocolError where it names a session we did not offer, or another identity.
        """
        if welcome.attempt != self._attempt:
            return None
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
        self._note(welcome)
        self._peer_attempt = max(self._peer_attempt, welcome.calls)
        self._enter(choice.session)
        return choice

    def _why_ended(self, answer: Hello | Welcome) -> SessionEnd | None:
        if self.session is None:
            return None
        known = (self.incarnation, self.journal)
        if known == (answer.incarnation, answer.journal):
            return SessionEnd.PEER_FORGOT
        return SessionEnd.PEER_RESTARTED

    def _note(self, answer: Hello | Welcome) -> None:
        if answer.incarnation > self.incarnation and isinstance(answer, Welcome):
            self._peer_attempt = 0  # a new process counts its HELLOs anew
        self.name = answer.name
        self.incarnation = answer.incarnation
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

    def forget_session(self) -> None:
        """The session ended on our side; the next link starts another."""
        self.session = None


class HelloTimer:
    """When to say HELLO again, or to stop waiting for what should follow a handshake packet."""

    def __init__(self, options: LinkOptions, entropy: Entropy) -> None:
        self._options = options
        self._entropy = entropy
        self._tries = 0
        self.at = inf

    def begin(self) -> None:
        """Start to call on a path."""
        self._tries = 0

    def on_hello(self, now: float) -> None:
        """Note that HELLO was said; each waits twice as long for its answer as the one before."""
        options = self._options
        wait = min(options.hello_timeout * 2**self._tries, options.hello_timeout_max)
        self.at = now + wait * self._entropy.uniform(0.8, 1.2)
        self._tries += 1

    def on_welcome_sent(self, now: float) -> None:
        """Wait for the first packet of the link."""
        self.at = now + self._options.confirm_timeout

    def stop(self) -> None:
        """Wait for nothing any more."""
        self.at = inf

    @property
    def may_retry(self) -> bool:
        """Whether HELLO may be said again on this path."""
        return self._tries < HELLO_TRIES_MAX
