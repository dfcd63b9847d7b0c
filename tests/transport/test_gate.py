"""Which connections of strangers are too many."""

import pytest

from tests.transport.peer import options
from zmesh.transport.gate import Gate, Refusal

MANY = 1_000_000
HERE = "tcp://127.0.0.1:1"


class Bench:
    """A gate, and descriptors for who comes."""

    def __init__(self, *, curve: bool = True, **bounds: float) -> None:
        self.gate = Gate(options(**bounds), counts_addresses=curve)
        self.last = 10
        self.now = 100.0

    def accept(
        self, address: str = "a", listener: str = HERE, most: int = MANY
    ) -> tuple[int, str, Refusal] | None:
        self.last += 1
        return self.gate.on_accepted(self.last, address, listener, self.now, most)

    def admit(self, address: str = "a") -> bool:
        admitted = self.gate.on_admitted(address, self.now)
        self.gate.on_settled()
        return admitted


def test_who_finishes_its_handshake_is_not_counted_any_more() -> None:
    bench = Bench(handshakes_max=2, address_handshakes_max=2)
    for _ in range(10):
        assert bench.accept() is None
        assert bench.admit()
    assert bench.gate.under_way == 0
    assert bench.gate.connections == 10


def test_handshakes_under_way_are_bounded_for_each_address() -> None:
    bench = Bench(address_handshakes_max=3)
    for _ in range(3):
        assert bench.accept("a") is None
    assert bench.accept("a") == (14, "a", Refusal.ADDRESS)
    assert bench.accept("b") is None
    bench.gate.on_ended(14, in_handshake=True)  # which was shut
    assert bench.gate.on_ended(11, in_handshake=True) == "a"
    assert bench.accept("a") is None
    assert bench.accept("a") == (17, "a", Refusal.ADDRESS)


def test_handshakes_a_second_are_bounded_for_each_address() -> None:
    bench = Bench(address_handshakes_per_second=2.0, address_handshakes_burst=3)
    for _ in range(3):
        assert bench.accept("a") is None
        assert bench.admit("a")
    assert bench.accept("a") == (14, "a", Refusal.RATE)
    assert bench.accept("b") is None
    bench.now += 0.5
    assert bench.accept("a") is None
    assert bench.accept("a") == (17, "a", Refusal.RATE)
    bench.now += 1000.0
    answers = [bench.accept("a") for _ in range(4)]
    assert [each is None for each in answers] == [True, True, True, False]


def test_a_flood_pushes_out_its_own_oldest_and_nobody_who_was_admitted() -> None:
    bench = Bench(handshakes_max=3)
    assert bench.accept("peer") is None  # 11
    assert bench.admit("peer")
    assert bench.accept("x") is None  # 12
    assert bench.accept("y") is None
    assert bench.accept("z") is None
    assert bench.accept("newcomer") == (12, "x", Refusal.ALL)
    assert bench.accept("peer") == (13, "y", Refusal.ALL)
    assert bench.gate.under_way == 3


def test_where_all_are_of_members_the_newest_goes() -> None:
    bench = Bench(handshakes_max=1)
    assert bench.accept("peer") is None
    assert bench.admit("peer")
    assert bench.accept("peer") is None
    assert bench.accept("peer") == (13, "peer", Refusal.ALL)


def test_without_a_handler_to_ask_only_all_are_counted_and_the_newest_goes() -> None:
    bench = Bench(curve=False, handshakes_max=2, address_handshakes_max=1)
    assert bench.accept() is None
    assert bench.accept() is None
    assert bench.accept() == (13, "a", Refusal.ALL)
    bench.gate.on_ended(13, in_handshake=True)
    bench.gate.on_settled()
    assert bench.accept() is None


def test_connections_are_bounded_where_who_passed_curve_asks() -> None:
    bench = Bench(inbound_max=2)
    for _ in range(2):
        assert bench.accept() is None
        assert bench.admit()
    assert bench.accept() is None
    assert not bench.admit()
    bench.gate.on_ended(13, in_handshake=False)
    bench.gate.on_ended(12, in_handshake=False)
    assert bench.accept() is None
    assert bench.admit()


def test_connections_are_bounded_at_once_where_nobody_asks() -> None:
    bench = Bench(curve=False, inbound_max=1)
    assert bench.accept() is None
    bench.gate.on_settled()
    assert bench.accept() == (12, "a", Refusal.INBOUND)


def test_some_descriptors_are_kept_for_ourselves() -> None:
    bench = Bench(descriptors_spare=4)
    assert bench.accept(most=16) is None  # 11
    assert bench.accept(most=16) == (12, "a", Refusal.DESCRIPTORS)


def test_who_was_admitted_before_its_connection_was_heard_of_is_counted_once() -> None:
    bench = Bench(address_handshakes_max=1)
    assert bench.admit("a")
    assert bench.accept("a") is None
    assert bench.accept("a") is None
    assert bench.accept("a") == (13, "a", Refusal.ADDRESS)


