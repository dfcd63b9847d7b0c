from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reliable.pair import numbered, record
from tests.sizes import total_size
from zmesh.batches import Block, TicketRun
from zmesh.errors import ProtocolError
from zmesh.message import Outcome, Record, Tag, Ticket, extra, size_of
from zmesh.options import LinkOptions, WireLimits
from zmesh.reliable.fragments import Cutter
from zmesh.reliable.link_events import Returned
from zmesh.reliable.send_window import ControlQueue, SendWindow, control_size
from zmesh.reliable.sender import OutgoingLane
from zmesh.wire.frames import Control, Drain, Gap, Interest, Settle

LARGE = 10**9
CUTTER = Cutter(LinkOptions(), WireLimits())


def lane(
    seq_limit: int = LARGE, bytes_limit: int = LARGE, fragment_bytes: int = 3
) -> OutgoingLane:
    made = OutgoingLane(4, 8193, Cutter(LinkOptions(fragment_bytes=fragment_bytes), WireLimits()))
    made.grant(seq_limit, bytes_limit)
    return made


def take(
    subject: OutgoingLane, budget: int = LARGE, count_max: int = LARGE, now: float = 0.0
) -> tuple[int, list[bytes]] | None:
    chunk = subject.take(budget, count_max, now)
    if chunk is None:
        return None
    first, records, size = chunk
    assert size == total_size(records)
    return first, [bytes(item[2]) for item in records]


def sent(amount: int, tickets: int = 1) -> tuple[OutgoingLane, list[Ticket]]:
    """A lane that has transmitted `amount` records, submitted with some tickets in turn."""
    subject, made = lane(), [Ticket(amount) for _ in range(tickets)]
    for number in range(amount):
        subject.submit(numbered(1, number), made[number % tickets], 0.0)
    while subject.ready:
        subject.take(LARGE, LARGE, 0.0)
    return subject, made


def settle(
    subject: OutgoingLane,
    first: int,
    last: int,
    outcome: Outcome = Outcome.ACCEPTED,
    details: dict[int, tuple[str, float]] | None = None,
) -> tuple[list[Ticket], list[Returned]]:
    return subject.on_settled(outcome, first, last, details or {})


def bodies(returned: Sequence[Returned]) -> list[bytes]:
    return [bytes(item.record[2]) for item in returned]


# Numbers and acknowledgements


def test_numbers_are_contiguous_from_one() -> None:
    window: SendWindow[str] = SendWindow(100)
    assert window.enqueue("ab") == (1, 2)
    assert window.enqueue("c") == (3, 3)
    assert window.items == {1: "a", 2: "b", 3: "c"}


def window_of(amount: int) -> SendWindow[int]:
    """All transmitted."""
    window: SendWindow[int] = SendWindow(100)
    window.enqueue(range(amount))
    window.next_transmit = window.next_seq
    return window


def test_acks_are_cumulative_and_ranges_and_old_ones_change_nothing() -> None:
    window = window_of(20)
    assert window.on_ack(3, ()) == [(1, 3)]
    assert window.on_ack(3, ((6, 8), (10, 10))) == [(6, 8), (10, 10)]
    assert window.on_ack(2, ((6, 7),)) == []
    assert window.on_ack(9, ()) == [(4, 5), (9, 9)]
    assert window.acked.cum == 10
    assert window.covers(1, 10)
    assert not window.covers(10, 11)


@pytest.mark.parametrize(("cum", "ranges"), [(21, ()), (3, ((5, 21),)), (2**63, ())])
def test_an_ack_of_what_was_never_sent_is_a_lie_and_has_no_effect(
    cum: int, ranges: tuple[tuple[int, int], ...]
) -> None:
    window = window_of(20)
    with pytest.raises(ProtocolError, match="never sent"):
        window.on_ack(cum, ranges)
    assert window.acked.cum == 0
    assert not window.acked.above


def test_queued_and_not_yet_transmitted_counts_as_never_sent() -> None:
    window = window_of(2)
    window.enqueue([7])
    with pytest.raises(ProtocolError):
        window.on_ack(3, ())


def test_only_what_the_peer_lacks_is_queued_again() -> None:
    window = window_of(20)
    window.on_ack(5, ((8, 9),))
    assert window.on_lost(4, 10) == 3
    assert window.resend.as_tuple() == ((6, 7), (10, 10))
    assert window.on_lost(6, 7) == 0  # already
    window.on_ack(6, ())
    assert window.resend.as_tuple() == ((7, 7), (10, 10))


def test_resume_replays_exactly_what_is_missing_and_was_sent() -> None:
    window = window_of(10)
    window.enqueue([11, 12])
    window.on_ack(2, ())
    assert window.resume(4, ((6, 7),)) == [(3, 4), (6, 7)]
    assert window.resend.as_tuple() == ((5, 5), (8, 10))
    window.resume(4, ((6, 10),))
    assert window.resend.as_tuple() == ((5, 5),)


