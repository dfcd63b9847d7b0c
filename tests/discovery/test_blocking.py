import asyncio
import threading
import time

import pytest

from zmesh.discovery.blocking import in_thread


async def test_a_call_runs_elsewhere_and_its_result_comes_back() -> None:
    here = threading.current_thread()
    there = await in_thread(threading.current_thread, "elsewhere")
    assert there is not here
    assert there.daemon
    assert there.name == "elsewhere"


async def test_what_a_call_raises_is_raised_here() -> None:
    def fail() -> None:
        raise OSError("unknown host")

    with pytest.raises(OSError, match="unknown host"):
        await in_thread(fail, "failing")


async def test_a_cancelled_call_is_left_alone() -> None:
    go = threading.Event()
    task = asyncio.create_task(in_thread(go.wait, "waiting"))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await asyncio.sleep(0.05)  # its late answer harms nobody


def test_a_call_that_hangs_does_not_hold_up_the_end_of_the_loop() -> None:
    go, ended = threading.Event(), threading.Event()

    def hang() -> None:
        go.wait()
        ended.set()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_thread(hang, "hanging"), 0.01)

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 5.0
    go.set()  # its answer finds the loop closed
    assert ended.wait(5.0)
