"""Durable jobs on a simulated network: nodes with disks die at any point, and come back."""

from collections import Counter
from random import Random

import pytest

from tests.engines import Host, World
from tests.scribe import outcomes_on, rows_of
from zmesh.events import RequeueLetter
from zmesh.message import FailureKind, Outcome, Tag, Ticket, extra
from zmesh.options import NodeOptions
from zmesh.storage import StreamKind
from zmesh.storage_errors import DeadLettersFull, JournalFull
from zmesh.testing.journal import Disk

OPTIONS = NodeOptions(attempts_max=3, redeliver_min=0.1, redeliver_max=0.2)
SMALL = NodeOptions(queued_jobs_max=20, attempts_max=3)


def two(options: NodeOptions = OPTIONS) -> tuple[World, Host, Host]:
    """Return a world with a producer and a consumer that know each other."""
    world = World(options)
    producer, consumer = world.keep("p"), world.keep("c")
    world.introduce(producer, consumer)
    world.run(2.0)
    return world, producer, consumer


def again(world: World, name: str, *others: Host) -> Host:
    """Start a host anew, and let others meet it."""
    host = world.keep(name)
    for other in others:
        world.introduce(host, other)
    return host


def bodies(host: Host) -> list[str]:
    return [text for text, _ in host.jobs]


def waiting(host: Host) -> int:
    return host.engine.statistics().jobs_waiting


# On disk first


def test_a_job_is_handed_out_only_when_it_is_on_disk() -> None:
    world, producer, consumer = two()
    consumer.pull("work", 4)
    world.run(1.0)
    ticket = producer.store("work", "one")
    world.run_until(lambda: bool(consumer.jobs))
    assert producer.stored == {ticket: None}
    assert [extra(row.record, Tag.STORED) for row in rows_of(producer.disk)] == [1]
    consumer.settle_job()
    world.run(2.0)
    assert producer.finished(ticket)
    assert rows_of(producer.disk) == []


def test_a_job_that_found_no_room_on_disk_leaves_no_trace() -> None:
    world = World()
    producer = world.host("p", disk=Disk(bytes_max=10_000), takes_time=True)
    ticket = producer.store("work", "x" * 20_000, key="k")
    world.run(1.0)
    assert isinstance(producer.stored[ticket], JournalFull)
    assert waiting(producer) == 0
    assert not producer.finished(ticket)
    assert producer.engine.queues.pushed.queued("work") == (0, 0)
    small = producer.store("work", "y", key="k")
    world.run(1.0)
    assert producer.stored[small] is None
    assert waiting(producer) == 1


def test_jobs_outlive_their_producer() -> None:
    world, producer, consumer = two()
    producer.store("work", *(f"{number}" for number in range(50)))
    producer.store("work", "first", lane=9)
    world.run(1.0)
    producer.kill()
    world.run(1.0)
    producer = again(world, "p", consumer)
    assert waiting(producer) == 51
    consumer.job_outcome = Outcome.ACCEPTED
    consumer.pull("work", 4)
    world.run(5.0)
    assert bodies(consumer) == ["first", *(f"{number}" for number in range(50))]
    assert (waiting(producer), rows_of(producer.disk)) == (0, [])


def test_consumers_forget_outcomes_of_jobs_that_are_forgotten() -> None:
    world, producer, consumer = two()
    consumer.job_outcome = Outcome.ACCEPTED
    consumer.pull("work", 4)
    producer.store("work", *"abcdef")
    world.run(5.0)
    assert len(bodies(consumer)) == 6
    assert outcomes_on(consumer.disk) == []


# A window over the disk


def test_a_backlog_is_on_disk_but_for_a_window_of_each_priority() -> None:
    world, producer, consumer = two(SMALL)
    producer.store("work", *(f"low{number}" for number in range(40)), lane=1)
    producer.store("work", *(f"high{number}" for number in range(10)), lane=8)
    producer.store("work", *(f"more{number}" for number in range(40)), lane=1)
    world.run(1.0)
    queue = producer.engine.queues.pushed
    assert queue.waiting == 90
    assert queue.room("work") == SMALL.queued_jobs_max
    consumer.job_outcome = Outcome.ACCEPTED
    consumer.pull("work", 7)
    world.run(5.0)
    expected = [
        f"{which}{number}"
        for which, count in (("high", 10), ("low", 40), ("more", 40))
        for number in range(count)
    ]
    assert bodies(consumer) == expected


