"""Who pulls from whom, and when: a map's replica compared with another's.

A replica asks one other at a time, and answers whoever asks. Clocks are compared on the way.
"""

from typing import Final

from zmesh.actions import StateReady
from zmesh.core.defects import Defects
from zmesh.core.peers import InternalTicket, Peer
from zmesh.core.turn import Turn
from zmesh.errors import ProtocolError
from zmesh.ids import Entropy, NodeId
from zmesh.message import PRIORITY_DEFAULT, Encoding, Kind, head
from zmesh.options import NodeOptions
from zmesh.patterns.shared_map import LIFE_BYTES, Entry
from zmesh.patterns.shared_parts import (
    AnswerTicket,
    Member,
    QuestionTicket,
    Shared,
    WallClock,
)
from zmesh.patterns.shared_replica import Refusals
from zmesh.patterns.state_pull import Pull, answer
from zmesh.patterns.state_records import (
    Ask,
    Delta,
    Digest,
    Fetch,
    Piece,
    encode_ask,
    encode_digest,
    encode_fetch,
    encode_piece,
)

STATE_HEAD: Final = head(Kind.STATE, Encoding.MSGPACK)

_ANSWERS_MAX: Final = 2
"""Answers to one peer on their way, for each map there may be: an honest one has asked once."""

_ADOPT_AFTER: Final = 3
"""Comparisons after which a replica whose clock was wrong looks after what nobody else does."""


