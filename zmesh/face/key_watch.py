"""Key files that change while a node runs: read again, and the node goes on with other keys."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from zmesh.actions import Audited, AuditKind
from zmesh.discovery.blocking import in_thread
from zmesh.errors import ZmeshError
from zmesh.face.key_sources import KeySources, ReadKeys
from zmesh.security.mesh_key import MeshKey

logger = logging.getLogger("zmesh")

_THREAD: Final = "zmesh-keys"


class KeyWatch:
    """Looks at key files from time to time. Make it in the loop.

    What cannot be used is told, and the keys of before stay, until the file changes again.

    Args:
        sources: which files.
        read: the keys they had.
        every: seconds between looks: no portable call tells of changes.
        node: its name, for the log.
        use: told the keys that are there now, the primary one first.
        tell: told what is for the audit log.
    """

    def __init__(
        self,
        sources: KeySources,
        read: ReadKeys,
        every: float,
        node: str,
        use: Callable[[tuple[MeshKey, ...]], Awaitable[None]],
        tell: Callable[[Audited], None],
    ) -> None:
        self._sources = sources
        self._keys = read.keys
        self._stamps = read.stamps
        self._failed: tuple[MeshKey, ...] | None = None  # could not be used
        self._every = every
        self._node = node
        self._use = use
        self._tell = tell
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from now on, where there are files at all."""
        if self._sources.files:
            self._task = asyncio.create_task(self._watch(), name="zmesh keys")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        is_blind = False
        while True:
            try:
                await self._look()
            except Exception:
                if not is_blind:  # told once; a rotation must not pass this node by for ever
                    logger.exception("%s: its key files cannot be looked at", self._node)
                is_blind = True
            else:
                is_blind = False
            await asyncio.sleep(self._every)

    async def _look(self) -> None:
        stamps = await in_thread(self._sources.stamps, _THREAD)
        if stamps != self._stamps:
            self._stamps = stamps
            await self._read()

    async def _read(self) -> None:
        try:
            read = await in_thread(self._sources.read, _THREAD)
        except ZmeshError as error:
            self._keep(error)
            return
        self._stamps = read.stamps
        if read.keys != self._keys or self._failed is not None:  # of which some may be in use
            await self._change(read.keys)

    def _keep(self, error: ZmeshError) -> None:
        used = _told(self._keys)
        logger.error(
            "%s: %s; it goes on with the mesh keys of before (%s)", self._node, error, used
        )
        self._tell(Audited(AuditKind.KEYS_UNUSABLE, detail=str(error), rule=used))

    async def _change(self, keys: tuple[MeshKey, ...]) -> None:
        before = _told(self._keys)
        try:
            await self._use(keys)
        except Exception:
            if keys != self._failed:  # told once; tried again at every look
                logger.exception("%s: the mesh keys could not be changed", self._node)
            self._failed, self._stamps = keys, ()
            return
        self._keys, self._failed = keys, None
        logger.info("%s: the mesh keys are %s now, and were %s", self._node, _told(keys), before)
        change = Audited(AuditKind.KEYS_CHANGED, detail=f"were {before}", rule=_told(keys))
        self._tell(change)


def _told(keys: tuple[MeshKey, ...]) -> str:
    """Return keys by their fingerprints."""
    return ", ".join(key.fingerprint for key in keys)
