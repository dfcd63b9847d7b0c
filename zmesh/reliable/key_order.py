"""The order of messages of one key: on its way to a peer each names those before it.

Within a lane the numbers keep the order, so only what went on other lanes is named.
"""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Final

from zmesh.message import Keys, Predecessors, Record, Tag, with_extra
from zmesh.reliable.sender import OutgoingLane

KEYS_MIN: Final = 1024
"""So many keys are remembered before those that are done are looked for."""


class KeyOrder:
    """The keys of what was submitted to one peer.

    Args:
        outgoing: the lanes to it.
    """

    def __init__(self, outgoing: Mapping[int, OutgoingLane]) -> None:
        self._outgoing = outgoing
        self._last: dict[str, dict[int, int]] = {}  # key -> lane -> last number with it
        self._max = KEYS_MIN  # when to look for keys that are done

    def __len__(self) -> int:
        """Count the keys that are remembered."""
        return len(self._last)

    def write(self, lane: int, records: Sequence[Record], key: Keys) -> Sequence[Record]:
        """Return records with their key, and who of the same key came before on other lanes.

        Each names each other lane, not just the last: any of them may expire while what came
        before it is still on its way.
        """
        if key is None:
            return records
        keys = repeat(key, len(records)) if isinstance(key, str) else key
        if len(self._outgoing) == 1:
            return [_with_key(record, own) for record, own in zip(records, keys, strict=True)]
        all_keys = {key} if isinstance(key, str) else set(key)
        before = {own: self._before(lane, own) for own in all_keys}
        return [
            with_extra(_with_key(record, own), Tag.PREDECESSORS, before[own])
            if before[own]
            else _with_key(record, own)
            for record, own in zip(records, keys, strict=True)
        ]

    def _before(self, lane: int, key: str | None) -> Predecessors:
        last = None if key is None else self._last.get(key)
        if last is None:
            return ()
        return tuple(
            (other, seq)
            for other, seq in sorted(last.items())
            if other != lane and self._outgoing[other].first_open <= seq
        )

    def note(self, lane: int, ends: Sequence[int], key: Keys) -> None:
        """Remember the last number of each key on the lane: `ends` are those of the records."""
        if isinstance(key, str):
            self._note(lane, ends[-1], key)
        elif key is not None:
            for own, seq in dict(zip(key, ends, strict=True)).items():
                if own is not None:
                    self._note(lane, seq, own)

    def _note(self, lane: int, seq: int, key: str) -> None:
        """Remember a number, and forget keys that are done."""
        self._last.setdefault(key, {})[lane] = seq
        if len(self._last) >= self._max:
            self._last = {
                known: last
                for known, last in self._last.items()
                if any(self._outgoing[number].is_open(seq) for number, seq in last.items())
            }
            self._max = max(KEYS_MIN, 2 * len(self._last))


_KEY: Final = int(Tag.KEY)


def _with_key(record: Record, key: str | None) -> Record:
    if key is None:
        return record
    if len(record) == 3:
        return (record[0], record[1], record[2], (_KEY, key))
    return with_extra(record, Tag.KEY, key)
