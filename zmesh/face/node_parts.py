"""The parts of one node, and the way of what the engine tells to whoever waits for it."""

import asyncio
import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final, assert_never

from zmesh.actions import (
    Audited,
    CallAnswered,
    CallsAnswered,
    CancelRequest,
    DeliverGroup,
    DeliverInbox,
    DeliverJobs,
    DeliverPublications,
    DeliverRequests,
    Drained,
    FanOutChanged,
    FanOutEnded,
    FanOutRestored,
    FanOutStored,
    GiveBackJobs,
    IdentityClash,
    LaterAction,
    LaterEnded,
    LaterForgotten,
    LaterStored,
    PartsArrived,
    PartsEnded,
    PeerChange,
    PeerChanged,
    PeerView,
    PublicationsMissed,
    QueueRoomChanged,
    Restored,
    RoomChanged,
    SenderForgot,
    StateChanged,
    StateReady,
    StreamOffered,
    StreamRoom,
    SurveyAnswered,
    SurveyEnded,
    TicketsDone,
    TicketsStored,
    Trace,
)
from zmesh.core.engine import Engine
from zmesh.errors import Closed, DuplicateIdentity, NoMembers, NoProvider, PeerUnknown, ZmeshError
from zmesh.face.application import Application
from zmesh.face.audit import Audit
from zmesh.face.calls import Calls
from zmesh.face.checks import check_is_text
from zmesh.face.dead_lettering import DeadLettering
from zmesh.face.exchanges import Exchanges
from zmesh.face.fan_outs import FanOutReport
from zmesh.face.files import Files
from zmesh.face.gatherings import GatheringAction, Gatherings
from zmesh.face.identity import who_am_i
from zmesh.face.inbox import DeliveryQueue, Settle
from zmesh.face.jobs import Pulls
from zmesh.face.lossy import queue_of
from zmesh.face.outgoing import Outgoing
from zmesh.face.peers_view import Peers
from zmesh.face.posting import Posting
from zmesh.face.pushing import Pushing
from zmesh.face.runner import ApplicationAction, Runner
from zmesh.face.services import Services
from zmesh.face.settings import Settings
from zmesh.face.shared import SharedMaps
from zmesh.face.signing import Signing
from zmesh.face.sources import Sources
from zmesh.face.storing import NOTHING_KEPT, Kept, wall_ms
from zmesh.face.storing_posts import DurablePosting
from zmesh.face.streams import Streams
from zmesh.face.subscriptions import Subscription, Subscriptions
from zmesh.face.system import SystemEntropy
from zmesh.face.tickets import Tickets
from zmesh.face.verifying import Verify, Verifying
from zmesh.ids import Entropy
from zmesh.message import Failure, FailureKind
from zmesh.observe.logs import TraceLog
from zmesh.options import NodeOptions
from zmesh.security.node_key import to_text
from zmesh.security.rules import Action
from zmesh.security.trust import Trust
from zmesh.terms import Terms

logger = logging.getLogger("zmesh")

EDGE_SEES: Final = (
    'this node is an edge (role="edge"), which has links with hubs alone: other edges are not '
    "seen here, nor what they provide, and nothing is forwarded to them"
)
"""Why an edge may not see somebody."""


