"""Run `python examples/publish_subscribe.py read` as often as you like, then `... publish 2`."""

import argparse
import asyncio

import zmesh

TOPIC = "sensors.kitchen.temp"


async def read(pattern: str) -> None:
    """Print temperatures until the last one."""
    node = zmesh.Node(mesh="publish-subscribe", key=())
    async with node, node.subscribe(pattern) as temperatures:
        print("reading", flush=True)
        async for message in temperatures:
            print(message.topic, message.body, message.headers["unit"], flush=True)
            if message.headers["last"]:
                break


async def publish(readers: int) -> None:
    """Publish five temperatures, once so many readers are there."""
    async with zmesh.Node("thermometer", mesh="publish-subscribe", key=()) as node:
        await node.peers.wait_for(topic=TOPIC, count=readers, timeout=30)
        for number in range(1, 6):
            headers: zmesh.Headers = {"unit": "C", "last": number == 5}
            receipt = await node.publish(TOPIC, 20 + number / 2, headers=headers)
            print(f"handled by {await receipt}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["read", "publish"])
    parser.add_argument("readers", type=int, nargs="?", default=1, help="to wait for")
    told = parser.parse_args()
    asyncio.run(read("sensors.*.temp") if told.role == "read" else publish(told.readers))
