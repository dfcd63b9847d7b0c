"""Dead letters of stored messages: moved on disk, with why and from where, until somebody acts."""

from zmesh.core.turn import Turn
from zmesh.storage import DEAD_LETTERS, Burial, Move, Stream


class DeadLetters:
    """Moves stored messages that nobody could handle to the stream of dead letters."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        opened = turn.keeper.opened
        states = () if opened is None else opened.streams
        self._following = max(
            (state.next_position for state in states if state.stream == DEAD_LETTERS), default=1
        )

    def bury(
        self, stream: Stream, position: int, destination: str, reason: str, attempts: int
    ) -> None:
        """Move a message; what counts of its attempts is how many there were, and the last one."""
        keeper = self._turn.keeper
        at_ms = keeper.wall_ms(self._turn.now)
        history = tuple((at_ms, reason) for _ in range(attempts))
        note = Burial(destination, reason, history).as_note()
        keeper.write(Move(stream, ((position, position),), DEAD_LETTERS, self._following, note))
        self._following += 1
