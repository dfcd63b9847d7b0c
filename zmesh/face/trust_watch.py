"""The trust of a node while it runs: its directory looked at again, and what changed passed on."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from zmesh.actions import Audited, AuditKind
from zmesh.discovery.blocking import in_thread
from zmesh.errors import InvalidOption, UsageError
from zmesh.options import TrustOptions
from zmesh.security.trust import Trust
from zmesh.security.trust_files import TrustDirectory, TrustRead
from zmesh.security_errors import InvalidTrust

logger = logging.getLogger("zmesh")

_THREAD: Final = "zmesh-trust"

TrustArgument = str | os.PathLike[str] | Trust
"""What `Node(trust=)` takes: a directory, or whom to trust."""


def check_trust(trust: object, *, has_key: bool) -> Path | Trust | None:
    """Return the trust that is meant.

    Raises:
        InvalidOption: it is none, or nobody would prove who they are.
    """
    if trust is None:
        return None
    if not isinstance(trust, str | os.PathLike | Trust):
        raise InvalidOption("trust", trust, "a directory of keys, or a zmesh.Trust")
    if not has_key:
        expected = "a mesh key as well (key=): without one nobody proves who they are"
        raise InvalidOption("trust", trust, expected)
    return trust if isinstance(trust, Trust) else Path(trust)


class TrustWatch:
    """Keeps the trust of one node. Make it in the loop.

    Args:
        trust: a directory, whom to trust, or None: everybody who has the mesh key.
        options: bounds and times.
        node: its name, for the log.
        use: told of every change.
        tell: told what is for the audit log.
    """

    def __init__(
        self,
        trust: Path | Trust | None,
        options: TrustOptions,
        node: str,
        use: Callable[[Trust], None],
        tell: Callable[[Audited], None],
    ) -> None:
        self._directory = TrustDirectory(trust, options) if isinstance(trust, Path) else None
        self._has_trust = trust is not None
        self._every = options.look_every
        self._node = node
        self._use = use
        self._tell = tell
        self._told: frozenset[str] = frozenset()  # problems of the last look
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Look for the first time, and from now on.

        Raises:
            InvalidTrust: something in the directory cannot be used.
        """
        if self._directory is not None:
            self._use(await in_thread(self._directory.open, _THREAD))
            self._task = asyncio.create_task(self._watch(), name="zmesh trust")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def reload(self, trust: Trust | None) -> None:
        """Look now, or trust others from now on.

        Raises:
            UsageError: it was told of no trust, or of another sort.
            InvalidTrust: something cannot be used; what can be used counts.
        """
        if not self._has_trust:
            raise UsageError("this node trusts everybody with the mesh key: give it trust=")
        if (trust is None) is (self._directory is None):
            told = "a zmesh.Trust: give another" if trust is None else "a directory: edit that"
            raise UsageError(f"this node was given {told}")
        if trust is not None:
            self._use(trust)
        elif problems := await self._look():
            raise problems[0]

    async def _watch(self) -> None:
        is_blind = False
        while True:
            await asyncio.sleep(self._every)
            try:
                await self._look()
            except Exception as error:
                if not is_blind:  # told once; a revocation must not pass this node by for ever
                    logger.exception("%s: its trust cannot be looked at", self._node)
                    self._tell(Audited(AuditKind.BAD_TRUST, detail=f"cannot be read: {error}"))
                is_blind = True
            else:
                is_blind = False

    async def _look(self) -> tuple[InvalidTrust, ...]:
        assert self._directory is not None, "only a directory is looked at"  # noqa: S101
        async with self._turn:
            read = await in_thread(self._directory.read, _THREAD)
            self._pass_on(read)
        return read.problems

    def _pass_on(self, read: TrustRead) -> None:
        for problem in read.problems:
            if str(problem) not in self._told:
                logger.error("%s: %s; what it said before holds", self._node, problem)
                self._tell(Audited(AuditKind.BAD_TRUST, detail=problem.why, rule=problem.where))
        self._told = frozenset(map(str, read.problems))
        if read.has_changed:
            logger.info("%s: trust has changed: %r", self._node, read.trust)
            self._use(read.trust)
