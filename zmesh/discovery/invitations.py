"""Invitations in mDNS: announced by who invites, found by who joins. Never anything secret.

An instance of `_zmesh-join._tcp.local.` is named by the code's nameplate and eight random hex
digits, as in `417-9f3a01bc`, so that two with one nameplate are seen as two. Its TXT record has
`txtvers=1` and `v=1`, and nothing of the mesh.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

from zeroconf import DNSQuestionType, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from zmesh.discovery import responders
from zmesh.options import JoiningOptions

SERVICE: Final = "_zmesh-join._tcp.local."

_ENTRIES: Final = {"txtvers": "1", "v": "1"}
_INSTANCE: Final = re.compile(r"([1-9][0-9]{2})-[0-9a-f]{8}\." + re.escape(SERVICE), re.ASCII)
_ADDRESSES_MAX: Final = 16
_QUERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Invited:
    """An invitation that was heard of: where it may be reached, unchecked."""

    addresses: tuple[str, ...]  # link-local ones with their interface
    port: int


@asynccontextmanager
async def responder_on(
    addresses: Collection[str], theirs: AsyncZeroconf | None = None
) -> AsyncIterator[AsyncZeroconf]:
    """Lend the loop's responder on these addresses, or the application's own.

    Raises:
        OSError, zeroconf.Error: there can be none.
    """
    if theirs is not None:
        yield theirs
        return
    responder = await responders.acquire(addresses)
    try:
        await responder.zeroconf.zeroconf.async_wait_for_start()
        yield responder.zeroconf
    finally:
        await responders.release(responder)


class Announcer:
    """Announces one invitation while it is used as a context."""

    def __init__(self, zeroconf: AsyncZeroconf, info: AsyncServiceInfo) -> None:
        self._zeroconf = zeroconf
        self._info = info
        self._broadcast: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        # The name has random digits, so the probing for others with it is saved.
        broadcast = await self._zeroconf.async_register_service(
            self._info, cooperating_responders=True
        )
        self._broadcast = asyncio.ensure_future(broadcast)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._broadcast is not None  # noqa: S101
        self._broadcast.cancel()
        await asyncio.gather(self._broadcast, return_exceptions=True)
        # Twice: the first await takes the service off, the second is the goodbyes being sent.
        await (await self._zeroconf.async_unregister_service(self._info))


def info_of(nameplate: str, token: bytes, addresses: Sequence[str], port: int) -> AsyncServiceInfo:
    """Return what announces an invitation; `token` is 4 random bytes."""
    label = f"{nameplate}-{token.hex()}"
    return AsyncServiceInfo(
        SERVICE,
        f"{label}.{SERVICE}",
        port=port,
        properties=_ENTRIES,
        server=f"{label}.local.",
        parsed_addresses=[each.partition("%")[0] for each in addresses[:_ADDRESSES_MAX]],
    )


async def find(zeroconf: AsyncZeroconf, nameplate: str, options: JoiningOptions) -> list[Invited]:
    """Return the invitations with a nameplate; none where none was heard of in time."""
    search = _Search(zeroconf.zeroconf, nameplate, options.found_max)
    # By multicast, also the answers: others on this machine share the port.
    browser = AsyncServiceBrowser(
        zeroconf.zeroconf, SERVICE, handlers=[search.heard], question_type=DNSQuestionType.QM
    )
    try:
        async with asyncio.timeout(options.find_max):
            await search.first.wait()
        await asyncio.sleep(options.find_more)
    except TimeoutError:
        pass
    finally:
        await browser.async_cancel()
        await search.stop()
    return list(search.found.values())


class _Search:
    def __init__(self, zeroconf: Zeroconf, nameplate: str, found_max: int) -> None:
        self._zeroconf = zeroconf
        self._nameplate = nameplate
        self._found_max = found_max
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.found: dict[str, Invited] = {}
        self.first = asyncio.Event()

    def heard(
        self,
        zeroconf: Zeroconf,  # noqa: ARG002  zeroconf names what it passes
        service_type: str,  # noqa: ARG002
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        named = _INSTANCE.fullmatch(name)
        if named is None or named[1] != self._nameplate:
            return
        if state_change is ServiceStateChange.Removed:
            self.found.pop(name, None)
            if name in self._tasks:
                self._tasks.pop(name).cancel()
        elif name not in self._tasks and len(self._tasks) < self._found_max:
            self._tasks[name] = asyncio.create_task(self._look_at(name))

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_at(self, name: str) -> None:
        info = AsyncServiceInfo(SERVICE, name)
        while not await info.async_request(self._zeroconf, 1000 * _QUERY_S, DNSQuestionType.QM):
            pass  # until the search ends: a packet may be lost
        addresses = tuple(info.parsed_scoped_addresses(IPVersion.All)[:_ADDRESSES_MAX])
        if info.decoded_properties.get("v") != _ENTRIES["v"] or not info.port or not addresses:
            return
        self.found[name] = Invited(addresses, info.port)
        self.first.set()