def test_jobs_of_one_key_keep_their_order_across_priorities_and_lives() -> None:
    world, producer, consumer = two(SMALL)
    producer.store("work", *(f"plain{number}" for number in range(30)))
    for number, lane in enumerate((2, 9, 0, 5)):
        producer.store("work", f"key{number}", lane=lane, key="k")
    world.run(1.0)
    producer.kill()
    producer = again(world, "p", consumer)
    consumer.job_outcome = Outcome.ACCEPTED
    consumer.pull("work", 4)
    world.run(5.0)
    assert [text for text in bodies(consumer) if text.startswith("key")] == [
        "key0", "key1", "key2", "key3",
    ]  # fmt: skip
    assert bodies(consumer)[:30] == [f"plain{number}" for number in range(30)]
    assert len(consumer.jobs) == 34


def test_delayed_jobs_take_no_place_in_the_window_and_come_at_their_time_in_another_life() -> None:
    world, producer, consumer = two(SMALL)
    producer.store("work", *(f"later{number}" for number in range(15)), delay=20.0)
    producer.store("work", *(f"now{number}" for number in range(15)))
    world.run(1.0)
    producer.kill()
    world.run(3.0)
    producer = again(world, "p", consumer)
    consumer.job_outcome = Outcome.ACCEPTED
    consumer.pull("work", 4)
    world.run(5.0)
    assert bodies(consumer) == [f"now{number}" for number in range(15)]
    late = world.run_until(lambda: len(consumer.jobs) > 15)
    assert late == pytest.approx(11.0, abs=0.2)
    world.run(2.0)
    assert bodies(consumer)[15:] == [f"later{number}" for number in range(15)]


def test_room_is_asked_for_jobs_that_are_all_in_memory() -> None:
    world = World(SMALL)
    producer = world.keep("p")
    producer.store("work", *"abcdefghijkl", key="k")
    world.run(1.0)
    assert producer.engine.queues.pushed.room("work") == SMALL.queued_jobs_max - 12


def test_jobs_whose_time_was_over_meanwhile_end() -> None:
    world, producer, consumer = two()
    producer.store("work", "old", ttl=2.0)
    world.run(1.0)
    producer.kill()
    world.run(3.0)
    producer = again(world, "p", consumer)
    consumer.pull("work", 4)
    world.run(2.0)
    assert (waiting(producer), consumer.jobs, rows_of(producer.disk)) == (0, [], [])


def test_failing_jobs_that_pause_do_not_hold_up_those_on_disk() -> None:
    world, producer, consumer = two(NodeOptions(queued_jobs_max=20, redeliver_min=30.0))
    producer.store("work", *(f"bad{number}" for number in range(10)))
    producer.store("work", *(f"good{number}" for number in range(5)))
    consumer.job_outcome = Outcome.MODIFIED
    consumer.pull("work", 1)
    world.run_until(lambda: len(consumer.jobs) == 10)
    consumer.job_outcome = Outcome.ACCEPTED
    world.run(2.0)
    assert bodies(consumer)[10:] == [f"good{number}" for number in range(5)]


# Attempts


def test_attempts_that_failed_count_in_the_next_life() -> None:
    world, producer, consumer = two()
    ticket = producer.store("work", "bad")
    consumer.pull("work", 1)
    world.run_until(lambda: len(consumer.jobs) == 1)
    consumer.settle_job(Outcome.MODIFIED)
    world.run_until(lambda: len(consumer.jobs) == 2)
    consumer.settle_job(Outcome.MODIFIED)
    world.run(0.05)
    producer.kill()
    assert not ticket.done
    world.run(1.0)
    producer = again(world, "p", consumer)
    world.run_until(lambda: len(consumer.jobs) == 3)
    assert consumer.jobs == [("bad", 1), ("bad", 2), ("bad", 3)]
    consumer.settle_job(Outcome.MODIFIED)
    world.run(2.0)
    assert (waiting(producer), rows_of(producer.disk)) == (0, [])
    [letter] = rows_of(producer.disk, StreamKind.DEAD_LETTERS)
    assert bytes(letter.record[2]) == b"bad"


def test_a_job_that_was_out_when_its_producer_died_may_have_begun() -> None:
    world, producer, consumer = two()
    other = world.keep("d")
    producer.store("work", "one")
    consumer.pull("work", 1)
    world.run_until(lambda: len(consumer.jobs) == 1)
    world.run(1.0)
    producer.kill()
    consumer.kill()
    world.run(1.0)
    again(world, "p", other)
    other.pull("work", 1)
    world.run_until(lambda: len(other.jobs) == 1)
    assert other.jobs == [("one", 2)]


def test_what_was_given_back_counts_as_not_begun_in_the_next_life_too() -> None:
    world, producer, consumer = two()
    producer.store("work", "one")
    consumer.pull("work", 1)
    world.run_until(lambda: len(consumer.jobs) == 1)
    consumer.unpull()
    world.run(1.0)
    producer.kill()
    world.run(1.0)
    again(world, "p", consumer)
    consumer.pull("work", 1, token=2)
    world.run_until(lambda: len(consumer.jobs) == 2)
    assert consumer.jobs == [("one", 1), ("one", 1)]


