"""The peers' links: made when a peer is met, looked at when due, given up when it stays away."""

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from zmesh.actions import HangUp, SendPackets
from zmesh.core.link_news import LinkNews
from zmesh.core.peers import Peer, RemotePeer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines, earliest
from zmesh.errors import ProtocolError
from zmesh.ids import NO_LINK, Entropy, NodeId, Path
from zmesh.options import NodeOptions
from zmesh.reliable.credit import CreditPool
from zmesh.reliable.handshake import LocalIdentity
from zmesh.reliable.link import Link
from zmesh.reliable.link_events import SessionEnd
from zmesh.reliable.link_states import LinkState
from zmesh.wire.codec import encode
from zmesh.wire.frames import ByeCode, ControlData, Data, Packet

Parts = list[bytes | memoryview]


class Residents:
    """Moves events and packets of links, and decides who stays in the table of peers."""

    def __init__(
        self,
        local: LocalIdentity,
        options: NodeOptions,
        entropy: Entropy,
        turn: Turn,
        news: LinkNews,
    ) -> None:
        self._local = local
        self._options = options
        self._entropy = entropy
        self._turn = turn
        self._peers = turn.peers
        self._news = news
        self._pool = CreditPool(options.node_bytes_max)
        self._timers: Deadlines[NodeId] = Deadlines(turn.agenda)
        self._patience: Deadlines[NodeId] = Deadlines(turn.agenda)  # with who is not present
        self._limits = options.wire
        self._inline_bytes_max = options.link.inline_bytes_max
        self._endpoints: tuple[str, ...] = ()
        self.refused = 0  # for whom there was no room
        self.displaced = 0  # who made room for others

    def on_endpoints(self, endpoints: tuple[str, ...]) -> None:
        """Learn where this node listens: links tell their peers when they handshake."""
        self._endpoints = endpoints
        for peer in self._peers:
            peer.link.local_endpoints = endpoints

    # Coming and staying

    def admit(self, node: NodeId) -> RemotePeer | None:
        """Return the peer with this id, taken in if need be; None where there is no room."""
        peer = self._peers.get(node)
        if peer is not None:
            return peer
        if len(self._peers) >= self._options.peers_max and not self._make_room():
            self.refused += 1
            return None
        options, now = self._options, self._turn.now
        link = Link(
            self._local, node, options.link, options.wire, self._entropy, now, self._pool,
            self._turn.patience,
        )  # fmt: skip
        link.local_endpoints = self._endpoints
        peer = RemotePeer(node, link)
        self._peers.add(peer)
        self._turn.touched[peer] = None
        return peer

    def _make_room(self) -> bool:
        """Forget somebody who is not there and has nothing to lose; whether there was one.

        Where all who are not there may come back to their sessions, the newest goes: a flood that
        comes and goes pushes out its own.
        """
        idle = [peer for peer in self._peers if not (peer.present or _has_to_lose(peer))]
        victim = next((peer for peer in idle if not peer.session), idle[-1] if idle else None)
        if victim is None:
            return False
        self.displaced += 1
        self._forget(victim)
        return True

    def _forget(self, peer: RemotePeer) -> None:
        self.end(peer, SessionEnd.LINGER_OVER, ByeCode.CLOSED)
        self._drop(peer)

    def _drop(self, peer: RemotePeer) -> None:
        """Take a peer off the table."""
        self._peers.remove(peer)
        peer.is_forgotten = True
        if peer.incarnation:  # what was heard of one that was here says nothing of its return
            self._peers.hints.forget(peer.id)
        self._timers.discard(peer.id)
        self._patience.discard(peer.id)

    def end(self, peer: RemotePeer, reason: SessionEnd, code: ByeCode) -> None:
        """Close a link, and give all that waits for the peer its outcome."""
        peer.ended = reason
        peer.link.close(code, "")
        self.take_events(peer)
        self._news.on_gone(peer, reason)
        self._send(peer)
        self._turn.touched.pop(peer, None)

    def expel(self, peer: RemotePeer) -> None:
        """Cut a peer off that is not trusted any more; what waits for it ends as PeerLost."""
        paths = [path for path in peer.paths if isinstance(path, int)]
        self._news.leave(peer, SessionEnd.REVOKED.value)
        peer.ended = SessionEnd.REVOKED
        peer.link.close(ByeCode.REFUSED, "your key is not trusted any more", SessionEnd.REVOKED)
        self.take_events(peer)
        self._news.on_gone(peer, SessionEnd.REVOKED)
        self._send(peer)
        self._turn.touched.pop(peer, None)
        self._drop(peer)
        self._turn.actions += map(HangUp, paths)

    # Links

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return earliest(self._timers.next, self._patience.next)

    def on_timer(self) -> None:
        """Let links do what is due, and forget peers that stayed away for too long."""
        now, touched = self._turn.now, self._turn.touched
        for node in self._timers.due(now):
            peer = self._peers.get(node)
            if peer is not None:
                peer.look_at = inf
                peer.link.on_timer(now)
                touched[peer] = None
        for node in self._patience.due(now):
            peer = self._peers.get(node)
            if peer is None:
                continue
            peer.is_missed = False
            if peer.present:
                continue
            if peer.link.session is None:
                self._forget(peer)
            else:
                touched[peer] = None  # its session lingers: have patience again

    def take_events(self, peer: Peer) -> bool:
        """Bring what the carrier of a peer tells to the patterns; whether it told anything."""
        events = peer.carrier.take_events()
        for event in events:
            self._news.on_event(peer, event)
        return bool(events)

    def write(self, peer: RemotePeer) -> bool:
        """Send what a link has to send, and note when it wants to be looked at again.

        Returns whether there were news: a link may be given up over what it should have sent.
        """
        if peer.is_forgotten:
            return False
        link = peer.link
        packets = link.packets(self._turn.now)
        if packets:
            self._send_all(peer, packets)
        has_news = bool(link.events) and self.take_events(peer)
        due = link.due_by(peer.look_at)
        if due < peer.look_at:  # what is put off again and again is looked at early, rather
            peer.look_at = due
            self._timers.set(peer.id, due)
        if peer.present is peer.is_missed:
            self._miss(peer)
        return has_news

    def _miss(self, peer: RemotePeer) -> None:
        """Begin to have patience with a peer that is not there, or end it: it is."""
        peer.is_missed = not peer.present
        patience = self._options.link.session_linger
        self._patience.set(peer.id, self._turn.now + patience if peer.is_missed else None)

    def _send(self, peer: RemotePeer) -> None:
        self._send_all(peer, peer.link.packets(self._turn.now))

    def _send_all(self, peer: RemotePeer, packets: Iterable[tuple[Path, Packet]]) -> None:
        actions = self._turn.actions
        for path, packet in packets:
            try:
                parts = encode(packet, self._limits, self._inline_bytes_max)
            except ProtocolError as error:
                parts = self._encode_some(peer, packet, error)
            if not parts:
                continue
            last = actions[-1] if actions else None
            if type(last) is SendPackets and last.path == path:
                last.packets.append(parts)
            else:
                actions.append(SendPackets(path, [parts]))

    def _encode(self, packet: Packet) -> Parts:
        return encode(packet, self._limits, self._inline_bytes_max)

    def _encode_some(self, peer: RemotePeer, packet: Packet, error: ProtocolError) -> Parts:
        """Return the parts of what can be sent of a packet; none where that is nothing.

        Sizes are estimated when a packet is filled, so it may turn out too large. To the link the
        rest is lost on its way, and comes again. What cannot be sent by itself is refused.
        """
        refused = [
            (frame.lane, seq, why)
            for frame in packet.frames
            if isinstance(frame, Data)
            for seq, why in self._unsendable(frame)
        ]
        for lane, seq, why in refused:
            peer.link.refuse(lane, seq, f"it cannot be sent: {why}")
            self._turn.touched[peer] = None
        smaller = None if refused else _less_of(packet)
        while smaller is not None:
            try:
                return self._encode(smaller)
            except ProtocolError:
                smaller = _less_of(smaller)
        self._turn.trace("packet_unsendable", 30, peer=peer.label, detail=error.detail)
        return []

    def _unsendable(self, frame: Data) -> list[tuple[int, str]]:
        """Return the records that fit no packet even alone, and why."""
        try:
            self._encode(Packet(NO_LINK, 0, (frame,)))
        except ProtocolError as error:
            if len(frame.records) == 1:
                return [(frame.first_seq, error.detail)]
            half = len(frame.records) // 2
            low = replace(frame, records=frame.records[:half])
            high = Data(frame.lane, frame.first_seq + half, frame.records[half:])
            return self._unsendable(low) + self._unsendable(high)
        return []


def _has_to_lose(peer: RemotePeer) -> bool:
    """Whether something of one who is not there waits for its return, or for its outcome."""
    is_back = peer.session is not None and peer.link.state is not LinkState.IDLE
    return bool(is_back or peer.link.queued_messages or peer.retries or peer.open_in)


def _less_of(packet: Packet) -> Packet | None:
    """Return the packet with half of its last frame, or without it; None where nothing is left."""
    *before, last = packet.frames
    if isinstance(last, Data | ControlData) and len(last.records) > 1:
        half = last.records[: len(last.records) // 2]
        before.append(replace(last, records=half))  # type: ignore[arg-type]  # of the same kind
    return replace(packet, frames=tuple(before)) if before else None
