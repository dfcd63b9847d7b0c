"""What a link counts."""

from dataclasses import dataclass

from zmesh.reliable.recovery import Recovery
from zmesh.reliable.session import Session
from zmesh.reliable.writer import PacketWriter


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


@dataclass(slots=True)
class LinkCounters:
    """What a link counts itself; `snapshot` adds what its parts know."""

    packets_sent: int = 0
    packets_received: int = 0
    packets_stale: int = 0
    duplicates: int = 0  # in sessions that have ended
    defects: int = 0
    links: int = 0

    def snapshot(
        self, session: Session, recovery: Recovery, writer: PacketWriter
    ) -> LinkStatistics:
        """Return the numbers of now."""
        incoming = session.incoming.values()
        return LinkStatistics(
            packets_sent=self.packets_sent,
            packets_received=self.packets_received,
            packets_stale=self.packets_stale,
            packets_lost=recovery.packets_lost,
            retransmitted=writer.retransmitted,
            duplicates=self.duplicates + session.duplicates,
            defects=self.defects,
            links=self.links,
            queued_messages=session.queued_messages,
            queued_bytes=session.queued_bytes,
            held_messages=sum(lane.held_messages for lane in incoming),
            held_bytes=sum(lane.held_bytes for lane in incoming),
            bytes_in_flight=recovery.bytes_in_flight,
        )
