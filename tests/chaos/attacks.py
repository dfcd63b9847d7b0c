"""Each attack of `tests/security` on a victim that others talk to: they must not notice.

`python tests/chaos/attacks.py` prints a line of JSON with what each attack came to. It fails where
the 99th percentile of the others' calls more than doubles, where the victim grows beyond its bound
or does not count what names the attack, and where anything of the others' fails.

Victim, honest peers and attacker have processes of their own. Phases without and with an attack
take turns; each of the latter is compared with the one before it, and the median of these counts:
on a machine that others use as well, phases far apart differ more than those that follow each
other. In a phase the attack is repeated. The more rounds, the surer.

An attacker that keeps a core busy slows others by that alone, whomever it attacks. So after each
attack comes a phase in which it burns as much processor time in as many pieces, and attacks
nobody: `burning_p99_ratio` tells what others notice of that. It excuses nothing.

What is said by mDNS goes over a loopback of its own, in a network namespace; where there can be
none, that attack is left out and `skipped` says why.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from tests.netns.lan import Lan, why_not
from tests.processes import Child, run, say
from tests.security.attack import GROWTH_MAX, MIB, Attack
from tests.security.attacker import Order
from tests.security.attacks import ATTACKS
from tests.security.defence import Honest, Victim, honest, missing, victim
from tests.security.discoveries import DISCOVERIES
from zmesh.security.mesh_key import MeshKey

PROGRAM = "tests/chaos/attacks.py"
RATIO_MAX = 2.0
FLOOD_GROWTH_MAX = 96 * MIB
"""Of a victim that hears of thousands: its own table is bounded, and zeroconf keeps what it heard
until it expires, 10,000 records of some KiB."""

ATTACK_WITHIN = 120.0

Figures = dict[str, Any]


@dataclass
class Scene:
    """Everybody, and how they are measured."""

    victim: Victim
    honest: list[Honest]
    attacker: Child
    seconds: float
    settling: float
    pause: float
    said: int = 0  # orders so far

    async def p99(self) -> float:
        """Return the 99th percentile of the calls since it was asked for, in milliseconds.

        Of each peer its own, and of these the median.
        """
        facts = [await each.ask("facts") for each in self.honest]
        return float(statistics.median(each["p99"] for each in facts) * 1000)

    async def calm(self) -> float:
        """Have a phase without attack; return its figure."""
        await asyncio.sleep(self.settling)
        await self.p99()
        await asyncio.sleep(self.seconds)
        return await self.p99()

    async def ordered(self, order: Order) -> tuple[Figures, float]:
        """Have the attacker carry out an order; return what it tells, and the others' figure."""
        await self.p99()
        await self.attacker.tell(order.line)
        done: Figures = json.loads(await self.attacker.line(self.seconds + ATTACK_WITHIN))
        return done, await self.p99()

    async def burning(self, figures: Figures) -> float:
        """Have a phase in which as much is burnt as in that with these figures; return its own."""
        await asyncio.sleep(self.settling)
        each = figures["burnt"] / max(1, figures["times"])
        order = Order("", "", "", "", {}, "", "", self.seconds, self.pause, each)
        return (await self.ordered(order))[1]

    async def attacked(self, attack: Attack) -> Figures:
        """Have a phase with an attack; return its figures."""
        before = await self.victim.begin()
        target, self.said = self.victim.target, self.said + 1
        name = f"mallory-{self.said}"
        network = f"127.{66 + self.said // 250}.{1 + self.said % 250}"
        order = Order(
            attack.name, target.endpoint, target.node.hex(), target.key.text, before["paths"],
            name, network, self.seconds, self.pause,
        )  # fmt: skip
        done, p99 = await self.ordered(order)
        after, error = before, str(done["error"])
        try:
            after = await self.victim.noticed(before, attack.noticed, name)
        except AssertionError:
            after = await self.victim.facts()
        unharmed = [await each.goes_on() for each in self.honest]
        if after["peers"].get("honest") != "alive" or ["Suspected", "honest"] in after["happened"]:
            error = error or "the victim suspected an honest peer"
        if any(each["missed"] or each["suspected"] for each in unharmed):
            error = error or "an honest peer missed something, or suspected the victim"
        return {
            "p99": p99,
            "grew": after["peak"] - before["memory"],
            "missing": missing(before, after, attack.noticed, name),
            "times": done["times"],
            "burnt": done["burnt"],
            "error": error,
        }


