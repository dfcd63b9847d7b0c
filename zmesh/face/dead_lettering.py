"""Dead letters as the application has them: seen, sent back, thrown away."""

import asyncio

from zmesh.core.engine import Engine
from zmesh.errors import Closed, InvalidOption, ZmeshError
from zmesh.events import PurgeLetters, RequeueLetter
from zmesh.face.runner import Runner
from zmesh.face.storing import wall_ms
from zmesh.message import Ticket
from zmesh.patterns.letters import DeadLetter


class DeadLettering:
    """Who waits for something to be done about dead letters."""

    def __init__(self, loop: asyncio.AbstractEventLoop, runner: Runner, engine: Engine) -> None:
        self._loop = loop
        self._runner = runner
        self._engine = engine
        self._waiting: dict[Ticket, asyncio.Future[ZmeshError | None]] = {}

    def letters(self) -> list[DeadLetter]:
        """Return those in memory, oldest first."""
        return self._engine.dead_letters()

    async def requeue(self, letter: DeadLetter | int) -> None:
        """Send one back to where it was for."""
        ticket = Ticket()
        await self._done(ticket, RequeueLetter(_id_of(letter), ticket, wall_ms()))

    async def purge(self, letter: DeadLetter | int | None) -> int:
        """Forget one, or all; return how many."""
        ticket = Ticket()
        id_ = None if letter is None else _id_of(letter)
        await self._done(ticket, PurgeLetters(id_, ticket))
        return ticket.accepted

    async def _done(self, ticket: Ticket, command: RequeueLetter | PurgeLetters) -> None:
        done = self._waiting[ticket] = self._loop.create_future()
        self._runner.command(command)
        error = await done
        if error is not None:
            raise error

    def stored(self, tickets: list[Ticket], error: ZmeshError | None) -> None:
        """Let go those whose command is done, or refused."""
        for ticket in tickets:
            waiting = self._waiting.pop(ticket, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(error)

    def close(self, why: str) -> None:
        """Let all go: the node closes, and it is not known what is done."""
        self.stored(list(self._waiting), Closed(why))


def _id_of(letter: DeadLetter | int) -> int:
    if isinstance(letter, DeadLetter):
        return letter.id
    if isinstance(letter, bool) or not isinstance(letter, int):
        raise InvalidOption("letter", letter, "a dead letter or its id")
    return letter
