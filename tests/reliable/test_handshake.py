from dataclasses import replace
from itertools import product

import pytest

from tests.discovery.entropy import FixedEntropy, SeededEntropy
from tests.reliable.pair import hash_of, identity
from zmesh.errors import ProtocolError
from zmesh.ids import JournalId, SessionId
from zmesh.options import LinkOptions
from zmesh.patience import Patience
from zmesh.reliable.handshake import Handshake, HelloVerdict, SessionChoice
from zmesh.reliable.hello_timer import HELLO_TRIES_MAX, HelloTimer
from zmesh.reliable.link_events import SessionEnd
from zmesh.wire.frames import Hello, LaneState, Welcome

OPTIONS = LinkOptions()
LANES = (LaneState(0, 1, 0, (), 10, 1000),)


def side(name: str, peer: str, incarnation: int = 1, life: str = "") -> Handshake:
    local = identity(name, incarnation, life)
    return Handshake(
        local, identity(peer).node, SeededEntropy(hash_of(f"{name}{incarnation}{life}"))
    )


def hello(caller: Handshake) -> Hello:
    caller.call()
    return caller.hello(("tcp://caller",), LANES)


def welcome(answerer: Handshake, to: Hello) -> Welcome:
    return answerer.welcome(to.attempt, ("tcp://answerer",), LANES)


def meet(caller: Handshake, answerer: Handshake) -> tuple[SessionChoice, SessionChoice]:
    """A whole exchange; return what each side chose: answerer's, then caller's."""
    said = hello(caller)
    assert answerer.judge(said, answered=False) is HelloVerdict.ACCEPT
    choice = answerer.accept(said)
    answer = caller.on_welcome(welcome(answerer, said))
    assert answer is not None
    assert answer.session == choice.session == caller.session == answerer.session
    return choice, answer


def pair() -> tuple[Handshake, Handshake]:
    return side("a", "b"), side("b", "a")


def test_a_hello_says_who_calls_whom_and_what_it_wants() -> None:
    a, _ = pair()
    said = hello(a)
    me = identity("a")
    assert (said.mesh, said.node, said.name) == (me.mesh, me.node, "a")
    assert (said.incarnation, said.journal, said.to) == (1, me.journal, identity("b").node)
    assert (said.attempt, said.resume, said.endpoints) == (1, None, ("tcp://caller",))
    assert said.lanes == LANES
    assert hello(a).attempt == 2


def test_two_who_never_met_begin_the_session_the_caller_offers() -> None:
    a, b = pair()
    choice, answer = meet(a, b)
    assert choice == SessionChoice(choice.session, resumed=False, ended=None)
    assert answer == choice
    assert (b.name, b.incarnation, b.endpoints) == ("a", 1, ("tcp://caller",))
    assert (a.name, a.incarnation, a.endpoints) == ("b", 1, ("tcp://answerer",))


@pytest.mark.parametrize("caller", [0, 1])
def test_whoever_calls_next_goes_on_with_the_session(caller: int) -> None:
    sides = pair()
    first, _ = meet(*sides)
    choice, answer = meet(sides[caller], sides[1 - caller])
    assert choice == SessionChoice(first.session, resumed=True, ended=None)
    assert answer == choice


def test_a_new_session_has_a_new_id_though_the_one_before_is_forgotten() -> None:
    a, b = pair()
    sessions = set()
    for _ in range(5):
        sessions.add(meet(a, b)[0].session)
        a.forget_session()
        b.forget_session()
    assert len(sessions) == 5


def test_what_is_offered_stays_the_same_until_it_is_taken() -> None:
    """An answer lost on the way must not start a second session."""
    a, b = pair()
    first, second = hello(a), hello(a)
    assert first.fresh == second.fresh
    assert b.accept(first).session == first.fresh
    assert b.judge(second, answered=False) is HelloVerdict.ACCEPT
    choice = b.accept(second)
    assert choice == SessionChoice(first.fresh, resumed=True, ended=None)
    answer = a.on_welcome(welcome(b, second))
    assert answer is not None
    assert (answer.session, answer.resumed) == (first.fresh, False)


