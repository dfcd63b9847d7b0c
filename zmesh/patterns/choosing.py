"""Which provider of a service a call goes to: the preferred one, the key's, or the least costly.

The cost of a provider is what its answers take times the calls it has open and one more. Answers
are measured by the peak-sensitive moving average of Finagle's load balancer ("Beyond Round Robin:
Load Balancing for Latency", and `PeakEwma` in its source): a slower answer counts at once, faster
ones by and by, and with time all of it is forgotten, so that who was slow is tried again. Keys go
to the highest random weight (Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit
Rates", IEEE/ACM Transactions on Networking 6(1), 1998).
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from hashlib import blake2b
from math import exp
from typing import Final, NamedTuple

from zmesh.actions import PeerState
from zmesh.core.peers import Peer
from zmesh.ids import Entropy, NodeId
from zmesh.options import NodeOptions

ALIKE: Final = 2.0
"""Who answers within so many times the fastest one's time is as good: load and chance decide."""

WEIGHT_BYTES: Final = 8


class Wish(NamedTuple):
    """What a caller said about who is to be asked."""

    key: str | None = None
    prefer: NodeId | None = None


NO_WISH: Final = Wish()


class _Latency(NamedTuple):
    seconds: float
    at: float


class Choosing:
    """What was measured of providers, and the choice among them."""

    def __init__(self, options: NodeOptions, entropy: Entropy) -> None:
        self._options = options
        self._entropy = entropy
        self._latencies: dict[tuple[NodeId, str], _Latency] = {}

    def __len__(self) -> int:
        """Count the providers measured, each service of theirs."""
        return len(self._latencies)

    # The choice

    def choose(
        self,
        service: str,
        providers: Iterable[Peer],
        wish: Wish,
        asked: Mapping[NodeId, int],
        now: float,
        *,
        but: Container[NodeId] = (),
    ) -> Peer | None:
        """Return whom to ask, if there is anybody.

        Args:
            service: what is asked for.
            providers: who provides it.
            wish: what the caller said.
            asked: how often each was asked for this call already.
            now: seconds on the node's clock.
            but: who is not to be chosen.
        """
        there = [
            peer for peer in providers if peer.present and not peer.draining and peer.id not in but
        ]
        if len(there) < 2:
            return there[0] if there else None
        if wish.prefer is not None:
            for peer in there:
                if peer.id == wish.prefer and peer.id not in asked:
                    return peer
        if wish.key is not None:  # not even silence moves it: its order would be lost
            key = wish.key.encode()
            return max(there, key=lambda peer: weight(key, peer.id))
        return self._least_costly(service, there, asked, now)

    def share(
        self, service: str, providers: Iterable[Peer], count: int, now: float
    ) -> list[tuple[Peer, Sequence[int]]]:
        """Return who is to be asked with which of so many calls, as `choose` would for each.

        They ask for nothing special, and nobody was asked before. Nothing where nobody is there.
        """
        there = [peer for peer in providers if peer.present and not peer.draining]
        if len(there) > 1:
            there = [peer for peer in there if peer.state is PeerState.ALIVE] or there
        if len(there) < 2:
            return [(there[0], range(count))] if there else []
        units = self._units(service, there, now)
        loads = [peer.calls for peer in there]
        costs = [unit * (load + 1) for unit, load in zip(units, loads, strict=True)]
        shares: list[list[int]] = [[] for _ in there]
        for index in range(count):
            lowest = min(costs)
            place = costs.index(lowest)
            if costs.count(lowest) > 1:
                best = [place for place, cost in enumerate(costs) if cost == lowest]
                place = best[self._draw(len(best))]
            shares[place].append(index)
            loads[place] += 1
            costs[place] = units[place] * (loads[place] + 1)
        return [(peer, share) for peer, share in zip(there, shares, strict=True) if share]

    def _least_costly(
        self, service: str, there: list[Peer], asked: Mapping[NodeId, int], now: float
    ) -> Peer:
        """Return one not asked yet, alive rather than silent, with the lowest cost.

        We know only our own calls and measurements: where they leave several alike, chance
        decides, because many callers that all preferred the same one would all choose it.
        """
        best: list[Peer] = []
        lowest = (0, False)
        for peer in there:
            rank = (asked.get(peer.id, 0), peer.state is not PeerState.ALIVE)
            if not best or rank < lowest:
                best, lowest = [peer], rank
            elif rank == lowest:
                best.append(peer)
        if len(best) > 1:
            best = self._cheapest(service, best, now)
        return best[0] if len(best) == 1 else best[self._draw(len(best))]

    def _cheapest(self, service: str, peers: list[Peer], now: float) -> list[Peer]:
        units = self._units(service, peers, now)
        costs = [unit * (peer.calls + 1) for peer, unit in zip(peers, units, strict=True)]
        lowest = min(costs)
        return [peer for peer, cost in zip(peers, costs, strict=True) if cost == lowest]

    def _units(self, service: str, peers: list[Peer], now: float) -> list[float]:
        """Return what one call costs at each."""
        known = [self.latency(peer, service, now) for peer in peers]
        fastest = min((seconds for seconds in known if seconds is not None), default=0.0)
        floor = max(self._options.latency_noise, ALIKE * fastest)
        # Who was never measured passes for fast: it is found out.
        return [max(floor, seconds or 0.0) for seconds in known]

    def _draw(self, count: int) -> int:
        return min(int(self._entropy.uniform(0, count)), count - 1)

    # Measurements

    def latency(self, peer: Peer, service: str, now: float) -> float | None:
        """Return what a provider's answers took lately, in seconds; None where nobody knows."""
        latency = self._latencies.get((peer.id, service))
        return None if latency is None else latency.seconds * self._kept(latency, now)

    def on_answer(self, peer: Peer, service: str, seconds: float, now: float) -> None:
        """Count an answer that took so long."""
        place = (peer.id, service)
        before = self._latencies.get(place)
        if before is None:
            while len(self._latencies) >= self._options.latencies_max:
                del self._latencies[next(iter(self._latencies))]
        else:
            kept = self._kept(before, now)
            seconds = max(seconds, before.seconds * kept + seconds * (1.0 - kept))
        self._latencies[place] = _Latency(seconds, now)

    def on_silence(self, peer: Peer, service: str, seconds: float, now: float) -> None:
        """Count a request nobody waits for any more: its answer would have taken longer still."""
        if seconds > (self.latency(peer, service, now) or self._options.latency_noise):
            self.on_answer(peer, service, seconds, now)

    def _kept(self, latency: _Latency, now: float) -> float:
        """Return how much of a measurement still counts."""
        return exp((latency.at - now) / self._options.latency_decay)


def weight(key: bytes, node: NodeId) -> bytes:
    """Return what a key weighs at a node: the heaviest gets it, whoever computes that."""
    return blake2b(node + key, digest_size=WEIGHT_BYTES).digest()
