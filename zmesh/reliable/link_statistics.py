"""What a link counts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """Counters of a link since it was made, and what it holds now."""

    packets_sent: int
    packets_received: int
    packets_stale: int
    packets_lost: int
    retransmitted: int
    duplicates: int
    defects: int
    links: int
    queued_messages: int
    queued_bytes: int
    held_messages: int
    held_bytes: int
    bytes_in_flight: int
