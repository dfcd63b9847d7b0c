"""A node that is attacked: `python -m tests.security.victim SETTINGS`, the settings as JSON.

It prints a line of JSON with its id and endpoint, and one more for each line it reads: what it
counted, and how much memory it takes. It closes and ends when its standard input does.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import zmesh
from tests.processes import say


def facts(node: zmesh.Node) -> dict[str, Any]:
    """Return what it counted since it opened."""
    statistics = node.statistics()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    memory = {
        line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if "kB" in line
    }
    return {
        "transport": asdict(statistics.transport),
        "audited": statistics.audited,
        "defects": statistics.engine.defects,
        "memory": memory["VmRSS"] * 1024,
        "peak": memory["VmHWM"] * 1024,
        "peers": {peer.name: peer.state.value for peer in node.peers},
        "paths": [],
    }


async def main(settings: dict[str, Any]) -> None:
    heard: list[Any] = []
    async with zmesh.Node("victim", interfaces=["127.0.0.1"], **settings) as node:

        @node.service("echo")
        async def echo(message: zmesh.Message) -> Any:
            return message.body

        async def listen() -> None:
            async for message in node.inbox():
                heard.append([message.sender, message.body])

        listening = asyncio.create_task(listen())
        say(json.dumps({"id": node.id, "endpoint": node.endpoints[0]}))
        while await asyncio.to_thread(sys.stdin.readline):
            say(json.dumps({**facts(node), "heard": len(heard)}))
        listening.cancel()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
