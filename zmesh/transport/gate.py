"""Whom to turn away below the handshake: strangers cost nothing but what is allowed for them.

A connection costs a descriptor from its first packet on, and its handshake costs processor time.
Both are bounded for each address and for all, before anybody has shown that it belongs here.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from zmesh.discovery.endpoints import split_target
from zmesh.options import TransportOptions

EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104  # told apart, not bound
"""Hosts of endpoints at which all addresses of the machine are listened on."""
_HANDSHAKE_SLACK_S: Final = 1.0
"""How much longer than `handshake_timeout` a handshake may seem to take: news of it are late."""


class Refusal(Enum):
    """Which bound a connection met. The values name the options."""

    DESCRIPTORS = "descriptors_spare"
    INBOUND = "inbound_max"
    RATE = "address_handshakes_per_second"
    ADDRESS = "address_handshakes_max"
    ALL = "handshakes_max"


@dataclass(slots=True)
class _Stranger:
    """What is known of an address."""

    tokens: float
    counted_at: float
    under_way: int = 0  # handshakes, as far as known; see `Gate.on_admitted`
    connections: int = 0
    young: int = 0  # of them, those whose handshake may still be under way
    admitted: int = 0  # since it was last without connection


@dataclass(slots=True)
class _Inbound:
    """A connection that was accepted."""

    address: str
    endpoint: str  # that it came to: of the address dialed, also where all are listened on
    is_refused: bool = False


class Gate:
    """Counts the inbound connections, and says which to shut. It does no I/O.

    Whoever is admitted by the ZAP handler is known by address only, so where it is asked
    (`counts_addresses`), handshakes under way are counted for each address. Without it nobody
    tells which address a handshake that succeeded was of, and only all are counted.

    When all are too many, the oldest goes that comes from an address nobody was admitted from: its
    handshake takes longer than an honest one does, so a flood pushes out itself and not those who
    come between.
    """

    def __init__(self, options: TransportOptions, *, counts_addresses: bool) -> None:
        self._options = options
        self._counts_addresses = counts_addresses
        self._strangers: dict[str, _Stranger] = {}
        self._inbound: dict[int, _Inbound] = {}  # by descriptor
        self._unproven: dict[int, None] = {}  # who may have to go, the oldest first
        self._young: dict[int, float] = {}  # when each was accepted, the oldest first
        self._under_way = 0

    @property
    def under_way(self) -> int:
        """How many handshakes have neither succeeded nor failed."""
        return self._under_way

    @property
    def connections(self) -> int:
        """How many connections there are, those under way included."""
        return len(self._inbound)

    def on_accepted(
        self, descriptor: int, address: str, endpoint: str, now: float, descriptors_max: int
    ) -> tuple[int, str, Refusal] | None:
        """Take in that a connection was accepted; return which to shut, from whom and why.

        Args:
            descriptor: of the connection.
            address: where it is from, without port; empty where that is not known.
            endpoint: it came to.
            now: seconds.
            descriptors_max: how many this process may have.
        """
        options = self._options
        before = self._inbound.get(descriptor)
        if before is not None:  # nobody told of its end
            self._leave(descriptor, before, in_handshake=False)
        inbound = self._inbound[descriptor] = _Inbound(address, endpoint)
        stranger = self._stranger(address, now)
        self._recount(stranger, now)
        self._young[descriptor] = now
        stranger.young += 1
        stranger.connections += 1
        stranger.under_way += 1
        self._under_way += 1
        if stranger.tokens < 1.0:
            return self._refuse(descriptor, inbound, Refusal.RATE)
        if self._counts_addresses and stranger.under_way > options.address_handshakes_max:
            return self._refuse(descriptor, inbound, Refusal.ADDRESS)
        # The lowest free one is given, so all below are taken.
        if descriptor >= descriptors_max - options.descriptors_spare:
            return self._refuse(descriptor, inbound, Refusal.DESCRIPTORS)
        if not self._counts_addresses and len(self._inbound) > options.inbound_max:
            return self._refuse(descriptor, inbound, Refusal.INBOUND)
        stranger.tokens -= 1.0
        self._unproven[descriptor] = None
        if self._under_way > options.handshakes_max:
            victim = self._oldest_unproven() if self._counts_addresses else descriptor
            victim = descriptor if victim is None else victim
            return self._refuse(victim, self._inbound[victim], Refusal.ALL)
        return None

    def on_admitted(self, address: str, now: float) -> bool:
        """Take in that somebody passed CURVE; return whether there is room for it.

        Where this is asked it says of `inbound_max`, and not `on_accepted`: so who is turned away
        is told, and does not have to guess.

        It may be told before the connection itself is, as it comes by another socket; so a count
        may be below 0 for a moment.
        """
        stranger = self._stranger(address, now)
        stranger.under_way -= 1  # also of who is turned away: libzmq ends it with the answer
        if len(self._inbound) - self._under_way >= self._options.inbound_max:
            return False
        stranger.admitted += 1
        return True

    def on_shut_out(self, address: str, now: float) -> None:
        """Take in that a connection from an address was ended for what it said.

        Its next connections have to wait: with a new key each would be heard for a while.
        """
        stranger = self._stranger(address, now)
        stranger.tokens -= self._options.shut_out_handshakes

    def on_settled(self) -> None:
        """Take in that some handshake has succeeded, or was ended by the ZAP handler."""
        self._under_way = max(0, self._under_way - 1)

    def on_ended(self, descriptor: int, *, in_handshake: bool) -> str:
        """Take in that a connection has ended; return its address, empty if it is not known."""
        inbound = self._inbound.get(descriptor)
        if inbound is None:
            return ""
        if in_handshake and not inbound.is_refused:
            self._under_way = max(0, self._under_way - 1)
        self._leave(descriptor, inbound, in_handshake=in_handshake)
        return inbound.address

    def is_unproven(self, descriptor: int) -> bool:
        """Whether nobody was admitted from the address of a connection, where that is asked."""
        inbound = self._inbound.get(descriptor)
        if inbound is None or not self._counts_addresses:
            return False
        return not self._strangers[inbound.address].admitted

    def on_unbound(self, listener: str) -> None:
        """Take in that an endpoint is not listened on any more: what came to it has ended.

        Nothing came to an endpoint that is none: libzmq tells so of a bind that failed.
        """
        try:
            host, port = split_target(listener)
        except ValueError:
            return
        for descriptor, inbound in list(self._inbound.items()):
            is_of_all = host in EVERYWHERE and split_target(inbound.endpoint)[1] == port
            if inbound.endpoint == listener or is_of_all:
                self._leave(descriptor, inbound, in_handshake=False)
        self._under_way = min(self._under_way, len(self._inbound))

    def _refuse(
        self, descriptor: int, inbound: _Inbound, refusal: Refusal
    ) -> tuple[int, str, Refusal]:
        """Count it no more; it ends as soon as it was shut."""
        inbound.is_refused = True
        self._unproven.pop(descriptor, None)
        self._under_way = max(0, self._under_way - 1)
        self._strangers[inbound.address].under_way -= 1
        return descriptor, inbound.address, refusal

    def _recount(self, stranger: _Stranger, now: float) -> None:
        """Count no handshakes that cannot be under way any more, however they have ended.

        Of some libzmq only says that the connection ended, as it does of members: where a part is
        announced that is too large. They must not add up, or a stranger could shut out everybody.
        """
        before = now - self._options.handshake_timeout - _HANDSHAKE_SLACK_S
        while self._young:
            descriptor, accepted_at = next(iter(self._young.items()))
            if accepted_at > before:
                break
            self._grow_old(descriptor)
        stranger.under_way = min(stranger.under_way, stranger.young)
        self._under_way = min(self._under_way, len(self._young))

    def _grow_old(self, descriptor: int) -> None:
        if self._young.pop(descriptor, None) is not None:
            self._strangers[self._inbound[descriptor].address].young -= 1

    def _oldest_unproven(self) -> int | None:
        while self._unproven:
            descriptor = next(iter(self._unproven))
            if not self._strangers[self._inbound[descriptor].address].admitted:
                return descriptor
            del self._unproven[descriptor]  # it may have been this one that was admitted
        return None

    def _stranger(self, address: str, now: float) -> _Stranger:
        """Return what is known of an address, with the tokens it has by now."""
        burst = float(self._options.address_handshakes_burst)
        found = self._strangers.pop(address, None)
        if found is None:
            self._make_way()
            found = _Stranger(burst, now)
        gained = (now - found.counted_at) * self._options.address_handshakes_per_second
        found.tokens = min(burst, found.tokens + gained)
        found.counted_at = now
        self._strangers[address] = found  # the last to be forgotten
        return found

    def _make_way(self) -> None:
        """Forget who was silent longest, where there are too many.

        Those with connections stay: these are bounded by themselves.
        """
        if len(self._strangers) < self._options.addresses_max:
            return
        for address, stranger in self._strangers.items():
            if not stranger.connections:
                del self._strangers[address]
                return

    def _leave(self, descriptor: int, inbound: _Inbound, *, in_handshake: bool) -> None:
        self._grow_old(descriptor)
        del self._inbound[descriptor]
        self._unproven.pop(descriptor, None)
        stranger = self._strangers[inbound.address]
        stranger.connections -= 1
        if in_handshake and not inbound.is_refused:
            stranger.under_way -= 1
        if not stranger.connections:
            stranger.under_way = stranger.admitted = 0
