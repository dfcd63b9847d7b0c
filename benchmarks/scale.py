"""How zmesh grows: a hub with many edges, a full mesh of processes, and a mesh of hubs and edges.

    python -m benchmarks.scale                  # under five minutes on two quiet cores
    python -m benchmarks.scale --edges 10 --mesh 10 --hubs-mesh 20 --idle 5    # a quick look

It stays on loopback, in meshes of its own, and every wait has an end. What is counted in processor
time and memory means the same on a machine that others use as well; seconds of the clock do not.
`docs/scaling.md` tells what the figures mean, and what `benchmarks.scale_model` makes of them.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import scale_processes as processes
from benchmarks.machine import facts as facts_of_machine
from benchmarks.processes import FORKSERVER, SPAWN, expect, preload, role
from benchmarks.scale_processes import Plan, Use
from benchmarks.servers import free_port
from benchmarks.turns import fresh_name

CROWD: Final = 125
"""Nodes of one process on the other side of a hub."""

NODES_MAX: Final = 1_000
PROCESSES_MAX: Final = 200
IDLE_S: Final = 8.0
LOAD_S: Final = 2.0
WARM_S: Final = 18.0
"""Until heartbeats have slowed down: 2, 3, 4.5 and 6.75 s, then they come every 8 to 10 s."""

LINKED_WITHIN_S: Final = 150.0
PATIENCE_S: Final = LINKED_WITHIN_S + 60.0


@dataclass(frozen=True, slots=True)
class HubRow:
    """A hub alone in its process, and its edges in few others."""

    edges: int
    linked_s: float  # from the first edge that opens to the last link
    hub_cpu_ms_per_link: float
    connections_per_edge: float  # more than one where edges had to dial again
    kib_per_edge: float
    idle_cpu_percent: float  # of a core
    idle_packets_per_s: float
    calls_per_s: float  # of one edge, all others idle
    calls_per_cpu_s: float  # of the hub's processor time
    posts_per_s: float
    posts_per_cpu_s: float
    deliveries_per_s: float  # of publications to all edges
    deliveries_per_cpu_s: float


@dataclass(frozen=True, slots=True)
class MeshRow:
    """Processes with a node each."""

    processes: int
    hubs: int  # the same where the mesh is full
    links: int
    links_missing: int  # after the time there was for them
    linked_s: float  # from the word to open to the last link
    cpu_ms_per_link: float  # of all processes
    dials_per_link: float
    private_mib: float  # a process, the median
    idle_cpu_percent: float  # a process, the mean, of a core
    idle_packets_per_s: float  # a process, the mean


def measure_hub(edges: int, idle_s: float) -> HubRow:
    """Measure a hub with so many edges."""
    mesh = fresh_name()
    # Spawned: of a fork, memory that was its parent's would count as it is written to.
    with role(processes.hub, Plan(mesh), edges, context=SPAWN) as (hub, _):
        endpoint, empty_kib, empty = expect(hub)
        plan = Plan(mesh, role="edge", peers=(endpoint,))
        counts = [min(CROWD, edges - first) for first in range(0, edges, CROWD)]
        members = [
            (processes.crowd, plan, index * CROWD, count, 1, LINKED_WITHIN_S)
            for index, count in enumerate(counts)
        ]
        with _roles(members) as pipes:
            hub.send("link")
            began = _begin(pipes)
            for pipe in pipes:
                expect(pipe, PATIENCE_S)
            ended, cpu_s = expect(hub, PATIENCE_S)
            _warm_up(idle_s)
            kib = _ask(hub, "memory")
            first, then = _idle([hub], idle_s)
            idle_s = then[0].at_s - first[0].at_s
            calls = _load(hub, pipes[0], ("call", LOAD_S))
            posts = _load(hub, pipes[0], ("post", "hub", LOAD_S))
            for pipe in pipes:
                _ask(pipe, "subscribe")
            delivered, before, after = _ask(hub, ("publish", LOAD_S))
            return HubRow(
                edges=edges,
                linked_s=ended - began,
                hub_cpu_ms_per_link=1000 * (cpu_s - empty.cpu_s) / edges,
                connections_per_edge=first[0].accepted / edges,
                kib_per_edge=(kib - empty_kib) / edges,
                idle_cpu_percent=100 * _rate(first[0].cpu_s, then[0].cpu_s, idle_s),
                idle_packets_per_s=_rate(first[0].packets, then[0].packets, idle_s),
                calls_per_s=calls[0],
                calls_per_cpu_s=calls[1],
                posts_per_s=posts[0],
                posts_per_cpu_s=posts[1],
                deliveries_per_s=delivered / (after.at_s - before.at_s),
                deliveries_per_cpu_s=delivered / max(after.cpu_s - before.cpu_s, 1e-9),
            )


def measure_mesh(count: int, hubs: int, idle_s: float, *, mdns: bool) -> MeshRow:
    """Measure so many processes, of which so many are hubs and the others edges."""
    mesh = fresh_name()
    port = free_port()
    seed = f"127.0.0.1:{port}"
    members = []
    for index in range(count):
        is_hub = index < hubs
        plan = Plan(
            mesh,
            role="hub" if is_hub else "edge",
            seeds=() if mdns or index == 0 else (seed,),
            mdns=mdns,
            port=port if index == 0 else 0,
        )
        others = count - 1 if is_hub else hubs
        members.append((processes.crowd, plan, index, 1, others, LINKED_WITHIN_S))
    with _roles(members) as pipes:
        began = _begin(pipes)
        told = [expect(pipe, PATIENCE_S) for pipe in pipes]
        _warm_up(idle_s)
        memory = [_ask(pipe, "memory") for pipe in pipes]
        first, then = _idle(pipes, idle_s)
        links = sum(use.links for use in then) // 2
        cpu = sum(cpu_s for _, cpu_s in told)
        shares = [
            _rate(one.cpu_s, two.cpu_s, two.at_s - one.at_s)
            for one, two in zip(first, then, strict=True)
        ]
        packets = [
            _rate(one.packets, two.packets, two.at_s - one.at_s)
            for one, two in zip(first, then, strict=True)
        ]
        return MeshRow(
            processes=count,
            hubs=hubs,
            links=links,
            links_missing=hubs * (hubs - 1) // 2 + hubs * (count - hubs) - links,
            linked_s=max(at_s for at_s, _ in told) - began,
            cpu_ms_per_link=1000 * cpu / links,
            dials_per_link=sum(use.dials for use in then) / links,
            private_mib=sorted(memory)[count // 2] / 1024,
            idle_cpu_percent=100 * sum(shares) / count,
            idle_packets_per_s=sum(packets) / count,
        )


Member = tuple[Callable[..., None], Plan, int, int, int, float]


@contextmanager
def _roles(members: Sequence[Member]) -> Iterator[list[Any]]:
    """Run these in processes of their own, and wait until each is up."""
    with ExitStack() as stack:
        pipes = [
            stack.enter_context(role(function, *arguments, context=FORKSERVER))[0]
            for function, *arguments in members
        ]
        try:
            for pipe in pipes:
                expect(pipe)
            yield pipes
        finally:
            for pipe in pipes:  # all at once: each would be waited for by itself
                pipe.close()


def _warm_up(idle_s: float) -> None:
    """Wait until heartbeats are as rare as they become, where it is looked at for long enough."""
    if idle_s >= IDLE_S:
        time.sleep(WARM_S)


def _begin(pipes: Sequence[Any]) -> float:
    began = time.monotonic()
    for pipe in pipes:
        pipe.send("open")
    return began


def _ask(pipe: Any, word: object) -> Any:
    pipe.send(word)
    return expect(pipe)


def _idle(pipes: Sequence[Any], seconds: float) -> tuple[list[Use], list[Use]]:
    """Return what each had used before a time, and after it."""
    before = [_ask(pipe, "use") for pipe in pipes]
    time.sleep(seconds)
    return before, [_ask(pipe, "use") for pipe in pipes]


def _load(hub: Any, pipe: Any, word: object) -> tuple[float, float]:
    """Return how many of what one edge does there were in a second, and in one of the hub's."""
    before = _ask(hub, "use")
    count = _ask(pipe, word)
    after = _ask(hub, "use")
    seconds, cpu = after.at_s - before.at_s, after.cpu_s - before.cpu_s
    return count / seconds, count / max(cpu, 1e-9)


