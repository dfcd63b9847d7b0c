"""A thermometer and its readers: `python examples/publish_subscribe.py "sensors.*.temp"`.

Run that as often as you like, then `python examples/publish_subscribe.py`, which publishes five
temperatures and tells how many readers handled each.
"""

import asyncio
import sys

import zmesh

TOPIC = "sensors.kitchen.temp"


async def read(pattern: str) -> None:
    """Print temperatures until the last one."""
    node = zmesh.Node(mesh="publish-subscribe")
    async with node, node.subscribe(pattern) as temperatures:
        print("reading", flush=True)
        async for message in temperatures:
            print(message.topic, message.body, message.headers["unit"], flush=True)
            if message.headers["last"]:
                break


async def measure() -> None:
    """Publish five temperatures."""
    async with zmesh.Node("thermometer", mesh="publish-subscribe") as node:
        await node.peers.wait_for(topic=TOPIC, timeout=30)
        for number in range(1, 6):
            temperature, is_last = 20 + number / 2, number == 5
            headers: zmesh.Headers = {"unit": "C", "last": is_last}
            receipt = await node.publish(TOPIC, temperature, headers=headers)
            print(f"handled by {await receipt}", flush=True)


if __name__ == "__main__":
    asyncio.run(read(sys.argv[1]) if len(sys.argv) > 1 else measure())
