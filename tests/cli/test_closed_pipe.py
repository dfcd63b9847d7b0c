import os
import subprocess
import sys
from pathlib import Path

import pytest

from zmesh.cli.main import PIPE_CLOSED
from zmesh.security.node_key import NodeKey, to_text


@pytest.mark.parametrize("arguments", [["--help"], ["trust", "list"]])
def test_a_command_ends_quietly_where_nobody_reads_its_output(
    arguments: list[str], tmp_path: Path
) -> None:
    if arguments[0] == "trust":
        (tmp_path / "ada.pub").write_text(to_text(NodeKey.of(bytes(32)).public))
        arguments = [*arguments, str(tmp_path)]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "zmesh.cli.main", *arguments],
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            stdout=pipe,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.stderr == b""
    assert done.returncode == PIPE_CLOSED
