"""A process that announces a node on loopback, for the mDNS tests; it tells what it sees.

`python -m tests.discovery.mdns_node MESH ID NAME PORT`: prints a line for each event, ends well
when its standard input does.
"""

import asyncio
import sys
import time

from zmesh.discovery.mdns import MdnsSource
from zmesh.discovery.mesh_tag import mesh_tag
from zmesh.events import CandidateFound, CandidateGone, Event
from zmesh.ids import NodeId
from zmesh.options import DiscoveryOptions


def tell(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def tell_events(events: list[Event]) -> None:
    for event in events:
        match event:
            case CandidateFound(_, bytes(node), name, endpoints):
                tell("found", node.hex(), name or "-", *endpoints)
            case CandidateGone(_, node):
                tell("gone", node.hex())
            case _:
                raise AssertionError(event)


async def main(mesh: str, node: str, name: str, port: str) -> None:
    source = MdnsSource(
        tags=[mesh_tag(mesh)],
        node=NodeId(bytes.fromhex(node)),
        name=name,
        on_events=tell_events,
        on_trace=lambda trace: tell("trace", trace.name, trace.fields),
        options=DiscoveryOptions(),
    )
    tell("starting", time.monotonic())
    await source.start([f"tcp://127.0.0.1:{port}", f"tcp://[::1]:{port}"])
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await source.stop()
    tell("stopped")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
