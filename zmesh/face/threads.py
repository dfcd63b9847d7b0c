"""Threads for handlers that block: daemons, so that a stuck one never keeps the process alive."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

Job = Callable[[], object]

_IDLE_S = 10.0  # an idle thread ends after this


class ThreadPool:
    """Runs jobs in threads, as many as there are jobs at once: callers bound those.

    `concurrent.futures` would wait at exit for a handler that never returns.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._idle = 0  # threads not promised to a job
        self._is_closed = False

    def run(self, job: Job) -> None:
        """Run a job, which must not raise, in a thread.

        Raises:
            RuntimeError: the system has no thread left.
        """
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            else:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                thread.start()  # may fail: then nothing is left of it
                self._threads.add(thread)
            self._jobs.put(job)

    def close(self, timeout: float) -> None:
        """End the idle threads, and wait for them; busy ones end with their job.

        A job that comes later still runs, in a thread of its own.
        """
        with self._lock:
            self._is_closed = True
            threads = list(self._threads)
            idle, self._idle = self._idle, 0
            for _ in range(idle):
                self._jobs.put(None)
        if idle == len(threads):
            for thread in threads:
                thread.join(timeout)

    def _work(self) -> None:
        while self._next_job():
            pass
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _next_job(self) -> bool:
        try:
            job = self._jobs.get(timeout=_IDLE_S)
        except Empty:
            with self._lock:
                # A job may have been promised to this thread just now.
                if self._idle == 0:
                    return True
                self._idle -= 1
            return False
        if job is None:
            return False
        job()
        with self._lock:
            if self._is_closed:
                return False
            self._idle += 1
        return True
