"""What attackers try, one test an attack: nobody else notices, and the victim counts it.

The victim and an honest peer are processes of their own, which all attacks share. How much slower
the honest peer becomes is judged in `tests/chaos/attacks.py`.
"""

import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from tests.security.attack import GROWTH_MAX, Attack
from tests.security.attacks import ATTACKS
from tests.security.defence import Honest, Victim, honest, victim
from zmesh.security.mesh_key import MeshKey

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="memory and 127.x.y.z are as on Linux"),
]


@dataclass
class Scene:
    """Who is there."""

    victim: Victim
    honest: Honest


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    key = MeshKey(os.urandom(32))
    async with victim(key) as attacked, honest(attacked.target) as peer:
        yield Scene(attacked, peer)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_attack_is_counted_and_hurts_nobody_else(scene: Scene, attack: Attack) -> None:
    before = await scene.victim.begin()
    paths = {name: bytes.fromhex(path) for name, path in before["paths"].items()}
    number = 1 + ATTACKS.index(attack)
    source = f"127.66.0.{number}"  # bounds and audit events are for each address
    name = f"mallory-{number}"
    await attack.run(replace(scene.victim.target, source=source, name=name, paths=paths))
    after = await scene.victim.noticed(before, attack.noticed, name)
    honest_facts = await scene.honest.goes_on()
    assert after["peak"] - before["memory"] < GROWTH_MAX
    assert after["peers"]["honest"] == "alive"
    assert ["Suspected", "honest"] not in after["happened"]
    assert ["Left", "honest"] not in after["happened"]
    assert not [
        event for event in after["told"] if event[1] == "honest" or event[2] == "127.0.0.1"
    ]
    assert (honest_facts["missed"], honest_facts["suspected"]) == (0, 0)
    assert honest_facts["peers"]["victim"] == "alive"
