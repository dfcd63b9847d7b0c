"""The thread pool: jobs run at once, threads are reused, and none is left."""

import threading
import time

import pytest

from zmesh.face import threads
from zmesh.face.threads import ThreadPool


def wait_until(condition: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def idle(pool: ThreadPool) -> int:
    return pool._idle


def test_jobs_run_at_the_same_time() -> None:
    pool = ThreadPool("test")
    barrier = threading.Barrier(5)
    for _ in range(4):
        pool.run(lambda: barrier.wait(5))
    barrier.wait(5)
    wait_until(lambda: idle(pool) == 4)
    pool.close(5)


def test_idle_thread_takes_the_next_job() -> None:
    pool = ThreadPool("test")
    names: list[int] = []
    for count in range(1, 6):
        pool.run(lambda: names.append(threading.get_ident()))
        wait_until(lambda count=count: len(names) == count and idle(pool) == 1)
    assert len(set(names)) == 1
    pool.close(5)


def test_no_thread_is_left_after_closing() -> None:
    before = threading.active_count()
    pool = ThreadPool("test")
    for _ in range(3):
        pool.run(lambda: time.sleep(0.01))
    wait_until(lambda: idle(pool) == 3)
    pool.close(5)
    assert threading.active_count() == before


def test_closing_does_not_wait_for_a_stuck_job() -> None:
    pool = ThreadPool("test")
    release = threading.Event()
    pool.run(lambda: release.wait(30))
    begun = time.monotonic()
    pool.close(5)
    assert time.monotonic() - begun < 1
    release.set()
    wait_until(lambda: not pool._threads)


def test_threads_are_daemons() -> None:
    pool = ThreadPool("test")
    daemons: list[bool] = []
    pool.run(lambda: daemons.append(threading.current_thread().daemon))
    wait_until(lambda: idle(pool) == 1)
    assert daemons == [True]
    pool.close(5)


def test_thread_idle_for_long_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_IDLE_S", 0.02)
    pool = ThreadPool("test")
    pool.run(lambda: None)
    wait_until(lambda: not pool._threads)
    assert idle(pool) == 0
    ran = threading.Event()
    pool.run(ran.set)
    assert ran.wait(5)
    wait_until(lambda: not pool._threads)


def test_job_without_a_thread_is_refused_and_closing_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = ThreadPool("test")
    done: list[int] = []
    pool.run(lambda: done.append(1))
    wait_until(lambda: idle(pool) == 1)
    gate = threading.Event()
    pool.run(lambda: gate.wait(5))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_thread_left)
        with pytest.raises(RuntimeError, match="can't start"):
            pool.run(lambda: done.append(2))
    gate.set()
    wait_until(lambda: idle(pool) == 1)
    pool.close(5)
    assert done == [1]


def _no_thread_left(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_job_that_comes_after_closing_still_runs() -> None:
    before = threading.active_count()
    pool = ThreadPool("test")
    gate = threading.Event()
    pool.run(lambda: gate.wait(5))
    for _ in range(2):
        ran = threading.Event()
        pool.run(ran.set)
        assert ran.wait(5)
    pool.close(0)
    for _ in range(5):
        ran = threading.Event()
        pool.run(ran.set)
        assert ran.wait(5)
    gate.set()
    wait_until(lambda: threading.active_count() == before)
