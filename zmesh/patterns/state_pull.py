"""One replica gets from another what it lacks: sums of buckets first, then what differs in them.

The one asked keeps nothing between two questions, so a pull can end anywhere without harm.
"""

from typing import Final

from zmesh.errors import ProtocolError
from zmesh.ids import NodeId
from zmesh.patterns.shared_map import ReplicaMap, digest_of
from zmesh.patterns.state_records import Digest, Fetch, Piece

BUCKETS_MAX: Final = 16
KNOWN_MAX: Final = 2048
"""Buckets and digests in one request: what is known is told again with each piece."""


class Pull:
    """Leads the questions of one pull; the replica takes the entries.

    Args:
        number: told with every question, and repeated in the answers.
        peer: who is asked.
        own: the map to be completed.
    """

    def __init__(self, number: int, peer: NodeId, own: ReplicaMap) -> None:
        self.number = number
        self.peer = peer
        self._map = own
        self.digest: Digest | None = None
        self.is_clean = True  # everything that came was taken, or is known to be outdated
        self._todo: list[int] = []
        self._asked: list[int] = []
        self._came: set[int] = set()  # digests, of what was not taken as well
        self._keys: set[str] = set()

    def on_digest(self, digest: Digest) -> Fetch | None:
        """Take the first answer; return the next question, None where the pull is complete.

        Raises:
            ProtocolError: it was answered before.
        """
        if self.digest is not None:
            raise ProtocolError("malformed", "a question about a map is answered twice")
        self.digest = digest
        self._todo = self._map.differing(digest.sums) if digest.sums else []
        return self._next()

    def on_piece(self, piece: Piece) -> tuple[list[str], Fetch | None]:
        """Take what `Fetch` brought, after its entries were taken.

        Return the keys that are to be dropped, because the other has seen them and has them no
        more; and the next question, None where the pull is complete.

        Raises:
            ProtocolError: it was not asked for, or brings nothing though there is said to be more.
        """
        if self.digest is None or not self._asked:
            raise ProtocolError("malformed", "a piece of a map that was not asked for")
        before = len(self._came)
        self._came.update(digest_of(key, entry) for key, entry in piece.entries)
        self._keys.update(key for key, _ in piece.entries)
        if piece.more:
            if len(self._came) == before:
                raise ProtocolError("malformed", "a piece brings nothing new, and says more")
            return [], self._fetch()
        outdated = self._map.outdated(self._asked, piece.absent, self.digest.seen)
        return [key for key in outdated if key not in self._keys], self._next()

    def _next(self) -> Fetch | None:
        self._asked, known = [], 0
        self._came.clear()
        self._keys.clear()
        while self._todo:
            known += len(self._map.digests(self._todo[-1]))
            if self._asked and (known > KNOWN_MAX or len(self._asked) == BUCKETS_MAX):
                break
            self._asked.append(self._todo.pop())
        return self._fetch() if self._asked else None

    def _fetch(self) -> Fetch:
        known = set(self._came)
        for bucket in self._asked:
            known.update(self._map.digests(bucket))
        return Fetch(self.number, tuple(self._asked), frozenset(known))


def answer(own: ReplicaMap, fetch: Fetch, bytes_max: int) -> Piece:
    """Return the answer to a request."""
    entries, more = own.missing(fetch.buckets, fetch.known, bytes_max)
    if more:
        return Piece(fetch.number, more, entries)
    absent = own.absent(fetch.buckets, fetch.known)
    return Piece(fetch.number, more, entries, frozenset(absent))
