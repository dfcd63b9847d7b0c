"""Surveys through loss, partitions, crashes and restarts, by seed: all that were asked are told.

Each survey ends once, in time. Whoever was asked is either among the replies, with what its own
handler made of the question, or among the failures, or the survey was over with fewer replies, as
it was told. No process handles a question twice, and in the end nobody works on one.
"""

from dataclasses import dataclass
from random import Random

import pytest

from tests.engines import Host, World, body, correlation, reply
from tests.patterns.gathering import Answers, survey
from tests.simulation.schedule import Schedule
from zmesh.actions import CallFailure, CancelRequest
from zmesh.core.peers import Peer
from zmesh.events import Reply, SettleDeliveries
from zmesh.message import Kind, Outcome, Record, head
from zmesh.options import LinkOptions, NodeOptions
from zmesh.patterns.survey import Survey

BLOCKS = 3  # of seeds, each a test
SEEDS = 80
ACTIVE = 15.0  # seconds in which surveys begin, and faults strike
LONGEST = 8.0  # seconds a survey lasts at most
REST = 60.0  # seconds after which all is quiet
OPTIONS = NodeOptions(link=LinkOptions(session_linger=3.0))


@dataclass(frozen=True)
class Asked:
    """A survey, and what is known of it from outside."""

    text: str
    answers: Answers
    providers: frozenset[str]  # that the asking node saw when it began
    due: float
    enough: int


class Provider:
    """One life of a node that answers, fails, refuses, takes its time or never ends."""

    def __init__(self, run: "Run", host: Host) -> None:
        self.run = run
        self.host = host
        self.handled: list[str] = []
        self.open: dict[tuple[object, int], tuple[int, Record]] = {}  # numbers, and the request
        host.listeners.append(self._on_action)
        host.serve("status", self._handle)

    def _handle(self, record: Record) -> Record | Outcome | None:
        text = body(record).decode()
        assert text not in self.handled, f"{self.host.name} was asked {text} twice"
        self.handled.append(text)
        self.run.questions += 1
        match self.run.random.choice(("reply", "reply", "late", "fail", "refuse", "never")):
            case "reply":
                return reply(f"{self.host.name} {text}")
            case "fail":
                return (head(Kind.FAILURE), "", b"")
            case "refuse":
                return Outcome.REJECTED
            case "late":
                self.run.world.queue.after(self.run.random.uniform(0.1, 6.0), self._answer, text)
        return None

    def _answer(self, text: str) -> None:
        for index, (source, first, last, record) in enumerate(self.host.places):
            if body(record).decode() == text and self.host.alive:
                del self.host.places[index]
                answer = reply(f"{self.host.name} {text}")
                self.host.do(Reply(source, first, last, correlation(record), answer))

    def _on_action(self, action: object) -> None:
        """Stop what nobody waits for, as the application does."""
        if not isinstance(action, CancelRequest):
            return
        for index, (source, first, last, _) in enumerate(self.host.places):
            if (source, first) == (action.source, action.first_seq):
                del self.host.places[index]
                self.host.do(SettleDeliveries(source, first, last, Outcome.RELEASED))
                return