def test_what_came_to_an_endpoint_ends_with_it() -> None:
    bench = Bench()
    bench.accept("a", HERE)
    bench.accept("a", "tcp://[::1]:1")
    bench.gate.on_unbound(HERE)
    assert (bench.gate.connections, bench.gate.under_way) == (1, 1)
    assert bench.gate.on_ended(11, in_handshake=False) == ""  # told late
    bench.gate.on_unbound("tcp://[::1]:1")
    assert (bench.gate.connections, bench.gate.under_way) == (0, 0)


@pytest.mark.parametrize("told", ["", "tcp://", "nowhere", "tcp://127.0.0.1:0"])
def test_an_endpoint_that_is_none_ends_nothing(told: str) -> None:
    bench = Bench()
    bench.accept()
    bench.gate.on_unbound(told)
    assert bench.gate.connections == 1


@pytest.mark.parametrize(
    ("listener", "endpoint"),
    [
        ("tcp://0.0.0.0:1", "tcp://192.168.1.5:1"),
        ("tcp://[::]:1", "tcp://[::ffff:127.0.0.1]:1"),
        ("tcp://[::]:1", "tcp://[fe80::5%eth0]:1"),
    ],
)
def test_what_came_to_any_address_ends_with_listening_on_all(listener: str, endpoint: str) -> None:
    bench = Bench()
    for _ in range(3):
        bench.accept("a", endpoint)
    bench.admit("a")
    bench.accept("a", "tcp://127.0.0.1:2")
    bench.gate.on_unbound(listener)
    assert (bench.gate.connections, bench.gate.under_way) == (1, 1)


def test_a_descriptor_that_comes_again_is_another_connection() -> None:
    bench = Bench()
    bench.accept("a")
    bench.admit("a")
    bench.last -= 1
    bench.accept("b")
    assert bench.gate.connections == 1
    assert bench.gate._strangers["a"].connections == 0
    assert bench.gate._strangers["b"].connections == 1


def test_who_was_turned_away_for_want_of_room_may_come_again() -> None:
    bench = Bench(inbound_max=1, address_handshakes_max=2)
    assert bench.accept() is None
    assert bench.admit()
    for _ in range(5):
        assert bench.accept() is None
        assert not bench.admit()
        bench.gate.on_ended(bench.last, in_handshake=False)
    bench.accept("b")
    bench.admit("b")
    bench.gate.on_ended(11, in_handshake=False)  # there is room again
    bench.gate.on_ended(bench.last, in_handshake=False)
    assert bench.accept() is None
    assert bench.admit()


def test_addresses_without_connection_are_forgotten_and_the_others_are_not() -> None:
    bench = Bench(addresses_max=2, address_handshakes_burst=1)
    assert bench.accept("stays") is None
    for number in range(5):
        assert bench.accept(f"{number}") is None
        bench.gate.on_ended(bench.last, in_handshake=True)
    assert len(bench.gate._strangers) == 2
    refused = bench.accept("stays")
    assert refused is not None
    assert refused[2] is Refusal.RATE


@pytest.mark.parametrize("curve", [True, False])
def test_handshakes_that_ended_like_connections_do_not_add_up(curve: bool) -> None:
    bench = Bench(curve=curve, handshakes_max=3, address_handshakes_max=3)
    assert bench.accept("a") is None  # a member of the same address
    assert bench.admit("a") or not curve
    for _ in range(20):
        bench.now += 5.0
        assert bench.accept("a") is None
        bench.gate.on_ended(bench.last, in_handshake=False)
    for _ in range(20):  # and while others are as young
        assert bench.accept("a") is None
        bench.gate.on_ended(bench.last, in_handshake=False)
    assert bench.gate.under_way <= 1
    assert bench.accept("b") is None


def test_who_was_admitted_from_an_address_is_known() -> None:
    bench = Bench()
    bench.accept("a")
    assert bench.gate.is_unproven(11)
    bench.admit("a")
    assert not bench.gate.is_unproven(11)
    assert not bench.gate.is_unproven(999)


def test_counts_never_stay_below_nothing() -> None:
    bench = Bench()
    bench.gate.on_settled()
    assert bench.gate.under_way == 0
    bench.accept()
    assert bench.admit()
    bench.gate.on_ended(11, in_handshake=True)  # between the answer and the end of the handshake
    assert bench.gate._strangers["a"].under_way == 0


@pytest.mark.parametrize("refusal", Refusal)
def test_refusals_name_options(refusal: Refusal) -> None:
    assert hasattr(options(), refusal.value)


def test_who_was_shut_out_has_to_wait_before_it_connects_anew() -> None:
    gate = Gate(
        options(address_handshakes_burst=100, shut_out_handshakes=50), counts_addresses=True
    )
    for _ in range(2):
        gate.on_shut_out("a", 0.0)
    shut = gate.on_accepted(7, "a", "tcp://127.0.0.1:9", 0.0, 1024)
    assert shut is not None
    assert shut[2] is Refusal.RATE
    assert gate.on_accepted(8, "b", "tcp://127.0.0.1:9", 0.0, 1024) is None
    assert gate.on_accepted(9, "a", "tcp://127.0.0.1:9", 0.1, 1024) is None