def test_a_resume_that_went_back_is_a_lie() -> None:
    window = window_of(10)
    window.on_ack(5, ())
    with pytest.raises(ProtocolError, match=r"acked 1\.\.5 before"):
        window.resume(4, ())


# Control records


def control(*topics: str) -> list[Control]:
    return [Interest((("topic", topic),), ()) for topic in topics]


def test_an_ack_releases_control_records() -> None:
    queue = ControlQueue(100, 100)
    queue.enqueue(control("a", "b", "c"))
    assert queue.take(LARGE, LARGE)[:2] == (1, control("a", "b", "c"))
    assert not queue.ready
    queue.acknowledge(1, ((3, 3),))
    assert list(queue.items) == [2]
    queue.on_lost(1, 3)
    assert queue.take(LARGE, LARGE)[:2] == (2, control("b"))


def test_control_records_go_out_by_budget_and_count_and_at_least_one() -> None:
    queue = ControlQueue(100, 100)
    queue.enqueue(control(*"abcdef"))
    size = control_size(control("a")[0])
    assert queue.take(2 * size, LARGE) == (1, control("a", "b"), 2 * size)
    assert queue.take(1, LARGE)[:2] == (3, control("c"))
    assert queue.take(LARGE, 2)[:2] == (4, control("d", "e"))
    queue.on_lost(1, 5)
    assert queue.take(LARGE, 2)[:2] == (1, control("a", "b"))
    assert queue.take(LARGE, LARGE)[:2] == (3, control("c", "d", "e"))
    assert queue.take(LARGE, LARGE)[:2] == (6, control("f"))


def test_no_control_record_goes_out_beyond_the_peers_window() -> None:
    queue = ControlQueue(100, 3)
    queue.enqueue(control(*"abcde"))
    assert queue.take(LARGE, LARGE)[:2] == (1, control("a", "b", "c"))
    assert not queue.ready
    queue.acknowledge(0, ((2, 3),))
    assert not queue.ready
    queue.on_lost(1, 1)
    assert queue.take(LARGE, LARGE)[:2] == (1, control("a"))
    queue.acknowledge(3, ())
    assert queue.take(LARGE, LARGE)[:2] == (4, control("d", "e"))


def test_what_the_peer_has_is_forgotten_and_the_rest_resent_when_a_link_resumes() -> None:
    queue = ControlQueue(100, 100)
    queue.enqueue(control(*"abc"))
    queue.take(LARGE, LARGE)
    queue.acknowledge(1, (), resume=True)
    assert queue.take(LARGE, LARGE)[:2] == (2, control("b", "c"))


def test_every_control_record_has_a_size_that_grows_with_it() -> None:
    small: list[Control] = [
        Settle(0, ((Outcome.ACCEPTED, 1, 1),)),
        Gap(0, ((1, 1, 0),)),
        Interest((("topic", "a"),), ()),
        Drain(),
    ]
    large: list[Control] = [
        Settle(0, ((Outcome.REJECTED, 1, 1),), ((1, "reason", 0),)),
        Gap(0, ((1, 1, 0), (3, 3, 0))),
        Interest((("topic", "a"),), (("topic", "abc"),)),
    ]
    assert all(control_size(item) > 0 for item in small)
    for one, other in zip(small, large, strict=False):
        assert control_size(one) < control_size(other)


# Transmission


def test_records_go_out_in_order_by_budget_and_count() -> None:
    subject = lane()
    subject.submit(numbered(10), Ticket(10), 0.0)
    size = size_of(record(b"0"))
    assert take(subject, budget=3 * size) == (1, [b"0", b"1", b"2"])
    assert take(subject, budget=1) == (4, [b"3"])
    assert take(subject, count_max=2) == (5, [b"4", b"5"])
    assert take(subject) == (7, [b"6", b"7", b"8", b"9"])
    assert not subject.ready
    assert not subject.waiting


def test_no_more_than_the_credit_in_messages_goes_out() -> None:
    subject = lane(seq_limit=3)
    subject.submit(numbered(5), Ticket(5), 0.0)
    assert take(subject) == (1, [b"0", b"1", b"2"])
    assert not subject.ready
    assert subject.waiting
    subject.grant(4, 0)  # limits are absolute: the lower one in bytes is old news
    assert take(subject) == (4, [b"3"])


def test_no_more_than_the_credit_in_bytes_goes_out() -> None:
    size = size_of(record(b"0"))
    subject = lane(bytes_limit=3 * size + 1)
    subject.submit(numbered(5), Ticket(5), 0.0)
    assert take(subject) == (1, [b"0", b"1", b"2"])
    assert take(subject) is None
    subject.grant(0, 4 * size)
    assert take(subject) == (4, [b"3"])


