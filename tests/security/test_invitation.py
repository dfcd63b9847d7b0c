"""Both machines, driven by hand."""

from dataclasses import replace
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.security.joining_pair import CODE, KEYS, OPTIONS, WRONG, Host, Seeded, joiner
from zmesh.joining_errors import (
    InvitationBroken,
    InvitationBusy,
    InvitationDead,
    InvitationExpired,
    InvitationUsed,
    JoinFailed,
    NotTheInviter,
    WrongCode,
)
from zmesh.security.invitation import (
    AttemptFailed,
    GuestJoined,
    InvitationEnded,
    InvitationState,
    Inviter,
)
from zmesh.security.join_code import JoinCode
from zmesh.security.join_frames import Kind, Refusal, refused
from zmesh.security.joining import Joiner, JoinerAction, KeysReceived, MeshNamed, SendMessage
from zmesh.security.mesh_key import MeshKey


def send_of(actions: list[JoinerAction]) -> bytes:
    [action] = actions
    assert isinstance(action, SendMessage)
    return action.data


def begin(host: Host, guest: Joiner, connection: int) -> None:
    host.connect(connection)
    host.give(connection, guest.hello)


def prove(host: Host, guest: Joiner, connection: int) -> None:
    """Take the answer, and prove."""
    host.give(connection, send_of(guest.receive(host.take(connection))))


def finish(host: Host, guest: Joiner, connection: int) -> tuple[str, tuple[MeshKey, ...]]:
    """Go from WELCOME to the end."""
    [named] = guest.receive(host.take(connection))
    assert isinstance(named, MeshNamed)
    host.give(connection, guest.accept())
    [received] = guest.receive(host.take(connection))
    assert isinstance(received, KeysReceived)
    host.give(connection, guest.saved())
    return named.mesh, received.keys


def fail(host: Host, connection: int, seed: int = 2) -> None:
    """Make one wrong attempt."""
    guest = joiner(WRONG, seed)
    begin(host, guest, connection)
    prove(host, guest, connection)
    with pytest.raises(WrongCode):
        guest.receive(host.take(connection))


def pause(host: Host) -> None:
    host.now_s += OPTIONS.pause


def test_who_knows_the_code_gets_the_keys_and_says_so() -> None:
    host, guest = Host(), joiner()
    begin(host, guest, 1)
    prove(host, guest, 1)
    assert finish(host, guest, 1) == ("cameras", KEYS)
    assert host.news == [GuestJoined("host1", is_saved=True)]
    assert host.inviter.state is InvitationState.USED
    assert host.hung_up == {1}
    assert host.inviter.deadline_s is None


def test_each_byte_may_come_alone() -> None:
    host, guest = Host(), joiner()
    host.connect(1)
    for message in (guest.hello,):
        for byte in message:
            host.give(1, bytes([byte]))
    answer = host.take(1)
    for byte in answer[:-1]:
        assert guest.receive(bytes([byte])) == []
    host.give(1, send_of(guest.receive(answer[-1:])))
    assert finish(host, guest, 1)[1] == KEYS


def test_nothing_sent_shows_mesh_key_or_code() -> None:
    host, guest = Host(), joiner()
    host.connect(1)
    wire = guest.hello
    host.give(1, guest.hello)
    answer = host.take(1)
    proof = send_of(guest.receive(answer))
    host.give(1, proof)
    welcome = host.take(1)
    guest.receive(welcome)
    ready = guest.accept()
    host.give(1, ready)
    keys = host.take(1)
    guest.receive(keys)
    wire += answer + proof + welcome + ready + keys + guest.saved()
    for secret in (b"cameras", KEYS[0].secret, KEYS[1].secret, CODE.password.encode()):
        assert secret not in wire
    assert [message[0] for message in (answer, welcome, keys)] == [2, 4, 6]
    # Version 1 is what it is: another sum is another version.
    assert blake2b(wire, digest_size=8).hexdigest() == "42cf7ae3f6571834"


