"""Writes to a journal as fast as it can until it is killed; tells what was acknowledged.

`python journal_writer.py PATH [KEY]` goes on where the journal ends, and prints the number of the
last batch that is on disk whenever there is news. Batch `n` stores row `n` of a lane out and of a
lane in, with its watermark, and forgets what was stored `KEPT` batches before.
"""

import queue
import sys
from pathlib import Path

from tests.durability.kills import OPTIONS, commands
from tests.journal.support import IN, NODE
from zmesh.journal.journal import SqliteJournal
from zmesh.security.storage_key import StorageKey
from zmesh.storage import Batch, JournalEvent, Opened, Written

UNDER_WAY_MAX = 64


def main() -> None:
    news: queue.SimpleQueue[JournalEvent] = queue.SimpleQueue()

    def deliver(events: list[JournalEvent]) -> None:
        for event in events:
            news.put(event)

    journal = SqliteJournal(
        Path(sys.argv[1]), deliver, node=NODE, options=OPTIONS,
        key=StorageKey.parse(sys.argv[2]) if len(sys.argv) > 2 else None,
    )  # fmt: skip
    journal.open()
    opened = news.get()
    assert isinstance(opened, Opened), opened
    assert opened.rescue is None
    lanes = {state.stream: state for state in opened.streams}
    number = acknowledged = lanes[IN].received_cum if IN in lanes else 0
    print(f"open {opened.identity.incarnation} {acknowledged}", flush=True)  # noqa: T201
    while True:
        while number - acknowledged < UNDER_WAY_MAX:
            number += 1
            journal.write(Batch(number, commands(number)))
        event = news.get()
        assert isinstance(event, Written), event
        acknowledged = event.tickets[-1]
        print(f"written {acknowledged}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