@given(
    st.lists(st.binary(max_size=50), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 400)), max_size=10),
    st.integers(1, 300),
    st.integers(1, 10),
)
def test_credit_is_never_exceeded_and_all_that_fits_goes_out(
    contents: list[bytes], grants: list[tuple[int, int]], budget: int, count_max: int
) -> None:
    subject = lane(0, 0)
    subject.submit([record(body) for body in contents], Ticket(len(contents)), 0.0)
    seqs = size = expected = expected_size = 0
    for more_seqs, more_bytes in grants:
        subject.grant(seqs := seqs + more_seqs, size := size + more_bytes)
        while subject.ready:
            subject.take(budget, count_max, 0.0)
        while expected < min(seqs, len(contents)):
            if expected_size + size_of(record(contents[expected])) > size:
                break
            expected_size += size_of(record(contents[expected]))
            expected += 1
        assert subject.next_transmit == expected + 1
        assert subject.sent_bytes == expected_size


def test_what_was_lost_goes_before_what_is_new_and_costs_no_credit() -> None:
    subject = lane(seq_limit=4)
    subject.submit(numbered(6), Ticket(6), 0.0)
    assert take(subject, count_max=3) == (1, [b"0", b"1", b"2"])
    before = subject.sent_bytes
    subject.on_lost(2, 3)
    assert take(subject, count_max=1) == (2, [b"1"])
    assert take(subject) == (3, [b"2"])
    assert subject.sent_bytes == before
    assert take(subject) == (4, [b"3"])
    assert not subject.ready


def test_what_was_settled_meanwhile_is_not_sent_again() -> None:
    subject, _ = sent(6)
    subject.on_lost(1, 6)
    settle(subject, 1, 2)
    settle(subject, 4, 4)
    assert take(subject) == (3, [b"2"])
    settle(subject, 5, 6)
    assert take(subject) is None
    assert not subject.ready


def test_transmission_says_how_long_a_record_has_left() -> None:
    subject = lane()
    subject.submit(numbered(3), Ticket(3), 0.0)
    subject.deadlines.update({1: 100.25, 3: 100.0})
    first, records, _ = subject.take(LARGE, LARGE, 99.5) or (0, [], 0)
    assert first == 1
    assert [extra(item, Tag.TTL_MS) for item in records] == [750, None, 500]
    subject.on_lost(3, 3)
    _, records, _ = subject.take(LARGE, LARGE, 99.9) or (0, [], 0)
    assert [extra(item, Tag.TTL_MS) for item in records] == [100]


# Outcomes


def test_acceptances_are_counted_once_by_ticket() -> None:
    subject, (one, other) = sent(6, tickets=2)
    tickets, returned = settle(subject, 1, 4)
    assert tickets == [one, other, one, other]
    assert not returned
    assert (one.accepted, other.accepted) == (2, 2)
    assert settle(subject, 1, 4) == ([], [])
    assert settle(subject, 1, 5) == ([one], [])
    assert (one.accepted, other.accepted) == (3, 2)
    assert list(subject.items) == [6]
    assert subject.queued_bytes == size_of(record(b"5"))


@pytest.mark.parametrize("outcome", [item for item in Outcome if item is not Outcome.ACCEPTED])
def test_every_other_outcome_returns_the_record_with_its_reason_and_delay(
    outcome: Outcome,
) -> None:
    subject, (ticket,) = sent(3)
    tickets, returned = settle(subject, 1, 2, outcome, {2: ("why", 1.5)})
    assert not tickets
    assert returned == [
        Returned(record(b"0"), ticket, 4, outcome, "", 0.0, transmitted=True),
        Returned(record(b"1"), ticket, 4, outcome, "why", 1.5, transmitted=True),
    ]
    assert ticket.accepted == 0
    assert settle(subject, 1, 2, Outcome.ACCEPTED) == ([], [])
    assert list(subject.items) == [3]


def test_a_settlement_of_what_was_never_sent_is_a_lie_and_has_no_effect() -> None:
    subject, (ticket,) = sent(3)
    subject.submit(numbered(1), ticket, 0.0)
    with pytest.raises(ProtocolError, match="never sent"):
        settle(subject, 1, 4)
    assert ticket.accepted == 0
    assert len(subject.items) == 4


def test_an_ack_settles_nothing() -> None:
    subject, (ticket,) = sent(3)
    subject.on_ack(3, ())
    assert ticket.accepted == 0
    assert len(subject.items) == 3


@given(st.permutations(range(1, 13)), st.integers(1, 4))
def test_settlement_in_any_order_counts_every_record_once(order: list[int], tickets: int) -> None:
    subject, made = sent(12, tickets)
    for seq in order:
        settle(subject, seq, seq)
        settle(subject, seq, seq)
    assert [ticket.accepted for ticket in made] == [
        len(range(turn, 12, tickets)) for turn in range(tickets)
    ]
    assert not subject.items
    assert subject.queued_bytes == 0


