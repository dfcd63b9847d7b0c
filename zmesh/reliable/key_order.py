"""The order of a key over the lanes of a session: who of the same key came before.

Within a lane the numbers keep it. Messages of one key on several lanes name those of the others.
"""

from collections.abc import Mapping, Sequence

from zmesh.message import Record, Tag, with_extra
from zmesh.reliable.sender import OutgoingLane

KEYS_MIN = 1024
"""So many keys are remembered before those that are done are looked for."""


class KeyOrder:
    """The last number of each key on each lane.

    Args:
        outgoing: the lanes, by number.
    """

    def __init__(self, outgoing: Mapping[int, OutgoingLane]) -> None:
        self._outgoing = outgoing
        self._keys: dict[str, dict[int, int]] = {}  # key -> lane -> last number with it
        self._keys_max = KEYS_MIN  # when to look for keys that are done

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._keys)

    def keyed(self, lane: int, records: Sequence[Record], key: str) -> list[Record]:
        """Write the key, and who of the same key came before on other lanes.

        Each record names each other lane, not just the last: any of them may expire while what
        came before it is still on its way.
        """
        keyed = [with_extra(record, Tag.KEY, key) for record in records]
        before = tuple(
            (other, seq)
            for other, seq in sorted(self._keys.get(key, {}).items())
            if other != lane and self._outgoing[other].first_open <= seq
        )
        if before:
            return [with_extra(record, Tag.PREDECESSORS, before) for record in keyed]
        return keyed

    def note(self, key: str, lane: int, seq: int) -> None:
        """Remember the last number of the key on the lane, and forget keys that are done."""
        self._keys.setdefault(key, {})[lane] = seq
        if len(self._keys) >= self._keys_max:
            self._keys = {
                known: last
                for known, last in self._keys.items()
                if any(self._outgoing[number].is_open(seq) for number, seq in last.items())
            }
            self._keys_max = max(KEYS_MIN, 2 * len(self._keys))
