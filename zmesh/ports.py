"""The narrow ports: what one floor needs of another, so that fakes can stand in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from zmesh.ids import Path, SessionId
from zmesh.message import Keys, Outcome, Record, Ticket
from zmesh.reliable.link_events import LinkEvent
from zmesh.storage import Batch, JournalStatistics, Question


class Carrier(Protocol):
    """Carries records to one node: a `reliable.link.Link`, or the `loopback.Loopback`."""

    events: list[LinkEvent]  # what `take_events` returns next

    @property
    def session(self) -> SessionId | None:
        """The session that the numbers of records belong to; None where there is none."""
        ...

    @property
    def room_messages(self) -> int:
        """How many more records may be submitted; 0 or less where it is full."""
        ...

    @property
    def queued_messages(self) -> int:
        """How many submitted records have no outcome yet."""
        ...

    @property
    def queued_bytes(self) -> int:
        """How many bytes they are."""
        ...

    def submit(
        self,
        lane: int,
        records: Sequence[Record],
        ticket: Ticket,
        now: float,
        *,
        key: Keys = None,
        ttl: float | None = None,
    ) -> tuple[int, int]:
        """Queue records; their outcomes come as `Accepted` and `Returned`. Raises BodyTooLarge."""
        ...

    def settle(
        self,
        session: bytes,
        lane: int,
        first: int,
        last: int,
        outcome: Outcome,
        now: float,
        reason: str = "",
        delay: float = 0.0,
    ) -> bool:
        """Give records that arrived their outcome; False where none of them waits for it."""
        ...

    def accept_later(
        self, session: bytes, lane: int, first: int, last: int, now: float
    ) -> bool | None:
        """Accept records that arrived, once, in company, as nobody waits to hear of it.

        Return whether there are events or packets to be taken because of it, now or at a new time;
        None where their session is over.
        """
        ...

    def withdraw(self, ticket: Ticket, index: int | None = None) -> bool:
        """Take back what was submitted with the ticket, as far as it has not arrived.

        With an index that one alone of small records that were submitted together. Return whether
        some of it may be with the peer.
        """
        ...

    def has_arrived(self, ticket: Ticket) -> bool:
        """Return whether what a ticket waits for is with the peer, which has not settled it."""
        ...

    def open_of(self, ticket: Ticket) -> list[tuple[Record, bool]]:
        """Return the records of a ticket without outcome, and whether the peer may have each.

        Only where none of them was so large that it was split.
        """
        ...

    def take_events(self) -> list[LinkEvent]:
        """Return what happened since the last call, in order."""
        ...


@dataclass(frozen=True, slots=True)
class TransportStatistics:
    """What a transport did since it opened."""

    packets_sent: int
    bytes_sent: int
    packets_received: int
    bytes_received: int
    packets_full: int  # refused for want of room, each told by PathFull
    packets_unroutable: int  # refused because the path is gone, each told by PathDown
    dials: int
    dials_wrong_key: int  # ended by `PathCause.WRONG_KEY`
    inbound_accepted: int  # connections that came, probes of honest peers among them
    inbound_unseen: int  # of these, gone before anybody looked: scanners, and who has no key
    handshakes: int  # of these that came to a good end
    handshakes_failed: int  # another mesh key, none where one is needed, or another protocol
    handshakes_abandoned: int  # who left or said nothing: probes, scanners, floods
    handshakes_refused: int  # shut because a bound on strangers was met
    inbound_ended: int  # past that, by either side
    inbound_broken: int  # of these the ones libzmq ended: a part too large, or no ZMTP
    inbound_shut_out: int  # ended by `shut_out`
    packets_ignored: int  # of paths that are shut out; counted once a turn where they are long
    watchdog_rescues: int  # packets found that no wake-up announced: a defect where it grows


class Transport(Protocol):
    """Performs the engine's orders to the network, on one event loop and in its thread.

    What happens comes as events (`PacketsReceived`, `PathUp`, `PathDown`, `InboundClosed`,
    `PathFull`, `PathWritable`, `ProbeAnswered`) to the callback the transport was made with, in
    lists, in order, and never from inside a call to one of these methods.
    """

    def open(self) -> tuple[str, ...]:
        """Listen, and return the endpoints. Raises InvalidOption where an address is no good."""
        ...

    def send(self, path: Path, packets: Sequence[Sequence[bytes | memoryview]]) -> None:
        """Send packets, each a list of parts, in order.

        From the first that is refused on none is sent: `PathFull` or `PathDown` tells.
        """
        ...

    def dial(self, path: int, endpoint: str) -> None:
        """Connect. One `PathUp` may follow, and one `PathDown` unless `hang_up` comes first."""
        ...

    def hang_up(self, path: int) -> None:
        """Close a dialed path; what was sent just before mostly still goes. Idempotent."""
        ...

    def shut_out(self, path: bytes, seconds: float) -> None:
        """End an inbound path, read nothing of it and do not let its key in for so long."""
        ...

    def probe(self, endpoint: str, timeout: float) -> None:
        """Try a fresh connection for `timeout` seconds; `ProbeAnswered` follows."""
        ...

    def close(self) -> None:
        """Close everything within a second; nothing is reported any more. Idempotent."""
        ...

    def statistics(self) -> TransportStatistics:
        """Return the counters."""
        ...


class Journal(Protocol):
    """Keeps what a node must not forget, for one event loop. No call waits.

    What happens comes as a `storage.JournalEvent` to the callback the journal was made with, in
    lists, in order, from a thread of its own. `Opened` or `Broken` is first, `Closed` last.
    A command becomes durable with all of its batch; until `Written` says so, nothing that rests
    on it may be told to anybody.
    """

    def open(self) -> None:
        """Begin to open it."""
        ...

    @property
    def room_bytes(self) -> int:
        """How large a batch may be now, by its `size`; what has none is always taken.

        It is for the caller to decide what to do without room: to wait for `Room`, to refuse, or
        to make some with `DropOldest`.
        """
        ...

    def write(self, batch: Batch) -> None:
        """Hand over a batch: answered by `Written` or `Refused`, in the order handed over.

        Raises JournalFull, the StorageError that broke the journal, or Closed; then the batch
        was not taken, and there is no answer.
        """
        ...

    def read(self, ticket: int, question: Question) -> None:
        """Ask: `Answered` comes, after all that was handed over before is written.

        Raises Closed.
        """
        ...

    def close(self) -> None:
        """Write what was handed over, then close the files. Idempotent."""
        ...

    def statistics(self) -> JournalStatistics:
        """Return the counters."""
        ...