def test_what_is_remembered_is_bounded_while_one_message_is_handled_for_hours() -> None:
    subject, _ = sent(1)
    for number in range(2, 5000):
        subject.submit(numbered(1), Ticket(1), 0.0)
        subject.take(LARGE, LARGE, 0.0)
        settle(subject, number, number)
    assert len(subject.items) == 1
    assert len(subject._spans) < 200


def test_all_numbers_below_the_first_open_one_have_an_outcome() -> None:
    subject, _ = sent(4)
    assert subject.first_open == 1
    settle(subject, 2, 3)
    assert subject.first_open == 1
    settle(subject, 1, 1)
    assert subject.first_open == 4
    settle(subject, 4, 4)
    assert subject.first_open == 5


# Large bodies


def fragmented(
    subject: OutgoingLane, amount: int = 3, ticket: Ticket | None = None
) -> tuple[Record, Ticket]:
    ticket = ticket or Ticket()
    whole = record(b"abc" * amount)
    subject.submit_large(whole, ticket, 0.0)
    return whole, ticket


def test_a_large_body_is_accepted_once_when_its_last_fragment_is() -> None:
    subject = lane()
    _, ticket = fragmented(subject)
    take(subject)
    assert settle(subject, 1, 2) == ([], [])
    assert settle(subject, 3, 3) == ([ticket], [])
    assert ticket.accepted == 1
    assert settle(subject, 1, 3) == ([], [])


def test_a_large_body_comes_back_whole() -> None:
    subject = lane()
    whole, ticket = fragmented(subject)
    take(subject)
    _, returned = settle(subject, 1, 3, Outcome.REJECTED, {1: ("no", 0.0)})
    assert returned == [Returned(whole, ticket, 4, Outcome.REJECTED, "no", 0.0, transmitted=True)]


# Giving up


def test_what_was_never_sent_comes_back_at_once_and_leaves_a_hole() -> None:
    subject = lane()
    ticket = Ticket(5)
    subject.submit(numbered(5), ticket, 0.0)
    take(subject, count_max=1)
    for seq in (2, 3, 5):
        (returned,) = subject.give_up(seq, Outcome.EXPIRED)
        assert returned.outcome is Outcome.EXPIRED
        assert not returned.transmitted
        assert subject.give_up(seq, Outcome.EXPIRED) == []
    assert subject.gaps == []  # the sending position has not come there
    assert take(subject) == (4, [b"3"])
    assert subject.gaps == [(2, 3, 0), (5, 5, 0)]  # both may go in the same packet
    assert not subject.ready
    assert subject.queued_bytes == total_size(numbered(1) + numbered(1, 3))


def test_a_hole_beyond_the_credit_is_told_when_credit_comes() -> None:
    subject = lane(seq_limit=1)
    subject.submit(numbered(3), Ticket(3), 0.0)
    take(subject)
    subject.give_up(2, Outcome.EXPIRED)
    subject.give_up(3, Outcome.EXPIRED)
    assert not subject.ready
    subject.grant(2, 0)
    assert take(subject) is None
    assert subject.gaps == [(2, 2, 0)]


def test_a_hole_costs_no_credit_in_bytes() -> None:
    size = size_of(record(b"0"))
    subject = lane(bytes_limit=size)
    subject.submit(numbered(3), Ticket(3), 0.0)
    subject.give_up(1, Outcome.EXPIRED)
    assert take(subject) == (2, [b"1"])
    assert not subject.ready


def test_what_was_sent_and_not_acked_is_told_by_gap_and_the_peer_decides() -> None:
    subject, (ticket,) = sent(3)
    subject.on_ack(1, ())
    subject.on_lost(2, 3)
    size = size_of(record(b"1"))
    assert subject.give_up(1, Outcome.EXPIRED) == []
    assert subject.gaps == []  # the peer has it: its verdict will come
    assert subject.give_up(2, Outcome.EXPIRED) == []
    assert subject.give_up(2, Outcome.EXPIRED) == []
    assert subject.gaps == [(2, 2, size)]
    assert take(subject) == (3, [b"2"])  # 2 is not sent again
    _, returned = settle(subject, 2, 2, Outcome.EXPIRED)
    assert bodies(returned) == [b"1"]
    tickets, _ = settle(subject, 1, 1)
    assert tickets == [ticket]


def test_what_was_given_up_is_not_replayed_when_a_link_resumes() -> None:
    subject, _ = sent(3)
    subject.give_up(2, Outcome.EXPIRED)
    subject.resume(0, ())
    assert take(subject) == (1, [b"0"])
    assert take(subject) == (3, [b"2"])


