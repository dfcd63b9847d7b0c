"""Discovery by mDNS: announces this node, and turns what others announce into candidates.

A record is only a hint that somebody may be there: it lives for 75 minutes, longer than many a
process. Whether a peer is alive is found out by talking to it, never here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from logging import WARNING
from typing import assert_never

from zeroconf import DNSQuestionType, IPVersion, ServiceStateChange, Zeroconf
from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from zmesh.actions import Trace
from zmesh.discovery import responders
from zmesh.discovery.candidates import MDNS
from zmesh.discovery.inquiry import Inquiry
from zmesh.discovery.pacing import Pacer
from zmesh.discovery.records import SERVICE, Announced, Announcement, Unfit, node_of, read
from zmesh.events import CandidateFound, CandidateGone, Event
from zmesh.ids import MeshTag, NodeId
from zmesh.options import DiscoveryOptions

LOOPBACK = ("127.0.0.1",)
"""Where a node that listens on loopback announces: multicast works there without the interface
flag MULTICAST, because the address chooses the interface and the kernel loops it back. On ::1 it
does not (Linux has no multicast route there), so IPv6 addresses are announced over IPv4."""


@dataclass(frozen=True, slots=True)
class MdnsStatistics:
    """What mDNS brought, since the start."""

    heard: int  # changes of records
    looked_at: int  # records that were read, many changes at once
    refused: int  # records that were not: too many waited already
    malformed: int
    other_version: int
    other_mesh: int
    unresolved: int  # never completed


class MdnsSource:
    """One node's announcement, and its ears. Make it in the running loop.

    Args:
        tags: only nodes with one of these are candidates; the first is announced.
        node: this node's id.
        name: this node's name, shown to people; empty to tell nobody.
        on_events: told of candidates found and gone, in the loop.
        on_trace: told of what is worth a log line.
        options: bounds and rates.
        is_edge: whether to announce an edge.
        zeroconf: the application's own responder, which is used and left as it is; by default
            the nodes of a loop share one.
    """

    def __init__(
        self,
        *,
        tags: Sequence[MeshTag],
        node: NodeId,
        name: str,
        on_events: Callable[[list[Event]], None],
        on_trace: Callable[[Trace], None],
        options: DiscoveryOptions,
        is_edge: bool = False,
        zeroconf: AsyncZeroconf | None = None,
    ) -> None:
        self._is_edge = is_edge
        self._tags = tuple(tags)
        self._node = node
        self._name = name
        self._on_events = on_events
        self._on_trace = on_trace
        self._options = options
        self._theirs = zeroconf
        self._responder: responders.Responder | None = None
        self._addresses: frozenset[str] = frozenset()  # where we browse
        self._browser: AsyncServiceBrowser | None = None
        self._announced: Announcement | None = None
        self._endpoints: tuple[str, ...] = ()
        self._lock = asyncio.Lock()  # start, update and stop come one after the other
        self._loop = asyncio.get_running_loop()
        self._pacer: Pacer[NodeId, ServiceStateChange] = Pacer(options, self._loop.time())
        self._timer: asyncio.TimerHandle | None = None
        self._inquiry = Inquiry(self._core, options)
        self._resolving: dict[NodeId, asyncio.Task[None]] = {}
        self._broadcasts: set[asyncio.Future[None]] = set()
        self._counts = dict.fromkeys(("heard", "looked_at", "unresolved"), 0)
        self._unfit = dict.fromkeys(Unfit, 0)
        self._minute = (0.0, 0)  # when it ends, and what was heard before it
        self.other_meshes: set[str] = set()
        """Tags of other meshes seen, as many as are worth remembering."""
        self.failure = ""
        """Why there is no mDNS at the moment; empty where there is."""

    async def start(self, endpoints: Iterable[str], addresses: Iterable[str] = LOOPBACK) -> None:
        """Announce the node and listen for others. To be called once.

        Without mDNS (the port is taken, say) a node goes on with its other sources: that is
        traced, `failure` says why, and the next `update` tries again.

        Args:
            endpoints: where the node listens.
            addresses: of the interfaces to announce and listen on.

        Raises:
            InvalidOption: the node cannot be announced; see `records.Announcement`.
        """
        await self.update(endpoints, addresses)

    async def update(
        self, endpoints: Iterable[str], addresses: Iterable[str] | None = None
    ) -> None:
        """Announce other endpoints, on other interfaces where `addresses` are given.

        Raises:
            InvalidOption: as `start`; what was announced before stays.
        """
        endpoints = tuple(endpoints)
        async with self._lock:
            announcement = Announcement.of(
                self._tags[0], self._node, self._name, endpoints, is_edge=self._is_edge
            )
            self._endpoints = endpoints
            try:
                await self._listen(self._addresses if addresses is None else frozenset(addresses))
                await self._announce(announcement)
            except (OSError, RuntimeError, ZeroconfError) as error:
                self.failure = f"{type(error).__name__}: {error}"
                self._on_trace(Trace("mdns_unavailable", WARNING, {"why": self.failure}))
            else:
                self.failure = ""

    async def retag(self, tags: Sequence[MeshTag]) -> None:
        """Announce the first of these tags and accept all, from now on.

        Records that are known already are looked at again.
        """
        async with self._lock:
            self._tags = tuple(tags)
            self.other_meshes.clear()
            if self._browser is not None:
                await self._browser.async_cancel()
                self._browser = None
        await self.update(self._endpoints)

    async def stop(self) -> None:
        """Say goodbye and listen no more. Takes about a quarter of a second."""
        async with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            await self._inquiry.stop()
            if self._browser is not None:
                await self._browser.async_cancel()
                self._browser = None
            under_way = [*self._resolving.values(), *self._broadcasts]
            for each in under_way:
                each.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            try:
                await self._announce(None)
            finally:
                responder, self._responder = self._responder, None
                if responder is not None:
                    await responders.release(responder)

    def statistics(self) -> MdnsStatistics:
        """Return the counters."""
        return MdnsStatistics(
            refused=self._pacer.refused,
            malformed=self._unfit[Unfit.MALFORMED],
            other_version=self._unfit[Unfit.OTHER_VERSION],
            other_mesh=self._unfit[Unfit.OTHER_MESH],
            **self._counts,
        )

    @property
    def _zeroconf(self) -> AsyncZeroconf | None:
        if self._theirs is not None:
            return self._theirs
        return None if self._responder is None else self._responder.zeroconf

    def _core(self) -> Zeroconf | None:
        return None if self._zeroconf is None else self._zeroconf.zeroconf

    # Announcing

    async def _announce(self, announcement: Announcement | None) -> None:
        before, zeroconf = self._announced, self._zeroconf
        if announcement == before or zeroconf is None:
            return
        if announcement is not None and before is not None:
            self._keep(await zeroconf.async_update_service(_info(announcement)))
        elif announcement is not None:
            # Nobody else has our id in its name, so the 1.2 s of probing for that are saved.
            info = _info(announcement)
            self._keep(await zeroconf.async_register_service(info, cooperating_responders=True))
        elif before is not None:
            # Twice: the first await takes the service off, the second is the goodbyes being sent.
            info = _info(before)
            await (await zeroconf.async_unregister_service(info))
            # They are alike, and receivers ignore what they had less than 0.8 s ago. So an answer
            # that was under way would bring the record back; a shorter goodbye is no copy.
            core = zeroconf.zeroconf
            core.async_send(core.generate_service_broadcast(info, 0, broadcast_addresses=False))
        self._announced = announcement

    def _keep(self, broadcast: Awaitable[None]) -> None:
        task = asyncio.ensure_future(broadcast)
        self._broadcasts.add(task)
        task.add_done_callback(self._broadcasts.discard)
        task.add_done_callback(self._tell_failure)

    # Listening

    async def _listen(self, addresses: frozenset[str]) -> None:
        zeroconf = self._theirs
        if zeroconf is None:
            if self._responder is None:
                self._responder = await responders.acquire(addresses)
            elif addresses != self._addresses:
                await self._responder.move(addresses)
            elif self._browser is not None:
                return
            zeroconf = self._responder.zeroconf
        elif self._browser is not None:
            return
        await zeroconf.zeroconf.async_wait_for_start()
        self._addresses = addresses
        if self._browser is not None:
            await self._browser.async_cancel()
        # A new browser asks at once, which an old one does not do on new interfaces. It asks by
        # multicast to be answered so: nodes on one machine share the port, and an answer sent to
        # one address would reach but one of them.
        self._browser = AsyncServiceBrowser(
            zeroconf.zeroconf, SERVICE, handlers=[self._heard], question_type=DNSQuestionType.QM
        )
        self._inquiry.start()

    def _heard(
        self,
        zeroconf: Zeroconf,  # noqa: ARG002  zeroconf names what it passes
        service_type: str,  # noqa: ARG002
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        node = node_of(name)
        if node == self._node:
            return
        now = self._loop.time()
        self._count(name, now)
        if node is None:
            self._unfit[Unfit.MALFORMED] += 1
            return
        self._pacer.add(node, state_change, now)
        self._look(now)

    def _count(self, name: str, now: float) -> None:
        self._counts["heard"] += 1
        ends, before = self._minute
        if now >= ends:
            self._minute = (now + 60.0, self._counts["heard"])
        elif self._counts["heard"] - before == self._options.records_loud:
            fields = {"records": self._options.records_loud, "instance": name[:80]}
            self._on_trace(Trace("mdns_loud", WARNING, fields))

    def _look(self, now: float) -> None:
        """Look at what was heard, as far as rate and resolvers allow."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while len(self._resolving) < self._options.resolving_max:
            news = self._pacer.take(now)
            if news is None:
                deadline = self._pacer.deadline
                if deadline is not None:
                    self._timer = self._loop.call_at(deadline, self._on_timer, deadline)
                return
            self._look_at(*news)

    def _on_timer(self, deadline: float) -> None:
        # Loop timers may wake early; nothing may see a time before its own deadline.
        self._look(max(deadline, self._loop.time()))

    def _look_at(self, node: NodeId, change: ServiceStateChange) -> None:
        self._counts["looked_at"] += 1
        if change is ServiceStateChange.Removed:
            if node in self._resolving:
                self._resolving[node].cancel()
            self._on_events([CandidateGone(MDNS, node)])
            return
        zeroconf = self._zeroconf
        if zeroconf is None or node in self._resolving:
            return
        info = AsyncServiceInfo(SERVICE, f"{node.hex()}.{SERVICE}")
        if info.load_from_cache(zeroconf.zeroconf):
            self._read(node, info)
            return
        task = self._loop.create_task(self._resolve(node, info, zeroconf.zeroconf))
        self._resolving[node] = task
        task.add_done_callback(lambda _: self._resolved(node))
        task.add_done_callback(self._tell_failure)

    async def _resolve(self, node: NodeId, info: AsyncServiceInfo, zeroconf: Zeroconf) -> None:
        milliseconds = 1000 * self._options.resolving_timeout
        if await info.async_request(zeroconf, milliseconds, DNSQuestionType.QM):
            self._read(node, info)
        else:
            self._counts["unresolved"] += 1  # more records of it would be heard

    def _resolved(self, node: NodeId) -> None:
        del self._resolving[node]
        if self._browser is not None:
            self._look(self._loop.time())

    def _read(self, node: NodeId, info: AsyncServiceInfo) -> None:
        entries = info.decoded_properties
        addresses = info.parsed_scoped_addresses(IPVersion.All)
        announced = read(self._tags, node, entries, info.port, addresses)
        match announced:
            case Announced():
                found = CandidateFound(
                    MDNS, node, announced.name, announced.endpoints, announced.is_edge
                )
                self._on_events([found])
            case Unfit():
                self._unfit[announced] += 1
                if announced is Unfit.OTHER_MESH:
                    self._remember_mesh(entries.get("mesh") or "")
                self._on_events([CandidateGone(MDNS, node)])  # it may have been ours before
            case _:
                assert_never(announced)

    def _remember_mesh(self, tag: str) -> None:
        if len(self.other_meshes) < self._options.other_meshes_max:
            self.other_meshes.add(tag[:16])

    def _tell_failure(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            why = f"{type(error).__name__}: {error}"
            self._on_trace(Trace("mdns_failed", WARNING, {"why": why}))


def _info(announcement: Announcement) -> AsyncServiceInfo:
    return AsyncServiceInfo(
        SERVICE,
        announcement.instance,
        port=announcement.port,
        properties=announcement.entries,
        server=announcement.server,
        parsed_addresses=list(announcement.addresses),
    )
