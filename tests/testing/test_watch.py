from zmesh.ids import JournalId, LinkId, MeshTag, NodeId, SessionId
from zmesh.message import Record
from zmesh.options import LinkOptions
from zmesh.testing.findings import Findings, Rule
from zmesh.testing.watch import WireWatch
from zmesh.wire.frames import Ack, Data, Frame, Hello, LaneState, Packet, Ping, Welcome

LINK = LinkId(b"l" * 8)
A, B = NodeId(b"a" * 16), NodeId(b"b" * 16)
JOURNAL, OLD, FRESH = JournalId(b"j" * 16), SessionId(b"o" * 16), SessionId(b"f" * 16)
OPTIONS = LinkOptions(window_messages=4, window_bytes=1000)
RECORD: Record = (0, "", b"x" * 84)  # counts 100 bytes


class Wire:
    """a calls b; what the watch finds."""

    def __init__(self, *, calm: bool = False) -> None:
        self.findings = Findings()
        self.watch = WireWatch(OPTIONS, self.findings, None, calm=calm)

    def link(self, *, resume: SessionId | None = None, limit: int = 4) -> None:
        lanes = (LaneState(0, 1, 0, (), limit, 1000),)
        mesh = MeshTag(b"m" * 8)
        self.a(Hello(mesh, A, B, "a", 1, JOURNAL, 1, resume, FRESH, (), lanes))
        welcome = Welcome(B, "b", 1, JOURNAL, 1, 0, FRESH, (), lanes)
        packet = Packet(LINK, 0, (welcome,))
        self.watch.on_sent("b1", 0, packet, 0.0, 0.0)
        self.watch.on_read("a1", 1, packet, 0.0, 0.0)

    def a(self, *frames: Frame, at: float = 0.0) -> None:
        self.watch.on_sent("a1", 1, Packet(LINK, 1, frames), at, at)

    def data(self, first: int, count: int, at: float = 0.0) -> None:
        self.a(Data(0, first, (RECORD,) * count), at=at)

    def ack(self, seq_limit: int, bytes_limit: int, at: float = 0.0) -> None:
        packet = Packet(LINK, 1, (Ack(1, 0, (), ((0, seq_limit, bytes_limit),)),))
        self.watch.on_read("a1", 1, packet, at, at)

    @property
    def rules(self) -> list[Rule]:
        return [violation.rule for violation in self.findings.first]


def test_data_within_credit_is_fine_and_beyond_is_not() -> None:
    wire = Wire()
    wire.link()
    wire.data(1, 4)
    assert wire.rules == []
    wire.data(5, 1)
    assert wire.rules == [Rule.CREDIT]
    wire.ack(20, 1000)
    wire.data(6, 5)
    assert wire.rules == [Rule.CREDIT]
    wire.data(11, 1)  # in bytes
    assert wire.rules == [Rule.CREDIT] * 2


def test_sending_again_costs_no_credit_and_is_wrong_where_nothing_went_wrong() -> None:
    for calm in (False, True):
        wire = Wire(calm=calm)
        wire.link()
        wire.data(1, 4)
        wire.data(1, 4)
        assert wire.rules == ([Rule.RESENT] if calm else [])
        assert wire.watch.resent == 4


def test_lanes_of_another_session_grant_nothing() -> None:
    wire = Wire()
    lanes = (LaneState(0, 1, 0, (), 100, 100_000),)
    wire.a(Hello(MeshTag(b"m" * 8), A, B, "a", 1, JOURNAL, 1, OLD, FRESH, (), lanes))
    welcome = Packet(LINK, 0, (Welcome(B, "b", 1, JOURNAL, 1, 0, FRESH, (), lanes),))
    wire.watch.on_sent("b1", 0, welcome, 0.0, 0.0)
    data = Packet(LINK, 1, (Data(0, 1, (RECORD,) * 5),))
    wire.watch.on_sent("b1", 0, data, 0.0, 0.0)
    assert wire.rules == [Rule.CREDIT]


def test_data_without_a_handshake_is_wrong() -> None:
    wire = Wire()
    wire.data(1, 1)
    assert wire.rules == [Rule.IDENTITY]


def test_pings_into_silence_may_be_few_and_an_answer_begins_anew() -> None:
    wire = Wire()
    wire.link()
    for number in range(8):
        wire.a(Ping(number))
    wire.ack(4, 1000)
    for number in range(8):
        wire.a(Ping(number))
    assert wire.rules == []
    for number in range(8):
        wire.a(Ping(number))
    assert wire.rules == [Rule.FLOOD]
