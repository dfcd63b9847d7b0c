"""What producers and consumers of a queue tell each other: who has jobs, and who has room.

Credit as in AMQP 1.0 section 2.6.7: all counts are absolute, so it does not matter which of them
overtakes a job on another lane, or is told twice. They count within one *relation* of a producer
with a consumer, which the producer numbers, and begins anew whenever the two lost touch.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from zmesh.message import Kind, Record, head

_HEAD: Final = head(Kind.JOB_CONTROL)
_OFFER: Final = Struct(">BQQQQ")
_GRANT: Final = Struct(">BQQB")
_OFFER_CODE: Final = 1
_GRANT_CODE: Final = 2


@dataclass(frozen=True, slots=True)
class Offer:
    """A producer tells a consumer what it has, and gives back what it does not need.

    Args:
        queue: the queue.
        relation: what the counts belong to.
        limit: the highest limit it was granted.
        returned: how many of these grants it gave back.
        waiting: how many jobs it has beyond its grants.
    """

    queue: str
    relation: int
    limit: int
    returned: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A consumer lets a producer send.

    Args:
        queue: the queue.
        relation: what the limit belongs to.
        limit: how many jobs in all.
        recalls: whether grants that are not used at once are to be given back.
    """

    queue: str
    relation: int
    limit: int
    recalls: bool


def encode(control: Offer | Grant) -> Record:
    """Return the record that carries it."""
    if isinstance(control, Offer):
        counts = (control.limit, control.returned, control.waiting)
        return (_HEAD, control.queue, _OFFER.pack(_OFFER_CODE, control.relation, *counts))
    body = _GRANT.pack(_GRANT_CODE, control.relation, control.limit, control.recalls)
    return (_HEAD, control.queue, body)


def decode(record: Record) -> Offer | Grant | None:
    """Return what a record carries; None where it is none of these."""
    _, queue, body = record[:3]
    if len(body) == _OFFER.size and body[0] == _OFFER_CODE:
        _, relation, limit, returned, waiting = _OFFER.unpack(body)
        return Offer(queue, relation, limit, returned, waiting)
    if len(body) == _GRANT.size and body[0] == _GRANT_CODE:
        _, relation, limit, recalls = _GRANT.unpack(body)
        return Grant(queue, relation, limit, bool(recalls))
    return None
