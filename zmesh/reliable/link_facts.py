"""What a link is made of, and what is known of the peer and of what waits for it."""

from zmesh.ids import NO_LINK, Entropy, LinkId, NodeId, Path, SessionId
from zmesh.options import LinkOptions, WireLimits
from zmesh.patience import Patience
from zmesh.reliable.conduct import Conduct
from zmesh.reliable.credit import CreditPool
from zmesh.reliable.handshake import Handshake, LocalIdentity
from zmesh.reliable.hello_timer import HelloTimer
from zmesh.reliable.link_events import LinkEvent, Liveness
from zmesh.reliable.link_states import LinkState
from zmesh.reliable.link_statistics import LinkCounters, LinkStatistics
from zmesh.reliable.liveness import LivenessVerdict
from zmesh.reliable.recovery import Recovery
from zmesh.reliable.round_trip import RoundTrip
from zmesh.reliable.session import Session
from zmesh.reliable.writer import PacketWriter
from zmesh.wire.frames import Packet


class LinkFacts:
    """The parts of a link, and what they know. `Link` acts on it."""

    def __init__(
        self,
        local: LocalIdentity,
        peer: NodeId,
        options: LinkOptions,
        limits: WireLimits,
        entropy: Entropy,
        now: float,
        pool: CreditPool | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.local = local
        self.peer = peer
        self.local_endpoints: tuple[str, ...] = ()
        self.state = LinkState.IDLE
        self.path: Path | None = None
        self._options = options
        self._limits = limits
        self._entropy = entropy
        self._pool = pool
        self.events: list[LinkEvent] = []
        self._handshake = Handshake(local, peer, entropy)
        self._session = Session(options, limits, pool, self.events)
        self._recovery = Recovery(options, entropy)
        self._verdict = LivenessVerdict(
            options, self._recovery.round_trip, goes_first=local.node < peer
        )
        self._writer = PacketWriter(options, limits, self._recovery, self._verdict.detector)
        self._link_id = NO_LINK
        self._outbox: list[tuple[Path, Packet]] = []  # outside the flow of the current link
        self._own_call: tuple[Path | None, LinkId] | None = None  # crossed by the one answered
        self._hello_timer = HelloTimer(options, entropy, patience or Patience())
        self._down_until: float | None = None  # when the session ends for want of a link
        self._conduct = Conduct(options, now)
        self._path_full = False
        self._counters = LinkCounters()

    # What is known

    @property
    def name(self) -> str:
        """The peer's name; empty until it said so."""
        return self._handshake.name

    @property
    def incarnation(self) -> int:
        """The peer's incarnation; 0 until it said so."""
        return self._handshake.incarnation

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where the peer listens, by its own word."""
        return self._handshake.endpoints

    @property
    def session(self) -> SessionId | None:
        """The session both sides are in; None before the first and after the last."""
        return self._handshake.session

    @property
    def liveness(self) -> Liveness:
        """The verdict on the peer."""
        return self._verdict.state

    @property
    def is_open(self) -> bool:
        """Whether a link carries traffic now."""
        return self.state is LinkState.OPEN

    @property
    def round_trip(self) -> RoundTrip:
        """The round trip on the current link."""
        return self._recovery.round_trip

    @property
    def room_messages(self) -> int:
        """How many more messages fit the queue; at most 0 where it is full."""
        return self._session.room_messages

    @property
    def queued_messages(self) -> int:
        """Messages without outcome yet."""
        return self._session.queued_messages

    @property
    def queued_bytes(self) -> int:
        """Their bytes."""
        return self._session.queued_bytes

    def statistics(self) -> LinkStatistics:
        """Return counters, and what is held now."""
        return self._counters.snapshot(self._session, self._recovery, self._writer)
