"""What a mesh says when it is idle, made of the protocol's own timers. Pure.

    python -m benchmarks.scale_model      # the curve to 10,000 nodes, as in docs/scaling.md

Packets are those of zmesh on links, one ZeroMQ message each; datagrams are those of mDNS on the
network, sent to all. `tests/benchmarks/test_scale_model.py` holds the model to real engines in
simulated time, at small numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from zmesh.options import NodeOptions
from zmesh.reliable.detector import IDLE_SHARE_FIRST

HEARTBEAT_PACKETS: Final = 2
"""PING, and PONG with an ACK."""

INTEREST_PACKETS: Final = 3
"""INTEREST on the control lane, PING after a silence, and PONG with the ACK of both."""

ASK_PACKETS: Final = 2
"""WHO, and IAM."""

HANDSHAKE_PACKETS: Final = 6
"""WHO, IAM, HELLO, WELCOME, and PING and PONG, which carry the interests of both."""

ANSWER_BYTES: Final = 51
"""A known answer in a question: a PTR record whose name is 32 digits and a pointer."""

DATAGRAM_BYTES: Final = 1460
"""Of a question; what does not fit goes with the next."""

OUR_DATAGRAMS: Final = 6
"""Three announcements when a node starts, three goodbyes when it ends."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A mesh to be told of: `hubs` of its `nodes` have links with everybody.

    Changes and restarts are those of one node, an hour.
    """

    nodes: int
    hubs: int
    interest_changes_per_hour: float = 1.0
    restarts_per_hour: float = 0.1
    has_seeds: bool = False
    mdns: bool = True

    @property
    def links(self) -> int:
        """Links of the whole mesh."""
        edges = self.nodes - self.hubs
        return self.hubs * (self.hubs - 1) // 2 + self.hubs * edges

    @property
    def links_of_hub(self) -> int:
        """Links of one hub."""
        return self.nodes - 1


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets and datagrams a second of a whole mesh, and of a hub of it."""

    links: int
    links_of_hub: int
    heartbeats: float
    heartbeats_of_hub: float  # packets it sends and receives
    interest: float
    asks: float
    handshakes: float
    mdns_datagrams: float  # everybody hears each
    mdns_bytes: float

    @property
    def packets(self) -> float:
        """All packets on links."""
        return self.heartbeats + self.interest + self.asks + self.handshakes


def traffic(mesh: Mesh, options: NodeOptions = NodeOptions()) -> Traffic:  # noqa: B008  # frozen
    """Return what a mesh says in a second when its applications say nothing."""
    beat_s = IDLE_SHARE_FIRST * options.link.ping_idle_max
    per_link = HEARTBEAT_PACKETS / beat_s
    told = 2 * mesh.links / 3600  # each change goes by all links of its node
    datagrams, size = _mdns(mesh, options) if mesh.mdns else (0.0, 0.0)
    return Traffic(
        links=mesh.links,
        links_of_hub=mesh.links_of_hub,
        heartbeats=per_link * mesh.links,
        heartbeats_of_hub=per_link * mesh.links_of_hub,
        interest=INTEREST_PACKETS * mesh.interest_changes_per_hour * told,
        asks=ASK_PACKETS * mesh.nodes / options.ask_after_max if mesh.has_seeds else 0.0,
        handshakes=HANDSHAKE_PACKETS * mesh.restarts_per_hour * told,
        mdns_datagrams=datagrams,
        mdns_bytes=size,
    )


def _mdns(mesh: Mesh, options: NodeOptions) -> tuple[float, float]:
    """Return datagrams and bytes a second: questions with all that is known, and announcements."""
    discovery = options.discovery
    every_s = discovery.ask_every
    if mesh.nodes > 1:
        every_s = max(discovery.ask_every_max, discovery.ask_gap * mesh.nodes)
    size = max(1, mesh.nodes) * ANSWER_BYTES
    parts = -(-size // DATAGRAM_BYTES)
    questions = mesh.nodes / every_s
    restarts = mesh.restarts_per_hour * mesh.nodes / 3600
    announced = OUR_DATAGRAMS * restarts
    return questions * parts + announced, questions * size + announced * 250


SIZES: Final = (10, 50, 200, 1_000, 5_000, 10_000)
HUBS: Final = 3


def table(sizes: Sequence[int] = SIZES, hubs: int = HUBS) -> str:
    """Return the curve as a table of Markdown."""
    of_hubs = f"with {hubs} hubs"
    heads = (
        "nodes", "links, full mesh", of_hubs, "heartbeats/s, full mesh", of_hubs, "of one hub",
        "interest/s, full mesh", of_hubs, "mDNS datagrams/s", "mDNS KB/s",
    )  # fmt: skip
    lines = [
        "| " + " | ".join(heads) + " |",
        "| ---: |" + " ---: |" * 9,
    ]
    for nodes in sizes:
        full, few = traffic(Mesh(nodes, nodes)), traffic(Mesh(nodes, min(hubs, nodes)))
        cells = [
            f"{full.links:,}",
            f"{few.links:,}",
            _number(full.heartbeats),
            _number(few.heartbeats),
            _number(few.heartbeats_of_hub),
            _number(full.interest),
            _number(few.interest),
            _number(few.mdns_datagrams),
            _number(few.mdns_bytes / 1000),
        ]
        lines.append(f"| {nodes:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


if __name__ == "__main__":
    print(table())
