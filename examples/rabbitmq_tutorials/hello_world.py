"""RabbitMQ's tutorial 1: run `python hello_world.py receive`, and elsewhere `... send`."""

import argparse
import asyncio

import zmesh


async def receive() -> None:
    """Print what comes, until interrupted."""
    async with zmesh.Node(mesh="hello-world", key=()) as node, node.pull("hello") as jobs:
        print(" [*] Waiting for messages. To exit press CTRL+C", flush=True)
        async for job in jobs:  # asking for the next acknowledges this one
            print(f" [x] Received {job.body}", flush=True)


async def send() -> None:
    """Send one message, now or when somebody receives."""
    async with zmesh.Node(mesh="hello-world", key=()) as node:
        receipt = await node.push("hello", "Hello World!")
        print(" [x] Sent 'Hello World!'", flush=True)
        await receipt  # there is no broker to leave it with: stay until somebody has handled it


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["send", "receive"])
    asyncio.run(send() if parser.parse_args().role == "send" else receive())
