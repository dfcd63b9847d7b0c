"""Which hubs an edge dials, where it is not to have links with all it sees. Pure."""

from math import floor

from zmesh.discovery.pursuit import Phase, Pursuit
from zmesh.ids import Entropy


class HubPlaces:
    """An edge's places for hubs: who has none waits until one is free.

    Which of those that wait is dialed then is left to chance, so that edges that see the same
    hubs do not all take the same ones. Hubs that were written down need no place.

    Args:
        places_max: hubs that are dialed or linked at once.
        entropy: for the choice.
    """

    def __init__(self, places_max: int, entropy: Entropy) -> None:
        self._places_max = places_max
        self._entropy = entropy
        self._taken: dict[int, Pursuit] = {}  # by the candidate's serial
        self._waiting: dict[int, Pursuit] = {}

    def take(self, pursuit: Pursuit) -> bool:
        """Return whether a hub may be dialed now; else it waits."""
        serial = pursuit.candidate.serial
        if pursuit.candidate.is_pinned:
            return True
        if serial in self._taken or self._has_room():
            self._waiting.pop(serial, None)
            self._taken[serial] = pursuit
            return True
        self._waiting[serial] = pursuit
        return False

    def leave(self, pursuit: Pursuit) -> None:
        """Forget a hub."""
        self._taken.pop(pursuit.candidate.serial, None)
        self._waiting.pop(pursuit.candidate.serial, None)

    def freed(self) -> Pursuit | None:
        """Return a hub that waits no longer, for there is a place: begin with it now."""
        if not self._waiting or not self._has_room():
            return None
        serials = list(self._waiting)
        index = floor(self._entropy.uniform(0.0, len(serials)))
        return self._waiting.pop(serials[min(index, len(serials) - 1)])

    def _has_room(self) -> bool:
        """Whether there is a place: who is neither dialed nor linked any more has none."""
        self._taken = {
            serial: pursuit
            for serial, pursuit in self._taken.items()
            if pursuit.phase is not Phase.RESTING
        }
        return len(self._taken) < self._places_max
