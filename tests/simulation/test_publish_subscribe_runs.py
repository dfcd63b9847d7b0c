"""Publications under faults: replays without gap or duplicate, and drops that are all told.

Whole engines on a network that loses, doubles, reorders and delays packets, breaks connections
and parts hosts for a while, by seed.
"""

from random import Random

import pytest

from tests.engines import Host, World, body
from tests.simulation.schedule import Schedule
from zmesh.actions import DeliverPublications, PublicationsMissed
from zmesh.events import Publish, SettleDeliveries, Source, Subscribe, Unsubscribe
from zmesh.message import Kind, Outcome, Record, Tag, Ticket, extra, head
from zmesh.options import LinkOptions, NodeOptions
from zmesh.terms import Filter, Terms, WhenFull
from zmesh.testing.network import Weather
from zmesh.testing.scenario import FaultKind

SEEDS = 80
TOPICS = ("x.a", "x.b", "y.a")
PATTERNS = ("x.a", "x.*", "*.a", ">", "y.>")
LIMIT = 5


class Faults:
    """Strikes two hosts at random, never for so long that they give each other up."""

    def __init__(self, world: World, random: Random, one: Host, other: Host) -> None:
        self._world = world
        self._random = random
        self._pair = (one.index, other.index)
        self._schedule = Schedule(world, random)

    def strike(self) -> None:
        """Do something bad, or make it good again."""
        network, random = self._world.network, self._random
        source, target = random.sample(self._pair, 2)
        match random.randrange(7):
            case 0:
                network.reset(source, target)
            case 6:
                self._schedule.strike(1.0, FaultKind.BLACK_HOLE)  # which lasts for long
            case 1:
                chance = random.random() * 0.3
                weather = Weather(jitter=0.02, loss=chance, duplication=chance, reordering=chance)
                network.set_weather(source, target, weather)
            case 2:
                network.cut(source, target)
                self._world.queue.after(random.random(), network.heal, source, target)
            case _:
                network.set_weather(source, target, None)

    def end(self) -> None:
        """Make everything good again: what was cut heals by itself, within a second."""
        for source, target in (self._pair, self._pair[::-1]):
            self._world.network.set_weather(source, target, None)
        self._world.run(1.0)


class Reading:
    """A subscription, and what came for it in one life of its host."""

    def __init__(self, host: Host, token: int, pattern: str, published: dict[str, int]) -> None:
        self.host = host
        self.token = token
        self.pattern = pattern
        self.began_after = dict(published)  # how many of each topic had been published
        self.ended = False

    def numbers(self, topic: str) -> list[tuple[int, bool]]:
        """Return what came of a topic, in order, and whether it was retained."""
        return [
            (int(body(record)), extra(record, Tag.RETAINED) is not None)
            for record, tokens in deliveries(self.host)
            if record[1] == topic and self.token in tokens
        ]


def deliveries(host: Host) -> list[tuple[Record, tuple[int, ...]]]:
    return [
        pair
        for action in host.ordered(DeliverPublications)
        if isinstance(action, DeliverPublications)
        for delivery, tokens in action.deliveries
        for pair in zip(delivery.records, tokens, strict=True)
    ]


def matches(pattern: str, topic: str) -> bool:
    first, last = topic.split(".")
    return pattern in (topic, ">", f"{first}.*", f"*.{last}", f"{first}.>")


@pytest.mark.parametrize("seeds", [range(0, SEEDS, 2), range(1, SEEDS, 2)], ids=["even", "odd"])
def test_late_joiner_sees_the_last_values_and_then_everything_once(seeds: range) -> None:
    for seed in seeds:
        run_replays(seed)