class Run:
    """One seed: an asking node, providers, and what befalls them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"survey {seed}")
        self.world = World(OPTIONS)
        self.schedule = Schedule(self.world, self.random)
        self.asking, *hosts = self.world.mesh(*"abcde"[: self.random.randint(2, 5)])
        self.living = {host.name: host for host in hosts}
        self.providers = [Provider(self, host) for host in hosts]
        self.asked: list[Asked] = []
        self.questions = 0

    def go(self) -> None:
        self.world.run(0.5)
        queue, random = self.world.queue, self.random
        for number in range(random.randint(4, 12)):
            queue.after(random.uniform(0.0, ACTIVE), self._ask, f"q{number}")
        for _ in range(random.randint(1, 8)):
            at = random.uniform(0.0, ACTIVE)
            if random.random() < 0.25:
                queue.after(at, self._crash)
            else:
                queue.after(at, self.schedule.strike, 12.0)
        self.world.run(ACTIVE + LONGEST + REST)
        self.check()

    # What happens

    def _ask(self, text: str) -> None:
        providers = frozenset(
            peer.name for peer in self.asking.engine.peers() if "status" in peer.services
        )
        seconds = self.random.uniform(0.2, LONGEST)
        count = self.random.choice((None, None, 1, 2))
        quorum = self.random.choice((None, None, 0.5))
        enough = len(providers) if count is None else min(len(providers), count)
        if quorum is not None:
            enough = min(enough, len(providers) // 2 + 1)
        answers = survey(self.asking, "status", text, timeout=seconds, count=count, quorum=quorum)
        due = self.world.queue.now + seconds
        self.asked.append(Asked(text, answers, providers, due, enough))
        self.world.queue.at(due + 0.001, self._check_in_time, self.asked[-1])

    def _check_in_time(self, asked: Asked) -> None:
        assert asked.answers.ended is not None, f"{asked.text} lasts longer than it was told"

    def _crash(self) -> None:
        host = self.random.choice([*self.living.values()])
        if host.alive:
            host.kill()
            self.world.queue.after(self.random.choice((0.05, 1.0, 5.0)), self._restart, host)

    def _restart(self, host: Host) -> None:
        again = self.living[host.name] = self.world.host(host.name)
        for other in (self.asking, *self.living.values()):
            if other.alive and other is not again:
                self.world.introduce(other, again)
        self.providers.append(Provider(self, again))

    # What holds

    def check(self) -> None:
        for asked in self.asked:
            self._check_survey(asked)
        statistics = self.asking.engine.statistics()
        assert (statistics.surveys, statistics.queued_messages) == (0, 0)
        for host in self.living.values():
            assert host.places == [], "somebody works on what nobody waits for"
            assert host.engine.statistics().unsettled_in == 0

    def _check_survey(self, asked: Asked) -> None:
        answers = asked.answers
        ended = answers.ended
        assert ended is not None
        if not asked.providers:
            assert ended.failure is CallFailure.NO_PROVIDER
            return
        assert ended.failure is None
        told = [each.name for each in answers.all]
        assert len(told) == len(set(told)), "one is told of twice"
        assert set(told) <= asked.providers
        if len(answers.replies) < asked.enough:
            assert set(told) == asked.providers, "somebody who was asked is not told of"
        else:
            assert len(answers.replies) == asked.enough, "it went on though it had enough"
        for name, text in answers.replies.items():
            assert text == f"{name} {asked.text}"
            lives = [each for each in self.providers if each.host.name == name]
            assert any(asked.text in each.handled for each in lives)


def go(seed: int) -> Run:
    run = Run(seed)
    try:
        run.go()
    except AssertionError as error:
        error.add_note(f"seed {seed}")
        raise
    return run


@pytest.mark.parametrize("block", range(BLOCKS))
def test_whoever_was_asked_is_told_of(block: int) -> None:
    replies = early = 0
    failures: set[CallFailure | None] = set()
    for seed in range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS):
        for asked in go(seed).asked:
            answers = asked.answers
            replies += len(answers.replies)
            failures |= set(answers.failures.values())
            early += bool(asked.providers) and len(answers.all) < len(asked.providers)
    assert replies > SEEDS // BLOCKS
    assert early > SEEDS // BLOCKS // 2
    assert failures == {
        CallFailure.REMOTE_ERROR, CallFailure.REJECTED, CallFailure.DEADLINE,
        CallFailure.PEER_LOST,
    }, "what these runs are about does not happen in them"  # fmt: skip


def go_all() -> None:
    for seed in range(SEEDS):
        go(seed)


def forgets_whom_it_lost(self: Survey, peer: Peer, _: str) -> None:
    """Say nothing of those that are gone."""
    for number in list(self._with.get(peer.id, ())):
        survey = self._questions[number].survey
        self._drop(number)
        self._check_over(survey)


def test_a_survey_that_forgets_whom_it_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs would see it: plant the bug."""
    monkeypatch.setattr(Survey, "on_away", forgets_whom_it_lost)
    with pytest.raises(AssertionError, match="not told of"):
        go_all()
