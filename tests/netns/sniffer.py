"""Writes what goes over an interface: `python -m tests.netns.sniffer INTERFACE`.

To be run in the namespace of the interface. Each packet is written to standard output, from its
Ethernet header on, after its length (4 bytes, big endian); first an empty one, once it listens.
It ends when its standard input does.
"""

import select
import socket
import sys
from typing import TextIO

ETH_P_ALL = 3
QUIET = 0.3
"""Seconds without a packet, after the end of input, until it ends."""


def main(interface: str) -> None:
    everything = socket.htons(ETH_P_ALL)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything) as tap:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        tap.bind((interface, 0))
        write(b"")
        watched: list[socket.socket | TextIO] = [tap, sys.stdin]
        while True:
            ready, _, _ = select.select(watched, [], [], QUIET if len(watched) == 1 else None)
            if sys.stdin in ready:
                watched.remove(sys.stdin)
            if tap in ready:
                write(tap.recv(1 << 17))
            elif len(watched) == 1 and not ready:
                return


def write(packet: bytes) -> None:
    sys.stdout.buffer.write(len(packet).to_bytes(4, "big") + packet)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
