"""What an application does with files."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from zmesh.errors import InvalidOption
from zmesh.face.assembly import Assembly
from zmesh.face.checks import (
    check_concurrency,
    check_message_options,
    check_timeout,
    is_count,
    is_seconds,
)
from zmesh.face.file_terms import SERVICE, check_name
from zmesh.face.incoming import ReceiveProgress
from zmesh.face.outgoing import Headers
from zmesh.face.peers_view import Peer
from zmesh.face.receiving import FileReceiver, Where
from zmesh.face.sending import Sending, SendProgress, SentFile
from zmesh.face.verifying import Verify, check_verify
from zmesh.options import NodeOptions
from zmesh.security.rules import Action

FILE_PRIORITY: Final = 1
"""Files give way to messages: whoever waits for those waits less."""

FILE_TIMEOUT: Final = 60.0
"""Seconds without a word of the receiver: it has time to restart."""


class Filing(ABC):
    """The part of a node that sends and receives files."""

    _options: NodeOptions

    @abstractmethod
    def _at_work(self) -> Assembly:
        """Return the node at work, or raise why there is none."""

    async def send_file(
        self,
        to: str | Peer,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        rate: float | None = None,
        progress: SendProgress | None = None,
        timeout: float | None = FILE_TIMEOUT,  # noqa: ASYNC109  # without a word, not in all
        headers: Headers | None = None,
        priority: int = FILE_PRIORITY,
        sign: bool | None = None,
    ) -> SentFile:
        """Send a file to a peer that uses `receive_files`, and return once it is saved there.

        That is: all of it, with the digest of what was read here, and on its disk. Where the
        connection breaks, or either process restarts and this is called again, it goes on where
        it ended. A peer that restarts is waited for, and known again by its name.

        Args:
            to: the peer's name or id.
            path: of the file; what is written to it meanwhile fails the sending.
            name: what the peer knows it by, without directories; that of the path by default.
            rate: bytes a second, at most; None for as fast as it goes.
            progress: called in the event loop with the bytes that the peer has written, and those
                of the whole.
            timeout: seconds without a word of the peer; None waits for ever. One whose other
                files come first says so.
            headers: small values beside the file.
            priority: 0 (lowest) to 9 (highest).
            sign: whether its name, size and headers are signed; not what is in it.

        Raises:
            OSError: the file cannot be read.
            InvalidOption: it is no file, or something else cannot work.
            PeerUnknown, AmbiguousPeer: there is no such peer, or several.
            FileRefused: the peer does not take it.
            FileNotSaved: the peer cannot write it: no space, no permission.
            FileChanged: it changed while it was sent.
            FileCorrupted: what came is not what was sent.
            PeerLost, StreamBroken, DeliveryTimeout: the peer was silent for too long.
        """
        assembly = self._at_work()
        if not isinstance(to, str | Peer):
            raise InvalidOption("to", to, "a name, an id as hex digits, or a Peer")
        check_timeout(timeout)
        check_message_options(self._options.wire, priority, None, None)
        if rate is not None and not (is_seconds(rate) and rate > 0):
            raise InvalidOption("rate", rate, "bytes a second, or None for no limit")
        where = Path(path)
        name = where.name if name is None else name
        if not isinstance(name, str) or check_name(name):
            raise InvalidOption("name", name, "the name of a file, not hidden, and no directory")
        assembly.engine.guard.check_own(Action.CALL, SERVICE)
        order = Sending(to, name, headers, priority, rate, timeout, progress, sign)
        return await assembly.files.send(where, order)

    def receive_files(
        self,
        where: str | os.PathLike[str] | Where,
        *,
        bytes_max: int | None = None,
        concurrency: int = 8,
        progress: ReceiveProgress | None = None,
        verify: Verify | None = None,
    ) -> FileReceiver:
        """Receive files that peers send here, for as long as an `async with` block runs.

        ```python
        async with node.receive_files("incoming") as files:
            async for file in files:
                print(file.path, file.size, file.sender)
        ```

        A file appears under its name when it is complete and verified, in place of what was
        there. Before that, what came of it is in `.NAME.zmesh-part` beside it, and stays when the
        block, the process or the connection ends. The loop only tells what came; nobody needs it.

        Args:
            where: a directory; or a function that takes a `FileOffer` and returns a directory or a
                path, or raises `zmesh.Reject`. A plain one runs in a thread.
            bytes_max: larger files are refused.
            concurrency: files received at a time; more wait.
            progress: called in the event loop with the `FileOffer`, and the bytes written of it.
            verify: "required" for files whose offer is signed alone; see `send_file`.

        Raises:
            InvalidOption, UsageError: it cannot work, or this node receives files already.
        """
        assembly = self._at_work()
        if not callable(where):
            try:
                where = Path(where)
            except TypeError:
                expected = "a directory, or a function of a FileOffer"
                raise InvalidOption("where", where, expected) from None
        if bytes_max is not None and not is_count(bytes_max, 0):
            raise InvalidOption("bytes_max", bytes_max, "a number of bytes, or None for no limit")
        check_concurrency(concurrency)
        assembly.engine.guard.check_own(Action.SERVE, SERVICE)
        check_verify(verify)
        return assembly.files.receiver(where, bytes_max, concurrency, progress, verify)
