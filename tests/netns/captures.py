"""What was captured on an interface, taken apart as far as to see what can be read in it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from zeroconf._protocol.incoming import DNSIncoming

ETHERNET = 14
IPV4, IPV6 = 0x0800, 0x86DD
TCP, UDP = 6, 17
MDNS = 5353


@dataclass
class Capture:
    """Packets from an Ethernet header on."""

    packets: list[bytes]
    payloads: list[tuple[int, bytes]] = field(default_factory=list)  # of UDP: port, datagram
    streams: dict[bytes, bytearray] = field(default_factory=dict)  # of TCP, each direction

    def __post_init__(self) -> None:
        flows: defaultdict[bytes, bytearray] = defaultdict(bytearray)
        for packet in self.packets:
            found = _transport(packet)
            if found is None:
                continue
            protocol, ends, segment = found
            if protocol == UDP:
                self.payloads.append((int.from_bytes(segment[2:4], "big"), segment[8:]))
            elif protocol == TCP:
                # In the order they went: the network of the tests loses and reorders nothing.
                flows[ends + segment[:4]] += segment[(segment[12] >> 4) * 4 :]
        self.streams = dict(flows)

    @classmethod
    def read(cls, written: bytes) -> "Capture":
        """Take what `tests.netns.sniffer` wrote."""
        packets = []
        at = 0
        while at < len(written):
            size = int.from_bytes(written[at : at + 4], "big")
            packets.append(written[at + 4 : at + 4 + size])
            at += 4 + size
        return cls([packet for packet in packets if packet])

    def shows(self, word: bytes) -> bool:
        """Whether a word can be read, in a packet or across several."""
        return any(word in packet for packet in self.packets) or any(
            word in stream for stream in self.streams.values()
        )

    def shown(self, words: Iterable[str]) -> set[str]:
        """Return which words can be read."""
        return {word for word in words if self.shows(word.encode())}

    def mdns(self) -> Iterator[DNSIncoming]:
        """Yield what was said by mDNS."""
        return (DNSIncoming(datagram) for port, datagram in self.payloads if port == MDNS)


def _transport(packet: bytes) -> tuple[int, bytes, bytes] | None:
    """Return protocol, addresses, and segment or datagram of an IP packet."""
    kind = int.from_bytes(packet[12:14], "big")
    body = packet[ETHERNET:]
    if kind == IPV4:
        size = int.from_bytes(body[2:4], "big") or len(body)  # 0: to be cut by the interface
        return body[9], body[12:20], body[(body[0] & 15) * 4 : size]
    if kind == IPV6:
        size = int.from_bytes(body[4:6], "big") or len(body)
        return body[6], body[8:40], body[40 : 40 + size]
    return None
