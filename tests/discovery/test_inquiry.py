"""Questions who is there, asked again and again; on loopback."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from tests.discovery.waiting import until
from zmesh.discovery.inquiry import Inquiry
from zmesh.discovery.records import SERVICE
from zmesh.options import DiscoveryOptions

OFTEN = DiscoveryOptions(ask_every=0.1, ask_every_max=0.1, ask_gap=0.0)


@pytest.fixture
async def us() -> AsyncIterator[AsyncZeroconf]:
    zeroconf = AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    yield zeroconf
    await zeroconf.async_close()


@pytest.fixture
async def them() -> AsyncIterator[AsyncZeroconf]:
    zeroconf = AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    yield zeroconf
    await zeroconf.async_close()


def forget(zeroconf: AsyncZeroconf, name: str) -> None:
    """Have it know no more than one who was deaf when the name was announced."""
    cache = zeroconf.zeroconf.cache
    cache.async_remove_records(
        [record for record in cache.entries_with_name(SERVICE) if name in str(record)]
    )


def knows(zeroconf: AsyncZeroconf, name: str) -> bool:
    return any(name in str(each) for each in zeroconf.zeroconf.cache.entries_with_name(SERVICE))


async def test_who_could_not_be_heard_when_it_came_is_found_later(
    us: AsyncZeroconf, them: AsyncZeroconf
) -> None:
    name = secrets.token_hex(16)
    info = AsyncServiceInfo(SERVICE, f"{name}.{SERVICE}", port=5, parsed_addresses=["127.0.0.1"])
    await (await them.async_register_service(info, cooperating_responders=True))
    await until(lambda: knows(us, name))
    forget(us, name)
    assert not knows(us, name)
    inquiry = Inquiry(lambda: us.zeroconf, OFTEN)
    inquiry.start()
    await until(lambda: knows(us, name))
    await inquiry.stop()


async def test_it_waits_where_there_is_nothing_to_ask_with() -> None:
    asked = 0

    def nothing() -> None:
        nonlocal asked
        asked += 1

    inquiry = Inquiry(nothing, OFTEN)
    inquiry.start()
    inquiry.start()
    await until(lambda: asked >= 3)
    await inquiry.stop()
    await inquiry.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_many_together_ask_no_more_often_than_a_few() -> None:
    inquiry = Inquiry(lambda: None, DiscoveryOptions())
    assert inquiry._interval(0) == inquiry._interval(1) == 15.0
    assert inquiry._interval(2) == inquiry._interval(30) == 60.0
    assert inquiry._interval(1000) == 2000.0