def _rate(before: float, after: float, seconds: float) -> float:
    return (after - before) / max(seconds, 1e-9)


# What comes out


def table_of(rows: Sequence[HubRow] | Sequence[MeshRow]) -> str:
    """Return rows as a table of Markdown, a column for each."""
    if not rows:
        return ""
    facts = [asdict(row) for row in rows]
    head, *names = facts[0]
    lines = [
        "| " + " | ".join([head.replace("_", " "), *(str(each[head]) for each in facts)]) + " |",
        "| --- |" + " ---: |" * len(facts),
    ]
    for name in names:
        values = [_text_of(each[name]) for each in facts]
        lines.append("| " + " | ".join([name.replace("_", " "), *values]) + " |")
    return "\n".join(lines)


def _text_of(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _numbers(most: int) -> Callable[[str], list[int]]:
    def read(text: str) -> list[int]:
        numbers = [int(each) for each in text.split(",") if each]
        if any(not 1 <= number <= most for number in numbers):
            raise argparse.ArgumentTypeError(f"each of 1 to {most}")
        return numbers

    return read


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how zmesh grows, on loopback.")
    parser.add_argument("--edges", type=_numbers(NODES_MAX), default=[10, 100, 1000])
    parser.add_argument("--mesh", type=_numbers(PROCESSES_MAX), default=[10, 50, 100])
    parser.add_argument("--hubs-mesh", type=_numbers(PROCESSES_MAX), default=[200])
    parser.add_argument("--hubs", type=int, default=2, help="of the last")
    parser.add_argument("--mdns", action="store_true", help="meshes without a seed")
    parser.add_argument("--idle", type=float, default=IDLE_S, help="seconds that are looked at")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure, and print."""
    options = _options()
    preload(["benchmarks.scale_processes"])
    began = time.monotonic()
    hubs, meshes = [], []
    for edges in options.edges:
        hubs.append(measure_hub(edges, options.idle))
        print(hubs[-1], file=sys.stderr, flush=True)
    plans = [(count, count) for count in options.mesh]
    plans += [(count, min(options.hubs, count)) for count in options.hubs_mesh]
    for count, few in plans:
        meshes.append(measure_mesh(count, few, options.idle, mdns=options.mdns))
        print(meshes[-1], file=sys.stderr, flush=True)
    text = "\n\n".join(filter(None, (table_of(hubs), table_of(meshes)))) + "\n"
    print(text)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json:
        facts = {
            "machine": facts_of_machine(),
            "hubs": [asdict(row) for row in hubs],
            "meshes": [asdict(row) for row in meshes],
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