def test_no_key_goes_out_before_both_proved() -> None:
    host, guest = Host(), joiner()
    begin(host, guest, 1)
    assert host.take(1)[0] == Kind.ANSWER
    host2, guest2 = Host(), joiner()
    begin(host2, guest2, 1)
    prove(host2, guest2, 1)
    assert host2.take(1)[0] == Kind.WELCOME
    assert host2.inviter.state is InvitationState.OPEN


# Wrong attempts


def test_three_wrong_attempts_are_the_end_for_good() -> None:
    host = Host()
    for number in (1, 2, 3):
        fail(host, number, seed=number)
        pause(host)
    assert host.news == [
        AttemptFailed("host1", "its code is wrong", 2),
        AttemptFailed("host2", "its code is wrong", 1),
        AttemptFailed("host3", "its code is wrong", 0),
        InvitationEnded(InvitationState.DEAD),
    ]
    guest = joiner()
    begin(host, guest, 4)
    with pytest.raises(InvitationDead):
        guest.receive(host.take(4))
    assert host.hung_up == {1, 2, 3, 4}
    assert host.inviter.deadline_s is None


def test_two_slips_are_forgiven() -> None:
    host = Host()
    for number in (1, 2):
        fail(host, number, seed=number)
        pause(host)
    guest = joiner()
    begin(host, guest, 3)
    prove(host, guest, 3)
    assert finish(host, guest, 3)[1] == KEYS


def test_after_a_wrong_attempt_there_is_a_pause() -> None:
    host, guest = Host(), joiner()
    fail(host, 1)
    host.now_s += OPTIONS.pause - 0.1
    begin(host, guest, 2)
    assert host.take(2) == b""
    assert host.inviter.deadline_s == 1000.0 + OPTIONS.pause
    host.fire()
    assert host.take(2)[0] == Kind.ANSWER


@pytest.mark.parametrize("how", ["leaves", "is silent", "talks garbage"])
def test_who_got_our_message_and_proves_nothing_used_up_an_attempt(how: str) -> None:
    host = Host()
    begin(host, joiner(), 1)
    assert host.take(1)[0] == Kind.ANSWER
    if how == "leaves":
        host.leave(1)
    elif how == "is silent":
        host.fire()
        assert host.now_s == 1000.0 + OPTIONS.answer_max
    else:
        host.give(1, b"\xff")
    [news] = host.news
    assert isinstance(news, AttemptFailed)
    assert news.attempts_left == 2


@pytest.mark.parametrize("how", ["leaves", "is silent", "talks garbage", "sends a bad point"])
def test_who_did_not_get_our_message_used_up_nothing(how: str) -> None:
    host = Host()
    host.connect(1)
    if how == "leaves":
        host.leave(1)
    elif how == "is silent":
        host.fire()
        assert host.now_s == 1000.0 + OPTIONS.silence_max
    elif how == "talks garbage":
        host.give(1, b"GET / HTTP/1.1\r\n\r\n")
    else:
        host.give(1, joiner().hello[:-32] + bytes(32))
    assert host.news == []
    assert host.inviter.attempts_left == 3
    assert host.inviter.connections == 0


def test_who_proved_itself_and_was_cut_off_may_try_again() -> None:
    host = Host()
    guest = joiner()
    begin(host, guest, 1)
    prove(host, guest, 1)
    host.leave(1)
    assert host.news == []
    guest = joiner(seed=3)
    begin(host, guest, 2)
    prove(host, guest, 2)
    assert finish(host, guest, 2)[1] == KEYS


def test_a_guest_that_does_not_say_that_it_keeps_the_key_is_told_of_so() -> None:
    for how in ("leaves", "is silent", "lies"):
        host, guest = Host(), joiner()
        begin(host, guest, 1)
        prove(host, guest, 1)
        guest.receive(host.take(1))
        host.give(1, guest.accept())
        if how == "leaves":
            host.leave(1)
        elif how == "is silent":
            host.fire()
        else:
            host.give(1, bytes([Kind.SAVED]) + bytes(32))
        assert host.news == [GuestJoined("host1", is_saved=False)], how
        assert host.inviter.state is InvitationState.USED


# One at a time, and who waits