def test_withdraw_takes_back_what_its_ticket_submitted_and_nothing_else() -> None:
    subject = lane()
    mine, other = Ticket(4), Ticket(1)
    subject.submit(numbered(2), mine, 0.0)
    take(subject)
    subject.on_ack(1, ())
    subject.submit(numbered(2, 2), mine, 0.0)
    subject.submit(numbered(1, 4), other, 0.0)
    returned = subject.withdraw(mine)
    assert bodies(returned) == [b"2", b"3"]
    assert all(item.outcome is Outcome.RELEASED and not item.transmitted for item in returned)
    assert subject.gaps == [(2, 2, size_of(record(b"1")))]
    assert take(subject) == (5, [b"4"])
    assert subject.withdraw(mine) == []


def test_a_large_body_never_sent_is_withdrawn_whole() -> None:
    subject = lane()
    whole, ticket = fragmented(subject)
    assert subject.withdraw(ticket) == [
        Returned(whole, ticket, 4, Outcome.RELEASED, "", 0.0, transmitted=False)
    ]
    assert not subject.items


def test_a_large_body_half_sent_ends_by_the_peers_verdict() -> None:
    subject = lane()
    whole, ticket = fragmented(subject)
    take(subject, count_max=2)
    subject.on_ack(1, ())
    assert subject.withdraw(ticket) == []
    assert subject.gaps == [(2, 2, size_of(record(b"abc")))]
    assert take(subject) is None
    assert subject.gaps[1:] == [(3, 3, 0)]
    settle(subject, 2, 2, Outcome.EXPIRED)
    _, returned = settle(subject, 1, 1, Outcome.EXPIRED)
    assert returned == [Returned(whole, ticket, 4, Outcome.EXPIRED, "", 0.0, transmitted=True)]


def test_the_verdict_on_its_first_number_is_that_on_a_large_body() -> None:
    """Of a body that was given up, any pieces may come, and be of no use where the first lacks."""
    subject = lane()
    whole, ticket = fragmented(subject, amount=5)
    take(subject)
    settle(subject, 1, 1, Outcome.EXPIRED)
    settle(subject, 2, 3, Outcome.REJECTED, {2: ("a fragment of no transfer", 0.0)})
    settle(subject, 5, 5, Outcome.EXPIRED)
    _, returned = settle(subject, 4, 4, Outcome.REJECTED)
    assert returned == [Returned(whole, ticket, 4, Outcome.EXPIRED, "", 0.0, transmitted=True)]


def test_a_large_body_with_a_verdict_on_some_of_it_is_unknown_when_abandoned() -> None:
    subject = lane()
    whole, ticket = fragmented(subject)
    take(subject)
    settle(subject, 1, 2, Outcome.ACCEPTED)
    assert subject.abandon() == [
        Returned(whole, ticket, 4, Outcome.UNKNOWN, "", 0.0, transmitted=True)
    ]


def test_abandon_returns_each_record_once_and_knows_what_left() -> None:
    subject, (ticket,) = sent(3)
    subject.submit(numbered(2, 3), ticket, 0.0)
    settle(subject, 2, 2)
    returned = subject.abandon()
    assert [(bytes(r.record[2]), r.outcome, r.transmitted) for r in returned] == [
        (b"0", Outcome.UNKNOWN, True),
        (b"2", Outcome.UNKNOWN, True),
        (b"3", Outcome.RELEASED, False),
        (b"4", Outcome.RELEASED, False),
    ]
    assert subject.abandon() == []


@pytest.mark.parametrize(
    ("transmitted", "outcome"), [(0, Outcome.RELEASED), (1, Outcome.UNKNOWN), (3, Outcome.UNKNOWN)]
)
def test_abandon_returns_a_large_body_whole(transmitted: int, outcome: Outcome) -> None:
    subject = lane(seq_limit=transmitted)
    whole, ticket = fragmented(subject)
    while subject.ready:
        take(subject)
    sent_some = transmitted > 0
    assert subject.abandon() == [
        Returned(whole, ticket, 4, outcome, "", 0.0, transmitted=sent_some)
    ]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 4), st.booleans()),
        st.tuples(st.just("take"), st.integers(1, 5), st.booleans()),
        st.tuples(st.just("give up"), st.integers(1, 12), st.booleans()),
        st.tuples(st.just("settle"), st.integers(1, 12), st.integers(0, 3)),
        st.tuples(st.just("ack"), st.integers(0, 12), st.integers(0, 3)),
        st.tuples(st.just("lost"), st.integers(1, 12), st.integers(0, 3)),
    ),
    max_size=40,
)


@given(steps)
def test_every_record_ends_once_whatever_happens(script: list[tuple[str, int, int]]) -> None:
    """Accepted, returned or abandoned: the sums are what was submitted."""
    subject, ticket = lane(), Ticket(0)
    submitted = ended = 0
    for what, number, more in script:
        returned: list[Returned] = []
        if what == "submit" and more:
            fragmented(subject, number + 1, ticket)
            submitted += 1
        elif what == "submit":
            subject.submit(numbered(number), ticket, 0.0)
            submitted += number
        elif what == "take":
            subject.take(LARGE, number, 0.0)
        elif what == "give up":
            returned = subject.give_up(number, Outcome.EXPIRED)
        else:
            highest = min(number + more, subject.next_transmit - 1)
            if number > highest:
                continue
            if what == "settle":
                returned = settle(subject, number, highest, Outcome(number % 5))[1]
            elif what == "ack":
                subject.on_ack(highest, ())
            else:
                subject.on_lost(number, highest)
        ended += len(returned)
        assert subject.queued_bytes == total_size(list(subject.items.values()))
    assert ended + ticket.accepted + len(subject.abandon()) == submitted


