"""One node on a machine of its own, told by lines of JSON what to do, and telling what it sees.

`python -m tests.netns.program SETTINGS`: each line of standard input is `[number, order, ...]`,
answered by `{"number": ..., "answer": ...}` or, where it raised, `{..., "error": [type, text]}`.
Beside that it prints `{"event": ...}` for all that happens to peers and `{"log": ...}` for every
line of the log. It closes the node and ends when its standard input does.
"""

import asyncio
import contextlib
import json
import logging
import sys
import time
from typing import Any

import zmesh


def tell(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


class ToldLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tell(log=[record.levelname, self.format(record)])


class Orders:
    """What a test may tell the node to do; each method is an order."""

    def __init__(self, node: zmesh.Node) -> None:
        self.node = node
        self.heard: list[tuple[str, object]] = []

    async def call(self, service: str, body: object, seconds: float) -> object:
        await self.node.peers.wait_for(service=service, timeout=seconds)
        return await self.node.call(service, body, timeout=seconds)

    async def send(self, to: str, body: object, seconds: float) -> None:
        await self.node.send(to, body, timeout=seconds)

    async def stream(self, to: str, first: int, count: int, pause: float) -> int:
        """Post numbers one by one; return how many were accepted when all have an outcome."""
        receipts = []
        for number in range(first, first + count):
            receipts.append(await self.node.post(to, number))
            await asyncio.sleep(pause)
        return sum([await receipt for receipt in receipts])

    async def received(self, sender: str) -> list[object]:
        """Return the bodies of all messages from a name or id, in order."""
        return [body for who, body in self.heard if who == sender]


def _peer(peer: zmesh.Peer) -> dict[str, object]:
    return {
        "id": peer.id,
        "name": peer.name,
        "state": peer.state.value,
        "endpoints": list(peer.endpoints),
    }


async def watch(node: zmesh.Node) -> None:
    async for event in node.peers.watch():
        assert not isinstance(event, zmesh.Overrun)
        why = event.reason if isinstance(event, zmesh.Left) else ""
        kind = type(event).__name__
        tell(event=kind, at=time.monotonic(), why=why, **_peer(event.peer))


async def listen(orders: Orders) -> None:
    async for message in orders.node.inbox():
        orders.heard.append((message.sender, message.body))


async def obey(orders: Orders) -> None:
    """Carry out orders, all at the same time, until there are no more."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    under_way: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        number, order, *arguments = json.loads(line)
        task = asyncio.create_task(_carry_out(orders, number, order, arguments))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    for task in under_way:
        task.cancel()


async def _carry_out(orders: Orders, number: int, order: str, arguments: list[Any]) -> None:
    try:
        answer = await getattr(orders, order)(*arguments)
    except zmesh.ZmeshError as error:
        tell(number=number, error=[type(error).__name__, str(error)])
    else:
        tell(number=number, answer=answer)


async def main(settings: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.INFO, handlers=[ToldLog()], force=True)
    # More often than by default, so that the tests need not wait.
    discovery = zmesh.DiscoveryOptions(interfaces_every=0.5, ask_every=1.0, ask_every_max=4.0)
    options = zmesh.NodeOptions(discovery=discovery)
    settings.setdefault("insecure", "key" not in settings)
    async with zmesh.Node(**settings, options=options) as node:

        @node.service(f"who-{node.name}")
        async def who(_: zmesh.Message) -> str:
            return node.name

        orders = Orders(node)
        tasks = [asyncio.create_task(watch(node)), asyncio.create_task(listen(orders))]
        tell(node=node.id, endpoints=node.endpoints, at=time.monotonic())
        await obey(orders)
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
