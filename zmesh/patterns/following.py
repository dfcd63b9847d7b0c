"""Subscriptions that read their publishers' logs: what each publisher is told of them, and tells.

A publisher is told from where on in an interest of kind LOG, which is for it alone. That of number
0 asks for what a node missed of a publisher that it lost touch with, for all other subscriptions;
it is taken back when they have been told, and only then the publisher goes on.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from zmesh.core.peers import Peer, RemotePeer
from zmesh.core.positions import RESUMED, Track
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines
from zmesh.errors import ProtocolError
from zmesh.events import Source
from zmesh.ids import NodeId
from zmesh.message import InterestKind, Record
from zmesh.options import WireLimits
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.wanted import filter_members
from zmesh.storage import Entry
from zmesh.terms import Terms
from zmesh.wire.bodies import body_of

RANGES_TOLD_MAX: Final = 64
"""Of what was handled out of order: of the rest copies come, and are known here."""

SAVE_AGAIN_S: Final = 1.0


@dataclass(slots=True)
class _Follower:
    """A subscription that follows, and what it told each publisher."""

    pattern: str
    terms: Terms
    begun_ms: int  # its name was used first, maybe in an earlier life
    met: frozenset[NodeId]  # were there when it began for the first time
    told: dict[NodeId, str] = field(default_factory=dict)


class Following:
    """All of one node."""

    def __init__(self, turn: Turn, interest: InterestTable, limits: WireLimits) -> None:
        self._turn = turn
        self._text_bytes_max = limits.text_bytes_max
        self._interest = interest
        self._followers: dict[int, _Follower] = {}
        self._last_token = 0
        self._resumed: dict[NodeId, str] = {}  # what those were told who wait
        self._were_here: dict[NodeId, int] = {}  # the last subscription when a publisher was lost
        self._due: Deadlines[None] = Deadlines(turn.agenda)
        self.gathered = (turn.positions.owing,)  # empty: nothing to flush

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._due.next

    # Subscriptions

    def on_subscribe(self, token: int, pattern: str, terms: Terms) -> None:
        """Take note of a subscription, and ask all publishers where it follows."""
        self._last_token = token
        if not terms.follows:
            return
        turn = self._turn
        peers: list[Peer] = [each for each in turn.peers if each.announced]
        peers.append(turn.peers.local)
        is_new = terms.name is None or terms.name not in turn.positions.begun_ms
        now_ms = turn.keeper.wall_ms(turn.now)
        turn.positions.follow(token, terms.name, now_ms)
        begun_ms = turn.positions.begun_ms.get(terms.name or "", now_ms)
        met = frozenset(peer.id for peer in peers) if is_new else frozenset[NodeId]()
        follower = self._followers[token] = _Follower(pattern, terms, begun_ms, met)
        for peer in peers:
            self._ask(peer, token, follower)

    def on_unsubscribe(self, token: int) -> None:
        """End a subscription, if it follows."""
        follower = self._followers.pop(token, None)
        if follower is None:
            return
        self._turn.positions.unfollow(token)
        for node, text in follower.told.items():
            peer = self._turn.peers.find(node)
            if peer is not None:
                self._interest.tell_one(peer, InterestKind.LOG, text, added=False)

    def on_opened(self, peer: RemotePeer) -> None:
        """Ask a publisher whose session begins to wait with what is new until all is told."""
        lanes = self._turn.positions.lanes(peer.id, peer.journal)
        if lanes:
            text = _json([RESUMED, ">", {"lanes": lanes}])
            self._interest.tell_one(peer, InterestKind.LOG, text, added=True)
            self._resumed[peer.id] = text

    def on_announced(self, peer: RemotePeer) -> None:
        """Ask it to go on: it has been told of all subscriptions."""
        text = self._resumed.pop(peer.id, None)
        if text is not None:
            self._interest.tell_one(peer, InterestKind.LOG, text, added=False)
        for token, follower in self._followers.items():
            self._ask(peer, token, follower)

    def on_session_ended(self, peer: Peer) -> None:
        """Take note that a publisher is out of touch."""
        self._were_here[peer.id] = self._last_token
        for follower in self._followers.values():
            follower.told.pop(peer.id, None)

    def were_here(self, node: NodeId) -> int:
        """Return the last subscription that misses what a publisher sends again."""
        return self._were_here.get(node, 0)

    def _ask(self, peer: Peer, token: int, follower: _Follower) -> None:
        text = follower.told[peer.id] = self._interest_of(peer, token, follower)
        self._interest.tell_one(peer, InterestKind.LOG, text, added=True)

    def _interest_of(self, peer: Peer, token: int, follower: _Follower) -> str:
        """Return what a publisher is asked for, with as many ranges as a text has room for."""
        members = {} if follower.terms.filter is None else filter_members(follower.terms.filter)
        since = members["since"] = self._since(peer, token, follower)
        text = _json([token, follower.pattern, members])
        while len(text.encode()) > self._text_bytes_max and "but" in since:
            since["but"] = since["but"][: len(since["but"]) // 2]
            if not since["but"]:
                del since["but"]
            text = _json([token, follower.pattern, members])
        return text

    def _since(self, peer: Peer, token: int, follower: _Follower) -> Any:
        """Return from where on in a publisher's log a subscription reads."""
        since = follower.terms.since
        track = self._turn.positions.find(peer.id, follower.terms.name or token)
        if track is not None:
            return _after(track) if track.journal == peer.journal else "first"
        if since is None:
            return "now" if peer.id in follower.met else {"ms": follower.begun_ms}
        if isinstance(since, tuple):
            after = dict(since).get(peer.id.hex())
            return "first" if after is None else {"after": after}
        return since if since == "first" else {"ms": since}

    # What publishers tell

    def on_told(self, source: Source, record: Record) -> None:
        """Take note of how far a publisher has come for a subscription."""
        try:
            told = body_of(record)
        except ProtocolError as error:
            self._turn.trace("position_refused", 30, why=str(error))
            return
        match told:
            case [int(token), int(position)] if token in self._followers:
                positions = self._turn.positions
                if record[1] == "passed":
                    positions.passed(source, token, position)
                else:
                    positions.given_up(source, token, position)
            case _:
                pass  # of a subscription that has ended, or of a later version

    def on_timer(self) -> None:
        """Try again to keep positions that the full disk did not take."""
        self._due.due(self._turn.now)
        self._turn.positions.save_owing()

    def flush(self) -> None:
        """See that what the disk did not take is tried again."""
        if self._turn.positions.owing and not self._due:
            self._due.set(None, self._turn.now + SAVE_AGAIN_S)

    # Another life

    def on_entry(self, entry: Entry) -> None:
        """Learn how far a name was in an earlier life."""
        self._turn.positions.on_entry(entry)


def _after(track: Track) -> dict[str, Any]:
    but = track.others.as_tuple(RANGES_TOLD_MAX)
    return {"after": track.done, "but": but} if but else {"after": track.done}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
