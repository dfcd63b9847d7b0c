"""What a transport counts."""

from dataclasses import dataclass, fields

from zmesh.ports import TransportStatistics


@dataclass(slots=True)
class Counters:
    """The growing half of `TransportStatistics`; each field is described there."""

    packets_sent: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    bytes_received: int = 0
    packets_full: int = 0
    packets_unroutable: int = 0
    dials: int = 0
    dials_wrong_key: int = 0
    inbound_accepted: int = 0
    inbound_unseen: int = 0
    handshakes: int = 0
    handshakes_failed: int = 0
    handshakes_abandoned: int = 0
    handshakes_refused: int = 0
    inbound_ended: int = 0
    inbound_broken: int = 0
    inbound_shut_out: int = 0
    packets_ignored: int = 0
    watchdog_rescues: int = 0

    def frozen(self) -> TransportStatistics:
        """Return the counters as they are now."""
        return TransportStatistics(
            **{field.name: getattr(self, field.name) for field in fields(self)}
        )
