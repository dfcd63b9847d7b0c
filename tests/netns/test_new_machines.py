"""A new machine on a LAN gets the mesh key by its code alone, with nothing else said."""

import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.netns.lan import Lan, Machine
from tests.processes import Child, run
from zmesh.discovery.endpoints import split_target
from zmesh.security.key_files import create_key_file, read_key_file, text_of
from zmesh.security.mesh_key import MeshKey

KEY = MeshKey(b"k" * 32)


def command(machine: Machine, home: Path, *words: str) -> AbstractAsyncContextManager[Child]:
    """Run `zmesh` on a machine."""
    return run(
        "-m", "zmesh.cli.main", *words, "--json",
        environment={"XDG_CONFIG_HOME": str(home)}, namespace=machine.namespace,
    )  # fmt: skip


@pytest.mark.parametrize(
    "families", [(4, 6), (4,), (6,), ()], ids=["both", "4", "6", "link-local"]
)
async def test_the_code_is_enough(families: tuple[int, ...], tmp_path: Path) -> None:
    create_key_file(tmp_path / "a" / "zmesh" / "default.key", text_of([KEY], "test"))
    with Lan("a", "b", families=families or (6,)) as lan:
        if not families:
            for name in "ab":
                lan[name].ip(f"addr del {lan[name].addresses[6]} dev eth0")
        async with command(lan["a"], tmp_path / "a", "invite") as inviter:
            told = json.loads(await inviter.line(30))
            assert told["mdns_failure"] == ""
            assert not any("127.0.0.1" in each for each in told["endpoints"])
            async with command(lan["b"], tmp_path / "b", "join", told["code"]) as joiner:
                status, out, error = await joiner.ended()
                assert (status, error) == (0, "")
            joined = json.loads(await inviter.line(30))
    result = json.loads(out)
    assert joined["saved"] is True
    assert read_key_file(Path(result["path"])).keys == (KEY,)
    if families:
        expected = {lan["a"].addresses[family].partition("/")[0] for family in families}
        assert split_target(result["address"])[0] in expected
