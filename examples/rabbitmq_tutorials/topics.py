"""RabbitMQ's tutorial 5: `python topics.py receive 'kern.*'`, then `... emit kern.info TEXT`."""

import argparse
import asyncio

import zmesh


async def receive(keys: list[str]) -> None:
    """Print log messages whose routing key matches one of these, until interrupted."""
    async with zmesh.Node(mesh="topics", key=()) as node:
        logs = await node.exchange("topic_logs", kind="topic")
        async with logs.subscribe(*keys) as messages:  # one that matches twice comes once
            print(" [*] Waiting for logs. To exit press CTRL+C", flush=True)
            async for message in messages:
                print(f" [x] {message.routing_key}: {message.body}", flush=True)


async def emit(key: str, text: str, receivers: int) -> None:
    """Send a log message to all who want it, once so many do."""
    async with zmesh.Node(mesh="topics", key=()) as node:
        logs = await node.exchange("topic_logs", kind="topic")
        await logs.wait_for(key, count=receivers, timeout=30)  # peers have to be found first
        receipt = await logs.publish(text, key)
        print(f" [x] Sent {key}: {text} to {await receipt}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("receive").add_argument(
        "keys", nargs="+", help="'*' is a word, '#' any number of words"
    )
    emitting = roles.add_parser("emit")
    emitting.add_argument("key", help="as facility.severity")
    emitting.add_argument("text")
    emitting.add_argument("--receivers", type=int, default=1, help="to wait for")
    told = vars(parser.parse_args())
    asyncio.run(emit(**told) if told.pop("role") == "emit" else receive(**told))
