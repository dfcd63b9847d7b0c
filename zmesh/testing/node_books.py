"""What nodes tell their applications, held against what is so: peers, deliveries, answers."""

import itertools
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b

from zmesh.actions import CallAnswered, Delivery, PeerChange, PeerChanged, PeerState, PeerView
from zmesh.events import Source
from zmesh.ids import NodeId
from zmesh.message import FailureKind, Kind, Record, Tag, Ticket, extra
from zmesh.security.node_key import SEED_BYTES, NodeKey
from zmesh.testing.call_books import CALLS_TOGETHER, CallBooks
from zmesh.testing.findings import Rule
from zmesh.testing.node_ledger import Handling, NodeLedger, NodeMessage, NodeParcel
from zmesh.testing.node_process import NodeProcess
from zmesh.testing.scenario import Scenario, Submission

FAILOVER_WITHIN = 0.5  # seconds after the caller heard that its provider is gone
KEYS_A_HOST = 4  # that runs take turns with: whose id is lower depends on them
AFTERMATH = 5.0  # seconds after a fault in which a link may still be broken and nobody knows


def node_id(index: int, incarnation: int, shuffled: int) -> NodeId:
    """Return the id of a life of a host; `shuffled` decides whose id is lower."""
    return NodeId(bytes((shuffled, index)) + incarnation.to_bytes(14, "big"))


@lru_cache(maxsize=4096)
def node_key(index: int, incarnation: int, shuffled: int) -> NodeKey:
    """Return the key of a life of a host, whose id tells the host as `node_id` does.

    One in 256 does, so finding one takes some milliseconds; few are needed, again and again.
    """
    for number in itertools.count():
        purpose = f"{index} {incarnation} {shuffled % KEYS_A_HOST} {number}"
        key = NodeKey.of(blake2b(purpose.encode(), digest_size=SEED_BYTES).digest())
        if index_of(key.id) == index:
            return key
    raise AssertionError("numbers do not end")


def index_of(node: NodeId) -> int:
    """Return which host carries an id."""
    return node[1]


