"""Run `python examples/survey.py serve ROOM` as often as you like, then `... ask 2`."""

import argparse
import asyncio
import shutil

import zmesh


async def serve(room: str) -> None:
    """Tell whoever asks how much room this machine's disk has."""
    async with zmesh.Node(mesh="survey", key=()) as node:

        @node.service("disk")
        def disk(message: zmesh.Message) -> dict[str, object]:
            usage = shutil.disk_usage(message.body)
            return {"room": room, "free": round(usage.free / usage.total, 3)}

        node.describe(room=room)
        print("serving", flush=True)
        await asyncio.Event().wait()


async def ask(servers: int) -> None:
    """Ask everybody at once, and print what comes within two seconds."""
    async with zmesh.Node(mesh="survey", key=()) as node:
        await node.peers.wait_for(service="disk", count=servers, timeout=30)
        survey = node.survey("disk", "/", timeout=2)
        async for reply in survey:
            print(f"{reply.body['room']}: {reply.body['free']:.0%} free", flush=True)
        print(f"{len(survey.failures)} did not answer", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "ask"])
    parser.add_argument("what", help="the room it is in; how many servers to wait for")
    told = parser.parse_args()
    asyncio.run(serve(told.what) if told.role == "serve" else ask(int(told.what)))
