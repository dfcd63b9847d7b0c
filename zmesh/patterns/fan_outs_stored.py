"""Fan-outs that are on disk: the message, until when, and how each member stands.

One has an entry for the message and a small one for each member. All go when it is over. Members
know copies by the number that the message has in this journal, in whatever life it is sent.
"""

from collections.abc import Callable
from typing import Final

from zmesh.actions import MemberState
from zmesh.core.keeper import OnWritten
from zmesh.core.turn import Turn
from zmesh.ids import NodeId
from zmesh.message import FailureKind
from zmesh.patterns.fan_out_members import Member, Running
from zmesh.patterns.kept import flat, packed, record_of, unpacked
from zmesh.storage import POSITION_MAX, Entry, EntryKind, RemoveEntries, SetEntries
from zmesh.storage_errors import StorageError

FIRST_RESTORED: Final = POSITION_MAX + 1
"""The application counts its fan-outs from 1: those of earlier lives are above that."""

_VERSION: Final = 1
_MESSAGE: Final = b"message"
_MEMBER: Final = b"to"  # and its place; after the message, in the order that entries are read


class FanOutsStored:
    """Orders to the journal about fan-outs.

    Args:
        turn: of the engine.
        known: told what a member may forget, because it is not sent again.
    """

    def __init__(self, turn: Turn, known: Callable[[NodeId, int, int], None]) -> None:
        self._turn = turn
        self._known = known
        self._numbers: dict[int, None] = {}  # of what is on disk, or on its way there or from it

    @property
    def floor(self) -> int:
        """The number below which no fan-out is left."""
        return min(self._numbers, default=self._turn.keeper.next_number)

    def number(self) -> int:
        """Return a number for another one."""
        number = self._turn.keeper.numbers(1)
        self._numbers[number] = None
        return number

    def store(self, running: Running, then: OnWritten) -> None:
        """Store a fan-out with all its members."""

        def stored(error: StorageError | None) -> None:
            if error is not None:
                del self._numbers[running.stored]
            then(error)

        members = [_member_entry(running, member) for member in running.members.values()]
        entries = (_message_entry(running), *members)
        self._turn.keeper.write(SetEntries(entries), then=stored)

    def keep(self, running: Running, member: Member, then: OnWritten | None = None) -> None:
        """Store how a member stands now; one with an outcome is not sent the message again."""
        node = member.node
        is_open = member.is_open

        def kept(error: StorageError | None) -> None:
            if error is None and not is_open:
                self._known(node, running.stored, running.stored)
            if then is not None:
                then(error)

        self._turn.keeper.write(SetEntries((_member_entry(running, member),)), then=kept)

    def forget(self, running: Running) -> None:
        """Remove a fan-out that is over."""

        def forgotten(error: StorageError | None) -> None:
            if error is None:
                del self._numbers[running.stored]

        self._turn.keeper.later(
            RemoveEntries(EntryKind.FAN_OUT, _name(running.stored)), then=forgotten
        )

    # Another life

    def message_of(self, entry: Entry) -> Running | None:
        """Return the fan-out whose message an entry has; None where it has that of a member.

        Raises:
            ProtocolError, ValueError: it is not what this version writes.
        """
        if entry.key != _MESSAGE:
            return None
        match unpacked(entry.value):
            case [
                1, int(number), record, int(lane), int(deadline_ms), int(expires_ms),
                bool(include_late),
            ]:  # fmt: skip
                keeper, now = self._turn.keeper, self._turn.now
                keeper.on_number(number)
                self._numbers[number] = None
                expires = None
                if expires_ms:
                    expires = now + (expires_ms - keeper.wall_ms(now)) / 1000
                return Running(
                    FIRST_RESTORED + number, record_of(record), lane, expires, include_late,
                    stored=number, deadline_ms=deadline_ms, expires_ms=expires_ms,
                )  # fmt: skip
            case _:
                raise ValueError("it is not what this version writes")

    def member_of(self, entry: Entry, running: Running) -> Member:
        """Add the member that an entry is of to its fan-out.

        Raises:
            ProtocolError, ValueError: it is not what this version writes.
        """
        match unpacked(entry.value):
            case [
                1, bytes(node), str(name), str(state), str(reason), str() | None as failure,
                int(attempts),
            ]:  # fmt: skip
                place = int.from_bytes(entry.key.removeprefix(_MEMBER))
                member = running.add(NodeId(node), name, place)
                member.state, member.reason = MemberState(state), reason
                member.failure = None if failure is None else FailureKind(failure)
                member.attempts = attempts
                running.open -= member.state is not MemberState.PENDING
                return member
            case _:
                raise ValueError("it is not what this version writes")


def restored_number(entry: Entry) -> int:
    """Return the number of the fan-out that an entry belongs to."""
    return FIRST_RESTORED + int(entry.name, 16)


def _name(number: int) -> str:
    return f"{number:011x}"


def _message_entry(running: Running) -> Entry:
    kept = [
        _VERSION, running.stored, flat(running.record), running.lane, running.deadline_ms,
        running.expires_ms, running.include_late,
    ]  # fmt: skip
    return Entry(EntryKind.FAN_OUT, _name(running.stored), _MESSAGE, packed(kept))


def _member_entry(running: Running, member: Member) -> Entry:
    state = member.outcome or member.state
    failure = None if member.failure is None else member.failure.value
    reason = "" if state is MemberState.ACCEPTED else member.reason
    kept: list[object] = [
        _VERSION, member.node, member.name, state.value, reason, failure, member.attempts,
    ]  # fmt: skip
    key = _MEMBER + member.place.to_bytes(4)
    return Entry(EntryKind.FAN_OUT, _name(running.stored), key, packed(kept))
