"""How often the audit log is told of strangers."""

from tests.transport.peer import options
from zmesh.actions import Audited, AuditKind
from zmesh.transport.auditing import Auditing

WRONG, FLOOD = AuditKind.WRONG_KEY, AuditKind.FLOODED


def bench(**bounds: float) -> tuple[Auditing, list[Audited]]:
    told: list[Audited] = []
    return Auditing(told.append, options(**bounds)), told


def test_an_address_is_told_of_once_in_a_while_for_each_kind() -> None:
    auditing, told = bench(audit_gap=10.0)
    for now in (100.1, 101.1, 109.9):
        auditing.tell(WRONG, "a", "it knocked", now)
    auditing.tell(FLOOD, "a", "it pushed", 109.9, "handshakes_max")
    auditing.tell(WRONG, "b", "it knocked", 109.9)
    assert told == [
        Audited(WRONG, endpoint="a", detail="it knocked"),
        Audited(FLOOD, endpoint="a", detail="it pushed", rule="handshakes_max"),
        Audited(WRONG, endpoint="b", detail="it knocked"),
    ]
    auditing.tell(WRONG, "a", "it knocked", 110.2)
    assert told[-1].detail == "it knocked, and 2 more like it since the last time"
    auditing.tell(WRONG, "a", "it knocked", 121.0)
    assert told[-1].detail == "it knocked"


def test_many_addresses_are_told_of_no_faster_than_allowed() -> None:
    auditing, told = bench(audits_per_second=2.0)
    for number in range(100):
        auditing.tell(WRONG, f"{number}", "", 100.0)
    assert len(told) == 2
    for number in range(100):
        auditing.tell(WRONG, f"{number}", "", 100.5)
    assert len(told) == 3
    auditing.tell(FLOOD, "a", "", 1000.0)
    assert len(told) == 4


def test_who_was_silent_longest_is_forgotten() -> None:
    auditing, told = bench(addresses_max=2, audit_gap=1000.0)
    for address in ("a", "b", "c", "a", "c"):
        auditing.tell(WRONG, address, "", 100.0)
    assert [event.endpoint for event in told] == ["a", "b", "c", "a"]
    assert len(auditing._told) == 2