def test_one_tries_at_a_time_and_the_next_follows() -> None:
    host = Host()
    first, second = joiner(WRONG), joiner(seed=3)
    begin(host, first, 1)
    begin(host, second, 2)
    assert host.take(2) == b""
    prove(host, first, 1)
    assert host.take(2) == b"", "there is a pause"
    host.fire()
    prove(host, second, 2)
    assert finish(host, second, 2)[1] == KEYS


def test_who_waits_when_it_was_used_is_told() -> None:
    host = Host()
    first, second = joiner(), joiner(seed=3)
    begin(host, first, 1)
    begin(host, second, 2)
    prove(host, first, 1)
    finish(host, first, 1)
    with pytest.raises(InvitationUsed):
        second.receive(host.take(2))
    third = joiner(seed=4)
    begin(host, third, 3)
    with pytest.raises(InvitationUsed):
        third.receive(host.take(3))


def test_silent_strangers_make_room_the_longest_silent_first() -> None:
    host = Host()
    for number in range(OPTIONS.connections_max + 5):
        host.connect(number)
    assert host.hung_up == {0, 1, 2, 3, 4}
    assert host.inviter.connections == OPTIONS.connections_max
    guest = joiner()
    begin(host, guest, 99)
    prove(host, guest, 99)
    assert finish(host, guest, 99)[1] == KEYS


def test_where_all_have_spoken_another_one_is_told_to_come_back() -> None:
    host = Host()
    for number in range(OPTIONS.connections_max):
        begin(host, joiner(seed=number), number)
    guest = joiner()
    begin(host, guest, 99)
    with pytest.raises(InvitationBusy):
        guest.receive(host.take(99))
    assert host.inviter.connections == OPTIONS.connections_max
    assert 99 in host.hung_up


def test_strangers_that_stall_cannot_hold_it_for_long() -> None:
    host = Host()
    for number in range(OPTIONS.connections_max):
        begin(host, joiner(seed=number), number)
    while host.inviter.state is InvitationState.OPEN:
        host.fire()
    assert host.inviter.state is InvitationState.DEAD
    spent = OPTIONS.attempts_max * OPTIONS.answer_max + 2 * OPTIONS.pause
    assert host.now_s == pytest.approx(1000.0 + spent)
    assert spent < OPTIONS.turn_max, "an honest joiner that waits is told"
    assert host.hung_up == set(range(OPTIONS.connections_max))


# Time


def test_it_expires() -> None:
    host = Host()
    assert host.inviter.deadline_s == 1600.0
    waiting, early = joiner(), joiner(seed=3)
    host.now_s = 1595.0
    begin(host, early, 1)
    begin(host, waiting, 2)
    host.fire()
    assert host.now_s == 1600.0
    assert host.news == [InvitationEnded(InvitationState.EXPIRED)]
    with pytest.raises(InvitationExpired):
        waiting.receive(host.take(2))
    late = joiner(seed=4)
    begin(host, late, 3)
    with pytest.raises(InvitationExpired):
        late.receive(host.take(3))


def test_it_has_expired_even_where_the_timer_is_late() -> None:
    host, guest = Host(), joiner()
    host.now_s = 1600.0
    begin(host, guest, 1)
    with pytest.raises(InvitationExpired):
        guest.receive(host.take(1))


def test_a_proof_that_comes_too_late_opens_nothing() -> None:
    host, guest = Host(), joiner()
    host.now_s = 1599.0
    begin(host, guest, 1)
    proof = send_of(guest.receive(host.take(1)))
    host.now_s = 1600.0
    host.give(1, proof)
    assert host.take(1)[0] == Kind.REFUSED
    assert host.inviter.state is InvitationState.EXPIRED


# Attackers


def test_a_recording_played_again_is_a_wrong_attempt() -> None:
    host, guest = Host(), joiner()
    begin(host, guest, 1)
    proof = send_of(guest.receive(host.take(1)))
    host.leave(1)  # the attacker kept both messages from arriving in time
    pause(host)
    host.connect(2)
    host.give(2, guest.hello)
    host.give(2, proof)
    assert host.news[-1] == AttemptFailed("host2", "its code is wrong", 1)


