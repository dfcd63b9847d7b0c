"""Attacks a node from a process of its own: `python -m tests.security.attacker`.

For each line of JSON that it reads, an `Order`, it attacks again and again for so long, and prints
a line of JSON: how often, the seconds of processor time that took, and what it found that should
not be so. It ends when its input does.

To burn so much without attacking anybody is an order as well: what others notice of that is not
the victim's doing.
"""

import asyncio
import json
import resource
import sys
import time
import traceback
from dataclasses import asdict, dataclass

from tests.processes import say
from tests.security.attacks import BY_NAME
from tests.security.member import Target
from zmesh.ids import NodeId
from zmesh.security.mesh_key import MeshKey


@dataclass(frozen=True)
class Order:
    """Whom to attack, how, and for how long."""

    attack: str
    endpoint: str
    node: str  # in hex
    key: str
    paths: dict[str, str]  # in hex
    name: str
    network: str  # the beginning of the addresses to come from, one for each time
    seconds: float
    pause: float  # seconds between two times
    burning: float = 0.0  # seconds of processor time to burn each time, in place of an attack

    @property
    def line(self) -> str:
        """The line to tell it."""
        return json.dumps(asdict(self))

    def target(self, time_: int) -> Target:
        """Return whom to attack for the n-th time."""
        paths = {name: bytes.fromhex(path) for name, path in self.paths.items()}
        node = NodeId(bytes.fromhex(self.node))
        source = f"{self.network}.{1 + time_ % 250}"
        return Target(self.endpoint, node, MeshKey.parse(self.key), source, self.name, paths)


async def carry_out(order: Order) -> dict[str, object]:
    """Attack, for at least once."""
    until = time.monotonic() + order.seconds
    times, error, before = 0, "", _burnt()
    while not (times and time.monotonic() >= until):
        try:
            if order.burning:
                burn(order.burning)
            else:
                await BY_NAME[order.attack].run(order.target(times))
        except Exception:  # noqa: BLE001  # told
            error = traceback.format_exc(limit=-3)
            break
        times += 1
        await asyncio.sleep(order.pause)
    return {"times": times, "burnt": _burnt() - before, "error": error}


def burn(seconds: float) -> None:
    """Do nothing of use, for so much processor time."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def _burnt() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


async def main() -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        say(json.dumps(await carry_out(Order(**json.loads(line)))))


if __name__ == "__main__":
    asyncio.run(main())
