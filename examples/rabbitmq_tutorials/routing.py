"""RabbitMQ's tutorial 4: `python routing.py receive warning error`, then `... emit error TEXT`."""

import argparse
import asyncio

import zmesh

SEVERITIES = ["info", "warning", "error"]


async def receive(severities: list[str]) -> None:
    """Print log messages of these severities, until interrupted."""
    async with zmesh.Node(mesh="routing", key=()) as node:
        logs = await node.exchange("direct_logs", kind="direct")
        async with logs.subscribe(*severities) as messages:
            print(" [*] Waiting for logs. To exit press CTRL+C", flush=True)
            async for message in messages:
                print(f" [x] {message.routing_key}: {message.body}", flush=True)


async def emit(severity: str, text: str, receivers: int) -> None:
    """Send a log message to all who want its severity, once so many do."""
    async with zmesh.Node(mesh="routing", key=()) as node:
        logs = await node.exchange("direct_logs", kind="direct")
        await logs.wait_for(severity, count=receivers, timeout=30)  # peers have to be found first
        receipt = await logs.publish(text, severity)
        print(f" [x] Sent {severity}: {text} to {await receipt}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("receive").add_argument("severities", nargs="+", choices=SEVERITIES)
    emitting = roles.add_parser("emit")
    emitting.add_argument("severity", choices=SEVERITIES)
    emitting.add_argument("text")
    emitting.add_argument("--receivers", type=int, default=1, help="to wait for")
    told = vars(parser.parse_args())
    asyncio.run(emit(**told) if told.pop("role") == "emit" else receive(**told))