def test_a_relay_carries_the_joining_and_learns_nothing() -> None:
    """It sees all messages, and can neither read nor make one itself."""
    host, guest = Host(), joiner()
    begin(host, guest, 1)
    answer = host.take(1)
    host.give(1, send_of(guest.receive(answer)))
    welcome = host.take(1)
    [named] = guest.receive(welcome)
    assert isinstance(named, MeshNamed)
    host.give(1, guest.accept())
    keys = host.take(1)
    # Whoever relays and guesses has its own secret number, and cannot open what it saw.
    relay = joiner(CODE, seed=9)
    relay.receive(answer)
    with pytest.raises(NotTheInviter):
        relay.receive(welcome)
    [received] = guest.receive(keys)
    assert received == KeysReceived(KEYS)


def test_who_stands_between_with_exchanges_of_its_own_gets_one_guess_of_each_side() -> None:
    host, victim = Host(), joiner()
    impostor = Inviter(
        WRONG, "evil", (MeshKey(b"e" * 32),), now_s=1000.0, entropy=Seeded(7), options=OPTIONS
    )
    impostor_host = Host()
    impostor_host.inviter = impostor
    begin(impostor_host, victim, 1)
    prove(impostor_host, victim, 1)
    with pytest.raises(WrongCode):  # it cannot check the proof, and can only hang up
        victim.receive(impostor_host.take(1))
    fail(host, 1)
    assert host.inviter.attempts_left == 2


def test_an_impostor_that_claims_to_know_the_code_is_found_out() -> None:
    host, victim = Host(), joiner()
    begin(host, victim, 1)
    send_of(victim.receive(host.take(1)))
    with pytest.raises(NotTheInviter):
        victim.receive(bytes([Kind.WELCOME]) + bytes(304))


@given(st.integers(0, 304), st.integers(1, 255))
@settings(max_examples=40)
def test_a_tampered_welcome_is_refused(place: int, change: int) -> None:
    host, guest = Host(), joiner()
    begin(host, guest, 1)
    prove(host, guest, 1)
    welcome = bytearray(host.take(1))
    welcome[place] ^= change
    with pytest.raises(JoinFailed):
        guest.receive(bytes(welcome))


@given(st.integers(0, 273), st.integers(1, 255))
@settings(max_examples=40)
def test_a_tampered_key_message_gives_no_key(place: int, change: int) -> None:
    host, guest = Host(), joiner()
    begin(host, guest, 1)
    prove(host, guest, 1)
    guest.receive(host.take(1))
    host.give(1, guest.accept())
    keys = bytearray(host.take(1))
    keys[place] ^= change
    with pytest.raises(JoinFailed):
        guest.receive(bytes(keys))


@given(st.integers(0, 32), st.integers(1, 255))
@settings(max_examples=20)
def test_a_tampered_ready_sends_no_key(place: int, change: int) -> None:
    host, guest = Host(), joiner()
    begin(host, guest, 1)
    prove(host, guest, 1)
    guest.receive(host.take(1))
    ready = bytearray(guest.accept())
    ready[place] ^= change
    host.give(1, bytes(ready))
    assert host.take(1) == b""
    assert host.hung_up == {1}
    assert host.inviter.state is InvitationState.OPEN
    assert host.inviter.attempts_left == 3, "it had proved that it knows the code"


PASSWORDS = st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=8, max_size=8)


@given(st.lists(PASSWORDS, min_size=3, max_size=6))
@settings(max_examples=20)
def test_an_attacker_that_guesses_has_three_guesses(passwords: list[str]) -> None:
    host, looked_at = Host(), 0
    for number, password in enumerate(passwords):
        guest = joiner(JoinCode("417", password), seed=number)
        begin(host, guest, number)
        sent = host.take(number)
        if sent[0] == Kind.ANSWER:
            looked_at += 1
            host.give(number, send_of(guest.receive(sent)))
            if host.take(number)[0] == Kind.WELCOME:
                assert password == CODE.password
                return
        pause(host)
    assert looked_at == 3
    assert host.inviter.state is InvitationState.DEAD


