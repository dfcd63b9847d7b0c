"""Who is at the other end of a path: all that happens before a link, and beside one.

WHO and IAM tell, HELLO claims. From then on what comes on the path goes to that peer's link and to
no other, so whoever sends rubbish harms only the link of whom it claims to be. On a CURVE mesh a
claim without a proof that holds on this very connection has no effect: so that is its own link.
"""

from collections.abc import Callable
from itertools import islice

from zmesh.actions import HangUp, IdentityClash, SendPackets, ShutOut
from zmesh.core.defects import CUT_OFF, FLOOD, NOT_PROVED, Defects
from zmesh.core.guard import Guard
from zmesh.core.outcasts import Outcasts
from zmesh.core.peers import RemotePeer
from zmesh.core.proofs import Proofs
from zmesh.core.proofs import Verdict as Proof
from zmesh.core.turn import Turn
from zmesh.discovery.candidates import PEER
from zmesh.discovery.membership import Membership, Verdict
from zmesh.errors import ProtocolError
from zmesh.events import PathCause
from zmesh.ids import NO_LINK, LinkId, NodeId, Path, short
from zmesh.options import NodeOptions
from zmesh.reliable.handshake import LocalIdentity
from zmesh.security.trust import KEY_REVOKED
from zmesh.wire.codec import decode, encode
from zmesh.wire.frames import (
    Bye,
    ByeCode,
    Error,
    ErrorCode,
    Fenced,
    Frame,
    Hello,
    Iam,
    Packet,
    PeerHint,
    Who,
)

_ANSWERED = {"version": ErrorCode.UNSUPPORTED_VERSION, "unknown frame": ErrorCode.UNKNOWN_FRAME}
"""Kinds of broken packets that are answered; the others are dropped."""

_BEFORE_A_LINK = frozenset((Who, Iam, Hello))

_TEXT_MAX = 200

_TEXT_OVERHEAD = 32
"""More than a text of a hint costs on the wire beside its bytes, with its share of the rest."""

_DOUBT_INTERVAL_S = 0.1
"""Connections that end within this time of each other are looked into together."""


