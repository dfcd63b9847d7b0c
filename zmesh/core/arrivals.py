"""Records that came: brought to the pattern of their kind, unless something forbids it."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

from zmesh.batches import Block, runs
from zmesh.core.defects import Defects
from zmesh.core.guard import Guard
from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.events import Source
from zmesh.message import COMPRESSED, Kind, Outcome, Record, Tag, extra, without_extra
from zmesh.options import NodeOptions
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.stream_records import Verb, fields_of, verb_of
from zmesh.reliable.link_events import Arrived
from zmesh.security.rules import Action, Decision
from zmesh.wire.compression import flaw_of

_HEAD = itemgetter(0)

_STALE_DELAY_S: Final = 1.0
"""How long a peer waits whose earlier session keeps the application busy."""

_TAKEN_AT_ONCE: Final = (
    Kind.REPLY, Kind.FAILURE, Kind.CANCEL, Kind.JOB_CONTROL, Kind.STREAM, Kind.STREAM_CONTROL,
    Kind.DURABILITY,
)  # fmt: skip
"""Kinds that keep nobody busy. Who sent them counts on it, and would not send them again."""

_ACTIONS: Final[dict[int, Action]] = {
    Kind.REQUEST: Action.CALL,
    Kind.PUBLICATION: Action.PUBLISH,
    Kind.JOB: Action.PUSH,
    Kind.GROUP: Action.FAN_OUT,
    Kind.STATE: Action.SHARE,
}
"""What a peer does to the target of a record by sending it. DIRECT, MISSED and those that open
streams are looked at apart; all other kinds answer what was allowed, or concern the sender."""

Receiver = Callable[[Peer, Source, int, int, Sequence[Record]], None]
"""Takes consecutive records of one kind from a peer, with their first and last number."""

Known = Callable[[Peer, Source, Record], bool]
"""Whether a record is a copy of one that came before: it gets the outcome of that one."""

_Refusal = tuple[Action, str, Decision]


class Arrivals:
    """Takes what carriers bring.

    Args:
        turn: to settle through.
        options: bounds.
        defects: to note what breaks rules of the protocol.
        guard: who may do what.
        interest: the subscriptions of this node.
        receivers: who takes each kind.
        is_known: tells copies.
        turned_away: hears of jobs that were refused, which have used grants.
    """

    def __init__(
        self,
        turn: Turn,
        options: NodeOptions,
        defects: Defects,
        guard: Guard,
        interest: InterestTable,
        receivers: dict[int, Receiver],
        is_known: Known,
        turned_away: Callable[[Peer, list[Record]], None],
    ) -> None:
        self._turn = turn
        self._options = options
        self._defects = defects
        self._guard = guard
        self._interest = interest
        self._receivers = receivers
        self._is_known = is_known
        self._turned_away = turned_away

    def on_arrived(self, peer: Peer, event: Arrived) -> None:
        """Take in records of one lane, in order."""
        # Not the carrier's: its session may have ended since, and another have begun.
        session = peer.session
        assert session is not None, "nothing arrives outside a session"  # noqa: S101
        source = peer.sources.get(event.lane)
        if source is None or source.session != session:
            source = Source(peer.id, session, event.lane, peer.journal)
            peer.sources[event.lane] = source
        first, last, records = event.first_seq, event.last_seq, event.records
        peer.open_in += last - first + 1
        if len(records) == 1 and records[0][0] < COMPRESSED:  # as in requests and replies
            take = self._hand_over if self._guard.trust is None else self._sift
            take(records[0][0] & 15, peer, source, first, last, records)
            return
        heads = records.heads if type(records) is Block else set(map(_HEAD, records))
        if max(heads) >= COMPRESSED:
            self._on_compressed(peer, source, first, last, records)
        elif len(heads) == 1:
            take = self._hand_over if self._guard.trust is None else self._sift
            take(records[0][0] & 15, peer, source, first, last, records)
        else:
            self._on_runs(peer, source, first, last, records)

    def _on_runs(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        kinds = [record[0] & 15 for record in records]
        take = self._hand_over if self._guard.trust is None else self._sift
        for kind, low, high, run in runs(first, last, records, kinds):
            take(kind, peer, source, low, high, run)

    def _on_compressed(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        """Refuse what claims to become more than is taken, before anything is made of it.

        An answer is not refused: whoever waits for it finds its body unreadable.
        """
        fit = [self._fitting(peer, record) for record in records]
        for reason, low, high, run in runs(first, last, fit, [flaw for _, flaw in fit]):
            if reason:
                self._turn.settle(source, low, high, Outcome.REJECTED, reason)
            else:
                self._on_runs(peer, source, low, high, [record for record, _ in run])

    def _fitting(self, peer: Peer, record: Record) -> tuple[Record, str]:
        """Return a record as it is to be taken in, and why it is refused, if it is."""
        flaw = flaw_of(record, self._options.wire) if record[0] >= COMPRESSED else ""
        if not flaw:
            return record, ""
        self._defects.note(peer.id, "compression", flaw)
        if record[0] & 15 in _TAKEN_AT_ONCE:
            return without_extra(record, Tag.COMPRESSED), ""
        return record, flaw

    def _sift(
        self,
        kind: int,
        peer: Peer,
        source: Source,
        first: int,
        last: int,
        records: Sequence[Record],
    ) -> None:
        """Refuse those of consecutive records of one kind that are forbidden."""
        refusals = [self._refusal(kind, peer, source, record) for record in records]
        if not any(refusals):
            self._hand_over(kind, peer, source, first, last, records)
            return
        for refusal, low, high, run in runs(first, last, records, refusals):
            if refusal is None:
                self._hand_over(kind, peer, source, low, high, run)
                continue
            if kind == Kind.JOB:
                self._turned_away(peer, run)
            reason = self._guard.refuse(peer, *refusal)
            # No pattern has heard of it, so none keeps its outcome.
            self._turn.settle_now(source, low, high, Outcome.REJECTED, reason)

    def _hand_over(
        self,
        kind: int,
        peer: Peer,
        source: Source,
        first: int,
        last: int,
        records: Sequence[Record],
    ) -> None:
        """Hand consecutive records of one kind to their pattern."""
        receive = self._receivers.get(kind)
        if peer.stale_in > self._options.stale_deliveries_max and kind not in _TAKEN_AT_ONCE:
            reason = "messages of an earlier session are still being handled"
            self._turn.positions.refused(source, records)
            self._turn.settle(source, first, last, Outcome.RELEASED, reason, _STALE_DELAY_S)
        elif receive is not None:
            receive(peer, source, first, last, records)
        else:
            self._defects.note(peer.id, "unknown kind", f"records of kind {kind}")
            self._turn.settle(source, first, last, Outcome.REJECTED, "unknown kind of record")

    # What is forbidden

    def _refusal(self, kind: int, peer: Peer, source: Source, record: Record) -> _Refusal | None:
        """Return what forbids a record, if anything does."""
        if kind == Kind.MISSED:
            return self._missed_refusal(peer, record)
        action, name = _ACTIONS.get(kind), record[1]
        if kind == Kind.DIRECT:
            action, name = Action.SEND, self._guard.own_name
        elif kind == Kind.STREAM_CONTROL and verb_of(fields_of(record)) is Verb.OPEN:
            action = Action.CALL
        if action is None:
            return None
        decision = self._guard.decide(peer, action, name)
        if decision is None or self._is_known(peer, source, record):
            return None
        return action, name, decision

    def _missed_refusal(self, peer: Peer, record: Record) -> _Refusal | None:
        """Return what forbids a peer to tell of what it did not send: it could end subscriptions.

        It may where it may publish anything the subscription wants.
        """
        told = extra(record, Tag.MISSED)
        for token in told[::2] if isinstance(told, tuple) else ():
            pattern = self._interest.pattern_of(token) if isinstance(token, int) else None
            if pattern is None:
                continue
            decision = self._guard.decide_any(peer, Action.PUBLISH, pattern)
            if decision is not None:
                return Action.PUBLISH, pattern, decision
        return None
