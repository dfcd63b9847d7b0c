"""Handle messages in transactions until all are handled, or somebody ends this process."""

import asyncio
import sys
from functools import partial

from tests.processes import say
from zmesh import AlreadyHandled
from zmesh.face.application_database import Database
from zmesh.face.transactions import Transactions

PATH, COUNT = sys.argv[1], int(sys.argv[2])


async def main() -> None:
    database = Database(PATH)
    handled = {
        number
        for each in await database.load()
        for first, last in each.ranges
        for number in range(first, last + 1)
    }
    transactions = Transactions(database, asyncio.get_running_loop())
    accepted: set[int] = set()
    say("begins")
    for number in range(COUNT):
        done = partial(accepted.add, number)
        message = transactions.begin((b"n" * 16, b"j" * 16, number), done)
        try:
            async with message as inside:
                await inside.execute("INSERT INTO effects VALUES (?)", (number,))
                assert number not in handled
        except AlreadyHandled:
            assert number in handled
    assert len(accepted) == COUNT
    await database.close()
    say("done")


asyncio.run(main())
