"""A node at work, from its first socket to its last."""

import asyncio
import logging
import shlex
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from zmesh.discovery.interfaces import Interfaces
from zmesh.errors import Closed, NotOpen, ZmeshError
from zmesh.events import CloseNode, DrainNode, OpenInbox, TrustChanged
from zmesh.face.inbox import DeliveryQueue, Inbox, Settle
from zmesh.face.jobs import Jobs
from zmesh.face.key_sources import ReadKeys
from zmesh.face.key_watch import KeyWatch
from zmesh.face.listening import LOOPBACK, Listening, common_port, plan
from zmesh.face.node_parts import NodeParts
from zmesh.face.reports import DrainReport, NodeStatistics
from zmesh.face.settings import Settings
from zmesh.face.storing import CLOSE_WITHIN, NOTHING_KEPT, Kept, Storing
from zmesh.face.system import SystemEntropy
from zmesh.face.trust_watch import TrustWatch
from zmesh.face.verifying import Verify
from zmesh.security.mesh_key import CurvePair, MeshKey
from zmesh.security.node_key import NodeKey
from zmesh.security.trust import Trust
from zmesh.transport.curve import CurveKeys
from zmesh.transport.zeromq import ZmqTransport

logger = logging.getLogger("zmesh")

CLOSE_IT: Final = "`await node.close()`, or open it by `async with`, which closes it"
"""What who forgot it is told to do."""

ALONE_AFTER: Final = 5.0
"""Seconds without any peer after which one log line says why."""

_BROKEN: Final = "node (it stopped after an internal error, which its log tells)"