def test_a_job_that_kills_the_process_that_holds_it_ends_as_a_dead_letter() -> None:
    world = World(OPTIONS)
    host = world.keep("p")
    host.store("work", "deadly")
    world.run(1.0)
    attempts = []
    for _ in range(OPTIONS.attempts_max):
        host.pull("work", 1)
        world.run_until(lambda: bool(host.jobs), 5.0)  # noqa: B023  # in this very round
        attempts += host.jobs
        host.kill()  # the moment it begins
        host = world.keep("p")
    assert attempts == [("deadly", 1), ("deadly", 2), ("deadly", 3)]
    host.pull("work", 1)
    world.run(5.0)
    assert host.jobs == []
    assert rows_of(host.disk) == []
    assert len(rows_of(host.disk, StreamKind.DEAD_LETTERS)) == 1


def test_a_rejected_job_moves_to_the_dead_letters_on_disk() -> None:
    world, producer, consumer = two()
    ticket = producer.store("work", "bad")
    consumer.job_outcome = Outcome.REJECTED
    consumer.pull("work", 1)
    world.run(2.0)
    assert [failure.kind for failure in ticket.failures] == [FailureKind.REJECTED]
    assert rows_of(producer.disk) == []
    assert len(rows_of(producer.disk, StreamKind.DEAD_LETTERS)) == 1


# What consumers remember


def test_a_job_that_was_handled_is_known_when_another_life_sends_it() -> None:
    world, producer, consumer = two()
    producer.store("work", *"ab")
    consumer.pull("work", 1)
    world.run_until(lambda: len(consumer.jobs) == 1)
    world.run(1.0)
    producer.kill()
    world.run(0.1)
    consumer.settle_job()  # its producer does not hear of it
    world.run(2.0)
    producer = again(world, "p", consumer)
    world.run_until(lambda: len(consumer.jobs) == 2)
    consumer.settle_job()
    world.run(2.0)
    assert bodies(consumer) == ["a", "b"]
    assert (waiting(producer), rows_of(producer.disk)) == (0, [])
    assert consumer.engine.statistics().duplicate_jobs == 1


def test_a_job_in_work_is_not_begun_again_for_another_life_of_its_producer() -> None:
    world, producer, consumer = two()
    producer.store("work", *"abc")
    consumer.pull("work", 1)
    world.run_until(lambda: len(consumer.jobs) == 1)
    world.run(1.0)
    producer.kill()
    world.run(1.0)
    producer = again(world, "p", consumer)
    world.run(5.0)
    assert bodies(consumer) == ["a"]
    consumer.settle_job()
    world.run(2.0)
    consumer.job_outcome = Outcome.ACCEPTED
    consumer.settle_job()
    world.run(5.0)
    assert bodies(consumer) == ["a", "b", "c"]
    assert (waiting(producer), rows_of(producer.disk)) == (0, [])


def test_a_consumer_with_a_journal_knows_in_its_next_life_what_it_did() -> None:
    world, producer, consumer = two()
    producer.store("work", "one")
    consumer.pull("work", 1)
    world.run_until(lambda: len(consumer.jobs) == 1)
    world.network.cut(consumer.index, producer.index)
    consumer.settle_job()
    world.run(0.05)
    consumer.kill()
    world.network.heal(consumer.index, producer.index)
    world.run(1.0)
    consumer = again(world, "c", producer)
    consumer.pull("work", 1)
    world.run(10.0)
    assert consumer.jobs == []
    assert (waiting(producer), rows_of(producer.disk)) == (0, [])


