"""What tests of the asyncio face share: deliveries, and settlements without a runner."""

from zmesh.actions import Delivery
from zmesh.events import Event, SettleDeliveries, Source
from zmesh.face.verdicts import Settlements
from zmesh.ids import NodeId
from zmesh.message import Encoding, Kind, Outcome, Record, head
from zmesh.wire.bodies import encode_body

PRINTER = NodeId(b"printer-0123456!")
SOURCE = Source(PRINTER, b"session-00000001", 4)


def record_of(body: object, kind: Kind = Kind.DIRECT, target: str = "") -> Record:
    encoding, data = encode_body(body)
    return (head(kind, encoding), target, data)


def delivery_of(first_seq: int, bodies: list[object], source: Source = SOURCE) -> Delivery:
    records = [record_of(body) for body in bodies]
    return Delivery(source, "printer", first_seq, first_seq + len(bodies) - 1, records)


def raw_delivery(first_seq: int, count: int, source: Source = SOURCE) -> Delivery:
    records: list[Record] = [(head(Kind.DIRECT, Encoding.RAW), "", b"x")] * count
    return Delivery(source, "printer", first_seq, first_seq + count - 1, records)


class Verdicts:
    """Settlements that note when somebody wanted them taken."""

    def __init__(self) -> None:
        self.soon = 0
        self.now = 0
        self.later = 0
        self.settlements = Settlements(self._on_soon, self._on_later, self._on_now)

    def _on_soon(self) -> None:
        self.soon += 1

    def _on_later(self) -> None:
        self.later += 1

    def _on_now(self) -> None:
        self.now += 1

    def take(self) -> list[tuple[int, int, Outcome]]:
        """Return what was settled since, as `(first_seq, last_seq, outcome)`."""
        return [short_of(verdict) for verdict in self.settlements.take()]


def short_of(verdict: SettleDeliveries) -> tuple[int, int, Outcome]:
    return verdict.first_seq, verdict.last_seq, verdict.outcome


class Noting:
    """Notes commands; the engine has each at once, unless they are held."""

    def __init__(self) -> None:
        self.commands: list[Event] = []
        self.holds = False  # commands wait, so that more may join the last

    def command(self, event: Event) -> None:
        self.commands.append(event)

    @property
    def last(self) -> Event | None:
        return self.commands[-1] if self.holds and self.commands else None

    def hold(self) -> None:
        pass

    def let_go(self) -> None:
        pass
