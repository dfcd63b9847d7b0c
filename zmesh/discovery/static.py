"""Peers and seeds somebody wrote down: `peers=`, `seeds=`, `ZMESH_PEERS`, `ZMESH_SEEDS`.

Addresses are candidates at once. Names are resolved in threads, again and again: a name may come
to lead elsewhere, and a name server may come up later than we do.
"""

import asyncio
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from logging import WARNING

from zmesh.actions import Trace
from zmesh.discovery.blocking import in_thread
from zmesh.discovery.candidates import PINNED_SOURCES
from zmesh.discovery.endpoints import Endpoint, is_loopback, split_target
from zmesh.errors import InvalidOption
from zmesh.events import CandidateFound, Event
from zmesh.options import DiscoveryOptions

NEEDS_KEY = "it is on the network, which takes a mesh key or insecure=True"
"""Why a name is not followed to where it leads."""

_SEPARATORS = re.compile(r"[,\s]+")

Resolver = Callable[[str], list[str]]
"""Returns the addresses of a host name; blocks; raises OSError where there are none."""


@dataclass(frozen=True, slots=True)
class Target:
    """What was written down: where to find a peer."""

    text: str
    host: str
    port: int

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint, where the host is an address and no name."""
        try:
            ip_address(self.host)
        except ValueError:
            return None
        return Endpoint.parse(self.text)


def targets(option: str, written: str | Iterable[str], targets_max: int) -> tuple[Target, ...]:
    """Read peers or seeds: a list, or one text separated by commas or white space.

    Args:
        option: what the user calls it, for errors: `peers`, `ZMESH_SEEDS`.
        written: each `host:port`, `tcp://host:port` or `[v6]:port`.
        targets_max: more are refused.

    Raises:
        InvalidOption: naming the text that cannot work, and why.
    """
    if not isinstance(written, Iterable):
        raise InvalidOption(option, written, "a list of host:port")
    texts = _SEPARATORS.split(written) if isinstance(written, str) else list(written)
    read: dict[str, Target] = {}
    for text in texts:
        if isinstance(written, str) and not text:
            continue  # what stands around separators
        if not isinstance(text, str):
            raise InvalidOption(option, text, "host:port, tcp://host:port or [v6]:port")
        try:
            host, port = split_target(text)
            target = Target(text, host, port)
            _ = target.endpoint
        except ValueError as error:
            expected = f"host:port, tcp://host:port or [v6]:port ({error})"
            raise InvalidOption(option, text, expected) from error
        read[text] = target
    if len(read) > targets_max:
        raise InvalidOption(option, f"{len(read)} entries", f"at most {targets_max}")
    return tuple(read.values())


def targets_of(
    option: str,
    given: Iterable[str],
    variable: str,
    environment: Mapping[str, str],
    targets_max: int,
) -> tuple[Target, ...]:
    """Read an option and the environment variable beside it, which adds to it.

    Raises:
        InvalidOption: as `targets`, naming the option or the variable.
    """
    if isinstance(given, str | bytes):  # as with interfaces: one is a list of one
        raise InvalidOption(option, given, 'a list of host:port, as in ["192.0.2.7:5555"]')
    both = targets(option, given, targets_max)
    both += targets(variable, environment.get(variable, ""), targets_max)
    return tuple({target.text: target for target in both}.values())


def resolve(host: str) -> list[str]:
    """Return the addresses of a host. Blocks.

    Raises:
        OSError: there are none, or nobody can tell.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label over 63 characters, say
        raise OSError(f"not a host name: {error}") from error
    return [str(address[0]) for *_, address in found]


class StaticSource:
    """Vouches for what was written down, for as long as the node lives.

    Args:
        source: `candidates.STATIC` or `candidates.SEED`.
        targets: see `targets`.
        on_events: told of candidates found, in the loop.
        on_trace: told of names that cannot be resolved.
        options: how often to resolve.
        resolver: what resolves; called in a thread.
        only_loopback: whether names that lead elsewhere are not followed.
    """

    def __init__(
        self,
        source: str,
        targets: Iterable[Target],
        on_events: Callable[[list[Event]], None],
        on_trace: Callable[[Trace], None],
        options: DiscoveryOptions,
        resolver: Resolver = resolve,
        *,
        only_loopback: bool = False,
    ) -> None:
        if source not in PINNED_SOURCES:
            raise InvalidOption("source", source, f"one of {', '.join(sorted(PINNED_SOURCES))}")
        self._source = source
        self._targets = tuple(targets)
        self._on_events = on_events
        self._on_trace = on_trace
        self._options = options
        self._resolver = resolver
        self._only_loopback = only_loopback
        self._tasks: list[asyncio.Task[None]] = []
        self.unresolved: dict[str, str] = {}
        """What was written down and leads nowhere at the moment, and why."""

    def start(self) -> None:
        """Tell of the addresses now, and of the names when they are resolved."""
        found: list[Event] = []
        for target in self._targets:
            endpoint = target.endpoint
            if endpoint is not None:
                found.append(CandidateFound(self._source, None, target.text, (str(endpoint),)))
            else:
                self._tasks.append(asyncio.create_task(self._follow(target)))
        if found:
            self._on_events(found)

    async def stop(self) -> None:
        """Resolve no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, target: Target) -> None:
        """Resolve a name for ever."""
        retry = self._options.names_retry
        told: tuple[str, ...] = ()
        while True:
            endpoints = await self._resolve(target)
            if endpoints and endpoints != told:
                told = endpoints
                self._on_events([CandidateFound(self._source, None, target.text, endpoints)])
            if endpoints:
                retry = self._options.names_retry
                await asyncio.sleep(self._options.names_every)
            else:
                await asyncio.sleep(retry)
                retry = min(2 * retry, self._options.names_every)

    async def _resolve(self, target: Target) -> tuple[str, ...]:
        try:
            hosts = await in_thread(partial(self._resolver, target.host), "zmesh-resolver")
        except OSError as error:
            return self._unresolved(target, str(error))
        found = {_endpoint(host, target.port) for host in hosts}
        if self._only_loopback and not (found := {each for each in found if is_loopback(each)}):
            return self._unresolved(target, NEEDS_KEY)
        self.unresolved.pop(target.text, None)
        # Sorted: name servers turn their answers round, which is no change.
        return tuple(sorted(found))

    def _unresolved(self, target: Target, why: str) -> tuple[str, ...]:
        if target.text not in self.unresolved:  # told once, until it resolves again
            fields: dict[str, object] = {"peer": target.text, "why": why}
            self._on_trace(Trace("name_unresolved", WARNING, fields))
        self.unresolved[target.text] = why
        return ()


def _endpoint(host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
