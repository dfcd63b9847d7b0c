"""One worker process of the demonstration: serves `analyse` until its standard input ends."""

import asyncio
import sys
import time

import zmesh
from zmesh.cli.demo.work import analyse


async def serve(name: str, mesh: str) -> None:
    """Join the mesh and answer; the end of standard input is the end of the demonstration."""
    started_at = time.monotonic()
    async with zmesh.Node(name, mesh=mesh, key=()) as node:

        @node.service("analyse", concurrency=4)
        def handle(message: zmesh.Message) -> dict[str, object]:
            body = message.body
            if not isinstance(body, bytes):
                raise zmesh.Reject("analyse takes the bytes of a file")
            return {
                "worker": name,
                "started_at": started_at,  # one machine, one monotonic clock
                "attempt": message.attempt,
                "analysis": analyse(body),
            }

        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
