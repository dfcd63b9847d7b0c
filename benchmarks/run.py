"""`python -m benchmarks.run`: zmesh beside bare pyzmq, and others, in the same run, as ratios."""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version

import zmq

from benchmarks import bare, durable, mesh

BODY = bytes(100)


@dataclass(frozen=True, slots=True)
class Figure:
    """One scenario: what zmesh reached, what the yardstick did, and what is asked for.

    The yardstick is bare pyzmq where the scenario names no other.
    """

    scenario: str
    unit: str
    zmesh: float
    bare: float | None
    ratio: float | None
    goal: str
    reached: bool


def main() -> int:
    """Run all scenarios; print a table, or one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each throughput scenario")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", help="scenarios whose name contains this")
    options = parser.parse_args()
    figures = []
    for name, scenario in SCENARIOS.items():
        if options.only is None or options.only in name:
            if not options.json:
                print(f"{name} ...", file=sys.stderr, flush=True)
            figures += scenario(options.runs)
    where = {
        "python": platform.python_version(),
        "pyzmq": zmq.__version__,
        "libzmq": zmq.zmq_version(),
        "zmesh": version("zmesh"),
        "cores": len(os.sched_getaffinity(0)),
    }
    if options.json:
        print(json.dumps({"machine": where, "figures": [asdict(figure) for figure in figures]}))
    else:
        print(" ".join(f"{key} {value}" for key, value in where.items()))
        print("| scenario | zmesh | yardstick | ratio | goal | reached |")
        print("| --- | --- | --- | --- | --- | --- |")
        for figure in figures:
            print(_row(figure))
    return 0


def _row(figure: Figure) -> str:
    bare_text = "" if figure.bare is None else f"{figure.bare:,.0f} {figure.unit}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}x"
    value = f"{figure.zmesh:,.1f}" if figure.zmesh < 1000 else f"{figure.zmesh:,.0f}"
    reached = "yes" if figure.reached else "no"
    return (
        f"| {figure.scenario} | {value} {figure.unit} | {bare_text} | {ratio} "
        f"| {figure.goal} | {reached} |"
    )


def _medians(runs: int, *measures: Callable[[], float]) -> list[float]:
    """Return the median of each measure, the measures taking turns run by run."""
    results = [[measure() for measure in measures] for _ in range(runs)]
    return [statistics.median(column) for column in zip(*results, strict=True)]


def _stream(runs: int) -> list[Figure]:
    reliable, one_by_one, unacked, acked = _medians(
        runs,
        lambda: mesh.stream(300_000, BODY),
        lambda: mesh.stream_one_by_one(100_000, BODY),
        lambda: bare.stream(300_000, BODY),
        lambda: bare.stream_acked(100_000, BODY),
    )
    per_s = "msg/s"
    ratio, ratio_acked, ratio_single = reliable / unacked, reliable / acked, one_by_one / unacked
    return [
        Figure("acked stream / bare unacked", per_s, reliable, unacked, ratio, ">= 1", ratio >= 1),
        Figure(
            "acked stream / bare acked", per_s, reliable, acked, ratio_acked, ">= 5",
            ratio_acked >= 5,
        ),
        Figure(
            "the same, one post each / bare unacked", per_s, one_by_one, unacked, ratio_single,
            "none", reached=True,
        ),
    ]  # fmt: skip


def _request_reply(runs: int) -> list[Figure]:
    def p50(times: list[float]) -> float:
        return 1e6 * times[len(times) // 2]

    ours, theirs = _medians(
        runs,
        lambda: p50(mesh.request_reply(3_000, BODY)),
        lambda: p50(bare.request_reply(3_000, BODY)),
    )
    many, many_bare = _medians(
        runs,
        lambda: mesh.request_reply_concurrent(32_000, BODY, 64),
        lambda: bare.request_reply_concurrent(32_000, BODY, 64),
    )
    ratio, many_ratio = ours / theirs, many / many_bare
    return [
        Figure("call, one at a time, p50", "us", ours, theirs, ratio, "<= 1.4", ratio <= 1.4),
        Figure(
            "calls, 64 at a time", "/s", many, many_bare, many_ratio, ">= 1", many_ratio >= 1
        ),
    ]  # fmt: skip


def _times(_runs: int) -> list[Figure]:
    discovery = 1000 * statistics.median(mesh.first_call(20))
    failover = 1000 * statistics.median(mesh.failover(5))
    limit = "<= 500 ms"
    return [
        Figure(
            "start to first call answered", "ms", discovery, None, None, limit, discovery <= 500
        ),
        Figure("kill -9 to calls answered", "ms", failover, None, None, limit, failover <= 500),
    ]


def _idle(_runs: int) -> list[Figure]:
    cpu, resident = mesh.idle(peers=10, seconds=20.0)
    return [
        Figure("idle with 10 peers", "% of a core", 100 * cpu, None, None, "< 1", cpu < 0.01),
        Figure("idle with 10 peers", "MiB", resident, None, None, "< 60", resident < 60),
    ]


def _healthy(_runs: int) -> list[Figure]:
    count = mesh.healthy(1_000_000, BODY)
    return [Figure("retransmitted of a million", "records", count, None, None, "0", count == 0)]


def _durable(runs: int) -> list[Figure]:
    results = durable.measured(list(durable.SYSTEMS), min(runs, durable.RUNS))
    for line in results.notes + results.skipped:
        print(line, file=sys.stderr)
    return [
        Figure(
            f"durable, {each.body_bytes} bytes: {each.name}", "msg/s", each.ours, each.theirs,
            each.ratio, each.asked, each.reached,
        )
        for each in results.ratios()
    ]  # fmt: skip


SCENARIOS: dict[str, Callable[[int], list[Figure]]] = {
    "stream": _stream,
    "request-reply": _request_reply,
    "times": _times,
    "idle": _idle,
    "healthy": _healthy,
    "durable": _durable,
}

if __name__ == "__main__":
    sys.exit(main())
