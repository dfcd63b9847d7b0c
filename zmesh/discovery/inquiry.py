"""Asking the network who is there, again and again, for those who could not hear it before.

A browser of zeroconf asks four times within 14 s, and then when records near their end, after most
of an hour. Nodes that started while their networks were apart, or one before its cable was plugged
in, would not meet until then, for announcements are not repeated either.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from zeroconf import DNSQuestionType, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser

from zmesh.discovery.records import SERVICE
from zmesh.options import DiscoveryOptions

_ASKED_WITHIN_S: Final = 0.5
"""A new browser asks after 120 ms at the latest (RFC 6762 section 5.2), and again after 1 s."""


class Inquiry:
    """Multicast questions for `SERVICE`, from `start` until `stop`.

    They list the answers known already, which nobody repeats (RFC 6762 section 7.1), so they cost
    a packet where nothing changed. Section 5.2 there lets the interval grow to an hour: for that
    long the halves of a network could stay strangers. Ours stays short, but grows with the number
    of nodes, so that many together ask no more often than a few.

    Args:
        zeroconf: returns what to ask with, or None where there is nothing now.
        options: how often.
    """

    def __init__(self, zeroconf: Callable[[], Zeroconf | None], options: DiscoveryOptions) -> None:
        self._zeroconf = zeroconf
        self._options = options
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Ask from now on, where it was not started before."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ask no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        interval = self._options.ask_every
        while True:
            # Jitter, so that nodes which started together do not ask together.
            await asyncio.sleep(interval * random.uniform(0.75, 1.25))  # noqa: S311
            zeroconf = self._zeroconf()
            if zeroconf is not None and not zeroconf.done:
                interval = self._interval(await _ask(zeroconf))

    def _interval(self, known: int) -> float:
        options = self._options
        if known <= 1:  # our own
            return options.ask_every
        return max(options.ask_every_max, known * options.ask_gap)


async def _ask(zeroconf: Zeroconf) -> int:
    """Ask once; return how many instances were known before.

    A browser of its own does it: what it asks and omits is up to zeroconf, and the browser that
    listens all the time hears the answers.
    """
    known = 0

    def count(
        zeroconf: Zeroconf,  # noqa: ARG001  zeroconf names what it passes
        service_type: str,  # noqa: ARG001
        name: str,  # noqa: ARG001
        state_change: ServiceStateChange,
    ) -> None:
        nonlocal known
        known += state_change is ServiceStateChange.Added

    browser = AsyncServiceBrowser(
        zeroconf, SERVICE, handlers=[count], question_type=DNSQuestionType.QM
    )
    try:
        await asyncio.sleep(_ASKED_WITHIN_S)
    finally:
        await browser.async_cancel()
    return known
