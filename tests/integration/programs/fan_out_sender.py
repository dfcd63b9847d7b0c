"""A sender for tests, to be killed: `fan_out_sender.py JOURNAL COMMAND PEERS...`.

`send` fans a message out when two members are there, and says when it is on disk; `go-on` goes on
with the one of an earlier life. Both print each outcome, and at last who accepted.
"""

import asyncio
import sys

import zmesh
from tests.processes import say


async def main(journal: str, command: str, *peers: str) -> None:
    options = zmesh.NodeOptions(redeliver_min=0.02, redeliver_max=0.2, reconnect_max=0.3)
    async with zmesh.Node(
        "office", peers=peers, mdns=False, storage=journal, options=options
    ) as node:
        if command == "send":
            await node.peers.wait_for(group="cameras", count=2, timeout=20)
            fan_out = node.fan_out("cameras", "firmware", timeout=60)
            await fan_out.stored()
            say("stored")
        else:
            [fan_out] = node.fan_outs()
            say("goes on")
        async for outcome in fan_out:
            say(outcome.name, outcome.state.value)
        report = await fan_out
        say("accepted by", *sorted(each.name for each in report.accepted))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
