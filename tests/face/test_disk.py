"""Functions in threads: what they return and raise comes back, wherever they are waited for."""

import asyncio
import threading

import pytest

from zmesh.face.disk import Disk, has_ended


async def test_a_function_runs_in_a_thread() -> None:
    disk = Disk(asyncio.get_running_loop())
    assert await disk.run(threading.current_thread) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        await disk.run(divmod, 1, 0)
    disk.close()


async def test_nobody_needs_to_wait() -> None:
    disk = Disk(asyncio.get_running_loop())
    gate, ran = threading.Event(), threading.Event()

    def job() -> None:
        gate.wait(5)
        ran.set()

    waiting = disk.start(job)
    assert not await has_ended(waiting, 0.01)
    waiting.cancel()
    gate.set()
    while not ran.is_set():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    disk.start(divmod, 1, 0)  # whose error nobody looks at
    assert await disk.run(lambda: 5) == 5
    disk.close()


async def test_what_comes_after_the_end_still_runs() -> None:
    disk = Disk(asyncio.get_running_loop())
    assert await disk.run(lambda: 1) == 1
    disk.close()
    assert [await disk.run(lambda: 2) for _ in range(3)] == [2, 2, 2]
