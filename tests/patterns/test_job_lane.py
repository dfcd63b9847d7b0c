"""The window over the stored jobs of one priority: when it is read, and for whom."""

from zmesh.message import Ticket
from zmesh.options import NodeOptions
from zmesh.patterns.job_lane import JobLane

OPTIONS = NodeOptions(queued_jobs_max=100, queued_jobs_bytes_max=10_000)


def lane_of(waiting: int = 50) -> JobLane:
    lane = JobLane("work", 4, OPTIONS)
    lane.written = waiting
    lane.put_off(1, waiting, waiting, Ticket())
    return lane


def test_nothing_is_read_while_half_of_the_window_is_ready() -> None:
    lane = lane_of()
    lane.ready = lane.loaded = 6
    assert lane.page[0] == 0
    lane.ready = lane.loaded = 5
    assert lane.page == (5, 1000)


def test_nothing_is_read_while_half_of_its_bytes_are_ready() -> None:
    lane = lane_of()
    lane.ready, lane.ready_bytes = 1, 501
    assert lane.page[0] == 0
    lane.ready_bytes = 500
    assert lane.page == (9, 500)


def test_one_reading_at_a_time_and_none_where_there_is_nothing_or_the_disk_failed() -> None:
    lane = lane_of()
    assert lane.page[0] == 10
    lane.is_reading = True
    assert lane.page[0] == 0
    broken = lane_of()
    broken.is_broken = True
    assert broken.page[0] == 0
    assert broken.is_stuck
    assert JobLane("work", 4, OPTIONS).page[0] == 0


def test_it_is_stuck_when_jobs_that_may_not_leave_have_taken_all_memory() -> None:
    lane = lane_of()
    lane.loaded = 99
    assert (lane.is_stuck, lane.page[0]) == (False, 1)
    lane.loaded = 100
    assert (lane.is_stuck, lane.page[0]) == (True, 0)


def test_the_caller_of_each_job_is_found_as_it_is_read() -> None:
    lane = JobLane("work", 4, OPTIONS)
    first, second = Ticket(), Ticket()
    lane.put_off(5, 7, 3, first)
    lane.put_off(10, 11, 2, second)
    assert lane.waiting == 5
    assert lane.cursor == 4, "what is below is not there"
    callers = [lane.caller_of(number) for number in (5, 6, 7, 10, 11)]
    assert callers == [first, first, first, second, second]


def test_jobs_of_another_life_have_no_caller() -> None:
    lane = JobLane("work", 4, OPTIONS)
    lane.put_off(10, 11, 2, Ticket())
    assert lane.caller_of(3) is None
