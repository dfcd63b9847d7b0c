"""All files of a node: those it sends, and the receiver of those that come."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from zmesh.actions import PeerState
from zmesh.errors import Closed
from zmesh.face.disk import Disk
from zmesh.face.incoming import ReceiveProgress
from zmesh.face.peers_view import Peer, Peers
from zmesh.face.receiving import FileReceiver, Receiving, Where
from zmesh.face.sending import FileSender, Sending, SentFile
from zmesh.face.services import Services
from zmesh.face.source_file import SourceFile
from zmesh.face.streams import Streams
from zmesh.face.verifying import Verify
from zmesh.ids import NodeId
from zmesh.options import NodeOptions


class Files:
    """Sends files and receives them; made in the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        streams: Streams,
        services: Services,
        peers: Peers,
        resolve: Callable[[str], NodeId],
        options: NodeOptions,
    ) -> None:
        self._disk = Disk(loop)
        self._streams = streams
        self._services = services
        self._peers = peers
        self._resolve = resolve
        self._options = options
        self._receivers: list[FileReceiver] = []
        self._failure: str | None = None

    async def send(self, path: Path, order: Sending) -> SentFile:
        """Send a file, and return when the peer has it."""
        self._node_of(order.to)  # raises at once where there is no such peer
        link = self._options.link
        source = SourceFile(path)
        try:
            await self._disk.run(source.open)
            piece = min(link.fragment_bytes, link.body_bytes_max)
            sender = FileSender(self._streams, self._disk, self._node_of, order, source, piece)
            return await sender.send()
        finally:
            source.give_up()
            await self._disk.run(source.close)

    def receiver(
        self,
        where: Path | Where,
        bytes_max: int | None,
        concurrency: int,
        progress: ReceiveProgress | None,
        verify: Verify | None,
    ) -> FileReceiver:
        """Return a receiver, which begins when it is entered."""
        options = self._options
        order = Receiving(
            where,
            bytes_max,
            concurrency,
            progress,
            options.files_waiting_max,
            options.files_unread_max,
            verify,
        )
        return FileReceiver(self._services, self._disk, order, self._opened)

    def close(self, failure: str | None) -> None:
        """End the loops over files."""
        self._failure = failure or "node"
        for receiver in self._receivers:
            receiver.close(failure)

    def ended(self) -> None:
        """Let the threads go."""
        self._disk.close()

    def _opened(self, receiver: FileReceiver, *, is_open: bool) -> None:
        """Take note of a receiver that begins or ends.

        Raises:
            Closed: the node is.
        """
        if not is_open:
            self._receivers.remove(receiver)
        elif self._failure is not None:
            raise Closed(self._failure)
        else:
            self._receivers.append(receiver)

    def _node_of(self, to: str | Peer) -> NodeId:
        """Return the node a file goes to: a peer that came back is known by its name.

        Raises:
            PeerUnknown, AmbiguousPeer: there is none, or several are.
        """
        if isinstance(to, str):
            return self._resolve(to)
        now = self._peers.get(to.id)
        is_gone = now is None or now.state in {PeerState.LOST, PeerState.LEFT}
        return self._resolve(to.name if is_gone and to.name else to.id)
