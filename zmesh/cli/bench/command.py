"""The command: here alone, or one end of two."""

import argparse
import asyncio
import json
import math
import os
import platform
import secrets
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zmesh
from zmesh.cli.bench.measures import MEASURES, Measure, service_of
from zmesh.cli.bench.serving import serve
from zmesh.errors import InvalidOption

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

NAME_DEFAULT: Final = "bench"
SECONDS_DEFAULT: Final = 1.0
SECONDS_MAX: Final = 60.0
TIMEOUT_DEFAULT: Final = 60.0
WARM_UP_S: Final = 0.2
ENDED_WITHIN_S: Final = 10.0


def add_bench(commands: "Commands") -> None:
    """Add the command to a parser; its options have `run`."""
    bench = commands.add_parser(
        "bench",
        help="measure how fast zmesh is here, or from here to another machine",
        description="Alone: between two processes of this machine, on loopback, in a mesh of "
        "their own. With --serve on one machine and --with its name on another: between the two, "
        "in their mesh, with its key.",
    )
    ends = bench.add_mutually_exclusive_group()
    ends.add_argument(
        "--serve", action="store_true", help="be the other end, until Ctrl-C, for whoever measures"
    )
    ends.add_argument("--with", dest="peer", metavar="NAME", help="measure to who serves as NAME")
    bench.add_argument(
        "--name", metavar="NAME", default=NAME_DEFAULT,
        help=f"what to serve as (default: {NAME_DEFAULT})",
    )  # fmt: skip
    bench.add_argument("--mesh", metavar="NAME", help="of --serve and --with, as for a node")
    bench.add_argument(
        "--key-file", type=Path, metavar="FILE", help="of --serve and --with, as for a node"
    )
    bench.add_argument(
        "--at", metavar="HOST:PORT", help="where who serves listens, where mDNS does not reach"
    )
    bench.add_argument(
        "--interfaces", nargs="+", metavar="NAME",
        help="names or addresses of network interfaces of --serve and --with, as for a node",
    )  # fmt: skip
    bench.add_argument("--encrypt", action="store_true", help="alone: with a mesh key")
    bench.add_argument(
        "--only", nargs="+", metavar="MEASURE", choices=[each.key for each in MEASURES],
        help=f"some alone, of {', '.join(each.key for each in MEASURES)}",
    )  # fmt: skip
    bench.add_argument(
        "--seconds", type=float, default=SECONDS_DEFAULT,
        help=f"of each measure (default: 1, at most {SECONDS_MAX:.0f})",
    )  # fmt: skip
    bench.add_argument(
        "--timeout", type=float, default=TIMEOUT_DEFAULT,
        help="seconds to look for the other end",
    )  # fmt: skip
    bench.add_argument("--json", action="store_true", help="print one line of JSON and no more")
    bench.set_defaults(run=_bench)


def _bench(options: argparse.Namespace) -> int:
    if not 0 < options.seconds <= SECONDS_MAX:
        bound = f"more than 0 seconds, at most {SECONDS_MAX:.0f}"
        raise InvalidOption("--seconds", options.seconds, bound)
    if not 0 < options.timeout < math.inf:
        raise InvalidOption("--timeout", options.timeout, "more than 0 seconds")
    _check_used(options)
    if options.serve:
        asyncio.run(_serve(options))
        return 0
    return asyncio.run(_measure(options))


def _check_used(options: argparse.Namespace) -> None:
    """Refuse what would have no effect."""
    alone = not options.serve and options.peer is None
    for name in ("mesh", "key_file", "at", "interfaces"):
        if alone and getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise InvalidOption(option, getattr(options, name), "given with --serve or --with")
    if options.encrypt and not alone:
        raise InvalidOption("--encrypt", True, "given alone: else the mesh's key decides")
    if not options.serve and options.name != NAME_DEFAULT:
        raise InvalidOption("--name", options.name, "given with --serve")
    for name, default in (("seconds", SECONDS_DEFAULT), ("timeout", TIMEOUT_DEFAULT)):
        if options.serve and getattr(options, name) != default:
            raise InvalidOption(f"--{name}", getattr(options, name), "given to who measures")
    if options.serve and (options.at or options.only):
        option = "--at" if options.at else "--only"
        raise InvalidOption(option, options.at or options.only, "given with --with")


def _node(options: argparse.Namespace, name: str | None = None) -> zmesh.Node:
    return zmesh.Node(
        name, mesh=options.mesh, key=options.key_file, interfaces=options.interfaces,
        peers=[options.at] if options.at else (),
    )  # fmt: skip


