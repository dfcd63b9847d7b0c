"""What becomes of a message for one peer that was not accepted: again, later, or a failure.

Shared by the patterns that address a peer for good (direct, publish/subscribe). Attempts grow only
by handlers that failed; what was given back unhandled comes again as it was.
"""

from dataclasses import dataclass

from zmesh.core.peers import OnceTicket, Peer, StoredTicket
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines
from zmesh.ids import Entropy
from zmesh.message import (
    Failure,
    FailureKind,
    Kind,
    Outcome,
    Record,
    Tag,
    Ticket,
    extra,
    size_of,
    with_extra,
    without_extra,
)
from zmesh.options import NodeOptions
from zmesh.patterns.dead_letters import DeadLetters
from zmesh.patterns.letters import RequeuedTicket, note_attempt, take_history
from zmesh.reliable.link_events import Returned, SessionEnd
from zmesh.storage import FailedAttempt


@dataclass(slots=True)
class _Retry:
    peer: Peer
    lane: int
    record: Record
    ticket: Ticket


class Redelivery:
    """Decides on records that came back, and keeps those whose next attempt is to come."""

    def __init__(
        self, turn: Turn, options: NodeOptions, entropy: Entropy, dead_letters: DeadLetters
    ) -> None:
        self._turn = turn
        self._options = options
        self._entropy = entropy
        self.dead_letters = dead_letters
        self._retries: dict[int, _Retry] = {}
        self._due: Deadlines[int] = Deadlines(turn.agenda)
        self._unsent: list[_Retry] = []  # back from a session that ended, safe to send again
        self.gathered = (self._unsent,)  # empty: nothing to flush
        self._numbered = 0
        self.redelivered = 0

    def __len__(self) -> int:
        """Count the records that wait for their next attempt."""
        return len(self._retries)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._due.next

    def on_returned(self, peer: Peer, returned: Returned, ended: SessionEnd | None) -> None:
        """Decide on a record that was not accepted; `ended` tells why its session did."""
        if isinstance(returned.ticket, OnceTicket):
            # Nobody hears of it, but what waits behind it may go.
            self._fail(peer, returned, FailureKind.REJECTED, returned.reason)
            return
        match returned.outcome:
            case Outcome.REJECTED:
                self._fail(peer, returned, FailureKind.REJECTED, returned.reason)
            case Outcome.EXPIRED:
                self._fail(peer, returned, FailureKind.EXPIRED, returned.reason)
            case Outcome.MODIFIED:
                self._on_modified(peer, returned)
            case Outcome.RELEASED if returned.transmitted:
                # Two nodes must not play ping-pong with it as fast as they can.
                delay = max(returned.delay, self._options.redeliver_min)
                self._retry(peer, returned, returned.record, delay)
            case _:
                self._on_session_ended(peer, returned, ended)

    def _on_modified(self, peer: Peer, returned: Returned) -> None:
        attempts = _attempt(returned.record)
        if not isinstance(returned.ticket, StoredTicket):  # else others keep account of it
            self._note_attempt(returned, attempts)
        if attempts >= self._options.attempts_max:
            if not isinstance(returned.ticket, StoredTicket):
                self._bury(peer, returned, attempts)
            self._fail(peer, returned, FailureKind.DEAD_LETTERED, returned.reason)
            return
        record = with_extra(returned.record, Tag.ATTEMPT, attempts + 1)
        self._retry(peer, returned, record, max(returned.delay, self.backoff(attempts)))

    def _note_attempt(self, returned: Returned, attempt: int) -> None:
        at_ms = self._turn.keeper.wall_ms(self._turn.now)
        failed = FailedAttempt(at_ms, returned.reason)
        note_attempt(returned.ticket, returned.record, attempt, failed)

    def _bury(self, peer: Peer, returned: Returned, attempts: int) -> None:
        self.dead_letters.keep(
            peer,
            returned.record,
            returned.reason,
            attempts,
            lane=returned.lane,
            history=take_history(returned.ticket, returned.record, attempts),
        )

    def backoff(self, attempts: int) -> float:
        """Return how long a message pauses after so many failed attempts."""
        options = self._options
        ceiling = min(options.redeliver_max, options.redeliver_min * 2.0 ** min(attempts, 30))
        return ceiling * self._entropy.uniform(0.5, 1.0)

    def _on_session_ended(self, peer: Peer, returned: Returned, ended: SessionEnd | None) -> None:
        """Decide without a verdict: what never left this process is safe to send again."""
        match ended:
            case SessionEnd.PEER_RESTARTED | SessionEnd.PEER_FORGOT:
                # A subscription ends with the process that had it, a name stays.
                is_publication = returned.record[0] & 15 in (Kind.PUBLICATION, Kind.MISSED)
                if returned.transmitted or is_publication:
                    self._fail(peer, returned, FailureKind.PEER_RESTARTED, ended.value)
                else:
                    self._retry(peer, returned, returned.record, 0.0)
            case SessionEnd.LINGER_OVER | SessionEnd.PEER_LEFT | SessionEnd.REVOKED:
                self._fail(peer, returned, FailureKind.PEER_LOST, ended.value)
            case SessionEnd.CLOSED:
                self._fail(peer, returned, FailureKind.CLOSED, "")
            case None:  # no link was ever open: the next session takes it
                self._retry(peer, returned, returned.record, 0.0)

    # Attempts to come

    def _retry(self, peer: Peer, returned: Returned, record: Record, delay: float) -> None:
        # Its predecessor was a number of the session it comes from.
        retry = _Retry(
            peer, returned.lane, without_extra(record, Tag.PREDECESSORS), returned.ticket
        )
        if delay <= 0:
            self._unsent.append(retry)
            return
        self._numbered += 1
        self._retries[self._numbered] = retry
        self._due.set(self._numbered, self._turn.now + delay)
        peer.retries += 1
        peer.retry_bytes += size_of(retry.record)

    def flush(self) -> None:
        """Submit what a session returned unsent, in the order it was first submitted.

        It came back lane by lane; messages of one key must not overtake each other for that.
        """
        unsent = self._unsent[:]
        self._unsent.clear()
        for retry in sorted(unsent, key=lambda retry: retry.ticket.order):
            self._resubmit(retry)

    def on_timer(self) -> None:
        """Submit what is due again."""
        for number in self._due.due(self._turn.now):
            self._resubmit(self._take(number))

    def _take(self, number: int) -> _Retry:
        retry = self._retries.pop(number)
        retry.peer.retries -= 1
        retry.peer.retry_bytes -= size_of(retry.record)
        self._turn.touched[retry.peer] = None  # it may have room again
        return retry

    def _resubmit(self, retry: _Retry) -> None:
        peer, ticket = retry.peer, retry.ticket
        if isinstance(ticket, StoredTicket) and ticket.is_void:
            return
        ttl = None if ticket.expires is None else ticket.expires - self._turn.now
        if ttl is not None and ttl <= 0:
            failure = Failure(FailureKind.EXPIRED, peer.label, "", _attempt(retry.record))
            self._turn.fail(ticket, failure)
            return
        self.redelivered += 1
        key = extra(retry.record, Tag.KEY)
        self._turn.submit(
            peer,
            retry.lane,
            [retry.record],
            ticket,
            key=key if isinstance(key, str) else None,
            ttl=ttl,
        )

    # Ends

    def on_gone(self, peer: Peer, kind: FailureKind, reason: str) -> None:
        """Fail what waits for a peer that will not come back."""
        gone = [retry for retry in self._unsent if retry.peer is peer]
        if gone:
            self._unsent[:] = [retry for retry in self._unsent if retry.peer is not peer]
        self._fail_retries(gone + self._take_all(peer), kind, reason)

    def on_restarted(self, peer: Peer, reason: str) -> None:
        """Fail publications that wait for a peer's next attempt: their subscriptions are over."""
        ended = self._take_all(peer, Kind.PUBLICATION)
        self._fail_retries(ended, FailureKind.PEER_RESTARTED, reason)

    def _take_all(self, peer: Peer, kind: Kind | None = None) -> list[_Retry]:
        """Take what waits for a peer's next attempt, of one kind or of all."""
        numbers = [
            number
            for number, retry in (self._retries.items() if peer.retries else ())
            if retry.peer is peer and kind in (None, retry.record[0] & 15)
        ]
        for number in numbers:
            self._due.discard(number)
        return [self._take(number) for number in numbers]

    def _fail_retries(self, retries: list[_Retry], kind: FailureKind, reason: str) -> None:
        for retry in retries:
            self._keep_requeued(retry.peer, retry.record, retry.lane, retry.ticket, kind, reason)
            failure = Failure(kind, retry.peer.label, reason, _attempt(retry.record))
            self._turn.fail(retry.ticket, failure)

    def _fail(self, peer: Peer, returned: Returned, kind: FailureKind, reason: str) -> None:
        self._keep_requeued(peer, returned.record, returned.lane, returned.ticket, kind, reason)
        failure = Failure(kind, peer.label, reason, _attempt(returned.record))
        self._turn.fail(returned.ticket, failure)

    def _keep_requeued(
        self,
        peer: Peer,
        record: Record,
        lane: int,
        ticket: Ticket,
        kind: FailureKind,
        reason: str,
    ) -> None:
        """Keep what was a dead letter before, whatever it failed for: nobody else hears of it."""
        if isinstance(ticket, RequeuedTicket) and kind is not FailureKind.DEAD_LETTERED:
            attempts = _attempt(record)
            history = take_history(ticket, record, attempts)
            self.dead_letters.keep(
                peer, record, reason or kind.value, attempts, lane=lane, history=history
            )


def _attempt(record: Record) -> int:
    attempt = extra(record, Tag.ATTEMPT)
    return attempt if isinstance(attempt, int) else 1
