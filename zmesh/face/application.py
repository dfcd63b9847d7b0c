"""The application's own database beside the node: what is picked up there, and what is known."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from zmesh.actions import SenderForgot
from zmesh.core.engine import Engine
from zmesh.errors import InvalidOption
from zmesh.events import RelayedGone, Remember
from zmesh.face.application_database import Database
from zmesh.face.outbox_relay import OutboxRelay
from zmesh.face.outbox_table import OutboxRow
from zmesh.face.runner import Runner
from zmesh.face.storing_posts import DurablePosting
from zmesh.face.transactions import Transactions
from zmesh.ids import TOKEN_BYTES, NodeId
from zmesh.options import Storage, WireLimits
from zmesh.wire.bodies import check_text

logger = logging.getLogger("zmesh")

DATABASE_SUFFIX: Final = ".app"
"""Of the journal's path: where transactions of messages write that name no database."""


class Application:
    """The database of one node's application; without storage there is none."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        runner: Runner,
        durable: DurablePosting,
        storage: Storage | None,
        limits: WireLimits,
    ) -> None:
        self._loop = loop
        self._limits = limits
        self._engine = engine
        self._runner = runner
        self._durable = durable
        self._storage = storage
        self._database: Database | None = None
        self._relay: OutboxRelay | None = None
        self._known: set[str] = set()  # rows of its outbox that are in the journal
        if storage is not None:
            beside = f"{storage.path}{DATABASE_SUFFIX}"
            is_ours = storage.database is None
            self._database = Database(storage.database or beside, is_private=is_ours)
        runner.settlements.transactions = Transactions(self._database, loop)

    async def load(self) -> None:
        """Learn which messages were handled, before any comes again.

        Raises:
            StorageError: the database cannot be read.
        """
        if self._database is not None:
            for node, kept, ranges in await self._database.load():
                journal, name = kept[:TOKEN_BYTES], kept[TOKEN_BYTES:].decode() or None
                self._runner.command(Remember(NodeId(node), journal, ranges, name))
            self._runner.flush()

    def start(self) -> None:
        """Pick up what the application leaves in its outbox, where it named a database."""
        if self._storage is not None and self._storage.database is not None:
            self._known = {key.decode() for key in self._engine.relayed()}
            database, known = self._storage.database, tuple(self._known)
            self._relay = OutboxRelay(self._loop, database, self._take, self._gone, known=known)
            if isinstance(database, Path) and not database.exists():
                logger.warning("there is no %s yet, so nothing is in its outbox", database)
            self._relay.start()

    async def _take(self, rows: Sequence[OutboxRow]) -> None:
        new = [row for row in rows if row.id not in self._known and self._is_fit(row)]
        await self._durable.relay(new)
        self._known.update(row.id for row in new)

    def _is_fit(self, row: OutboxRow) -> bool:
        """Return whether a row can be sent; one that was not written by `enqueue` may not."""
        try:
            if row.verb == "publish":
                self._engine.check_publish(row.destination)
            else:
                check_text("destination", row.destination, self._limits)
        except InvalidOption as error:
            logger.error("a message in the outbox is left out (id %s): %s", row.id, error)
            return False
        return True

    def _gone(self, ids: Sequence[str]) -> None:
        self._known.difference_update(ids)
        self._runner.command(RelayedGone(tuple(map(str.encode, ids))))

    def forgot(self, told: SenderForgot) -> None:
        """Forget handled messages that do not come again."""
        if self._database is not None:
            journal = told.journal + (told.name or "").encode()
            self._database.forget(told.node, journal, told.ranges, told.below)

    async def stop(self) -> None:
        """Pick up nothing more."""
        if self._relay is not None:
            await self._relay.close()

    async def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            await self._database.close()
