"""A node at work: engine, runner, transport and sources joined, and what the application holds."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, assert_never

from zmesh.actions import (
    Audited,
    CallAnswered,
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
from zmesh.discovery.interfaces import Interfaces
from zmesh.errors import Closed, DuplicateIdentity, NotOpen, PeerUnknown, ZmeshError
from zmesh.events import CloseNode, DrainNode, OpenInbox
from zmesh.face.application import Application
from zmesh.face.audit import Audit
from zmesh.face.calls import Calls
from zmesh.face.dead_lettering import DeadLettering
from zmesh.face.exchanges import Exchanges
from zmesh.face.fan_outs import FanOutReport
from zmesh.face.files import Files
from zmesh.face.gatherings import GatheringAction, Gatherings
from zmesh.face.identity import local_identity, new_identity
from zmesh.face.inbox import DeliveryQueue, Inbox, Settle
from zmesh.face.jobs import Jobs, Pulls
from zmesh.face.listening import LOOPBACK, Listening, common_port, plan
from zmesh.face.lossy import queue_of
from zmesh.face.outgoing import Outgoing
from zmesh.face.peers_view import Peers
from zmesh.face.posting import Posting
from zmesh.face.pushing import Pushing
from zmesh.face.reports import DrainReport, NodeStatistics
from zmesh.face.runner import ApplicationAction, Runner
from zmesh.face.services import Services
from zmesh.face.settings import Settings
from zmesh.face.shared import SharedMaps
from zmesh.face.sources import Sources
from zmesh.face.storing import CLOSE_WITHIN, NOTHING_KEPT, Kept, Storing, wall_ms
from zmesh.face.storing_posts import DurablePosting
from zmesh.face.streams import Streams
from zmesh.face.subscriptions import Subscription, Subscriptions
from zmesh.face.system import SystemEntropy
from zmesh.face.tickets import Tickets
from zmesh.ids import NODE_ID_BYTES, Entropy, NodeId
from zmesh.message import Failure
from zmesh.observe.logs import TraceLog
from zmesh.options import NodeOptions
from zmesh.terms import Terms
from zmesh.transport.zeromq import ZmqTransport

logger = logging.getLogger("zmesh")

ALONE_AFTER: Final = 5.0
"""Seconds without any peer after which one log line says why."""

_BROKEN: Final = "node (it stopped after an internal error, which its log tells)"


class Assembly:
    """The parts of one node, joined. Made in the loop, by `Node.open`.

    Args:
        settings: what the node was told.
        failed: called once where the node stops by itself, with the error for later calls.
        kept: its journal, where it has one, and what that said when it opened.
    """

    def __init__(
        self,
        settings: Settings,
        failed: Callable[[ZmeshError], None],
        kept: Kept = NOTHING_KEPT,
    ) -> None:
        loop = asyncio.get_running_loop()
        options, entropy = settings.options, SystemEntropy()
        self._storing, opened = kept
        identity = new_identity(entropy) if opened is None else opened.identity
        self.id = identity.node
        self._settings = settings
        self._failed = failed
        self._loop = loop
        self._log = TraceLog(settings.name)
        self.audit = Audit(settings.name)
        self.engine = Engine(
            local_identity(settings, identity), options, entropy, loop.time(),
            opened=opened, wall_ms=wall_ms(), retention=kept.retention,
        )  # fmt: skip
        self.runner = Runner(loop, self.engine, self)
        self.outgoing = Outgoing(options, settings.compression)
        settlements, command = self.runner.settlements, self.runner.command
        self.posting = self._new_posting(options)
        self.durable = DurablePosting(loop, self.runner, self.posting, self._storing)
        self.application = Application(
            loop, self.engine, self.runner, self.durable, settings.storage, options.wire
        )
        self.dead_letters = DeadLettering(loop, self.runner, self.engine)
        self.pushing = Pushing(
            loop, self.engine.queues.pushed, self.runner, self.posting, self.durable,
            options.queued_jobs_bytes_max,
        )  # fmt: skip
        self.pulls = Pulls(command, self.runner.flush, options.pulls_max)
        self.calls = Calls(loop, command, options.calls_max)
        self.tickets = Tickets(loop, self.engine.later, command, self._storing)
        self.streams = Streams(
            loop, self.runner, self.engine, self.outgoing, options, self.services_seen
        )
        self.services = Services(loop, self.outgoing, command)
        self.services.settler.transactions = settlements.transactions
        self.subscriptions = Subscriptions(
            command, settlements, options.subscriptions_max, self.posting.receivers_changed
        )
        self.shared = SharedMaps(
            loop, command, self.runner.flush, self.engine.shared_state, options, self._storing
        )
        self.exchanges = self._new_exchanges(options, entropy)
        self.gatherings = self._new_gatherings(options)
        self.inbox = DeliveryQueue(loop, settlements)
        self.peers = Peers(self._views, self._find, self._why_alone)
        self.files = Files(
            loop, self.streams, self.services, self.peers, self.engine.resolve, options
        )
        self._is_inbox_open = False
        self._sources = Sources(settings, self.id, self.runner.news, self._log.write)
        self._transport: ZmqTransport | None = None
        self._restored: asyncio.Future[None] = loop.create_future()
        self._drained: asyncio.Future[None] | None = None
        self._alone: asyncio.TimerHandle | None = None
        self._is_over = False
        self._ending: asyncio.Task[DrainReport] | None = None

    def _new_gatherings(self, options: NodeOptions) -> Gatherings:
        return Gatherings(
            self._loop,
            self.runner.command,
            self.runner.settlements,
            options,
            self._tell_fan_out,
            self.services_seen,
            self.engine.groups,
        )

    def _new_posting(self, options: NodeOptions) -> Posting:
        return Posting(
            self._loop,
            self.engine,
            self.runner,
            options.link.queued_bytes_max,
            self._tell_failure,
            self._why_alone,
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
            is_there=lambda node: any(view.id.hex() == node for view in self.engine.peers()),
            subscribing=self.subscription,
        )

    # Beginning

    async def start(self) -> None:
        """Listen, and begin to look for others.

        Raises:
            InvalidOption: an interface or a name that cannot work; nothing is left open.
            StorageError: what the journal keeps cannot be read.
        """
        try:
            if self._storing is not None:
                await self._restore(self._storing)
            interfaces, listening = await self._look_around()
            self._transport = self._new_transport(listening)
            bound = self._transport.open()
            self.runner.start(self._transport)
            if not listening.is_loopback:
                logger.warning(
                    "%s: listening on the network without encryption, as insecure=True allows: "
                    "everybody there can read and send messages",
                    self._settings.name,
                )
            await self._sources.start(listening, bound, interfaces, self._transport.listen)
        except BaseException:
            self.runner.stop()
            await self._release()
            raise
        self.application.start()
        self._alone = self._loop.call_later(ALONE_AFTER, self._tell_if_alone)

    async def _restore(self, storing: Storing) -> None:
        storing.start(self.runner.news)
        self.runner.restore(storing)
        await self._restored
        await self.application.load()

    async def _look_around(self) -> tuple[Interfaces, Listening]:
        wanted = self._settings.interfaces
        if wanted is None:
            return (), Listening((LOOPBACK,))
        interfaces = await self._sources.interfaces()
        return interfaces, plan(wanted, interfaces, insecure=self._settings.insecure)

    def _new_transport(self, listening: Listening) -> ZmqTransport:
        options, port = self._settings.options, self._settings.port
        if not port and len(listening.hosts) > 1:
            port = common_port(listening.hosts)
        return ZmqTransport(
            self._loop,
            options.wire,
            options=options.transport,
            hosts=listening.hosts,
            port=port,
            dial_timeout=options.dial_timeout,
            on_events=self.runner.news,
            on_trace=self._log.write,
        )

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where this node is reached."""
        return self._sources.endpoints

    def open_inbox(self, settle: Settle) -> Inbox:
        """Have direct messages delivered, and return a way of its own to read them."""
        if not self._is_inbox_open:
            self._is_inbox_open = True
            self.runner.command(OpenInbox())
        return Inbox(self.inbox, settle)

    def subscription(self, pattern: str, settle: Settle, terms: Terms) -> Subscription:
        """Return a subscription that begins when it is entered."""
        queue = queue_of(self._loop, self.runner.settlements, pattern, terms)
        return Subscription(self.subscriptions, queue, pattern, settle, terms)

    def pull(self, queue: str, prefetch: int, settle: Settle) -> Jobs:
        """Return a way to take jobs, which begins when it is entered."""
        deliveries = DeliveryQueue(self._loop, self.runner.settlements)
        return Jobs(self.pulls, deliveries, queue, prefetch, settle)

    def statistics(self) -> NodeStatistics:
        """Return the counters of all parts.

        Raises:
            NotOpen: it does not listen yet.
        """
        if self._transport is None:
            raise NotOpen
        engine = self.engine.statistics()
        return NodeStatistics(
            engine=engine,
            transport=self._transport.statistics(),
            links={node.hex(): link for node, link in engine.links.items()},
            open_receipts=len(self.posting),
            open_calls=len(self.calls),
            open_streams=len(self.streams),
            open_fan_outs=len(self.gatherings.fan_outs),
            open_surveys=len(self.gatherings.surveys),
            unread=len(self.inbox),
            subscriptions=len(self.subscriptions),
            exchanges=len(self.exchanges.declarations.table.exchanges()),
            unroutable=self.exchanges.unroutable,
            declarations_refused=self.exchanges.declarations.refused,
            compressed=self.outgoing.compressing.compressed,
            compression_saved_bytes=self.outgoing.compressing.saved_bytes,
            audited=dict(self.audit.counts),
            journal=None if self._storing is None else self._storing.statistics(),
        )

    def services_seen(self) -> list[str]:
        """Return the names of all services that are provided by anybody now."""
        return list({service for view in self._views() for service in view.services})

    # Ending

    async def drain(self, seconds: float) -> None:
        """Take no new work, and wait for what is open; what nobody has read goes back.

        Handlers and others that are at work may still send and call. A drain that is under way
        is joined: its time holds.
        """
        if self._is_over:
            return
        if self._drained is None:
            self._drained = self._loop.create_future()
            self.services.drain()
            self.subscriptions.drain()
            self.gatherings.groups.drain()
            self.pulls.drain()
            self.inbox.close()
            self.runner.command(DrainNode(self.runner.now + seconds))
        await asyncio.shield(self._drained)

    async def close(self) -> DrainReport:
        """Release everything, and return what was open when that began.

        It goes on in the background where the caller is cancelled.
        """
        return await asyncio.shield(self._end(None))

    def _end(self, failure: str | None) -> "asyncio.Task[DrainReport]":
        """End everything, once; all who wait get `Closed`, which names the failure."""
        if self._ending is None:
            self._ending = self._loop.create_task(self._shut_down(failure), name="zmesh close")
        return self._ending

    async def _shut_down(self, failure: str | None) -> DrainReport:
        await self.application.stop()
        self.runner.flush()  # what was posted in this very turn counts
        if self._storing is not None and failure is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._storing.quiet(), CLOSE_WITHIN)
        unsettled_out, unsettled_in = self.engine.open_work()
        jobs = self.engine.queues.pushed
        report = DrainReport(
            unsettled_out + jobs.waiting - jobs.wanted,
            unsettled_in,
            jobs.waiting,
            self.engine.stored_out,
        )
        try:
            await self.services.close()
        finally:
            self._let_go(failure)
            self.runner.command(CloseNode())
            self.runner.flush()
            self.runner.stop()
            self.durable.close(failure or "node")
            self.dead_letters.close(failure or "node")
            self.posting.close(failure or "node")
            self.pushing.close()
            self.calls.close(failure or "node")
            self.tickets.close(failure or "node")
            self.streams.close(failure or "node")
            self._tell_drained()
            try:
                await self.streams.ended()
            finally:
                self.files.ended()
                await self._release()
        return report

    def _let_go(self, failure: str | None) -> None:
        """End loops and waiting."""
        self._is_over = True
        self.subscriptions.close(failure)
        self.gatherings.close(failure)
        self.pulls.close(failure)
        self.inbox.close(failure)
        self.peers.close(failure)
        self.shared.close(failure)
        self.files.close(failure)
        self.audit.close()

    async def _release(self) -> None:
        """Close what holds descriptors, threads and timers."""
        if self._alone is not None:
            self._alone.cancel()
        try:
            await self._sources.stop()
        finally:
            if self._transport is not None:
                self._transport.close()
            await self.application.close()
            if self._storing is not None:
                await self._storing.close()

    def broken(self, error: Exception) -> None:  # noqa: ARG002  # logged by the runner
        """Take note that the engine stopped for good: a bug of ours."""
        self._fail(Closed(_BROKEN), _BROKEN)

    def _fail(self, error: ZmeshError, why: str) -> None:
        """Stop by ourselves, and tell everybody why."""
        if self._is_over:
            return
        self._failed(error)
        self._let_go(why)
        self.durable.close(why)
        self.dead_letters.close(why)
        self.posting.close(why)
        self.pushing.close()
        self.calls.close(why)
        self.tickets.close(why)
        self.streams.close(why)
        self._tell_drained()
        self._end(why)

    # What the engine tells

    def perform(self, action: ApplicationAction) -> None:  # one case a kind of action
        """Hand the engine's news to whoever waits for it."""
        match action:
            case CallAnswered():
                self.calls.answered(action)
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

    def _tell_failure(self, failure: Failure) -> None:
        """Tell what became of a message whose receipt nobody awaits."""
        fields: dict[str, object] = {"peer": failure.peer, "kind": failure.kind.value}
        if failure.reason:
            fields["reason"] = failure.reason
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
        views = self._views()
        try:
            node = self.engine.resolve(name_or_id)
        except PeerUnknown:
            return None
        return next((view for view in views if view.id == node), None)

    def _tell_if_alone(self) -> None:
        if why := self._why_alone():
            logger.warning("%s: %s", self._settings.name, why)

    def _why_alone(self) -> str:
        """Return why no peer is there; empty where one is."""
        if self.engine.peers():
            return ""
        membership = self.engine.statistics().membership
        return self._sources.why_alone(membership, self.engine.dial_failures())


async def assemble(settings: Settings, failed: Callable[[ZmeshError], None]) -> Assembly:
    """Open the journal of a node, where it has one, and join its parts.

    Raises:
        StorageError: the journal cannot be opened.
    """
    if settings.storage is None:
        return Assembly(settings, failed)
    storing = Storing(settings.storage, NodeId(SystemEntropy().token(NODE_ID_BYTES)))
    return Assembly(settings, failed, Kept(storing, await storing.open()))
