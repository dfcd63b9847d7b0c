"""The order of messages of one key: on its way to a peer each names those before it.

Within a lane the numbers keep the order, so only what went on other lanes is named.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from zmesh.message import Record, Tag, with_extra
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

    def write(self, lane: int, records: Sequence[Record], key: str) -> list[Record]:
        """Return records of a key with it, and who of the same key came before on other lanes.

        Each names each other lane, not just the last: any of them may expire while what came
        before it is still on its way.
        """
        keyed = [with_extra(record, Tag.KEY, key) for record in records]
        before = tuple(
            (other, seq)
            for other, seq in sorted(self._last.get(key, {}).items())
            if other != lane and self._outgoing[other].first_open <= seq
        )
        if before:
            return [with_extra(record, Tag.PREDECESSORS, before) for record in keyed]
        return keyed

    def write_each(
        self, lane: int, records: Sequence[Record], keys: Sequence[str | None]
    ) -> list[Record]:
        """Do so for records with a key each, some with none."""
        if len(self._outgoing) > 1:
            return [
                record if key is None else self.write(lane, [record], key)[0]
                for record, key in zip(records, keys, strict=True)
            ]
        return [
            record
            if key is None
            else (record[0], record[1], record[2], (_KEY, key))
            if len(record) == 3
            else with_extra(record, Tag.KEY, key)
            for record, key in zip(records, keys, strict=True)
        ]

    def note(self, lane: int, seq: int, key: str) -> None:
        """Remember the last number of the key on the lane, and forget keys that are done."""
        self._last.setdefault(key, {})[lane] = seq
        if len(self._last) >= self._max:
            self._last = {
                known: last
                for known, last in self._last.items()
                if any(self._outgoing[number].is_open(seq) for number, seq in last.items())
            }
            self._max = max(KEYS_MIN, 2 * len(self._last))

    def note_each(self, lane: int, first: int, keys: Sequence[str | None]) -> None:
        """Do so for numbers from `first` on, with a key each."""
        for key, seq in dict(zip(keys, range(first, first + len(keys)), strict=True)).items():
            if key is not None:
                self.note(lane, seq, key)


_KEY: Final = int(Tag.KEY)