class NodeParts(ABC):
    """The parts of one node, joined; `Assembly` begins and ends them.

    Args:
        settings: what the node was told.
        kept: its journal, where it has one, and what that said when it opened.
    """

    def __init__(
        self,
        settings: Settings,
        kept: Kept = NOTHING_KEPT,
    ) -> None:
        loop = asyncio.get_running_loop()
        options, entropy = settings.options, SystemEntropy()
        self._storing, opened = kept
        self._whoami = who_am_i(settings, kept, entropy)
        local = self._whoami.local
        self.id = local.node
        self._settings = settings
        self._loop = loop
        self._log = TraceLog(settings.name)
        self.audit = Audit(settings.name)
        self.engine = Engine(
            local, options, entropy, loop.time(),
            opened=opened, wall_ms=wall_ms(), retention=kept.retention,
            trust=_at_first(settings.trust),
        )  # fmt: skip
        self.runner = Runner(loop, self.engine, self)
        self.outgoing = Outgoing(options, settings.compression)
        self.outgoing.signing = Signing(
            self._whoami.key, local.journal, local.incarnation, options,
            is_default=settings.sign, wall_ms=wall_ms,
        )  # fmt: skip
        self.verifying = Verifying(
            self.id, settings.name, options, settings.verify, wall_ms, self.audit.tell,
            is_storing=opened is not None, is_proved=bool(local.connection),
        )  # fmt: skip
        self.runner.settlements.verifying = self.verifying
        settlements, command = self.runner.settlements, self.runner.command
        self._topic: str | None = None  # the latest that was checked
        self.posting = self._new_posting(options)
        signing = self.outgoing.signing
        self.durable = DurablePosting(loop, self.runner, self.posting, self._storing, signing)
        self.application = Application(
            loop, self.engine, self.runner, self.durable, settings.storage, options.wire
        )
        self.dead_letters = DeadLettering(loop, self.runner, self.engine)
        self.pushing = Pushing(
            loop, self.engine.queues.pushed, self.runner, self.posting, self.durable,
            options.queued_jobs_bytes_max,
        )  # fmt: skip
        self.pulls = Pulls(command, self.runner.flush, options.pulls_max)
        self.calls = Calls(loop, self.runner, options.calls_max)
        self.tickets = Tickets(loop, self.engine.later, command, self._storing)
        self.streams = Streams(
            loop, self.runner, self.engine, self.outgoing, options, self.no_provider
        )
        self.services = Services(loop, self.outgoing, self.runner, self.verifying)
        self.services.settler.transactions = settlements.transactions
        self.subscriptions = Subscriptions(
            command, settlements, options.subscriptions_max, self.posting.receivers_changed
        )
        self.shared = SharedMaps(
            loop, command, self.runner.flush, self.engine.shared_state, options, self._storing
        )
        self.exchanges = self._new_exchanges(options, entropy)
        self.gatherings = self._new_gatherings(options)
        self.inbox = DeliveryQueue(loop, settlements, self.verifying.guard(None, "inbox"))
        self.peers = Peers(self._views, self._find, self.why_unseen)
        self.files = Files(
            loop, self.streams, self.services, self.peers, self.engine.resolve, options
        )
        self._is_inbox_open = False
        self._sources = Sources(settings, self.id, self.runner.news, self._log.write)
        self._restored: asyncio.Future[None] = loop.create_future()
        self._drained: asyncio.Future[None] | None = None
        self._is_over = False

    @abstractmethod
    def broken(self, error: Exception) -> None:
        """Take note that the engine stopped for good: a bug of ours."""

    @abstractmethod
    def _fail(self, error: ZmeshError, why: str) -> None:
        """Stop by ourselves, and tell everybody why."""

    @property
    def public_key(self) -> str:
        """The text of the node's public key; empty where it has none."""
        return "" if self._whoami.key is None else to_text(self._whoami.key.public)

    def subscription(
        self, pattern: str, settle: Settle, terms: Terms, verify: Verify | None
    ) -> Subscription:
        """Return a subscription that begins when it is entered."""
        scope = None if terms.name is None else f"subscription:{terms.name}"
        guard = self.verifying.guard(verify, scope)
        queue = queue_of(self._loop, self.runner.settlements, pattern, terms, guard)
        return Subscription(self.subscriptions, queue, pattern, settle, terms)

    def check_call(self, service: str) -> None:
        """Raise InvalidOption or NotAllowed where a service cannot be called from here."""
        check_is_text("service", service)
        self.engine.guard.check_own(Action.CALL, service)

    def publishes_on(self, topic: str) -> Outgoing:
        """Return what makes the messages of a topic.

        Raises:
            InvalidOption, NotAllowed: it cannot be published to from here.
        """
        if type(topic) is not str or topic != self._topic:  # often that of before
            check_is_text("topic", topic)
            self.engine.check_publish(topic)
            self._topic = topic
        self.engine.guard.check_own(Action.PUBLISH, topic)
        return self.outgoing

    def no_provider(self, service: str) -> NoProvider:
        """Return the error that tells why nobody provides a service."""
        seen = {each for view in self._views() for each in view.services}
        return NoProvider(service, list(seen), self.why_unseen())

    def no_members(self, group: str) -> NoMembers:
        """Return the error that tells why nobody is in a group."""
        return NoMembers(group, sorted(self.engine.groups()), self.why_unseen())

    def _new_gatherings(self, options: NodeOptions) -> Gatherings:
        return Gatherings(
            self._loop,
            self.runner.command,
            self.runner.settlements,
            options,
            self._tell_fan_out,
            self.no_provider,
            self.no_members,
        )

    def _new_posting(self, options: NodeOptions) -> Posting:
        return Posting(
            self._loop,
            self.engine,
            self.runner,
            options.link.queued_bytes_max,
            self._tell_failure,
            self.why_unseen,
        )

    def _new_exchanges(self, options: NodeOptions, entropy: Entropy) -> Exchanges:
        return Exchanges(
            self._loop,
            self.shared,
            self.posting,
            self.pushing,
            self.outgoing,
            options,
            node=self.id,
            entropy=entropy,
            check=self.engine.guard.check_own,
            is_there=lambda node: any(view.id.hex() == node for view in self.engine.peers()),
            subscribing=self.subscription,
        )

    # What the engine tells

    def perform(self, action: ApplicationAction) -> None:  # one case a kind of action
        """Hand the engine's news to whoever waits for it."""
        match action:
            case CallAnswered() | CallsAnswered():
                self.calls.perform(action)
            case DeliverRequests(deliveries):
                self.services.deliver(deliveries)
            case TicketsDone() | TicketsStored():
                self._perform_tickets(action)
            case DeliverInbox(deliveries):
                settlements = self.runner.settlements
                for delivery in deliveries:
                    self.inbox.put(settlements, delivery, 0, len(delivery.records))
            case DeliverPublications(deliveries):
                self.subscriptions.deliver(deliveries)
            case PartsArrived() | PartsEnded() | StreamRoom():
                self.streams.perform(action)
            case RoomChanged(node):
                self.posting.peer_rooms.passed(node)
                self.posting.topic_rooms.passed_all()
            case (
                CancelRequest() | PeerChanged() | IdentityClash() | Audited() | Drained()
                | Trace() | Restored() | SenderForgot()
            ):  # fmt: skip
                self._perform_rare(action)
            case _:
                self._perform_pattern(action)

    def _perform_tickets(self, action: TicketsDone | TicketsStored) -> None:
        if isinstance(action, TicketsDone):
            self.posting.done(action.tickets)
        else:
            self.durable.stored(action.tickets, action.error)
            self.dead_letters.stored(action.tickets, action.error)
            self.shared.stored(action.tickets, action.error)

    def _perform_pattern(
        self,
        action: DeliverJobs | GiveBackJobs | QueueRoomChanged | PublicationsMissed
        | GatheringAction | LaterAction | StateChanged | StateReady | StreamOffered,
    ) -> None:  # fmt: skip
        match action:
            case DeliverJobs() | GiveBackJobs() | QueueRoomChanged():
                self._perform_jobs(action)
            case PublicationsMissed(counts):
                self.subscriptions.missed(counts)
            case (
                DeliverGroup() | FanOutStored() | FanOutRestored() | FanOutChanged()
                | FanOutEnded() | SurveyAnswered() | SurveyEnded()
            ):  # fmt: skip
                self.gatherings.perform(action)
            case LaterStored() | LaterEnded() | LaterForgotten():
                self.tickets.perform(action)
            case StateChanged(name, changes):
                self.shared.changed(name, changes)
            case StateReady(name):
                self.shared.ready(name)
            case StreamOffered(_, _, delivery):
                self.services.offer(delivery, self.streams.offered(action))
            case _:
                assert_never(action)

    def _perform_jobs(self, action: DeliverJobs | GiveBackJobs | QueueRoomChanged) -> None:
        match action:
            case DeliverJobs(deliveries):
                self.pulls.deliver(deliveries)
            case GiveBackJobs(node):
                self.pulls.give_back(node)
            case QueueRoomChanged(queue):
                self.pushing.rooms.passed(queue)
            case _:
                assert_never(action)

    def _perform_rare(
        self,
        action: CancelRequest | PeerChanged | IdentityClash | Audited | Drained | Trace
        | Restored | SenderForgot,
    ) -> None:  # fmt: skip
        match action:
            case SenderForgot():
                self.application.forgot(action)
            case Restored(error):
                if error is None:
                    self._restored.set_result(None)
                else:
                    self._restored.set_exception(error)
            case CancelRequest():
                self.services.cancel(action)
            case PeerChanged():
                self._on_peer_changed(action)
            case IdentityClash(endpoint):
                error = DuplicateIdentity(self.id.hex(), endpoint)
                logger.error("%s: %s", self._settings.name, error)
                self._fail(error, f"node ({error})")
            case Audited():
                self.audit.tell(action)
            case Drained():
                self._tell_drained()
            case Trace():
                self._log.write(action)
            case _:
                assert_never(action)

    def _tell_drained(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _tell_failure(self, failure: Failure, count: int) -> None:
        """Tell what became of messages whose receipts nobody awaits."""
        fields: dict[str, object] = {"queue": failure.queue} if failure.queue else {}
        if failure.peer or not failure.queue:
            fields["peer"] = failure.peer
        fields["kind"] = failure.kind.value
        if failure.reason:
            fields["reason"] = failure.reason
        fields["messages"] = count
        if failure.kind is FailureKind.CLOSED:
            fields["advice"] = _CLOSED_ADVICE
        self._log.write(Trace("message_failed", logging.WARNING, fields))

    def _tell_fan_out(self, report: FanOutReport) -> None:
        """Tell what became of a fan-out whose report nobody looked at."""
        fields: dict[str, object] = {"group": report.group, "accepted": len(report.accepted)}
        fields |= {"failed": len(report.failed), "pending": len(report.pending)}
        self._log.write(Trace("fan_out_incomplete", logging.WARNING, fields))

    def _on_peer_changed(self, news: PeerChanged) -> None:
        if news.change is PeerChange.LEFT:
            self.posting.peer_rooms.gone(news.peer.id)
            self.exchanges.left(news.peer.id)
        self.posting.topic_rooms.passed_all()
        self.posting.receivers_changed()
        self.peers.changed(news)

    def _views(self) -> list[PeerView]:
        if self._is_over:
            raise Closed
        return self.engine.peers()

    def _find(self, name_or_id: str) -> PeerView | None:
        if self._is_over:
            raise Closed
        try:
            return self.engine.peer(self.engine.resolve(name_or_id))
        except PeerUnknown:
            return None

    def why_alone(self) -> str:
        """Return why no peer is there; empty where one is."""
        if self.engine.has_peers:
            return ""
        membership = self.engine.statistics().membership
        return self._sources.why_alone(membership, self.engine.dial_failures())

    def why_unseen(self) -> str:
        """Return why somebody may not be seen here who is there; empty where nothing is known."""
        return self.why_alone() or (EDGE_SEES if self._settings.is_edge else "")


_CLOSED_ADVICE: Final = (
    "`await node.flush()` before the end, close(drain=SECONDS), or have storage= keep them"
)


def _at_first(trust: Path | Trust | None) -> Trust | None:
    """Return whom an engine trusts before the directory was read: nobody."""
    return Trust({}) if isinstance(trust, Path) else trust