class Introductions:
    """Routes packets to links, and speaks for the node where there is no link.

    `admit` returns the peer of a node that was met, or None where the table is full.
    """

    def __init__(
        self,
        local: LocalIdentity,
        options: NodeOptions,
        turn: Turn,
        membership: Membership,
        defects: Defects,
        admit: Callable[[NodeId], RemotePeer | None],
        guard: Guard,
    ) -> None:
        self._guard = guard
        self._local = local
        self._options = options
        self._turn = turn
        self._membership = membership
        self._defects = defects
        self._admit = admit
        self.proofs = Proofs(local, options, turn, defects)
        self.outcasts = Outcasts(options, turn)
        self._answered: dict[Path, float] = {}  # when errors were answered last, oldest first
        self._gifted: dict[Path, float] = {}  # when a list of peers was given last
        self._gift_from = 0  # whom the next list begins with
        self._doubt_at: float | None = None  # when inbound paths are to be looked at
        self._calm_until = float("-inf")  # not before
        self._doubts = 0  # how often inbound paths are still to be asked
        self.endpoints: tuple[str, ...] = ()
        self.packets_received = 0
        self.packets_unknown = 0

    @property
    def strangers(self) -> int:
        """Of how many paths something is remembered."""
        return max(len(self._answered), len(self._gifted), len(self.proofs), len(self.outcasts))

    # Packets

    def on_parts(self, path: Path, parts: list[bytes]) -> None:
        """Take one message off a path, whoever sent it; nothing is raised."""
        self.packets_received += 1
        if self.outcasts.holds(path):
            return
        try:
            packet = decode(parts, self._options.wire)
        except ProtocolError as error:
            # Parts are the one thing of which reading on costs much: nobody says so by a slip.
            self._on_broken(path, error, is_gross=len(parts) > self._options.wire.parts_max)
            return
        frame, turn = packet.frames[0], self._turn
        if type(frame) in _BEFORE_A_LINK and not self._may_pass(path, packet.link, frame):
            return
        peer = turn.peers.on_path(path)
        if isinstance(frame, Error) and frame.code is ErrorCode.NOT_TRUSTED:
            self._on_not_trusted(path, frame.text)
        if peer is None:
            self._on_unknown(path, packet.link, frame)
        elif peer.link.on_packet(path, packet, turn.now):
            turn.heard[peer] = None
        else:
            turn.touched[peer] = None
            if turn.now < peer.link.refused_until:
                self._cut_off(path, peer.link.refused_until - turn.now)

    def _may_pass(self, path: Path, link: LinkId, frame: Frame) -> bool:
        """Take what is said before a link; return whether it goes to a peer's link as well."""
        if isinstance(frame, Hello):
            is_taken = self._on_hello(path, link, frame)
            if not is_taken:
                self._on_vain(path)
            return is_taken
        if isinstance(frame, Who):
            self._on_who(path, frame)
        elif isinstance(frame, Iam):
            self._on_iam(path, frame)
        return False

    def _on_broken(self, path: Path, error: ProtocolError, *, is_gross: bool) -> None:
        """Count what cannot be read, as any other broken rule of the peer's, or of the path."""
        now, peer = self._turn.now, self._turn.peers.on_path(path)
        code = _ANSWERED.get(error.kind)
        if code is not None:
            self._refuse(path, NO_LINK, code, error.detail)
        if peer is None:
            self._defects.note(self._whose(path), error.kind, error.detail)
            is_enough = self.outcasts.on_violation(path)
        else:
            peer.link.on_violation(error, now)
            self._turn.touched[peer] = None
            is_enough = now < peer.link.refused_until
        if is_enough or is_gross:
            self._cut_off(path, self._options.link.refusal)

    def _on_vain(self, path: Path) -> None:
        if self.outcasts.on_vain(path):
            self._cut_off(path, self._options.link.refusal)

    def _cut_off(self, path: Path, seconds: float) -> None:
        """Give up a path, and take nothing from it for a while: others are to be heard."""
        whose = self._whose(path)
        endpoint = self._membership.endpoint(path) if isinstance(path, int) else None
        detail = "its connection is ended: it broke rules, or was refused, again and again"
        self._defects.note(whose, CUT_OFF, detail, endpoint or "")
        if isinstance(path, int):
            self._turn.actions.append(HangUp(path))
            self.on_path_down(path, PathCause.CLOSED)
        else:
            self.on_path_down(path, PathCause.CLOSED)
            self._turn.actions.append(ShutOut(path, seconds))
        self.outcasts.add(path, self._turn.now + seconds)

    def _on_unknown(self, path: Path, link: LinkId, frame: Frame) -> None:
        """Drop a packet of no link; an error or a farewell needs no answer."""
        self.packets_unknown += 1
        if not isinstance(frame, Error | Bye | Fenced):
            self._refuse(path, link, ErrorCode.UNKNOWN_LINK, "say HELLO")
        elif isinstance(frame, Error) and frame.code is not ErrorCode.NOT_TRUSTED:  # told already
            self._defects.note(self._whose(path), "error", f"{frame.code.name}: {frame.text}")
            if isinstance(path, int) and frame.code is ErrorCode.WRONG_MESH:
                self._membership.on_wrong_mesh(path, self._turn.now)

    # Before a link

    def on_path_up(self, path: Path) -> None:
        """Ask who answers on a path we dialed."""
        if isinstance(path, int):
            self._membership.on_dial_up(path, self._turn.now)
        self._send(path, NO_LINK, Who(self._local.mesh, self._local.node))

    def _on_who(self, path: Path, who: Who) -> None:
        local = self._local
        if who.mesh != local.mesh:
            self._refuse(path, NO_LINK, ErrorCode.WRONG_MESH, "another mesh")
            return
        if isinstance(path, bytes):
            self._membership.on_asked(who.node, self._turn.now)
        known: tuple[PeerHint, ...] = ()
        if self._is_due(self._gifted, path, self._options.ask_after / 2):
            known = self._hints(who.node)
        iam = Iam(
            local.mesh, local.node, local.name, local.incarnation, self.endpoints, known,
            is_edge=local.is_edge,
        )  # fmt: skip
        signed = self.proofs.signed(path, iam, who.node)
        if signed is None:
            self._note_flood(path, "WHO")
        else:
            self._send(path, NO_LINK, signed)

    def _hints(self, asker: NodeId) -> tuple[PeerHint, ...]:
        """Return some of the hubs that are here; whoever asks again hears of others.

        Nobody needs to hear of edges: they dial hubs themselves.
        """
        present = [
            peer
            for peer in self._turn.peers
            if peer.present and not peer.is_edge and peer.id != asker
        ]
        count = min(len(present), self._options.wire.known_max)
        if not count:
            return ()
        start = self._gift_from % len(present)
        hints: list[PeerHint] = []
        room = self._options.wire.head_bytes_max // 2
        for peer in islice(present + present, start, start + count):
            room -= sum(
                _TEXT_OVERHEAD + len(text.encode()) for text in (peer.name, *peer.endpoints)
            )
            if room < 0:
                break  # names and endpoints are the peers' own words, and may be long
            hints.append(PeerHint(peer.id, peer.name, peer.endpoints))
        self._gift_from = start + max(1, len(hints))
        return tuple(hints)

    def _on_iam(self, path: Path, iam: Iam) -> None:
        if iam.mesh != self._local.mesh:
            if isinstance(path, int):
                self._membership.on_wrong_mesh(path, self._turn.now)
            self._defects.note(self._whose(path), "wrong mesh", "IAM of another mesh")
            return
        peer = self._turn.peers.on_path(path)
        is_of_peer = peer is not None and peer.id == iam.node
        if not (isinstance(path, int) or is_of_peer) or not self._is_proved(path, iam):
            return
        if isinstance(path, int):
            peer = self._on_dialed(path, iam) or peer
        if peer is not None and peer.id == iam.node:
            for hint in iam.known:
                self._on_hint(hint)

    def _on_dialed(self, path: int, iam: Iam) -> RemotePeer | None:
        """Learn who answers on a path we dialed; return the peer if it is met there now."""
        if iam.node == self._local.node:
            self._look_for_clone(path, iam)
        peer, endpoint = None, self._membership.endpoint(path)
        verdict = self._membership.on_identified(
            path, iam.node, iam.endpoints, self._turn.now, is_edge=iam.is_edge
        )
        if verdict is Verdict.PROCEED and self._guard.admits(iam.node):
            peer = self._meet(path, iam)
        elif verdict is Verdict.PROCEED:
            self._turn_away(path, NO_LINK, iam.node, iam.name)
            self._membership.on_not_trusted(path, self._turn.now)
        if endpoint is not None:
            self._note_who_listens(endpoint, iam.node)
        return peer

    def _is_proved(self, path: Path, iam: Iam) -> bool:
        """Whether an IAM counts. Who dialed somebody that proves nothing tries elsewhere."""
        proof = self.proofs.of_iam(path, iam)
        if proof is Proof.HOLDS:
            return True
        if proof is Proof.UNSEEN:
            self._note_flood(path, "IAM")
            return False
        self._note_not_proved(path, "IAM", iam.node)
        if isinstance(path, int) and self._turn.peers.on_path(path) is None:
            self._membership.on_unproved(path, self._turn.now)
        return False

    def _note_not_proved(self, path: Path, what: str, claimed: NodeId) -> None:
        endpoint = self._membership.endpoint(path) if isinstance(path, int) else None
        whose = endpoint.encode() if endpoint else self._whose(path)
        peer = self._turn.peers.get(claimed)
        name = short(claimed) if peer is None else peer.label
        detail = f"{what} in the name of {name}, with no proof that holds on its connection"
        self._defects.note(whose, NOT_PROVED, detail, endpoint or "")

    def _note_flood(self, path: Path, what: str) -> None:
        detail = (
            f"more {what} than are looked at: its connection's share, or the node's, is used up"
        )
        self._defects.note(self._whose(path), FLOOD, detail)

    def _note_who_listens(self, endpoint: str, node: NodeId) -> None:
        """Tell the links of others that were said to listen there that they do no more.

        So probes that find the address open prove nothing for them: a host that came back from a
        loss of power accepts connections for its new process only.
        """
        for peer in self._turn.peers:
            if endpoint in peer.endpoints and peer.id != node:
                peer.supplanted[endpoint] = None
                peer.link.on_probe(endpoint, PathCause.REFUSED, self._turn.now)
                self._turn.touched[peer] = None

    def _look_for_clone(self, path: int, iam: Iam) -> None:
        """Tell ourselves, dialed by mistake, from another node that has our identity."""
        if not self.endpoints or not iam.endpoints:
            return
        if iam.incarnation != self._local.incarnation or self.endpoints != iam.endpoints:
            endpoint = self._membership.endpoint(path) or iam.endpoints[0]
            fenced = iam.incarnation > self._local.incarnation
            self._turn.actions.append(IdentityClash(endpoint, fenced))

    def _meet(self, path: int, iam: Iam) -> RemotePeer | None:
        """Begin a handshake on a path where the expected node answers."""
        now, peers = self._turn.now, self._turn.peers
        peer = self._admit(iam.node)
        if peer is None or not peers.bind(path, peer):
            # No room, or the process behind this very connection was another one before.
            self._turn.actions.append(HangUp(path))
            self._membership.on_dial_failed(path, PathCause.UNREACHABLE, now)
            return None
        peer.is_edge = iam.is_edge
        if not peer.name:
            peers.rename(peer, iam.name)
        peer.link.hello(path, now, iam.incarnation)
        self._turn.touched[peer] = None
        return peer

    def _on_hint(self, hint: PeerHint) -> None:
        known = self._turn.peers.get(hint.node)
        if hint.node == self._local.node or (known is not None and known.present):
            return
        if known is None or not known.incarnation:  # who was here has told its name itself
            self._turn.peers.hints.add(PEER, hint.node, hint.name)
        self._membership.on_candidate(PEER, hint.node, hint.name, hint.endpoints, self._turn.now)

    def _on_hello(self, path: Path, link: LinkId, hello: Hello) -> bool:
        """Bind the path to who claims it; return whether the claim goes to the peer's link."""
        if hello.mesh != self._local.mesh:
            self._refuse(path, link, ErrorCode.WRONG_MESH, "another mesh")
            return False
        if hello.to != self._local.node:
            self._refuse(path, link, ErrorCode.WRONG_NODE, "HELLO is for another node")
            self._defects.note(self._whose(path), "wrong node", "HELLO for another node")
            return False
        bound = self._turn.peers.on_path(path)
        if bound is not None and bound.id != hello.node:
            # Before anybody is admitted: one connection must not fill the table with names.
            self._defects.note(bound.id, "identity", "HELLO with two ids on one path")
            return False
        if not self._may_call(path, link, hello):
            return False
        if hello.node == self._local.node:
            self._refuse(path, link, ErrorCode.DUPLICATE_IDENTITY, "this id is taken: here")
            self._defects.note(self._whose(path), "identity", "HELLO with our own id")
            return False
        peer = self._peer_of(path, link, hello)
        if peer is not None:
            peer.is_edge = hello.is_edge
            self._turn.peers.bind(path, peer)
        return peer is not None

    def _peer_of(self, path: Path, link: LinkId, hello: Hello) -> RemotePeer | None:
        """Return the peer that calls, or tell it why it gets no link."""
        if not self._guard.admits(hello.node):
            self._turn_away(path, link, hello.node, hello.name)
            return None
        if hello.is_edge and self._local.is_edge:
            self._turn_down(path, link, "both are edges")
            return None
        peer = self._admit(hello.node)
        if peer is None:
            self._turn_down(path, link, "no room for more peers")
        return peer

    def _turn_down(self, path: Path, link: LinkId, why: str) -> None:
        if self._is_due(self._answered, path, 1.0):
            self._send(path, link, Bye(ByeCode.REFUSED, why))

    def _may_call(self, path: Path, link: LinkId, hello: Hello) -> bool:
        """Whether a HELLO is of whom it says."""
        proof = self.proofs.of_hello(path, link, hello)
        if proof is Proof.UNSEEN:
            self._note_flood(path, "HELLO")
        elif proof is Proof.FAILS:
            self._note_not_proved(path, "HELLO", hello.node)
            self._refuse(path, link, ErrorCode.NOT_PROVED, "the proof is of another connection")
        return proof is Proof.HOLDS

    # Trust

    def _turn_away(self, path: Path, link: LinkId, node: NodeId, name: str) -> None:
        """Refuse a link to a node that is not trusted here, as often as anything is answered.

        It may have as many keys as it likes, of which none is listed: to look at the next one of
        the same connection would take from what strangers that are listed may use.
        """
        self.proofs.ignore(path)
        if self._is_due(self._answered, path, 1.0):
            endpoint = self._membership.endpoint(path) if isinstance(path, int) else None
            why = self._guard.turn_away(node, name, endpoint or "")
            self._send(path, link, Error(ErrorCode.NOT_TRUSTED, why))

    def _on_not_trusted(self, path: Path, why: str) -> None:
        """Take note that a node does not trust this one: it does not list our key, or revoked it.

        Which of the two it is only the text tells: that of another implementation may be another.
        """
        peer = self._turn.peers.on_path(path)
        endpoint = self._membership.endpoint(path) if isinstance(path, int) else None
        called = peer.label if peer is not None else endpoint or "a node that dialed this one"
        detail = f"it gives this node no link: {why[:_TEXT_MAX]}"
        self._turn.trace("not_trusted", 30, peer=called, detail=detail)
        is_revoked = why == KEY_REVOKED.rule
        self._membership.on_not_trusted(path, self._turn.now, by_them=True, is_revoked=is_revoked)

    # Paths

    def on_path_down(self, path: Path, cause: PathCause) -> None:
        """Note that a path ended; whose dial was refused is told so at once."""
        now, peers = self._turn.now, self._turn.peers
        self._answered.pop(path, None)
        self._gifted.pop(path, None)
        self.proofs.forget(path)
        self.outcasts.forget(path)
        peer = peers.unbind(path)
        if peer is not None:
            peer.link.on_path_down(path, cause, now)
            self._turn.touched[peer] = None
        if isinstance(path, int):
            self._membership.on_dial_failed(path, cause, now)

    def on_hung_up(self, path: int) -> None:
        """Note that a path was given up here, so no PathDown comes."""
        self.proofs.forget(path)
        self.outcasts.forget(path)
        peer = self._turn.peers.unbind(path)
        if peer is not None:
            peer.link.on_path_down(path, PathCause.CLOSED, self._turn.now)
            self._turn.touched[peer] = None

    def on_inbound_closed(self) -> None:
        """Some connection to us ended: find out whose, soon but not once for each of many.

        ZeroMQ may tell of the end a moment before it takes the path away, so the question that
        comes too early, and goes into the void, is asked again.
        """
        self._doubts = 2
        if self._doubt_at is None:
            self._doubt_at = max(self._turn.now, self._calm_until)
            self._turn.agenda.look_at(self._doubt_at)
        self.on_timer()

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._doubt_at

    def on_timer(self) -> None:
        """Ask on every inbound path: the transport says which of them are gone."""
        now = self._turn.now
        if self._doubt_at is None or now < self._doubt_at:
            return
        inbound = [peer for peer in self._turn.peers if isinstance(peer.link.path, bytes)]
        for peer in inbound:
            self.ask(peer)
        # A stranger that connects and leaves in a loop must not make us ask around all day.
        pause = max(_DOUBT_INTERVAL_S, len(inbound) / self._options.doubts_per_second)
        self._calm_until = now + pause
        self._doubts -= 1
        self._doubt_at = None
        if self._doubts:
            self._doubt_at = self._calm_until
            self._turn.agenda.look_at(self._doubt_at)

    def ask(self, peer: RemotePeer) -> None:
        """Ask a linked peer who it is, and whom it knows."""
        if peer.link.path is not None:
            self._send(peer.link.path, NO_LINK, Who(self._local.mesh, self._local.node))

    # Answers

    def _refuse(self, path: Path, link: LinkId, code: ErrorCode, text: str) -> None:
        if self._is_due(self._answered, path, 1.0):
            self._send(path, link, Error(code, text[:_TEXT_MAX]))

    def _is_due(self, last: dict[Path, float], path: Path, interval: float) -> bool:
        """Return whether a path's last answer is long enough ago, and note this one."""
        now = self._turn.now
        if now < last.get(path, float("-inf")) + interval:
            return False
        last.pop(path, None)  # to the end: the longest unanswered one is forgotten first
        last[path] = now
        if len(last) > self._options.strangers_max:
            del last[next(iter(last))]
        return True

    def _send(self, path: Path, link: LinkId, frame: Frame) -> None:
        options, packet = self._options, Packet(link, 0, (frame,))
        try:
            parts = encode(packet, options.wire, options.link.inline_bytes_max)
        except ProtocolError as error:
            self._turn.trace("packet_unsendable", 30, peer="", detail=error.detail)
            return
        self._turn.actions.append(SendPackets(path, [parts]))

    def _whose(self, path: Path) -> bytes:
        """Return what to count a path's defects under: its peer, or the path itself."""
        peer = self._turn.peers.on_path(path)
        if peer is not None:
            return peer.id
        return path if isinstance(path, bytes) else str(path).encode()