class Assembly(NodeParts):
    """A node's parts from beginning to end. Made in the loop, by `Node.open`.

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
        super().__init__(settings, kept)
        self._failed = failed
        self._transport: ZmqTransport | None = None
        self._key_watch = KeyWatch(
            settings.key_sources,
            ReadKeys(settings.keys, settings.key_stamps),
            settings.options.key_files_every,
            settings.name,
            self._use_keys,
            self.audit.tell,
        )
        self.trust_watch = TrustWatch(
            settings.trust, settings.options.trust, settings.name, self._use_trust, self.audit.tell
        )
        self._alone: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[DrainReport] | None = None

    # Beginning

    async def start(self) -> None:
        """Listen, and begin to look for others.

        Raises:
            InvalidOption: an interface or a name that cannot work; nothing is left open.
            StorageError: what the journal keeps cannot be read.
            InvalidTrust: something in the directory of trust cannot be used.
        """
        try:
            if self._storing is not None:
                await self._restore(self._storing)
            await self.trust_watch.open()
            interfaces, listening = await self._look_around()
            self._transport = self._new_transport(listening)
            bound = self._transport.open()
            self.runner.start(self._transport)
            self._tell_reach(listening)
            await self._sources.start(listening, bound, interfaces, self._transport.listen)
        except BaseException:
            self.runner.stop()
            await self._release()
            raise
        self.application.start()
        self._key_watch.start()
        self._alone = self._loop.call_later(ALONE_AFTER, self._tell_if_alone)

    def _tell_if_alone(self) -> None:
        if why := self.why_alone():
            logger.warning("%s: %s", self._settings.name, why)

    async def _restore(self, storing: Storing) -> None:
        storing.start(self.runner.news, self.runner.gather, self._tell_stored)
        self.runner.restore(storing)
        await self._restored
        local = self._whoami.local
        entries = self.engine.take_replays()
        changes = self.verifying.restore(entries, local.journal, local.incarnation)
        if changes is not None:
            self.runner.command(changes)
        await self.application.load()

    def _tell_stored(self, batches: Iterable[int]) -> bool:
        """Let those go on who wait for these batches alone, and not for what is sent then."""
        tickets = self.engine.take_stored(batches)
        if tickets:
            self.durable.stored(tickets, None)
        return bool(tickets)

    async def _use_keys(self, keys: tuple[MeshKey, ...]) -> None:
        """Go on with other mesh keys; links resume their sessions over new connections."""
        if self._transport is not None:
            self._transport.rekey(curve_keys(keys, self._whoami.connection))
        await self._sources.use_keys(keys)

    def _use_trust(self, trust: Trust) -> None:
        self.runner.command(TrustChanged(trust))
        self.runner.flush()

    def _tell_reach(self, listening: Listening) -> None:
        name, settings = self._settings.name, self._settings
        if settings.keys:
            return
        if not listening.is_loopback:
            logger.warning(
                "%s: listening on the network without encryption, as insecure=True allows: "
                "everybody there can read and send messages",
                name,
            )
        elif settings.interfaces is None:
            logger.info(
                "%s: there is no mesh key, so only this machine is listened to: make a key with "
                "`zmesh keys new --mesh %s`, and copy its file to the other machines",
                name,
                shlex.quote(settings.mesh),
            )

    async def _look_around(self) -> tuple[Interfaces, Listening]:
        wanted = self._settings.interfaces
        if wanted is None:
            return (), Listening((LOOPBACK,))
        interfaces = await self._sources.interfaces()
        return interfaces, plan(wanted, interfaces, allowed=self._settings.may_leave_loopback)

    def _new_transport(self, listening: Listening) -> ZmqTransport:
        options, port, keys = self._settings.options, self._settings.port, self._settings.keys
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
            on_audit=self.audit.tell,
            curve=curve_keys(keys, self._whoami.connection) if keys else None,
            forgotten=f"{self._settings.shown} was never closed: {CLOSE_IT}",
        )

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where this node is reached."""
        return self._sources.endpoints

    def open_inbox(self, settle: Settle, verify: Verify | None) -> Inbox:
        """Have direct messages delivered, and return a way of its own to read them.

        Where one reader takes signed messages alone, so do all: it is one inbox.
        """
        asked = self.verifying.guard(verify, "inbox")
        if verify is not None and self.inbox.guard is not None:
            self.inbox.guard.is_required |= asked.is_required
        if not self._is_inbox_open:
            self._is_inbox_open = True
            self.runner.command(OpenInbox())
        return Inbox(self.inbox, settle)

    def pull(self, queue: str, prefetch: int, settle: Settle, verify: Verify | None) -> Jobs:
        """Return a way to take jobs, which begins when it is entered."""
        guard = self.verifying.guard(verify, f"queue:{queue}")
        deliveries = DeliveryQueue(self._loop, self.runner.settlements, guard)
        return Jobs(self.pulls, deliveries, queue, prefetch, settle)

    def statistics(self) -> NodeStatistics:
        """Return the counters of all parts.

        Raises:
            NotOpen: it does not listen yet.
        """
        if self._transport is None:
            raise NotOpen
        self.runner.catch_up()
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
            signed=self.outgoing.signing.signed,
            verified=self.verifying.verified,
            replay_blocks=self.verifying.table.blocks,
            signed_batches=len(self.verifying.roots),
            journal=None if self._storing is None else self._storing.statistics(),
        )

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
        await self._key_watch.stop()
        await self.trust_watch.stop()
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


def curve_keys(keys: Sequence[MeshKey], connection: CurvePair) -> CurveKeys:
    """Return what the transport does with mesh keys: listen with the first, dial with all."""
    pairs = [key.server_pair() for key in keys]
    return CurveKeys(pairs[0], tuple(pair.public for pair in pairs), connection)


async def assemble(settings: Settings, failed: Callable[[ZmeshError], None]) -> Assembly:
    """Open the journal of a node, where it has one, and join its parts.

    Raises:
        StorageError: the journal cannot be opened.
        SecurityError: the node in it has no key, or another's, and needs one.
    """
    if settings.storage is None:
        return Assembly(settings, failed)
    storing = Storing(settings.storage, NodeKey.new(SystemEntropy()))
    opened = await storing.open()
    try:
        return Assembly(settings, failed, Kept(storing, opened))
    except BaseException:
        await storing.close()
        raise
