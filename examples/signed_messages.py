"""Who wrote it? Run `serve` in one terminal and `pay 5` in others."""

import argparse
import asyncio

import zmesh


async def serve() -> None:
    """Take signed payments alone."""
    async with zmesh.Node("bank", mesh="signed-messages", key=()) as node:

        @node.service("pay", verify="required")
        async def pay(message: zmesh.Message) -> str:
            return f"{message.body} from {message.signer}"

        print("serving", flush=True)
        await asyncio.Event().wait()


async def pay(amount: int) -> None:
    """Pay signed, and try it unsigned."""
    async with zmesh.Node("till", mesh="signed-messages", key=()) as node:
        await node.peers.wait_for(service="pay", timeout=10)
        receipt = await node.call("pay", amount, sign=True)
        print("signed by this node:", receipt == f"{amount} from {node.id}")
        try:
            await node.call("pay", amount)
        except zmesh.SignatureRefused as error:
            print("unsigned:", error.why)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "pay"])
    parser.add_argument("amount", type=int, nargs="?", default=1)
    told = parser.parse_args()
    asyncio.run(serve() if told.role == "serve" else pay(told.amount))
