"""`python -m benchmarks.run`: zmesh beside bare pyzmq, and others, in the same run, as ratios."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import OtherMachine, Results
from benchmarks.runner import RUNS, Runner, say, timed
from benchmarks.scenario import SCENARIOS
from benchmarks.system import System
from benchmarks.systems.amqp import AMQP
from benchmarks.systems.bare import BARE, BARE_CURVE
from benchmarks.systems.dds import DDS
from benchmarks.systems.grpc import GRPC
from benchmarks.systems.mesh import ZMESH, ZMESH_KEY
from benchmarks.systems.mqtt import MQTT
from benchmarks.systems.nats import JETSTREAM, NATS
from benchmarks.systems.nng import NNG
from benchmarks.systems.redis import REDIS
from benchmarks.systems.zenoh import ZENOH
from benchmarks.systems.zerorpc import ZERORPC
from benchmarks.table import markdown, table

CORE = (BARE, ZMESH, BARE_CURVE, ZMESH_KEY)
PEERS = (REDIS, NATS, JETSTREAM, MQTT, NNG, ZENOH, GRPC, ZERORPC, AMQP, DDS)


def systems_of(name: str) -> list[System]:
    """Return "core", "all", or the systems that have this in their name."""
    if name == "core":
        return list(CORE)
    if name == "all":
        return [*CORE, *PEERS]
    return [system for system in (*CORE, *PEERS) if name.casefold() in system.name.casefold()]


def chosen(names: Sequence[str]) -> list[System]:
    """Return the systems of all these names, and the yardsticks they need, each once."""
    systems = [system for name in names for system in systems_of(name)]
    needed = {system.yardstick for system in systems} | {BARE.name}
    everybody = {system.name: system for system in (*CORE, *PEERS)}
    return [system for name, system in everybody.items() if name in needed or system in systems]


def terminable() -> None:
    """Let SIGTERM end what was started too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def main() -> int:
    """Measure, print the table, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--only", nargs="+", help="scenarios of these keys")
    parser.add_argument(
        "--systems", nargs="+", default=["core"], help="core, all, or parts of their names"
    )
    parser.add_argument("--place", type=Path, help="a directory on the disk to be measured")
    parser.add_argument("--json", type=Path, help="a file to write all to")
    parser.add_argument(
        "--update",
        action="store_true",
        help="keep what the file has of other systems and scenarios; of the same machine only",
    )
    parser.add_argument("--markdown", type=Path, help="a file to write the page to")
    options = parser.parse_args()
    terminable()
    known = [scenario.key for scenario in SCENARIOS]
    if options.update and options.json is None:
        parser.error("--update needs the file: --json")
    unknown = set(options.only or ()) - set(known)
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    scenarios = [each for each in SCENARIOS if options.only is None or each.key in options.only]
    runner = Runner(
        chosen(options.systems), scenarios, runs=options.runs, place=options.place, tell=say
    )
    results, took_s = timed(runner.run)
    _tell(results)
    say(f"measured in {took_s:.0f} s")
    if options.update and options.json.exists():
        try:
            results = in_order(read(options.json).updated(results))
        except OtherMachine as error:
            print(f"{options.json} is left as it was: {error}", file=sys.stderr)
            return 1
    if options.json is not None:
        text = json.dumps(results.as_json(), indent=1)
        _write(options.json, text + "\n")
    if options.markdown is not None:
        _write(options.markdown, markdown(results))
    return 0


def _tell(results: Results) -> None:
    print(table(results))
    for name, why in results.skipped.items():
        print(f"{name} skipped: {why}")
    for name, reasons in results.failed.items():
        for key, why in reasons.items():
            print(f"{name} failed at {key}: {why}")
    if restless := results.restless():
        print(f"the machine changed in the midst of every round: {', '.join(restless)}")


def read(path: Path) -> Results:
    """Return what an earlier run wrote."""
    return Results.from_json(json.loads(path.read_text(encoding="utf-8")))


def in_order(results: Results) -> Results:
    """Return results whose systems stand in the order they always have."""
    names = [system.name for system in (*CORE, *PEERS)]
    results.yardsticks = {
        name: results.yardsticks[name] for name in names if name in results.yardsticks
    }
    results.about = {name: results.about[name] for name in names if name in results.about}
    return results


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