@pytest.mark.parametrize("victim", ["p", "c"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("operation", range(1, 16))
def test_wherever_a_process_dies_each_stored_job_is_done(
    victim: str, operation: int, *, after: bool
) -> None:
    world, producer, consumer = two(SMALL)
    hosts = {"p": producer, "c": consumer}
    first = hosts[victim]
    consumer.pull("work", 2)
    first.drive.die_at(first.drive.operations + operation, after=after)
    done: Counter[str] = Counter()
    kept: dict[str, tuple[Host, Ticket]] = {}
    for turn in range(300):
        if turn % 5 == 0 and turn < 100:
            key = "k" if turn % 10 else None
            kept[f"{turn}"] = hosts["p"], hosts["p"].store("work", f"{turn}", key=key)
        world.run(0.03)
        for name, other in (("p", "c"), ("c", "p")):
            if not hosts[name].alive:
                hosts[name] = again(world, name, hosts[other])
                if name == "c":
                    hosts["c"].pull("work", 2)
        while hosts["c"].open_jobs:
            verdict = Outcome.MODIFIED if sum(done.values()) == 3 else Outcome.ACCEPTED
            done[hosts["c"].settle_job(verdict)] += verdict is Outcome.ACCEPTED
            done["failed"] += verdict is Outcome.MODIFIED
    assert not first.alive, "it died there"
    done.pop("failed", None)
    stored = {text for text, (host, ticket) in kept.items() if ticket in host.stored}
    assert stored <= {text for text, count in done.items() if count}
    assert rows_of(world.disks["p"]) == []
    if victim == "p":  # its consumer remembers
        assert set(done.values()) <= {0, 1}


def test_the_floor_rises_with_what_is_forgotten_and_stays_below_what_is_left() -> None:
    world = World(OPTIONS)
    host = world.keep("p")
    for _ in range(30):
        host.store("work", *"abcdefghij", ttl=0.1)
        world.run(1.0)
    assert waiting(host) == 0
    assert rows_of(host.disk) == []
    pushed = host.engine.queues.pushed
    assert pushed.floor == 301
    host.store("work", "last", ttl=60.0)
    world.run(1.0)
    assert pushed.floor == 301, "the number of what is left"


@pytest.mark.parametrize("seed", range(4))
def test_jobs_survive_whatever_dies_and_fails(seed: int) -> None:
    random = Random(seed)
    world = World(NodeOptions(queued_jobs_max=20, redeliver_min=0.1, attempts_max=100))
    hosts = {name: world.keep(name) for name in "pcd"}
    world.introduce(hosts["p"], hosts["c"])
    world.introduce(hosts["p"], hosts["d"])
    kept: dict[str, tuple[Host, Ticket]] = {}
    done: list[str] = []
    for turn in range(900):
        alive = turn < 500
        if alive and random.random() < 0.5 and len(kept) < 120:
            key = random.choice((None, "x", "y"))
            text = f"{key}{len(kept):03}"
            lane, delay = random.randrange(10), random.choice((0.0, 0.0, 1.0))
            ticket = hosts["p"].store("work", text, lane=lane, key=key, delay=delay)
            kept[text] = hosts["p"], ticket
        world.run(0.02)
        if alive and random.random() < 0.02:
            hosts[random.choice("ppcd")].kill()
        for name in "pcd":
            if not hosts[name].alive:
                others = "cd" if name == "p" else "p"
                hosts[name] = again(world, name, *(hosts[other] for other in others))
            if name != "p" and not hosts[name].engine.queues.taken.pulls:
                hosts[name].pull("work", 3)
            while hosts[name].open_jobs and random.random() < 0.8:
                failed = alive and random.random() < 0.2
                text = hosts[name].settle_job(Outcome.MODIFIED if failed else Outcome.ACCEPTED)
                done += [] if failed else [text]
    stored = {text for text, (host, ticket) in kept.items() if ticket in host.stored}
    assert len(stored) > 50
    assert stored <= set(done)
    assert [rows_of(disk) for disk in world.disks.values()] == [[], [], []]
    for key in "xy":
        first = list(dict.fromkeys(text for text in done if text.startswith(key)))
        assert first == sorted(first)


# Dead letters


def test_a_dead_letter_goes_back_to_its_queue_on_disk_and_begins_anew() -> None:
    world, producer, consumer = two()
    consumer.job_outcome = Outcome.REJECTED
    consumer.pull("work", 1)
    producer.store("work", "bad", key="k", lane=7)
    world.run(2.0)
    [letter] = producer.engine.dead_letters()
    assert (letter.topic, letter.attempts, letter.key) == ("work", 1, "k")
    consumer.job_outcome = None
    ticket = Ticket()
    producer.do(RequeueLetter(letter.id, ticket, world.wall_ms))
    world.run(0.5)
    assert producer.stored[ticket] is None
    assert (producer.engine.dead_letters(), len(rows_of(producer.disk))) == ([], 1)
    assert consumer.jobs == [("bad", 1), ("bad", 1)]
    producer.kill()
    world.run(1.0)
    consumer.settle_job()
    producer = again(world, "p", consumer)
    world.run(2.0)
    assert consumer.jobs == [("bad", 1), ("bad", 1)], "known under its new number"
    assert rows_of(producer.disk) == []


def test_nothing_is_stored_while_dead_letters_leave_no_room() -> None:
    world, producer, consumer = two(NodeOptions(dead_letters_max=1))
    consumer.job_outcome = Outcome.REJECTED
    consumer.pull("work", 1)
    producer.store("work", "bad")
    world.run(2.0)
    ticket = producer.store("work", "more")
    world.run(1.0)
    assert isinstance(producer.stored[ticket], DeadLettersFull)
    assert (waiting(producer), rows_of(producer.disk)) == (0, [])
