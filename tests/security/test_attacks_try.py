import asyncio
import os
import pytest
from tests.security.defence import honest, victim
from tests.security.attacks import STRANGERS, MEMBERS, Attack
from zmesh.security.mesh_key import MeshKey


@pytest.mark.parametrize("attack", STRANGERS + MEMBERS, ids=lambda a: a.name)
async def test_it(attack: Attack) -> None:
    key = MeshKey(os.urandom(32))
    async with victim(key) as target:
        async with honest(target.target) as peer:
            before = await target.facts()
            await asyncio.sleep(0.3)
            base = peer.p99()
            await attack.run(target.target)
            after = await target.facts()
            print(
                "\n##",
                attack.name,
                "base %.1f ms attack %.1f ms" % (base * 1e3, peer.p99() * 1e3),
                "grew MiB",
                (after["peak"] - before["memory"]) >> 20,
                after["audited"],
                after["defects"],
                {k: v for k, v in after["transport"].items() if v and "handsh" in k or "inb" in k},
                after["peers"],
            )