# Judgement


def test_a_copy_of_the_hello_just_answered_is_answered_again() -> None:
    a, b = pair()
    said = hello(a)
    b.accept(said)
    assert b.judge(said, answered=True) is HelloVerdict.REPEAT
    assert b.judge(said, answered=False) is HelloVerdict.STALE


def test_a_late_copy_of_an_older_hello_is_stale() -> None:
    a, b = pair()
    old = hello(a)
    meet(a, b)
    assert b.judge(old, answered=False) is HelloVerdict.STALE
    assert b.judge(old, answered=True) is HelloVerdict.STALE


def test_a_newer_incarnation_is_accepted_whatever_its_attempt() -> None:
    a, b = pair()
    for _ in range(3):
        meet(a, b)
    reborn = side("a", "b", incarnation=2)
    assert b.judge(hello(reborn), answered=False) is HelloVerdict.ACCEPT


def test_an_older_incarnation_is_fenced_for_good() -> None:
    a, b = pair()
    meet(a, b)
    meet(side("a", "b", incarnation=2), b)
    assert b.judge(hello(a), answered=False) is HelloVerdict.FENCED
    b.forget_session()
    assert b.judge(hello(a), answered=False) is HelloVerdict.FENCED


def test_the_same_incarnation_with_another_journal_is_a_clone() -> None:
    a, b = pair()
    meet(a, b)
    clone = side("a", "b", life="clone")
    for _ in range(3):
        said = hello(clone)
    assert b.judge(said, answered=False) is HelloVerdict.CLASH


def test_hellos_that_were_said_before_a_welcome_are_void() -> None:
    """B called before it answered A; its HELLO was slower than its WELCOME."""
    a, b = pair()
    crossing = hello(b)
    meet(a, b)
    assert a.judge(crossing, answered=False) is HelloVerdict.STALE
    assert a.judge(hello(b), answered=False) is HelloVerdict.ACCEPT


def test_a_new_process_counts_its_hellos_anew() -> None:
    a, b = pair()
    for _ in range(5):
        meet(b, a)
    reborn = side("b", "a", incarnation=2)
    meet(a, reborn)
    assert a.judge(hello(reborn), answered=False) is HelloVerdict.ACCEPT


# Ends


@pytest.mark.parametrize("caller", [0, 1])
def test_a_peer_that_restarted_ends_the_session(caller: int) -> None:
    a, b = pair()
    meet(a, b)
    reborn = side("b", "a", incarnation=2)
    sides = (a, reborn)
    choices = meet(sides[caller], sides[1 - caller])
    mine, its = (choices[1], choices[0]) if caller == 0 else choices
    assert not mine.resumed
    assert mine.ended is SessionEnd.PEER_RESTARTED
    assert its.ended is None
    assert a.incarnation == 2


@pytest.mark.parametrize("caller", [0, 1])
def test_a_peer_that_forgot_ends_the_session(caller: int) -> None:
    sides = pair()
    meet(*sides)
    sides[1].forget_session()
    choices = meet(sides[caller], sides[1 - caller])
    mine, its = (choices[1], choices[0]) if caller == 0 else choices
    assert not mine.resumed
    assert mine.ended is SessionEnd.PEER_FORGOT
    assert its.ended is None


@pytest.mark.parametrize("forgetful", list(product([False, True], repeat=2)))
def test_both_sides_always_agree_on_the_session(forgetful: tuple[bool, bool]) -> None:
    a, b = pair()
    meet(a, b)
    for side_, forgets in zip((a, b), forgetful, strict=True):
        if forgets:
            side_.forget_session()
    choice, answer = meet(b, a)
    assert choice.resumed is answer.resumed is not any(forgetful)


