"""A caller for tests, to be killed: `later_caller.py JOURNAL PEER COMMAND ARGUMENTS...`.

`ask SERVICE BODY` makes a request, prints its ticket, waits for the answer and prints it; `wait
TICKET` waits for the answer to one of another life. Then it waits to be killed. `many SERVICE`
makes requests until it is, and prints the ticket and the body of each; `all` prints the answers to
all.
"""

import asyncio
import os
import sys
from itertools import count

import zmesh
from tests.processes import say


async def main(journal: str, peer: str, command: str, *arguments: str) -> None:
    options = zmesh.NodeOptions(redeliver_min=0.02, redeliver_max=0.2)
    peers = [peer] if peer != "-" else []
    async with zmesh.Node(
        "caller", peers=peers, mdns=False, storage=journal, options=options
    ) as node:
        if command == "many":
            for number in count():
                body = f"{os.getpid()}-{number}"
                ticket = await node.call_later(arguments[0], body)
                say(ticket.id, body)
        if command == "all":
            for ticket in node.tickets():
                say(ticket.id, await ticket.reply())
            say("all")
            await asyncio.Event().wait()
        if command == "ask":
            ticket = await node.call_later(arguments[0], arguments[1])
            say(ticket.id)
        else:
            ticket = node.ticket(*arguments)
            say(ticket.state)
        say(await ticket.reply())
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