class Pulls:
    """The pulls of all maps of a node, its own and those of others."""

    def __init__(
        self,
        turn: Turn,
        options: NodeOptions,
        entropy: Entropy,
        defects: Defects,
        clock: WallClock,
    ) -> None:
        self._turn = turn
        self._options = options
        self._entropy = entropy
        self._defects = defects
        self._clock = clock
        self._answers: dict[NodeId, int] = {}  # on their way
        self.begun = 0
        self.refused_ahead = 0
        self.refused_full = 0
        self.rewritten = 0  # entries, because this node's clock had been wrong

    def _wall(self) -> int:
        return self._clock.ms(self._turn.now)

    def submit(self, peer: Peer, name: str, body: bytes, ticket: InternalTicket) -> None:
        """Send another replica a record."""
        self._turn.submit(peer, PRIORITY_DEFAULT, [(STATE_HEAD, name, body)], ticket)

    # Asking

    def begin(self, shared: Shared) -> None:
        """Ask a replica that is due."""
        now = self._turn.now
        for member in shared.members.values():
            if member.due is None or max(member.due, member.rest_until) > now:
                continue
            member.due = None
            self.begun += 1
            shared.pull = pull = Pull(self.begun, member.peer.id, shared.replica.map)
            self._ask(
                shared, pull, encode_ask(Ask(pull.number, shared.replica.map.root, self._wall()))
            )
            return

    def _ask(self, shared: Shared, pull: Pull, body: bytes) -> None:
        name = shared.replica.name
        shared.pull_until = self._turn.now + self._options.shared_sync_timeout
        peer = shared.members[pull.peer].peer
        self.submit(peer, name, body, QuestionTicket(name, pull.number))

    def _end_pull(self, shared: Shared, pull: Pull, retry_after: float | None = None) -> None:
        """End a pull; it is made again after so many seconds, unless it brought everything."""
        member, now = shared.members[pull.peer], self._turn.now
        shared.pull = None
        member.tried = True
        member.rest_until = now + self._options.shared_sync_gap
        if retry_after is not None:
            member.due = now + retry_after
        self.check_whole(shared)

    def _complete(self, shared: Shared, pull: Pull) -> None:
        assert pull.digest is not None  # noqa: S101  # it is the first answer
        if pull.digest.is_whole and not shared.is_whole:
            self._become_whole(shared)
        if not pull.is_clean:
            self._end_pull(shared, pull, retry_after=self._options.shared_sync_every)
            return
        replica = shared.replica.map
        replica.absorb(pull.digest.seen)
        for member in shared.members.values():
            if member.run is not None:
                origin, since, until = member.run
                if replica.seen.get(origin, 0) >= since:
                    replica.note_seen(origin, until)
                    member.run = None
        self._end_pull(shared, pull)

    def on_timer(self, shared: Shared) -> None:
        """Give up a pull that lasts too long, and do what waited for others to do it."""
        now, retry_after = self._turn.now, self._options.shared_sync_every
        if shared.pull is not None and shared.pull_until <= now:
            self._end_pull(shared, shared.pull, retry_after)
        self.check_whole(shared)
        if shared.adopt_at is not None and shared.adopt_at <= now:
            shared.adopt_at = None
            self.rewritten += shared.replica.adopt(self._wall(), now)

    def on_question_returned(self, peer: Peer, shared: Shared, ticket: QuestionTicket) -> None:
        """Take in that a question was not taken."""
        pull = shared.pull
        if pull is not None and (pull.peer, pull.number) == (peer.id, ticket.number):
            self._end_pull(shared, pull, retry_after=self._options.shared_sync_every)

    def check_whole(self, shared: Shared) -> None:
        """A replica is whole where nobody it knows of has more, or could be asked."""
        if shared.is_whole or not all(member.tried for member in shared.members.values()):
            return
        if shared.grace_until is not None:
            if shared.grace_until > self._turn.now:
                return
            shared.grace_until = None
        self._become_whole(shared)

    def _become_whole(self, shared: Shared) -> None:
        shared.is_whole = True
        shared.grace_until = None
        self._turn.actions.append(StateReady(shared.replica.name))

    # Answering

    def on_question(self, peer: Peer, shared: Shared, question: Ask | Fetch) -> str | None:
        """Answer another replica; return why it gets no answer, None where it does."""
        if self._answers.get(peer.id, 0) >= _ANSWERS_MAX * self._options.shared_maps_max:
            return "too many questions at once"
        own = shared.replica.map
        if isinstance(question, Ask):
            self._compare_clocks(shared, question.wall_ms)
            sums = b""
            if question.root != own.root:
                sums = own.sums
                self._ask_back(peer, shared)
            body = encode_digest(
                Digest(question.number, shared.is_whole, self._wall(), own.seen, sums)
            )
        else:
            body = encode_piece(answer(own, question, self._options.shared_piece_bytes))
        self._answers[peer.id] = self._answers.get(peer.id, 0) + 1
        self.submit(peer, shared.replica.name, body, AnswerTicket())
        return None

    def _ask_back(self, peer: Peer, shared: Shared) -> None:
        """Compare with one that differs, once it has what it lacked: it may have more as well."""
        member = shared.members.get(peer.id)
        if member is not None and member.due is None:
            member.due = self._turn.now + self._options.shared_sync_gap

    def forget(self, peer: Peer) -> None:
        """Forget what is on its way to a peer: the session is over."""
        self._answers.pop(peer.id, None)

    def answered(self, peer: Peer) -> None:
        """Count an answer less that is on its way."""
        count = self._answers.get(peer.id, 0)
        if count > 1:
            self._answers[peer.id] = count - 1
        else:
            self._answers.pop(peer.id, None)

    def on_answer(self, peer: Peer, shared: Shared, told: Digest | Piece) -> None:
        """Take an answer, and ask on.

        Raises:
            ProtocolError: it answers nothing; the pull has ended.
        """
        pull = shared.pull
        if pull is None or (pull.peer, pull.number) != (peer.id, told.number):
            return  # of a pull that was given up
        try:
            if isinstance(told, Digest):
                self._compare_clocks(shared, told.wall_ms)
                question = pull.on_digest(told)
            else:
                refusals = self.take(peer, shared, told.entries)
                pull.is_clean = pull.is_clean and not refusals
                outdated, question = pull.on_piece(told)
                shared.replica.drop(outdated, peer.id)
        except ProtocolError:
            self._end_pull(shared, pull, retry_after=self._options.shared_sync_every)
            raise
        if question is None:
            self._complete(shared, pull)
        else:
            self._ask(shared, pull, encode_fetch(question))

    # Learning

    def take(self, peer: Peer, shared: Shared, entries: list[tuple[str, Entry]]) -> Refusals:
        """Take entries into a map; what is refused is counted, and told of once a peer."""
        refusals = shared.replica.take(entries, self._wall(), self._turn.now)
        if refusals.ahead:
            self.refused_ahead += refusals.ahead
            detail = f"entries of map {shared.replica.name!r} stamped too far ahead: whose clock?"
            self._defects.note(peer.id, "state from the future", detail)
        if refusals.full:
            self.refused_full += refusals.full
            detail = f"map {shared.replica.name!r} has no room for all that others hold"
            self._defects.note(peer.id, "state without room", detail)
        return refusals

    def note_run(self, member: Member, delta: Delta) -> None:
        """Remember changes ahead of what was seen, until a pull has filled the gap."""
        run = member.run
        if run is not None and run[0] == delta.origin and run[2] >= delta.since:
            member.run = (delta.origin, run[1], max(run[2], delta.until))
        else:
            member.run = (delta.origin, delta.since, delta.until)
        if member.due is None:
            member.due = self._turn.now

    # Clocks

    def _compare_clocks(self, shared: Shared, theirs_ms: int) -> None:
        """Where our stamps are ahead of our clock and of another's, ours was wrong: put it right.

        Without another's word it could as well be wrong now, and the stamps be good.
        """
        replica, wall_ms = shared.replica, self._wall()
        if not (replica.is_ahead(wall_ms) and replica.is_ahead(theirs_ms)):
            return
        life = self._entropy.token(LIFE_BYTES)
        rewritten = replica.put_clock_back(wall_ms, life, self._turn.now)
        self.rewritten += rewritten
        shared.adopt_at = self._turn.now + _ADOPT_AFTER * self._options.shared_sync_every
        for member in shared.members.values():
            member.told = 0
            member.in_flight = None
        self._turn.trace("state_clock_put_back", 30, map=replica.name, rewritten=rewritten)