async def _serve(options: argparse.Namespace) -> None:
    async with _node(options, options.name) as node:
        if options.json:
            facts = {"serving": node.name, "mesh": node.mesh, "endpoints": node.endpoints}
            print(json.dumps(facts), flush=True)
        else:
            print(f"{node.name} of mesh {node.mesh!r} serves until Ctrl-C. On the other machine:")
            ends = ["--mesh", node.mesh, "--with", node.name]
            print(f"\n    zmesh bench {shlex.join(ends)}\n")
            at = next(iter(node.endpoints), "tcp://HOST:PORT").removeprefix("tcp://")
            print(f"Where mDNS does not reach, add: --at {at}", flush=True)
        await serve(node)


# Measuring


@dataclass(frozen=True, slots=True)
class Figure:
    """What came of a measure."""

    measure: Measure
    value: float

    @property
    def text(self) -> str:
        """The value with three digits that count, and its unit."""
        size = max(len(str(round(self.value))) - 3, 0)
        value = f"{round(self.value, -size):,.0f}" if self.value >= 100 else f"{self.value:.3g}"
        return value + (
            self.measure.unit if self.measure.unit == "/s" else f" {self.measure.unit}"
        )


async def _measure(options: argparse.Namespace) -> int:
    chosen = [each for each in MEASURES if options.only is None or each.key in options.only]
    ends = _alone(options) if options.peer is None else _together(options)
    tell = _silent if options.json else _told
    async with ends as (node, peer):
        figures = []
        for measure in chosen:
            await measure.run(node, peer, min(WARM_UP_S, options.seconds))
            figure = Figure(measure, await measure.run(node, peer, options.seconds))
            tell(figure)
            figures.append(figure)
        if options.json:
            print(json.dumps(_as_json(options, node, peer, figures)))
    return 0


def _told(figure: Figure) -> None:
    print(f"{figure.measure.title:32} {figure.text:>14}", flush=True)


def _silent(_figure: Figure) -> None:
    pass


def _as_json(
    options: argparse.Namespace, node: zmesh.Node, peer: zmesh.Peer, figures: Sequence[Figure]
) -> dict[str, object]:
    return {
        "mesh": node.mesh,
        "with": peer.name,
        "endpoints": peer.endpoints,
        "seconds": options.seconds,
        "zmesh": zmesh.__version__,
        "python": platform.python_version(),
        "measures": [
            {"measure": each.measure.key, "value": round(each.value, 1), "unit": each.measure.unit}
            for each in figures
        ],
    }


Ends = AsyncIterator[tuple[zmesh.Node, zmesh.Peer]]


@asynccontextmanager
async def _together(options: argparse.Namespace) -> Ends:
    """Join the mesh of who serves, and find it there."""
    async with _node(options) as node:
        found = await node.peers.wait_for(name=options.peer, timeout=options.timeout)
        yield node, await _serving(node, found[0].id, options.timeout)


async def _serving(node: zmesh.Node, peer: str, timeout: float) -> zmesh.Peer:  # noqa: ASYNC109
    """Wait until a peer serves, which it may not do if it is none of `--serve`."""
    service = service_of(peer, "parts")  # the last it begins with
    [found] = await node.peers.wait_for(service=service, timeout=timeout)
    return found


@asynccontextmanager
async def _alone(options: argparse.Namespace) -> Ends:
    """Open a node here, and another in a process of its own, which find nobody else."""
    mesh = f"bench-{secrets.token_hex(4)}"
    key = zmesh.MeshKey(secrets.token_bytes(32)).text if options.encrypt else ""
    here = ["127.0.0.1"]
    async with zmesh.Node(mesh=mesh, key=key or (), mdns=False, interfaces=here) as node:
        # Whatever else is set for nodes of this machine is not for these two.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ZMESH_")}
        environment |= {"ZMESH_MESH": mesh} | ({"ZMESH_KEY": key} if key else {})
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "zmesh.cli.bench.serving", node.endpoints[0],
            stdin=asyncio.subprocess.PIPE, env=environment,
        )  # fmt: skip
        try:
            [peer] = await node.peers.wait_for(name=NAME_DEFAULT, timeout=options.timeout)
            yield node, await _serving(node, peer.id, options.timeout)
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let the process end by itself; kill it if it does not."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(ENDED_WITHIN_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
