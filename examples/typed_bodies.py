"""Run `python examples/typed_bodies.py`, and elsewhere `... '{"sum": 9000, "months": 24}'`."""

import asyncio
import json
import sys
from dataclasses import dataclass

import zmesh


@dataclass
class Loan:
    """What is borrowed; JSON, msgpack and Python know it by these fields."""

    sum: float
    months: int
    interest: float = 0.06  # a year


async def main(*told: str) -> None:
    """Tell what loans cost a month, until interrupted; or ask for one, and print the answer."""
    async with zmesh.Node(mesh="typed-bodies", key=()) as node:
        if not told:

            @node.service("annuity")
            async def annuity(loan: Loan) -> float:  # what is no loan never gets here
                rate = loan.interest / 12
                return round(loan.sum * rate / (1 - (1 + rate) ** -loan.months), 2)

            await asyncio.Event().wait()
        await node.peers.wait_for(service="annuity", timeout=30)
        try:
            print(await node.call("annuity", json.loads(told[0])))
        except zmesh.Rejected as error:
            print(error)  # names the field that is wrong


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:2]))