# Anything in any order

EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.one_of(
            st.sampled_from(["connect", "leave", "fire", "hello", "wrong", "next"]),
            st.binary(min_size=1, max_size=50),
        ),
    ),
    max_size=40,
)


class Strangers:
    """Four of them, each with one connection at a time."""

    def __init__(self) -> None:
        self.host = Host(replace(OPTIONS, connections_max=3))
        self._current: dict[int, int] = {}
        self._numbers = iter(range(10_000))

    def do(self, stranger: int, what: str | bytes) -> None:
        host, connection = self.host, self._current.get(stranger)
        if what == "fire" and host.inviter.deadline_s is not None:
            host.fire()
        elif what == "connect":
            self._current[stranger] = next(self._numbers)
            host.connect(self._current[stranger])
        elif connection is not None and what == "leave":
            host.leave(self._current.pop(stranger))
        elif connection is not None:
            host.give(connection, self._bytes(connection, what))

    def _bytes(self, connection: int, what: str | bytes) -> bytes:
        if isinstance(what, bytes):
            return what
        if what == "hello":
            return joiner(WRONG, seed=connection).hello
        return bytes([Kind.PROOF if what == "wrong" else Kind.READY]) + bytes(32)


@given(EVENTS)
@settings(max_examples=60)
def test_whatever_strangers_do_no_key_goes_out_and_bounds_hold(
    events: list[tuple[int, str | bytes]],
) -> None:
    strangers = Strangers()
    host = strangers.host
    for stranger, what in events:
        strangers.do(stranger, what)
        assert host.inviter.connections <= 3
        assert host.inviter.attempts_left >= 0
    kinds = {data[0] for sent in host.sent.values() for data in sent}
    assert kinds <= {Kind.ANSWER, Kind.REFUSED}, "no welcome, no key"
    failed = [each for each in host.news if isinstance(each, AttemptFailed)]
    assert len(failed) == 3 - host.inviter.attempts_left
    assert (host.inviter.attempts_left == 0) == (host.inviter.state is InvitationState.DEAD)


@given(st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=4), st.booleans())
@settings(max_examples=100)
def test_whatever_an_inviter_sends_a_joiner_takes_no_key_from_it(
    pieces: list[bytes], begins_well: bool
) -> None:
    guest = joiner()
    if begins_well:
        host = Host()
        begin(host, guest, 1)
        guest.receive(host.take(1))
    try:
        for piece in pieces:
            for action in guest.receive(piece):
                assert isinstance(action, SendMessage)
    except JoinFailed:
        pass


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (2, 8)])
def test_a_message_out_of_order_ends_the_joining(kind: Kind) -> None:
    with pytest.raises(InvitationBroken, match="another kind"):
        joiner().receive(bytes([kind]) + bytes(300))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind != 3])
def test_a_message_out_of_order_is_a_wrong_attempt(kind: Kind) -> None:
    host = Host()
    begin(host, joiner(), 1)
    host.give(1, bytes([kind]))
    assert host.inviter.attempts_left == 2


def test_an_answer_while_the_application_decides_ends_the_joining() -> None:
    host, guest = Host(), joiner()
    begin(host, guest, 1)
    prove(host, guest, 1)
    guest.receive(host.take(1))
    with pytest.raises(InvitationBroken):
        guest.receive(b"\x06")


def test_a_refusal_of_no_known_kind_is_garbage() -> None:
    with pytest.raises(InvitationBroken, match="refusal"):
        joiner().receive(bytes([Kind.REFUSED, 99]))


def test_refusals_are_told_apart() -> None:
    kinds = {Refusal.WRONG_CODE: WrongCode, Refusal.EXPIRED: InvitationExpired,
             Refusal.USED: InvitationUsed, Refusal.DEAD: InvitationDead,
             Refusal.BUSY: InvitationBusy}  # fmt: skip
    assert set(kinds) == set(Refusal)
    for refusal, error in kinds.items():
        with pytest.raises(error):
            joiner().receive(refused(refusal))