def test_lanes_of_another_session_do_not_count() -> None:
    """Who wants to resume what we do not hold tells the lanes of that."""
    a, b = pair()
    meet(a, b)
    b.forget_session()
    said = hello(a)
    choice = b.accept(said)
    assert not choice.lanes_count
    fresh = side("c", "b")
    assert b.accept(hello(fresh)).lanes_count


# WELCOME


def test_a_welcome_to_an_earlier_attempt_is_old_news() -> None:
    a, b = pair()
    first = hello(a)
    b.accept(first)
    answer = welcome(b, first)
    hello(a)
    assert a.on_welcome(answer) is None
    assert a.session is None


def test_a_welcome_to_a_session_never_offered_is_a_lie() -> None:
    a, b = pair()
    said = hello(a)
    b.accept(said)
    answer = replace(welcome(b, said), session=SessionId(b"x" * 16))
    with pytest.raises(ProtocolError, match="not offered"):
        a.on_welcome(answer)
    assert a.session is None


def test_a_welcome_by_somebody_else_or_an_older_life_is_a_lie() -> None:
    a, b = pair()
    meet(side("b", "a", incarnation=3), a)
    said = hello(a)
    b.accept(said)
    answer = welcome(b, said)
    with pytest.raises(ProtocolError, match="older incarnation"):
        a.on_welcome(answer)
    with pytest.raises(ProtocolError, match="another node"):
        a.on_welcome(replace(answer, node=identity("c").node, incarnation=3))


def test_a_welcome_by_a_clone_is_no_answer() -> None:
    a, b = pair()
    meet(a, b)
    session = a.session
    clone = side("b", "a", life="clone")
    said = hello(a)
    clone.accept(said)
    with pytest.raises(ProtocolError, match="clone"):
        a.on_welcome(welcome(clone, said))
    assert a.session == session


def test_a_welcome_needs_a_session() -> None:
    a, b = pair()
    with pytest.raises(AssertionError):
        b.welcome(hello(a).attempt, (), ())


def test_the_journal_in_a_welcome_is_noted() -> None:
    a, b = pair()
    meet(a, b)
    assert a.journal == identity("b").journal
    assert b.journal == JournalId(identity("a").journal)


# The timer


def test_each_hello_waits_twice_as_long_for_its_answer_up_to_a_limit() -> None:
    timer = HelloTimer(OPTIONS, FixedEntropy(0.5), Patience())
    timer.begin()
    waits = []
    for _ in range(6):
        timer.on_hello(100.0)
        waits.append(timer.at - 100.0)
    assert waits == pytest.approx([0.5, 1.0, 2.0, 4.0, 5.0, 5.0])


def test_hellos_on_one_path_are_counted_from_its_first() -> None:
    timer = HelloTimer(OPTIONS, FixedEntropy(0.5), Patience())
    timer.begin()
    tries = []
    for _ in range(HELLO_TRIES_MAX + 1):
        tries.append(timer.may_retry)
        timer.on_hello(100.0)
    assert tries == [True] * HELLO_TRIES_MAX + [False]
    timer.begin()
    assert timer.may_retry
    timer.on_hello(200.0)
    assert timer.at == pytest.approx(200.5)


def test_waits_are_jittered_so_that_two_do_not_call_in_step() -> None:
    early = HelloTimer(OPTIONS, FixedEntropy(0.0), Patience())
    late = HelloTimer(OPTIONS, FixedEntropy(1.0), Patience())
    for timer in (early, late):
        timer.begin()
        timer.on_hello(100.0)
    assert early.at == pytest.approx(100.4)
    assert late.at == pytest.approx(100.6)


def test_a_timer_is_off_until_it_is_needed_and_when_it_is_stopped() -> None:
    timer = HelloTimer(OPTIONS, FixedEntropy(0.5), Patience())
    assert timer.at == float("inf")
    timer.on_welcome_sent(100.0)
    assert timer.at == 102.0
    timer.stop()
    assert timer.at == float("inf")
