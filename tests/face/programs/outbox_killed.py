"""Take what is in an outbox, and die by SIGKILL before anything of it is deleted."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from tests.processes import say
from zmesh.face.outbox_relay import OutboxRelay
from zmesh.face.outbox_table import OutboxRow


async def take(rows: Sequence[OutboxRow]) -> None:
    say(*(row.id for row in rows))
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    loop = asyncio.get_running_loop()
    relay = OutboxRelay(loop, sys.argv[1], take, lambda _: None)
    relay.start()
    await asyncio.Event().wait()


asyncio.run(main())
