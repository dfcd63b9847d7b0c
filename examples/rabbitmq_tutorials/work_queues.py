"""RabbitMQ's tutorial 2: run `python work_queues.py work` a few times, then `... task WORD ...`.

A task is to make a key of a password, which takes a moment of hard work.
"""

import argparse
import asyncio
import hashlib

import zmesh


def derive(password: str) -> str:
    """Return a key made of a password."""
    return hashlib.scrypt(password.encode(), salt=b"tutorial", n=2**14, r=8, p=1).hex()


async def work() -> None:
    """Do one task at a time; what a worker that dies was at is done by another."""
    node = zmesh.Node(mesh="work-queues", key=())
    async with node, node.pull("task_queue", prefetch=1) as jobs:
        print(" [*] Waiting for tasks. To exit press CTRL+C", flush=True)
        async for job in jobs:
            print(f" [x] {job.body}: {await asyncio.to_thread(derive, job.body)}", flush=True)


async def task(passwords: list[str]) -> None:
    """Have keys made of passwords by whoever has time."""
    async with zmesh.Node(mesh="work-queues", key=()) as node:
        print(f" [x] {await (await node.push_many('task_queue', passwords))} done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["work", "task"])
    parser.add_argument("passwords", nargs="*", default=["correct horse battery staple"])
    told = parser.parse_args()
    asyncio.run(work() if told.role == "work" else task(told.passwords))