def run_replays(seed: int) -> None:
    random = Random(seed)
    world = World(NodeOptions(link=LinkOptions(window_messages=random.choice([2, 8, 1024]))))
    world.random.seed(seed)
    a, b = world.mesh("a", "b")
    faults = Faults(world, random, a, b)
    depth = random.choice([1, 2, 5])
    published = dict.fromkeys(TOPICS, 0)
    readings: list[Reading] = []
    tokens = 0
    for _ in range(80):
        world.run(random.random() * 0.02)
        choice = random.random()
        if choice < 0.6:
            topic = random.choice(TOPICS)
            published[topic] += 1
            record = (head(Kind.PUBLICATION), topic, str(published[topic]).encode())
            a.do(Publish(record, 4 + TOPICS.index(topic), Ticket(), keep=depth))
        elif choice < 0.75:
            tokens += 1
            host = random.choice([a, b])
            pattern = random.choice(PATTERNS)
            host.do(Subscribe(tokens, pattern, Terms(replay=True)))
            readings.append(Reading(host, tokens, pattern, published))
        elif choice < 0.8 and readings:
            reading = random.choice(readings)
            reading.ended = True
            reading.host.do(Unsubscribe(reading.token))
        elif choice < 0.82:
            b.kill()
            for reading in readings:
                reading.ended |= reading.host is b
            b = world.host("b")
            world.introduce(a, b)
        else:
            faults.strike()
    faults.end()
    world.run(30.0)
    for reading in readings:
        for topic in TOPICS:
            if matches(reading.pattern, topic):
                check_reading(seed, reading, topic, depth, published[topic])
            else:
                assert reading.numbers(topic) == []
    statistics = a.engine.statistics()
    assert statistics.queued_messages == 0
    assert statistics.retained == sum(min(depth, count) for count in published.values())


def check_reading(seed: int, reading: Reading, topic: str, depth: int, last: int) -> None:
    found = reading.numbers(topic)
    where = f"seed {seed}, subscription {reading.token} to {reading.pattern}, topic {topic}"
    numbers = [number for number, _ in found]
    before = reading.began_after[topic]
    if numbers:
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), where
        assert numbers[0] > before - depth, where
        marks = [is_retained for _, is_retained in found]
        assert marks == sorted(marks, reverse=True), f"{where}: a replay comes first"
        assert marks.count(True) <= depth, where
        assert all(number > before for number, mark in found if not mark), where
    if not reading.ended:
        assert (numbers[-1] if numbers else 0) == last, where


# At most once


class Moody:
    """Gives publications back half of the time, with an attempt more or as they were."""

    def __init__(self, host: Host, random: Random) -> None:
        host.accepts = False
        self.host = host
        self.given_back = 0
        self._random = random
        self._seen = 0

    def settle(self) -> None:
        new = self.host.actions[self._seen :]
        self._seen += len(new)
        for action in new:
            if isinstance(action, DeliverPublications):
                for delivery, _ in action.deliveries:
                    for seq in range(delivery.first_seq, delivery.last_seq + 1):
                        verdict = self._random.choice(
                            (Outcome.ACCEPTED, Outcome.MODIFIED, Outcome.RELEASED)
                        )
                        self.given_back += verdict is not Outcome.ACCEPTED
                        self.host.do(SettleDeliveries(delivery.source, seq, seq, verdict))


