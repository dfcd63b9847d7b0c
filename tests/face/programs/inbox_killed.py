"""Handle a message in a transaction, and die by SIGKILL at the moment named."""

import asyncio
import os
import signal
import sys

from zmesh.face.application_database import Database
from zmesh.face.transactions import Transactions

PATH, MOMENT = sys.argv[1:]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    transactions = Transactions(Database(PATH), asyncio.get_running_loop())
    identity = (b"n" * 16, b"j" * 16, 7)
    async with transactions.begin(identity, die) as database:
        await database.execute("CREATE TABLE IF NOT EXISTS effects (number)")
        await database.execute("INSERT INTO effects VALUES (7)")
        if MOMENT == "before the commit":
            die()


asyncio.run(main())