def test_what_is_held_of_a_ticket_ends_with_its_last_record() -> None:
    subject, (first, second) = sent(4, tickets=2)
    assert subject.open_numbers(first)
    settle(subject, 1, 1)
    settle(subject, 3, 3)
    assert not subject.open_numbers(first)
    assert subject.open_numbers(second)


def test_the_number_of_one_ticket_of_a_run_is_found() -> None:
    subject = lane()
    tickets = [Ticket() for _ in range(3)]
    subject.submit([record()], Ticket(), 0.0)
    subject.submit([record()] * 3, TicketRun(tickets), 0.0)
    assert [subject.open_numbers(each, in_runs=True) for each in tickets] == [[2], [3], [4]]
    assert subject.open_numbers(tickets[0]) == []
    assert subject.open_numbers(Ticket(), in_runs=True) == []


# What cannot be sent


def test_a_refused_record_ends_at_once_and_the_peer_hears_of_the_gap() -> None:
    subject, (ticket,) = sent(3)
    (returned,) = subject.refuse(2, "no way")
    assert (returned.ticket, returned.outcome, returned.reason) == (
        ticket, Outcome.REJECTED, "no way",
    )  # fmt: skip
    assert subject.gaps == [(2, 2, size_of(record(b"1")))]
    subject.on_lost(1, 3)
    assert take(subject) == (1, [b"0"])
    assert take(subject) == (3, [b"2"])
    assert settle(subject, 1, 3) == ([ticket, ticket], [])
    assert ticket.accepted == 2


def test_a_refused_large_body_ends_as_one() -> None:
    subject, ticket = lane(fragment_bytes=10), Ticket()
    whole = record(b"x" * 50)
    subject.submit_large(whole, ticket, 0.0)
    subject.take(1, 2, 0.0)
    (returned,) = subject.refuse(1, "no way")
    assert (returned.record, returned.outcome) == (whole, Outcome.REJECTED)
    assert [(first, last) for first, last, _ in subject.gaps] == [(1, 1)]
    assert not subject.items
    assert take(subject) is None
    assert [(first, last, size) for first, last, size in subject.gaps[1:]] == [(2, 5, 0)]


def test_what_is_open_of_a_ticket_is_told_and_whether_it_left() -> None:
    lane, ticket = OutgoingLane(4, 100, CUTTER), Ticket(3)
    lane.grant(1000, 10**9)
    records: list[Record] = [(0, "", b"1"), (0, "", b"2"), (0, "", b"3")]
    lane.submit(Block(records), ticket, 0.0)
    lane.take(1, 2, 0.0)
    lane.take(1, 2, 0.0)
    lane.on_settled(Outcome.ACCEPTED, 1, 1, {})
    assert lane.open_of(ticket) == [(records[1], True), (records[2], False)]
    assert lane.open_of(Ticket()) == []


def test_a_number_in_a_block_is_open_until_it_has_its_outcome() -> None:
    lane, ticket = OutgoingLane(4, 100, CUTTER), Ticket(3)
    lane.grant(1000, 10**9)
    records: list[Record] = [(0, "", b"1"), (0, "", b"2"), (0, "", b"3")]
    lane.submit(Block(records), ticket, 0.0)
    lane.take(10**6, 100, 0.0)
    lane.on_ack(3, ())
    assert [lane.is_open(seq) for seq in (1, 2, 3)] == [True, True, True]
    lane.on_settled(Outcome.ACCEPTED, 1, 2, {})
    assert [lane.is_open(seq) for seq in (1, 2, 3)] == [False, False, True]


# Blocks


def blocked(
    amount: int, packet_bytes: int = LARGE, seq_limit: int = LARGE, bytes_limit: int = LARGE
) -> tuple[OutgoingLane, Block, Ticket]:
    """A lane that has a block to transmit, which it does not cut up to `packet_bytes`."""
    subject = OutgoingLane(4, 8193, CUTTER, packet_bytes)
    subject.grant(seq_limit, bytes_limit)
    block, ticket = Block(numbered(amount)), Ticket(amount)
    subject.submit(block, ticket, 0.0)
    return subject, block, ticket