def test_at_most_once_comes_at_most_once_in_order_and_holds_nobody_up() -> None:
    given_back = sum(run_at_most_once(seed) for seed in range(SEEDS // 2))
    assert given_back > SEEDS, "or these runs show nothing"


def run_at_most_once(seed: int) -> int:
    random = Random(seed)
    world = World(NodeOptions(link=LinkOptions(queued_messages_max=random.choice([5, 1000]))))
    world.random.seed(seed)
    a, b = world.mesh("a", "b")
    when_full = random.choice([WhenFull.BLOCK, WhenFull.DROP_OLDEST])
    b.do(Subscribe(1, "t", Terms(when_full=when_full, limit=LIMIT)))
    world.run(1.0)
    faults, reader = Faults(world, random, a, b), Moody(b, random)
    for number in range(60):
        world.run(random.random() * 0.02)
        if random.random() < 0.2:
            faults.strike()
        if random.random() < 0.5:
            reader.settle()
        record: Record = (head(Kind.PUBLICATION), "t", str(number).encode())
        ticket = Ticket()
        a.do(Publish(record, 4, ticket, at_most_once=True))
        world.run(0.0)
        assert (a.finished(ticket), ticket.accepted, ticket.failures) == (True, 0, [])
        assert a.engine.queued(b.id)[0] <= 1000
    faults.end()
    for _ in range(60):
        world.run(0.2)
        reader.settle()
    came = [int(text) for _, text in b.heard]
    assert came == sorted(set(came)), f"seed {seed}"
    if when_full is WhenFull.BLOCK:  # else it knows of more that it missed: as "a" sees it
        assert len(came) + a.engine.statistics().missed == 60, f"seed {seed}"
    assert a.engine.open_work() == b.engine.open_work() == (0, 0)
    assert a.engine.statistics().redelivered == 0
    return reader.given_back


# Drops


class SlowReader:
    """Accepts what it was given now and then."""

    def __init__(self, host: Host) -> None:
        host.accepts = False
        self.host = host
        self._seen = 0
        self._held: list[tuple[Source, int, int]] = []

    def accept(self, count: int) -> None:
        """Accept the oldest few that have come."""
        new = self.host.actions[self._seen :]
        self._seen += len(new)
        for action in new:
            if isinstance(action, DeliverPublications):
                for delivery, _ in action.deliveries:
                    numbers = range(delivery.first_seq, delivery.last_seq + 1)
                    self._held += [(delivery.source, seq, seq) for seq in numbers]
        for source, first, last in self._held[:count]:
            self.host.do(SettleDeliveries(source, first, last, Outcome.ACCEPTED))
        del self._held[:count]


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest", "latest"])
def test_delivered_and_announced_drops_are_all_that_was_published(when_full: str) -> None:
    dropped = sum(run_drops(seed, WhenFull(when_full)) for seed in range(SEEDS // 3))
    assert dropped > SEEDS, "or these runs show nothing"


def run_drops(seed: int, when_full: WhenFull) -> int:
    random = Random(seed)
    world = World(NodeOptions(backlog_in_flight_max=random.choice([1, 3, 10])))
    world.random.seed(seed)
    a, b, c = world.mesh("a", "b", "c")
    c.do(Subscribe(1, "t"))
    b.do(Subscribe(1, "t", Terms(when_full=when_full, limit=LIMIT)))
    is_alone = random.random() < 0.5
    if not is_alone:
        b.do(Subscribe(2, ">", Terms(Filter("odd"), when_full=when_full, limit=LIMIT)))
    world.run(1.0)
    faults, reader = Faults(world, random, a, b), SlowReader(b)
    published = 0
    for _ in range(80):
        world.run(random.random() * 0.02)
        choice = random.random()
        if choice < 0.7:
            published += 1
            record: Record = (head(Kind.PUBLICATION), "t", str(published).encode())
            if published % 2:
                record = (*record[:3], (int(Tag.TYPE), "odd"))
            ticket = Ticket()
            a.do(Publish(record, 4, ticket))
            world.run(0.0)
            assert ticket.expected == 1, "the one that takes everything"
        elif choice < 0.8:
            reader.accept(random.randrange(4))
        else:
            faults.strike()
        assert a.engine.statistics().backlog <= (LIMIT if is_alone else 2 * LIMIT)
        room = a.engine.room_to_publish("t")
        assert room is None or room > 0
    faults.end()
    for _ in range(published + 20):
        world.run(0.1)
        reader.accept(5)
    assert [text for _, text in c.heard] == [str(n) for n in range(1, published + 1)]
    everything = range(1, published + 1)
    check_told(seed, b, 1, everything, exactly=is_alone)
    if not is_alone:
        check_told(seed, b, 2, everything[::2], exactly=False)
    assert a.engine.open_work() == (0, 0)
    return a.engine.statistics().missed


def check_told(seed: int, host: Host, token: int, wanted: range, *, exactly: bool) -> None:
    """Every number came in order, or is among those it was told it missed.

    `exactly`: just where it is missing, which holds where no other subscription of the node makes
    publications wait.
    """
    came, missed = [], 0
    for action in host.actions:
        if isinstance(action, PublicationsMissed):
            missed += sum(count for number, count in action.counts if number == token)
        elif isinstance(action, DeliverPublications):
            for delivery, tokens in action.deliveries:
                for record, each in zip(delivery.records, tokens, strict=True):
                    if token in each:
                        came.append(int(body(record)))
                        if exactly:
                            assert came[-1] == wanted[len(came) - 1 + missed], f"seed {seed}"
    assert len(came) + missed == len(wanted), f"seed {seed}"
    assert came == sorted(set(came)), f"seed {seed}"
    assert set(came) <= set(wanted), f"seed {seed}"
