"""What a node tells of itself: what it counted, and what was open when it closed."""

from dataclasses import dataclass

from zmesh.core.engine_statistics import EngineStatistics
from zmesh.ports import TransportStatistics
from zmesh.reliable.link_statistics import LinkStatistics
from zmesh.storage import JournalStatistics


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What was still open when a node closed: nothing, where the drain had time enough."""

    unsettled_out: (
        int  # messages and calls of ours without outcome; a call and its request are two
    )
    unsettled_in: int  # messages we had not settled
    jobs_waiting: int = 0  # of what is out: jobs of ours that were with nobody
    stored: int = 0  # direct messages on disk, with a peer or not: another life goes on with them


@dataclass(frozen=True, slots=True)
class NodeStatistics:
    """What a node counted since it opened, and what it holds now."""

    engine: EngineStatistics
    transport: TransportStatistics
    links: dict[str, LinkStatistics]  # by the peer's id, as hex
    open_receipts: int
    open_calls: int
    open_streams: int  # opened here
    open_fan_outs: int
    open_surveys: int
    unread: int  # messages in the inbox
    subscriptions: int
    exchanges: int  # declared, here or elsewhere
    unroutable: int  # messages that exchanges dropped
    declarations_refused: int  # in the table of exchanges, and none
    compressed: int  # bodies sent
    compression_saved_bytes: int
    signed: int  # messages, by this node
    verified: int  # signatures that held
    replay_blocks: int  # of `replay_blocks_max`: what is remembered of signed messages
    signed_batches: int  # of `signed_batches_max`: remembered as verified
    audited: dict[str, int]  # events of the audit log, by kind
    journal: JournalStatistics | None = None  # of a node with storage