def test_a_block_is_transmitted_as_it_is_and_settled_by_range() -> None:
    subject, block, ticket = blocked(10)
    assert subject.block_bytes == block.size
    first, records, size = subject.take(LARGE, LARGE, 0.0) or (0, (), 0)
    assert (first, size) == (1, block.size)
    assert records is block
    assert settle(subject, 1, 4) == ([ticket], [])
    assert (subject.kept, subject.queued_bytes) == (6, block.size_of(4, 10))
    assert settle(subject, 1, 10) == ([ticket], [])
    assert (ticket.accepted, subject.kept, subject.queued_bytes) == (10, 0, 0)
    assert settle(subject, 1, 10) == ([], [])
    assert not subject.items


def test_a_block_waits_for_credit_as_long_as_an_ack_may_bring_it() -> None:
    subject, block, _ = blocked(10, seq_limit=12)
    subject.submit(Block(numbered(5)), Ticket(5), 0.0)
    assert take(subject) == (1, [bytes(record[2]) for record in block])
    assert (subject.ready, subject.block_bytes) == (False, 0)
    subject.on_ack(10, ())
    assert (subject.ready, subject.block_bytes) == (
        True,
        0,
    )  # nothing is under way: as much goes as may
    assert take(subject) == (11, [b"0", b"1"])
    assert not subject.ready
    subject.grant(15, LARGE)
    assert take(subject) == (13, [b"2", b"3", b"4"])


def test_a_block_that_fits_no_packet_is_cut() -> None:
    subject, block, _ = blocked(10, packet_bytes=50)
    assert subject.block_bytes == 0
    assert take(subject, budget=50) == (1, [b"0", b"1", b"2"])
    assert take(subject, count_max=2) == (4, [b"3", b"4"])
    subject.bytes_limit = subject.sent_bytes + block.size_of(5, 6)
    assert take(subject) == (6, [b"5"])
    assert not subject.ready


def test_what_of_a_block_is_lost_is_sent_again() -> None:
    subject, _, ticket = blocked(5)
    take(subject)
    subject.on_lost(2, 3)
    assert take(subject) == (2, [b"1", b"2"])
    assert settle(subject, 1, 5)[0] == [ticket]
    assert (ticket.accepted, subject.kept, subject.queued_bytes) == (5, 0, 0)


def test_what_of_a_run_comes_back_has_its_own_ticket() -> None:
    subject, tickets = lane(), [Ticket() for _ in range(5)]
    subject.submit(Block(numbered(5)), TicketRun(tickets), 0.0)
    take(subject)
    assert settle(subject, 1, 2)[0] == tickets[:2]
    assert settle(subject, 4, 4, Outcome.RELEASED)[1] == [
        Returned(numbered(5)[3], tickets[3], 4, Outcome.RELEASED, "", 0.0, transmitted=True)
    ]
    assert settle(subject, 3, 5)[0] == [tickets[2], tickets[4]]
    assert [ticket.accepted for ticket in tickets] == [1, 1, 1, 0, 1]


def test_what_of_a_run_was_never_sent_has_its_own_ticket_at_the_end() -> None:
    subject, tickets = lane(), [Ticket() for _ in range(4)]
    subject.submit(Block(numbered(4)), TicketRun(tickets), 0.0)
    take(subject, count_max=2)
    settle(subject, 1, 1)
    assert [(each.ticket, each.outcome) for each in subject.abandon()] == [
        (tickets[1], Outcome.UNKNOWN), (tickets[2], Outcome.RELEASED),
        (tickets[3], Outcome.RELEASED),
    ]  # fmt: skip


@given(steps)
def test_a_block_does_what_its_records_would(script: list[tuple[str, int, int]]) -> None:
    """Two lanes, one of which gets blocks, tell the same whatever happens."""
    plain, blocky = lane(), lane()
    for what, number, more in script:
        told = []
        for subject in (plain, blocky):
            ticket = Ticket(number)
            seen: object = None
            if what == "submit":
                batch: Sequence[Record] = numbered(number + 1)
                subject.submit(Block(batch) if subject is blocky else batch, ticket, 0.0)
            elif what == "take":
                seen = [take(subject, count_max=1) for _ in range(number) if subject.ready]
            elif what == "give up":
                seen = bodies(subject.give_up(number, Outcome.EXPIRED))
            else:
                highest = min(number + more, subject.next_transmit - 1)
                if number > highest:
                    continue
                if what == "settle":
                    accepted, returned = settle(subject, number, highest, Outcome(number % 5))
                    seen = (len(accepted), bodies(returned))
                elif what == "ack":
                    seen = subject.on_ack(highest, ())
                else:
                    seen = subject.on_lost(number, highest)
            told.append((seen, subject.kept, subject.queued_bytes, subject.ready, subject.gaps))
        assert told == told[:1] * len(told)
    assert bodies(plain.abandon()) == bodies(blocky.abandon())