async def main(
    attacks: list[Attack], *, rounds: int, seconds: float, settling: float, pause: float,
    peers: int, mdns: bool,
) -> Figures:  # fmt: skip
    """Try each attack, and return what it came to."""
    key = MeshKey(os.urandom(32))
    async with AsyncExitStack() as stack:
        attacked = await stack.enter_async_context(victim(key, mdns=mdns))
        others = [
            await stack.enter_async_context(
                honest(attacked.target, f"honest-{number}" if number else "honest")
            )
            for number in range(peers)
        ]
        attacker = await stack.enter_async_context(
            run("-m", "tests.security.attacker", reads=True)
        )
        scene = Scene(attacked, others, attacker, seconds, settling, pause)
        return {attack.name: await judged(scene, attack, rounds) for attack in attacks}


async def judged(scene: Scene, attack: Attack, rounds: int) -> Figures:
    """Take turns without and with an attack, and with its burden alone; return the figures."""
    calm, under, burning = [], [], []
    for _ in range(rounds):
        calm.append(await scene.calm())
        under.append(await scene.attacked(attack))
        burning.append(await scene.burning(under[-1]))
    control = [each / before for before, each in zip(calm, burning, strict=True)]
    ratios = [figures["p99"] / before for before, figures in zip(calm, under, strict=True)]
    missed = {name: n for figures in under for name, n in figures["missing"].items()}
    figures: Figures = {
        "p99_ratio": round(statistics.median(ratios), 2),
        "calm_p99_ms": [round(each, 2) for each in calm],
        "p99_ms": [round(each["p99"], 2) for each in under],
        "burning_p99_ratio": round(statistics.median(control), 2),
        "burning_p99_ms": [round(each, 2) for each in burning],
        "burnt_ms": round(1000 * sum(each["burnt"] for each in under)),
        "grew_mib": round(max(each["grew"] for each in under) / MIB, 1),
        "times": sum(each["times"] for each in under),
        "noticed": not missed,
    }
    if missed:
        figures["missed"] = missed
    if errors := [each["error"] for each in under if each["error"]]:
        figures["error"] = errors[0]
    growth_max = FLOOD_GROWTH_MAX if attack in DISCOVERIES else GROWTH_MAX
    figures["failed"] = [
        name
        for name, is_bad in (
            ("p99", figures["p99_ratio"] > RATIO_MAX),
            ("memory", max(each["grew"] for each in under) > growth_max),
            ("noticed", bool(missed)),
            ("others", bool(errors)),
        )
        if is_bad
    ]
    return figures


def by_mdns(arguments: list[str]) -> Figures:
    """Run this program for what is said by mDNS, in a namespace; return its figures."""
    if why := why_not():
        return {each.name: {"skipped": why} for each in DISCOVERIES}
    with Lan("liar") as lan:
        inside = ["ip", "netns", "exec", lan["liar"].namespace]
        done = subprocess.run(
            [*inside, sys.executable, PROGRAM, "--mdns", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": "."},
        )
    if not done.stdout:
        raise RuntimeError(done.stderr)
    figures: Figures = json.loads(done.stdout)["attacks"]
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each phase, at least")
    parser.add_argument("--settling", type=float, default=0.5, help="seconds before each phase")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two attacks")
    parser.add_argument("--rounds", type=int, default=5, help="of three phases")
    parser.add_argument("--peers", type=int, default=2, help="that are honest")
    parser.add_argument("--only", default="", help="attacks whose names have this in them")
    parser.add_argument("--mdns", action="store_true", help="only those by mDNS, here and now")
    given = vars(parser.parse_args())
    only = given.pop("only")
    is_inside = given["mdns"]
    chosen = [each for each in (DISCOVERIES if is_inside else ATTACKS) if only in each.name]
    results: Figures = asyncio.run(main(chosen, **given)) if chosen else {}
    if not is_inside and any(only in each.name for each in DISCOVERIES):
        passed_on = ("seconds", "settling", "pause", "rounds", "peers")
        told = [word for name in passed_on for word in (f"--{name}", str(given[name]))]
        results.update(by_mdns(told))
    failed = {name: each["failed"] for name, each in results.items() if each.get("failed")}
    say(json.dumps({"program": "attacks", "attacks": results, "failed": failed, "ok": not failed}))
    sys.exit(bool(failed))
