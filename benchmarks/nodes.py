"""Two zmesh nodes beside each other: one in another process, one in this."""

import asyncio
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import zmesh
from benchmarks.processes import expect, role
from benchmarks.system import wait_for_end
from benchmarks.turns import fresh_name


def beside(
    produce: Callable[[zmesh.Node], Awaitable[Any]],
    serve: Callable[[zmesh.Node], Awaitable[None]],
    place: Path | None = None,
) -> Any:
    """Run `serve` on a node in another process, and `produce` on one in this.

    Both are durable where there is a `place` for their journals.
    """
    mesh = fresh_name()

    async def run() -> Any:
        async with _node("producer", mesh, place) as node:
            return await produce(node)

    with role(serve_in, serve, mesh, place) as (pipe, _):
        expect(pipe)
        return asyncio.run(run())


def _node(name: str, mesh: str, place: Path | None) -> zmesh.Node:
    if place is None:
        return zmesh.Node(name, mesh=mesh, key=())
    return zmesh.Node(name, mesh=mesh, key=(), storage=place / name)


def serve_in(
    pipe: Connection,
    serve: Callable[[zmesh.Node], Awaitable[None]],
    mesh: str,
    place: Path | None = None,
) -> None:
    async def main() -> None:
        async with _node("consumer", mesh, place) as node:
            serving = asyncio.create_task(_as_coroutine(serve(node)))
            pipe.send("ready")
            await asyncio.to_thread(wait_for_end, pipe)
            serving.cancel()

    asyncio.run(main())


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


async def consume(node: zmesh.Node) -> None:
    async for _ in node.inbox():
        pass
