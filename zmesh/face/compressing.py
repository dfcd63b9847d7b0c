"""Compression of what a node sends: as its application wants it, and large bodies off the loop."""

import asyncio
from typing import Final

from zmesh.discovery.blocking import in_thread
from zmesh.message import Record
from zmesh.options import NodeOptions
from zmesh.terms import Compression
from zmesh.wire.compression import Compressor, algorithm_of

THREADED_BYTES: Final = 64 * 1024
"""A body above this takes longer than a thread costs, and than a loop should be held up."""

THREADS_MAX: Final = 4
"""Bodies compressed in threads at once: each takes a core."""


class Compressing:
    """Finds the compressor for each message, and counts what that gained."""

    def __init__(self, default: Compression | None, options: NodeOptions) -> None:
        """Take the node's own choice, for messages that make none.

        Raises:
            InvalidOption, MissingPackage: it cannot work.
        """
        self._options = options
        self.default = self._compressor(default)
        self._threads = asyncio.Semaphore(THREADS_MAX)
        self.compressed = 0
        self.saved_bytes = 0

    def compressor(self, wanted: Compression | None) -> Compressor | None:
        """Return what compresses a message; None where nothing does.

        Raises:
            InvalidOption, MissingPackage: that cannot work.
        """
        return self.default if wanted is None else self._compressor(wanted)

    def _compressor(self, wanted: Compression | None) -> Compressor | None:
        algorithm = algorithm_of(wanted)
        if algorithm is None:
            return None
        options = self._options
        return Compressor(algorithm, options.compressed_bytes_min, options.wire)

    def now(self, record: Record, compressor: Compressor | None) -> Record:
        """Return the record as it is to be sent."""
        if compressor is None:
            return record
        return self._counted(record, compressor.compress(record))

    async def soon(self, record: Record, compressor: Compressor | None) -> Record:
        """Return the record as it is to be sent; a large body is compressed in a thread."""
        if compressor is None or len(record[2]) <= THREADED_BYTES:
            return self.now(record, compressor)
        async with self._threads:
            made = await in_thread(lambda: compressor.compress(record), "zmesh-compression")
        return self._counted(record, made)

    def _counted(self, record: Record, made: Record) -> Record:
        if made is not record:
            self.compressed += 1
            self.saved_bytes += len(record[2]) - len(made[2])
        return made
