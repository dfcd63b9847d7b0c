"""A caller for tests, to be killed: `later_caller.py JOURNAL PEER COMMAND ARGUMENTS...`.

`ask SERVICE BODY` makes a request, prints its ticket, waits for the answer and prints it; `wait
TICKET` waits for the answer to one of another life. Then it waits to be killed.
"""

import asyncio
import sys

import zmesh
from tests.processes import say


async def main(journal: str, peer: str, command: str, *arguments: str) -> None:
    options = zmesh.NodeOptions(redeliver_min=0.02, redeliver_max=0.2)
    peers = [peer] if peer != "-" else []
    async with zmesh.Node(
        "caller", peers=peers, mdns=False, storage=journal, options=options
    ) as node:
        if command == "ask":
            ticket = await node.call_later(*arguments)
            say(ticket.id)
        else:
            ticket = node.ticket(*arguments)
            say(ticket.state)
        say(await ticket.reply())
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