class NodeBooks:
    """Judges what every node of a run tells."""

    def __init__(
        self,
        scenario: Scenario,
        wrong: Callable[[Rule, str, str], None],
        may_be_lost: Callable[[int, int], bool],
        node_of: Callable[[int], NodeId | None],
    ) -> None:
        self.wrong = wrong
        self.node_of = node_of  # the id of a host's present life; None while it is dead
        self._scenario = scenario
        self._may_be_lost = may_be_lost
        self.ledger = NodeLedger(
            wrong,
            may_be_lost,
            calm=scenario.calm,
            fickle=any(each.kind == "topic" and not each.added for each in scenario.changes),
            attempts_max=scenario.attempts_max,
        )
        self.calls = CallBooks(scenario, wrong, self._is_disturbed)
        self._views: dict[str, dict[NodeId, PeerView]] = {}  # what each process was told
        self._known: dict[NodeParcel, None] = {}  # sent to a peer that had joined

    @staticmethod
    def name_of(index: int) -> str:
        """Return what a host's nodes are called, in every life."""
        return f"host-{chr(ord('a') + index)}"

    def views(self, process: NodeProcess) -> dict[NodeId, PeerView]:
        """Return the peers a process's application was told of."""
        return self._views.setdefault(process.label, {})

    # Sending

    def submit(self, process: NodeProcess, submission: Submission, kind: Kind) -> NodeParcel:
        """Make the messages of a submission."""
        parcel = self.ledger.submit(
            process.label, process.index, submission, kind, process.clock.read()
        )
        process.note("submits", parcel.messages[0].number, kind.name, len(parcel.messages))
        return parcel

    def on_posted(self, process: NodeProcess, parcel: NodeParcel, target: NodeId) -> None:
        """Note whether the sender knows the peer it sends to."""
        if target in self.views(process):
            self._known[parcel] = None

    def on_stored(self, process: NodeProcess, ticket: Ticket, *, is_stored: bool) -> None:
        """Check what a sender is told of its disk."""
        process.note("stored" if is_stored else "refused")
        if self.ledger.durable is not None:
            self.ledger.durable.on_stored(process.label, ticket, is_stored=is_stored)

    def on_answered(self, process: NodeProcess, answer: CallAnswered) -> None:
        """Check the end of a call."""
        failure = answer.failure.name if answer.failure else "replied"
        process.note("answered", answer.call, failure, answer.peer)
        known = answer.call < len(self.ledger.messages)
        service = self.ledger.messages[answer.call].submission.name if known else ""
        providers = [view.name for view in self.providers(process, service)]
        self.ledger.on_answered(process.label, answer, process.clock.read(), providers=providers)
        if known:
            self.calls.on_ended(self.ledger.messages[answer.call])

    def on_cancelled(self, number: int) -> bool:
        """Note that a caller waits for its call no longer; False where that had ended."""
        call = self.ledger.open_calls.pop(number, None)
        if call is None:
            return False
        self.ledger.cancelled.add(number)
        self.calls.on_ended(call)
        return True

    def providers(self, process: NodeProcess, service: str) -> list[PeerView]:
        """Return the providers of a service that a process's application can see."""
        return [
            view
            for view in self.views(process).values()
            if service in view.services and view.state is PeerState.ALIVE and not view.draining
        ]

    # Receiving

    def on_delivered(
        self, process: NodeProcess, source: Source, kind: Kind, record: Record
    ) -> tuple[NodeMessage, Handling] | None:
        """Check what a handler is given."""
        taken = self.ledger.on_delivered(
            process.label, process.index, index_of(source.node), kind, source.lane, record
        )
        if taken is not None:
            process.note("delivered", taken[0].number, kind.name, source.lane)
            if kind is Kind.REQUEST:
                ttl_ms = extra(record, Tag.TTL_MS)
                ttl = ttl_ms / 1000 if isinstance(ttl_ms, int) else None
                self.calls.on_delivered(process, *taken, ttl)
        stranger = source.node != process.node and source.node not in self.views(process)
        if stranger and self._scenario.calm:
            self.wrong(Rule.IDENTITY, process.label, "is given a message of who has not joined")
        return taken

    def on_followed(
        self, process: NodeProcess, name: str, source: Source, record: Record
    ) -> tuple[NodeMessage, Handling] | None:
        """Check what a subscription with a name is given from a log."""
        durable = self.ledger.durable
        if durable is None:
            return None
        taken = durable.topics.on_delivered(
            process.label, process.index, name, index_of(source.node), record
        )
        if taken is not None:
            process.note("followed", taken[0].number, name)
        return taken

    def check_tokens(
        self, process: NodeProcess, delivery: Delivery, tokens: list[tuple[int, ...]]
    ) -> None:
        """Every publication goes to someone, and to each subscription once."""
        for record, given in zip(delivery.records, tokens, strict=True):
            if not given or len(set(given)) != len(given):
                text = f"a publication on {record[1]} is for subscriptions {given}"
                self.wrong(Rule.UNTRUE, process.label, text)

    # Peers

    def on_peer_changed(self, process: NodeProcess, news: PeerChanged) -> None:
        """Check that news of a peer makes sense, after the news before."""
        views, peer = self.views(process), news.peer
        process.note("peer", news.change.value, peer.name, peer.state.value, news.reason)
        joins = news.change is PeerChange.JOINED
        if joins == (peer.id in views):
            known = "has joined" if joins else "has not"
            text = f"hears that {peer.name} {news.change.value}, who {known}"
            self.wrong(Rule.LIVENESS, process.label, text)
        if news.change is PeerChange.LEFT:
            views.pop(peer.id, None)
        else:
            views[peer.id] = peer
        if self._scenario.calm and news.change not in (PeerChange.JOINED, PeerChange.UPDATED):
            text = f"takes {peer.name} for {peer.state.value} ({news.reason})"
            self.wrong(Rule.LIVENESS, process.label, text)
        if news.change is PeerChange.LEFT:
            self._expect_failover(process, peer)
            if peer.state is PeerState.LOST:
                self._check_loss(process, news)

    def _expect_failover(self, process: NodeProcess, gone: PeerView) -> None:
        """Calls a provider had when it was lost must soon be with another, if there is one.

        Where windows are small a call may have to wait for credit, so nothing is expected then;
        nor of calls that another provider has, or that are for one who may be silent.
        """
        if self._scenario.link.window_messages < CALLS_TOGETHER:
            return
        queue = process.queue
        until = queue.now + FAILOVER_WITHIN
        for call in self.ledger.open_calls.values():
            last = call.handlings[-1] if call.handlings else None
            wish = call.submission
            if wish.key or wish.hedge_after is not None or wish.prefer is not None:
                continue
            if call.sender != process.label or last is None or last.index != index_of(gone.id):
                continue
            others = [
                view.id
                for view in self.providers(process, call.submission.name)
                if not self._is_disturbed(process.index, index_of(view.id), queue.now, until)
            ]
            if others:
                queue.at(until, self._check_failover, process, call, last, others)

    def _check_failover(
        self, process: NodeProcess, call: NodeMessage, last: Handling, others: list[NodeId]
    ) -> None:
        views = self.views(process)
        moved = call.handlings[-1] is not last or call.number not in self.ledger.open_calls
        still = [views[node].name for node in others if node in views]
        if process.alive and still and not moved:
            text = f"{call} stays with {last.receiver}, which is gone, though {still} are here"
            self.wrong(Rule.LIVENESS, process.label, text)

    def _is_disturbed(self, one: int, other: int, start: float, end: float) -> bool:
        """Whether anything goes wrong with one of two hosts, or is told of it, meanwhile."""
        faults = any(
            fault.at <= end
            and start - AFTERMATH <= fault.at + fault.seconds
            and fault.strikes(one, other)
            for fault in self._scenario.faults
        )
        return faults or any(start <= change.at <= end for change in self._scenario.changes)

    def _check_loss(self, process: NodeProcess, news: PeerChanged) -> None:
        """A peer whose loop is blocked, or who sleeps, is not lost for that."""
        index = index_of(news.peer.id)
        if not self._may_be_lost(process.index, index) and "stayed away" not in news.reason:
            text = f"takes {news.peer.name} for lost ({news.reason})"
            self.wrong(Rule.LIVENESS, process.label, text)

    def disagreement(
        self,
        process: NodeProcess,
        other: NodeProcess,
        services: Iterable[str],
        topics: Iterable[str],
    ) -> str:
        """Return what a process does not know of another, or nothing."""
        view = self.views(process).get(other.node)
        if view is None:
            return "it has not joined"
        if view.state is not PeerState.ALIVE:
            return f"it is {view.state.value}"
        if view.services != set(services):
            return "it provides other services"
        if view.topics != set(topics):
            return "it subscribes to other topics"
        return ""

    # The end

    def finish(self) -> None:
        """Find what was lost, and messages for peers that had joined and were not known."""
        self.ledger.finish()
        for parcel in self._known:
            kinds = [failure.kind for failure in parcel.ticket.failures]
            target = parcel.messages[0].target
            left = target is not None and self._may_be_lost(parcel.messages[0].source, target)
            if FailureKind.PEER_UNKNOWN in kinds and not left:
                text = f"{parcel.messages[0]} is for somebody unknown, who had joined"
                self.wrong(Rule.UNTRUE, parcel.sender, text)

    def check_rest(self, process: NodeProcess) -> None:
        """Nothing may be left of anything once all is settled."""
        statistics = process.engine.statistics()
        if statistics.peers != statistics.present:
            return  # what is queued for one who stays away is kept for as long as that lingers
        rest = {
            "queued messages": statistics.queued_messages,
            "queued bytes": statistics.queued_bytes,
            "deliveries": statistics.unsettled_in,
            "held messages": statistics.held,
            "retries": statistics.retries,
            "calls": statistics.calls,
            "requests": statistics.requests,
        }
        for what, count in rest.items():
            if count:
                self.wrong(Rule.MEMORY, process.label, f"{count} {what} are left")
        if self._scenario.calm and statistics.defects and not self._scenario.is_attacked:
            text = f"counts defects: {sorted(statistics.defects.items())}"
            self.wrong(Rule.RESENT, process.label, text)
