"""All sources of candidates of one node: started, kept up to date and stopped together."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from zmesh.actions import Trace
from zmesh.discovery.alone import Surroundings, why_alone
from zmesh.discovery.candidates import SEED, STATIC
from zmesh.discovery.interfaces import InterfaceMonitor, Interfaces, mdns_addresses, select
from zmesh.discovery.mdns import LOOPBACK, MdnsSource
from zmesh.discovery.membership_statistics import MembershipStatistics
from zmesh.discovery.mesh_tag import mesh_tag
from zmesh.discovery.static import StaticSource
from zmesh.events import EndpointsChanged, Event, PathCause
from zmesh.face.listening import Listening, replan
from zmesh.face.settings import Settings
from zmesh.ids import MeshTag, NodeId
from zmesh.security.mesh_key import MeshKey


def announced_tags(mesh: str, keys: Sequence[MeshKey]) -> tuple[MeshTag, ...]:
    """Return the tags a node goes by in mDNS, the one it announces first."""
    return tuple(key.tag(mesh) for key in keys) or (mesh_tag(mesh),)


Listen = Callable[[Sequence[str]], tuple[str, ...]]
"""Listens on these hosts from now on, and returns the endpoints."""


class Sources:
    """Who may be there, according to mDNS and to what was written down. Make it in the loop.

    Args:
        settings: which sources, and what they need.
        node: this node's id.
        on_events: told of candidates and of this node's own endpoints.
        on_trace: told of what is worth a log line.
    """

    def __init__(
        self,
        settings: Settings,
        node: NodeId,
        on_events: Callable[[list[Event]], None],
        on_trace: Callable[[Trace], None],
    ) -> None:
        discovery = settings.options.discovery
        self._settings = settings
        self._on_events = on_events
        self._written = [
            StaticSource(
                source,
                targets,
                on_events,
                on_trace,
                discovery,
                only_loopback=not settings.may_leave_loopback,
            )
            for source, targets in ((STATIC, settings.peers), (SEED, settings.seeds))
        ]
        self._mdns: MdnsSource | None = None
        if settings.mdns:
            self._mdns = MdnsSource(
                tags=announced_tags(settings.mesh, settings.keys),
                node=node,
                name=settings.name if settings.announces_name else "",
                on_events=on_events,
                on_trace=on_trace,
                options=discovery,
                is_edge=settings.is_edge,
                zeroconf=settings.zeroconf,
            )
        self._monitor = InterfaceMonitor(self._on_change, on_trace, discovery.interfaces_every)
        self.endpoints: tuple[str, ...] = ()
        """Where this node is reached."""
        self._listening = Listening(())
        self._bound: tuple[str, ...] = ()
        self._listen: Listen | None = None
        self._again: asyncio.TimerHandle | None = None  # to try what could not be listened on
        self._mdns_on: tuple[str, ...] = LOOPBACK
        self._updates: set[asyncio.Task[None]] = set()

    async def interfaces(self) -> Interfaces:
        """Return the machine's interfaces; their changes are followed from now on."""
        return await self._monitor.start()

    async def start(
        self,
        listening: Listening,
        bound: tuple[str, ...],
        interfaces: Interfaces,
        listen: Listen | None = None,
    ) -> None:
        """Begin: tell where this node is reached, and listen for others.

        Args:
            listening: where the node listens,
            bound: on which endpoints,
            interfaces: and of which the machine has.
            listen: makes it listen elsewhere, where the interfaces change.

        Raises:
            InvalidOption: the node cannot be announced, because of its name.
        """
        self._listening, self._bound, self._listen = listening, bound, listen
        self._look_at(interfaces)
        for source in self._written:
            source.start()
        if self._mdns is not None:
            await self._mdns.start(self.endpoints, self._mdns_on)

    async def use_keys(self, keys: Sequence[MeshKey]) -> None:
        """Be found by who has one of these keys, the first of which this node is known by."""
        if self._mdns is not None:
            await self._mdns.retag(announced_tags(self._settings.mesh, keys))

    async def stop(self) -> None:
        """Say goodbye, and follow nothing any more."""
        await self._monitor.stop()
        self._forget_retry()
        for task in self._updates:
            task.cancel()
        await asyncio.gather(*self._updates, return_exceptions=True)
        for source in self._written:
            await source.stop()
        if self._mdns is not None:
            await self._mdns.stop()

    def why_alone(
        self, membership: MembershipStatistics, failures: Mapping[str, PathCause]
    ) -> str:
        """Return in one line why nobody is there.

        Args:
            membership: what dialing brought.
            failures: why the latest dials failed, by endpoint.
        """
        unresolved: Mapping[str, str] = {
            text: why for source in self._written for text, why in source.unresolved.items()
        }
        mdns = self._mdns
        seen = Surroundings(
            mesh=self._settings.mesh,
            mdns=mdns is not None,
            mdns_failure="" if mdns is None else mdns.failure,
            mdns_addresses=self._mdns_on,
            other_meshes=0 if mdns is None else len(mdns.other_meshes),
            written_down=len(self._settings.peers) + len(self._settings.seeds),
            unresolved=unresolved,
            causes=failures,
            itself=membership.itself,
            wrong_mesh=membership.wrong_mesh,
            not_trusted=membership.not_trusted,
            not_trusted_there=membership.not_trusted_there,
            revoked_there=membership.revoked_there,
            wrong_node=membership.wrong_node,
            edges=membership.edges,
        )
        return why_alone(seen)

    def _look_at(self, interfaces: Interfaces) -> None:
        """Tell where this node is reached with these interfaces."""
        chosen = select(interfaces, self._settings.interfaces or ())
        self.endpoints = self._listening.endpoints(self._bound, chosen)
        self._mdns_on = LOOPBACK if self._listening.is_loopback else mdns_addresses(chosen)
        self._on_events([EndpointsChanged(self.endpoints)])

    def _follow(self, interfaces: Interfaces) -> None:
        """Listen where the interfaces that were named are reached now."""
        if self._listen is None or self._listening.is_everywhere:
            return
        wanted, allowed = self._settings.interfaces or (), self._settings.may_leave_loopback
        self._listening = replan(wanted, interfaces, allowed=allowed)
        self._bound = self._listen(self._listening.hosts)
        if len(self._bound) < len(self._listening.hosts):
            # A port may be taken for a while, and be it by what listened there until just now.
            every = self._settings.options.discovery.interfaces_every
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(every, self._on_change, interfaces)

    def _forget_retry(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _on_change(self, interfaces: Interfaces) -> None:
        self._forget_retry()
        self._follow(interfaces)
        self._look_at(interfaces)
        if self._mdns is not None:
            task = asyncio.create_task(self._mdns.update(self.endpoints, self._mdns_on))
            self._updates.add(task)
            task.add_done_callback(self._updates.discard)
