"""One mDNS responder (`AsyncZeroconf`) for all nodes of an event loop on the same addresses."""

import asyncio
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from zeroconf import IPVersion
from zeroconf.asyncio import AsyncZeroconf

from zmesh.discovery.blocking import in_thread
from zmesh.discovery.interfaces import list_interfaces


class Responder:
    """A responder and the number of its users: `acquire` one, and `release` it."""

    def __init__(self, addresses: frozenset[str]) -> None:
        self.addresses = addresses
        self.users = 0
        self._moving = asyncio.Lock()
        self.zeroconf = AsyncZeroconf(
            interfaces=_in_order(addresses), ip_version=_family(addresses)
        )

    async def move(self, addresses: Iterable[str]) -> None:
        """Serve these addresses from now on, and announce anew there whatever is registered.

        Every user calls it after the interfaces changed; the first call does the work.
        """
        wanted = frozenset(addresses)
        await _check(wanted)
        async with self._moving:
            if wanted != self.addresses:
                self.addresses = wanted
                await self.zeroconf.async_update_interfaces(_in_order(wanted), _family(wanted))


_responders: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Responder]] = WeakKeyDictionary()


async def acquire(addresses: Iterable[str]) -> Responder:
    """Return the running loop's responder on these addresses, made if there is none.

    Raises:
        OSError: the port (UDP 5353) or an address cannot be had.
    """
    wanted = frozenset(addresses)
    await _check(wanted)
    mine = _responders.setdefault(asyncio.get_running_loop(), [])
    for responder in mine:
        if responder.addresses == wanted:
            break
    else:
        responder = Responder(wanted)
        mine.append(responder)
    responder.users += 1
    return responder


async def release(responder: Responder) -> None:
    """Give a responder back; the last user closes it."""
    responder.users -= 1
    if responder.users == 0:
        _responders[asyncio.get_running_loop()].remove(responder)
        await responder.zeroconf.async_close()


async def _check(wanted: frozenset[str]) -> None:
    # zeroconf leaves its sockets open where it fails over an address.
    if all(address.startswith("127.") for address in wanted):
        return
    interfaces = await in_thread(list_interfaces, "zmesh-interfaces")
    there = {each.partition("%")[0] for interface in interfaces for each in interface.addresses}
    missing = sorted(wanted - there)
    if missing:
        raise OSError(f"no interface has the address {', '.join(missing)}")


def _in_order(addresses: frozenset[str]) -> list[str]:
    return sorted(addresses)


def _family(addresses: frozenset[str]) -> IPVersion:
    # zeroconf's default is IPv4 alone, whatever the addresses are.
    version_6 = any(":" in address for address in addresses)
    version_4 = any(":" not in address for address in addresses)
    if version_6 and version_4:
        return IPVersion.All
    return IPVersion.V6Only if version_6 else IPVersion.V4Only
