"""The node: what an application holds of its mesh."""

import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from zeroconf.asyncio import AsyncZeroconf

from zmesh.bounds import check_is
from zmesh.errors import Closed, ForkedProcess, NotOpen, UsageError, WrongThread, ZmeshError
from zmesh.face.assembly import Assembly, assemble
from zmesh.face.audit import AuditWatcher
from zmesh.face.checks import check_timeout
from zmesh.face.exchanging import Exchanging
from zmesh.face.filing import Filing
from zmesh.face.grouping import Grouping
from zmesh.face.key_sources import KeyArgument
from zmesh.face.messaging import Messaging
from zmesh.face.peers_view import Peers
from zmesh.face.publishing import Publishing
from zmesh.face.queueing import Queueing
from zmesh.face.reports import DrainReport, NodeStatistics
from zmesh.face.settings import Announce, settle
from zmesh.face.ticketing import Ticketing
from zmesh.face.trust_watch import TrustArgument
from zmesh.face.verifying import Verify
from zmesh.options import NodeOptions, Storage
from zmesh.patterns.letters import DeadLetter
from zmesh.security.trust import Trust
from zmesh.terms import Compression, Role

EXIT_DRAIN: Final = 0.5
"""Seconds the end of an `async with` block waits for what is under way."""


class Node(Messaging, Publishing, Ticketing, Grouping, Queueing, Exchanging, Filing):
    """One member of a mesh.

    ```python
    async with zmesh.Node("camera-3") as node:
        await node.send("printer-1", {"job": 7})
    ```

    It belongs to the event loop, thread and process it was opened in. Nothing happens before it is
    opened; but for its key file, which is read at once.

    Args:
        name: a label for people; host name and process id by default.
        mesh: nodes of different meshes do not see each other; `ZMESH_MESH` or "default".
        peers: addresses of nodes, `host:port`, for where mDNS does not reach; `ZMESH_PEERS`
            adds to them.
        seeds: addresses of nodes that are asked whom they know; `ZMESH_SEEDS` adds to them.
        mdns: whether to be found, and to find others, by mDNS.
        interfaces: names or addresses of network interfaces to listen on, "*" for all; all by
            default where there is a mesh key, and else this machine's loopback alone.
        port: to listen on; any free one by default.
        key: the mesh key, which encrypts everything and lets in nobody without it: its text,
            the `pathlib.Path` of a key file, a `MeshKey`, or several of these, of which the
            first is used and the others are accepted as well while keys are changed. Without
            it `ZMESH_KEY` counts, then `ZMESH_KEY_FILE`, then the file
            `$XDG_CONFIG_HOME/zmesh/<mesh>.key` (`~/.config/zmesh/`), where it is there. `()`
            is no key, whatever there is.
        insecure: allows the network without a mesh key: nothing is encrypted then, and
            everybody there can read and send messages.
        trust: who gets a link, and may do what, beyond having the mesh key: a directory of node
            keys and rules, which is looked at again while the node runs, or a `zmesh.Trust`.
        announce: what mDNS tells of this node beside its id and its addresses: "name" its
            name as well, "id-only" nothing. The latter is the default with a mesh key.
        storage: a file to keep what must outlive the process, which is made where there is
            none: who the node is, and what it accepted. One node to a file.
        compression: "zstd" or "lz4" for all that is sent, unless a message says otherwise.
        sign: whether all that is sent is signed, unless a message says otherwise.
        verify: "required" where handlers take signed messages alone, unless they say otherwise;
            "if-signed" where a signature that is there must hold.
        role: "hub" has links with everybody. "edge" has links with hubs alone, so that a mesh of
            many nodes needs few: two edges do not see each other, and nothing is forwarded.
        options: limits and times.
        zeroconf: the application's own mDNS responder, to be used instead of one of ours.

    Raises:
        InvalidOption: naming the argument that cannot work, and why.
        MissingPackage: the compression needs it.
        SecurityError: a mesh key or its file cannot be used; the kind of it tells why.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        mesh: str | None = None,
        peers: Iterable[str] = (),
        seeds: Iterable[str] = (),
        mdns: bool = True,
        interfaces: Sequence[str] | None = None,
        port: int = 0,
        key: KeyArgument | None = None,
        insecure: bool = False,
        trust: TrustArgument | None = None,
        announce: Announce | None = None,
        storage: str | os.PathLike[str] | Storage | None = None,
        compression: Compression | None = None,
        sign: bool = False,
        verify: Verify = "if-signed",
        role: Role = "hub",
        options: NodeOptions = NodeOptions(),  # noqa: B008  # frozen
        zeroconf: AsyncZeroconf | None = None,
    ) -> None:
        check_is("options", options, NodeOptions)
        super().__init__(options)
        self._settings = settle(
            name=name,
            mesh=mesh,
            peers=peers,
            seeds=seeds,
            mdns=mdns,
            interfaces=interfaces,
            port=port,
            key=key,
            insecure=insecure,
            trust=trust,
            announce=announce,
            compression=compression,
            storage=storage,
            sign=sign,
            verify=verify,
            role=role,
            options=options,
            zeroconf=zeroconf,
            environment=os.environ,
        )
        self._assembly: Assembly | None = None
        self._thread = 0
        self._refusal: ZmeshError | None = NotOpen()  # why calls are refused, if they are

    # Opening and closing

    async def open(self) -> Self:
        """Join the mesh: listen, and look for others. `async with` does it.

        Raises:
            InvalidOption: an interface or port that cannot be listened on.
            UsageError: it was opened before.
            StorageError: its journal cannot be opened; the kind of it tells why.
            InvalidTrust: something in the directory of `trust` cannot be used; it tells where.
            NodeKeyMissing: its journal is from before nodes had keys, and the mesh has one.
        """
        if not isinstance(self._refusal, NotOpen) or self._thread:
            raise UsageError("a node is opened once: make a new one")
        self._thread = threading.get_ident()
        try:
            assembly = await assemble(self._settings, self._on_failed)
            await assembly.start()
        except BaseException:
            self._refusal = Closed()
            raise
        self._assembly, self._refusal = assembly, None
        _open_nodes.add(self)
        assembly.services.middleware = self._middleware
        for service, (handler, concurrency, verify) in self._services.items():
            assembly.services.serve(service, handler, concurrency, verify)
        return self

    async def close(self, drain: float | None = None) -> DrainReport:
        """Leave the mesh, and release everything. Closing again returns the same report.

        Args:
            drain: seconds to finish what is under way: handlers that run, and messages without
                outcome. New work is not taken meanwhile. None does not wait at all, and ends a
                drain that is under way; another one joins it.

        Returns:
            What was still open when the drain ended. What waits for it gets `Closed`.
        """
        check_timeout(drain, "drain")
        if self._assembly is None or isinstance(self._refusal, ForkedProcess):
            return DrainReport(0, 0)
        if threading.get_ident() != self._thread:
            raise WrongThread
        try:
            if drain:
                await self._assembly.drain(drain)
        finally:
            self._refusal = self._refusal or Closed()
            _open_nodes.discard(self)
            report = await self._assembly.close()
        return report

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; what is under way gets half a second, unless an exception ended the block."""
        await self.close(drain=EXIT_DRAIN if error is None else None)

    def __repr__(self) -> str:
        return self._settings.shown

    # Who it is, and who is there

    @property
    def name(self) -> str:
        """The label people know it by."""
        return self._settings.name

    @property
    def mesh(self) -> str:
        """The mesh it is in."""
        return self._settings.mesh

    @property
    def id(self) -> str:
        """Its id, as hex: what to address it by where several share its name."""
        return self._at_work().id.hex()

    @property
    def public_key(self) -> str:
        """Its public key, as a directory of `trust=` lists it; it lasts where there is storage.

        Empty with a journal from before nodes had keys.
        """
        return self._at_work().public_key

    @property
    def endpoints(self) -> list[str]:
        """Where it listens, as in `["tcp://127.0.0.1:49152"]`: what others need as `peers`."""
        return list(self._at_work().endpoints)

    @property
    def peers(self) -> Peers:
        """The other nodes: iterate, `get`, `wait_for` and `watch`."""
        return self._at_work().peers

    def audit(self) -> AuditWatcher:
        """Return an iterator of what was refused, and to whom, from now on.

        The same goes to the logger `zmesh.audit`; `statistics().audited` counts it by kind.
        """
        return self._at_work().audit.watch()

    async def reload_trust(self, trust: Trust | None = None) -> None:
        """Look at the directory of `trust=` now, or trust others from now on.

        Who is not trusted any more loses its link at once, and what the others may do is judged
        anew. A directory is looked at once a second anyway.

        Args:
            trust: takes the place of the `zmesh.Trust` the node was given; None for a directory.

        Raises:
            InvalidTrust: something in the directory cannot be used, so that what was there before
                holds; what can be used counts.
            UsageError: the node was given no trust, or of the other sort.
        """
        await self._at_work().trust_watch.reload(trust)

    def statistics(self) -> NodeStatistics:
        """Return what it counted since it opened, and what it holds now."""
        return self._at_work().statistics()

    def dead_letters(self) -> list[DeadLetter]:
        """Return the messages sent from here that nobody could handle, oldest first.

        Those of stored messages are on disk, the others in memory. `dead_letters_max` and
        `dead_letters_bytes_max` of the options bound what is kept, and returned.
        """
        return self._at_work().dead_letters.letters()

    async def requeue(self, letter: DeadLetter | int) -> None:
        """Send a dead letter back to where it was for; its attempts begin anew, without a ttl.

        Where that fails again it is a dead letter again, of another id.

        Args:
            letter: one of `dead_letters`, or its id.

        Raises:
            NoDeadLetter: there is none of this id any more.
            PeerUnknown, AmbiguousPeer, PeerLost: a message that is not stored was for somebody
                who is not known or gone.
            CannotRequeue: what it was for takes none back while the node runs.
            JournalFull, JournalBroken: it could not be stored anew, and stays where it is.
        """
        await self._at_work().dead_letters.requeue(letter)

    async def purge(self, letter: DeadLetter | int | None = None) -> int:
        """Throw a dead letter away for good, or all there are; return how many.

        Args:
            letter: one of `dead_letters`, or its id; all without it.

        Raises:
            NoDeadLetter: there is none of this id any more.
            JournalBroken: the disk failed; those that are stored stay.
        """
        return await self._at_work().dead_letters.purge(letter)

    # Inside

    @property
    def _was_opened(self) -> bool:
        return not isinstance(self._refusal, NotOpen)

    def _at_work(self) -> Assembly:
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)
        if threading.get_ident() != self._thread:
            raise WrongThread
        assembly = self._assembly
        if assembly is None:
            raise NotOpen  # it is being opened
        return assembly

    def _on_failed(self, error: ZmeshError) -> None:
        self._refusal = error

    def on_forked(self) -> None:
        """Refuse all calls: this is the child of a fork, and everything is the parent's."""
        self._refusal = ForkedProcess(os.getppid(), os.getpid())


_open_nodes: "weakref.WeakSet[Node]" = weakref.WeakSet()


def _on_fork() -> None:
    for node in list(_open_nodes):
        node.on_forked()


if hasattr(os, "register_at_fork"):  # everywhere but on Windows, which cannot fork
    os.register_at_fork(after_in_child=_on_fork)