def test_a_block_follows_at_once_on_numbers_that_are_given_up() -> None:
    subject, _, _ = blocked(3)
    take(subject, count_max=2)
    subject.give_up(3, Outcome.EXPIRED)
    subject.submit(Block(numbered(2)), Ticket(2), 0.0)
    assert take(subject) == (4, [b"0", b"1"])
    assert subject.gaps == [(3, 3, 0)]


def test_a_large_body_between_holes_and_a_block_is_sent() -> None:
    subject = lane()
    subject.cutter.burst_bytes = LARGE  # they go whole, and leave holes behind them
    fragmented(subject)
    fragmented(subject)
    subject.submit(Block(numbered(8)), Ticket(8), 0.0)
    sent_first = []
    while subject.ready:
        chunk = take(subject)
        sent_first += [] if chunk is None else [(chunk[0], len(chunk[1]))]
    assert sent_first == [(1, 1), (4, 1), (7, 8)]
    assert subject.gaps == [(2, 3, 0), (5, 6, 0)]


def test_a_large_body_goes_whole_where_the_window_that_others_use_has_place_for_three() -> None:
    subject = lane(bytes_limit=6_000, fragment_bytes=1_000)
    subject.cutter.burst_bytes = LARGE
    subject.submit([record(bytes(1_000))] * 4, Ticket(4), 0.0)
    take(subject)
    subject.grant(LARGE, 13_000)  # the peer has none of them: so large is its window
    subject.submit_large(record(bytes(4_000)), Ticket(), 0.0)
    assert take(subject) == (5, [bytes(4_000)])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("large", "small", "arrive", "consume", "ack")), st.integers(1, 9)
        )
    )
)
def test_a_lane_never_takes_the_window_for_larger_than_it_is(
    script: list[tuple[str, int]],
) -> None:
    window = 10_000
    subject = lane(bytes_limit=window, fragment_bytes=100)
    subject.cutter.burst_bytes = LARGE
    under_way: list[tuple[int, int]] = []  # last number and bytes of what was transmitted
    received, held, consumed = 0, list[int](), 0
    for what, number in script:
        if what == "large":
            subject.submit_large(record(bytes(500 * number)), Ticket(), 0.0)
        elif what == "small":
            subject.submit([record(bytes(90))], Ticket(), 0.0)
        elif what == "arrive" and under_way:
            received, size = under_way.pop(0)
            held.append(size)
        elif what == "consume" and held:
            consumed += held.pop()
        elif what == "ack":
            subject.on_ack(received, ())
            subject.grant(LARGE, consumed + window)
        while subject.ready:
            chunk = subject.take(1, 1, 0.0)
            if chunk is not None:
                under_way.append((chunk[0], chunk[2]))
        assert subject.window_bytes <= window


def transmit(subject: OutgoingLane, budget: int) -> list[int]:
    """Take all that is ready; return its numbers."""
    numbers = list[int]()
    while subject.ready:
        chunk = take(subject, budget, 5)
        if chunk is not None:
            assert chunk[1]
            numbers += range(chunk[0], chunk[0] + len(chunk[1]))
    return numbers


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("block", "large", "large", "many", "withdraw", "burst", "take")),
            st.integers(1, 9),
        ),
        max_size=20,
    ),
    st.integers(20, 400),
)
def test_everything_that_is_not_given_up_is_transmitted_once_and_in_order(
    script: list[tuple[str, int]], budget: int
) -> None:
    subject, tickets, sent_numbers = lane(), list[Ticket](), list[int]()
    subject.cutter.burst_bytes = LARGE
    for what, number in script:
        tickets.append(Ticket())
        if what == "many":
            subject.submit(numbered(number), tickets[-1], 0.0)
        elif what == "block":
            subject.submit(Block(numbered(number)), tickets[-1], 0.0)
        elif what == "large":
            fragmented(subject, number + 1, tickets[-1])
        elif what == "withdraw":
            for ticket in tickets[number::3]:
                subject.withdraw(ticket)
        elif what == "burst":
            subject.cutter.burst_bytes = number * 6 % 30
        else:
            sent_numbers += transmit(subject, budget)
    sent_numbers += transmit(subject, budget)
    gaps = [seq for first, last, _ in subject.gaps for seq in range(first, last + 1)]
    assert sent_numbers == sorted(set(sent_numbers))
    assert set(sent_numbers) | set(gaps) == set(range(1, subject.next_seq))
    assert set(subject.items) <= set(sent_numbers)


class CountedDict(dict[int, Record]):
    """Counts what is taken out."""

    pops = 0

    def pop(self, *args: Any) -> Any:
        self.pops += 1
        return super().pop(*args)


def test_a_settlement_costs_nothing_for_what_ended_before() -> None:
    subject, (ticket,) = sent(1000)
    settle(subject, 2, 999)
    subject.items = counted = CountedDict(subject.items)
    assert settle(subject, 1, 1000) == ([ticket, ticket], [])
    assert (ticket.accepted, subject.kept, counted.pops) == (1000, 0, 2)
