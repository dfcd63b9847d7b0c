"""Signing what a node sends: which messages, for how long, and under which numbers."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from zmesh.errors import InvalidOption, UsageError
from zmesh.ids import NODE_ID_BYTES, JournalId, NodeId
from zmesh.message import Kind, Record, Tag, with_extra, with_target
from zmesh.options import NodeOptions
from zmesh.security.node_key import NodeKey
from zmesh.security.signing import Addressing, Signer, signature_in

Seal = Callable[[Record], Record]
"""Returns a record for one of its targets, signed where it is to be."""


class Sign(Protocol):
    """Signs records before they are compressed, and with all else they have."""

    def __call__(self, records: Sequence[Record]) -> list[Record]:
        """Return the records with their signatures, made for those that go together."""
        ...


_KIND: Final = 0b1111

LIFE_BITS: Final = 40
"""Counters of one life of a node: its incarnation is above them, so no other life has the same."""

LIVES: Final = 1 << 24
"""Incarnations that fit above. Copies and rescues skip a million each, so they come round; but
each has another journal, in which counters begin anew."""


class Signing:
    """Signs the messages of one node.

    Args:
        key: of the node; None where its journal is from before there were node keys.
        journal: its journal.
        incarnation: which life of the node this is.
        options: `signature_valid_for`.
        is_default: whether messages are signed that say nothing of it.
        wall_ms: returns what the wall clock reads.
    """

    def __init__(
        self,
        key: NodeKey | None,
        journal: JournalId,
        incarnation: int,
        options: NodeOptions,
        *,
        is_default: bool,
        wall_ms: Callable[[], int],
    ) -> None:
        self.signed = 0
        self._key = key
        self._journal = journal
        self._counter = incarnation % LIVES << LIFE_BITS
        self._valid_for = options.signature_valid_for
        self._is_default = is_default
        self._wall_ms = wall_ms

    def is_wanted(self, sign: bool | None) -> bool:
        """Return whether a message is to be signed: as said, or as the node does.

        Raises:
            InvalidOption: it says neither yes nor no.
        """
        if sign is not None and type(sign) is not bool:
            raise InvalidOption("sign", sign, "True or False, or None for what the node does")
        return self._is_default if sign is None else sign

    def for_target(
        self,
        sign: bool | None,
        lane: int,
        key: str | None = None,
        ttl: float | None = None,
        delay: float = 0.0,
    ) -> Sign | None:
        """Return what signs messages for the targets of their records; None where nothing does.

        Args:
            sign: what the message says.
            lane: the priority.
            key: that orders them.
            ttl: seconds after which they are not worth handling, if they ever are.
            delay: seconds before they may be handled.
        """
        if not self.is_wanted(sign):
            return None
        lasts = self._valid_for + delay if ttl is None else ttl
        return self._sign(Addressing.TARGET, lane, None, key, lasts)

    def for_node(self, node: NodeId, lane: int, key: str | None, ttl: float | None) -> Sign:
        """Return what signs direct messages for one node."""
        lasts = self._valid_for if ttl is None else ttl
        return self._sign(Addressing.NODE, lane, node.hex(), key, lasts)

    def for_name(self, to: str, lane: int, key: str | None, ttl: float | None) -> Sign:
        """Return what signs direct messages for whoever has a name, or id, when they arrive."""
        try:
            node = bytes.fromhex(to)
        except ValueError:
            node = b""
        if len(node) == NODE_ID_BYTES:
            return self.for_node(NodeId(node), lane, key, ttl)
        lasts = self._valid_for if ttl is None else ttl
        return self._sign(Addressing.NAME, lane, to, key, lasts)

    def _sign(
        self, addressing: Addressing, lane: int, to: str | None, key: str | None, lasts: float
    ) -> Sign:
        if self._key is None:
            raise UsageError(
                "this node cannot sign: its journal is from before nodes had keys; begin a new one"
            )
        signer = Signer(self._key, self._journal, addressing, lane, to, key)
        lasts_ms = max(1, round(lasts * 1000))

        def sign(records: Sequence[Record]) -> list[Record]:
            first, now_ms = self._counter + 1, self._wall_ms()
            self._counter += len(records)
            self.signed += len(records)
            return signer.sign_all(records, first, now_ms, now_ms + lasts_ms)

        return sign


def signed(record: Record, sign: Sign | None) -> Record:
    """Return the record with a signature, where it is to have one."""
    return record if sign is None else sign((record,))[0]


def sealing(plain: Record, sign: Sign | None) -> Seal:
    """Return what signs a record for each of its targets, where it is to be signed.

    Args:
        plain: the record before it was compressed.
        sign: signs it.
    """

    def seal(record: Record) -> Record:
        if sign is None:
            return record
        to_be_signed = with_target(plain, Kind(record[0] & _KIND), record[1])
        return with_extra(record, Tag.SIGNATURE, signature_in(sign((to_be_signed,))[0]))

    return seal
