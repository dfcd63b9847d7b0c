"""How a loop ended, as its iterator sees it. Fails on a Python that compiles loops otherwise."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Self

import pytest

from zmesh.face.loop_exit import left_by_break

log: list[bool] = []


class Numbers:
    """Counts for ever, and logs how the loop over it ended."""

    def __init__(self) -> None:
        self._last = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        self._last += 1
        return self._last

    def __del__(self) -> None:
        log.append(left_by_break(sys._getframe(1)))


async def by_break() -> None:
    async for number in Numbers():
        if number == 3:
            break


async def by_return() -> int:
    async for number in Numbers():
        if number == 3:
            return number
    return 0


async def by_break_out_of_try() -> None:
    async for number in Numbers():
        try:
            if number == 3:
                break
        finally:
            log[:] = log


async def by_break_out_of_with() -> None:
    async for number in Numbers():
        with suppress(ValueError):
            if number == 3:
                break


async def by_return_of_an_expression() -> str:
    async for number in Numbers():
        if number == 3:
            return str(number)
    return ""


async def by_raise() -> None:
    async for number in Numbers():
        if number == 3:
            raise ValueError


async def by_raise_caught_around() -> None:
    with suppress(ValueError):
        async for number in Numbers():
            if number == 3:
                raise ValueError


async def by_error_in_a_call() -> None:
    async for number in Numbers():
        if number == 3:
            int("x")


async def by_error_passed_on() -> None:
    async for number in Numbers():
        try:
            if number == 3:
                int("x")
        except ValueError:
            raise


async def by_cancellation() -> None:
    async for number in Numbers():
        if number == 3:
            await asyncio.sleep(60)


async def by_generator_exit() -> None:
    async def numbers() -> AsyncIterator[int]:
        async for number in Numbers():
            yield number

    generator = numbers()
    await anext(generator)
    await generator.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "loop",
    [by_break, by_return, by_break_out_of_try, by_break_out_of_with, by_return_of_an_expression],
)
async def test_break_and_return_are_told_from_exceptions(
    loop: Callable[[], Awaitable[object]],
) -> None:
    log.clear()
    await loop()
    assert log == [True]


@pytest.mark.parametrize(
    "loop",
    [by_raise, by_raise_caught_around, by_error_in_a_call, by_error_passed_on, by_cancellation,
     by_generator_exit],
)  # fmt: skip
async def test_exceptions_are_told_from_break(loop: Callable[[], Awaitable[object]]) -> None:
    log.clear()
    with suppress(ValueError, TimeoutError):
        async with asyncio.timeout(0.05):
            await loop()
    assert log == [False]


def test_without_a_frame_nobody_left_by_break() -> None:
    assert not left_by_break(None)


def test_loops_that_are_kept_to_the_end_of_the_interpreter_end_quietly() -> None:
    program = """
import asyncio, zmesh
kept = []
async def main():
    async with zmesh.Node("a", key=(), mdns=False) as node:
        kept.extend([aiter(node.inbox()), node.inbox().batches()])
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
