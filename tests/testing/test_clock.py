from zmesh.testing.clock import EventQueue, HostClock, SeededEntropy


def test_what_is_due_first_happens_first_and_ties_keep_their_order() -> None:
    queue, seen = EventQueue(), list[str]()
    queue.at(2.0, seen.append, "late")
    queue.at(1.0, seen.append, "one")
    queue.at(1.0, seen.append, "two")
    while queue.step():
        pass
    assert seen == ["one", "two", "late"]
    assert queue.now == 2.0


def test_what_is_asked_for_in_the_past_happens_now() -> None:
    queue, seen = EventQueue(), list[float]()
    queue.at(5.0, lambda: queue.at(1.0, lambda: seen.append(queue.now)))
    while queue.step():
        pass
    assert seen == [5.0]


def test_an_empty_queue_takes_no_step() -> None:
    queue = EventQueue()
    assert queue.next_at is None
    assert not queue.step()


def test_a_clock_runs_from_its_own_zero_at_its_own_rate() -> None:
    queue = EventQueue()
    queue.at(10.0, lambda: None)
    clock = HostClock(queue, rate=1.5, zero=100.0)
    queue.step()
    assert clock.read() == 115.0
    assert clock.when(130.0) == 20.0


def test_a_clock_stands_still_while_its_host_is_suspended_and_never_goes_back() -> None:
    queue = EventQueue()
    clock = HostClock(queue)
    for at in (1.0, 3.0, 6.0):
        queue.at(at, lambda: None)
    queue.step()
    clock.suspend(4.0)
    queue.step()
    assert clock.read() == 1.0
    queue.step()
    assert clock.read() == 2.0
    assert clock.when(2.5) == 6.5


def test_entropy_repeats_with_its_seed() -> None:
    one, same, other = SeededEntropy("a"), SeededEntropy("a"), SeededEntropy("b")
    drawn = (one.token(16), one.uniform(0.0, 1.0))
    assert drawn == (same.token(16), same.uniform(0.0, 1.0))
    assert drawn[0] != other.token(16)
