"""RabbitMQ's tutorial 3: run `python publish_subscribe.py receive` often, then `... emit TEXT`."""

import argparse
import asyncio

import zmesh


async def receive() -> None:
    """Print all log messages, until interrupted."""
    async with zmesh.Node(mesh="publish-subscribe-logs", key=()) as node:
        logs = await node.exchange("logs", kind="fanout")
        async with logs.subscribe() as messages:  # an exclusive queue, bound while this runs
            print(" [*] Waiting for logs. To exit press CTRL+C", flush=True)
            async for message in messages:
                print(f" [x] {message.body}", flush=True)


async def emit(text: str, receivers: int) -> None:
    """Send a log message to all who are there, once so many are."""
    async with zmesh.Node(mesh="publish-subscribe-logs", key=()) as node:
        logs = await node.exchange("logs", kind="fanout")
        await logs.wait_for(count=receivers, timeout=30)  # peers have to be found first
        receipt = await logs.publish(text)
        print(f" [x] Sent {text!r} to {await receipt}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["emit", "receive"])
    parser.add_argument("text", nargs="?", default="info: Hello World!")
    parser.add_argument("--receivers", type=int, default=1, help="to wait for")
    told = parser.parse_args()
    asyncio.run(receive() if told.role == "receive" else emit(told.text, told.receivers))
