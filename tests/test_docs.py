"""The documentation runs: every Python block of README and docs, each in a process of its own."""

import os
import re
from pathlib import Path

import pytest

from tests.processes import ROOT, run

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def snippets() -> list[tuple[str, str]]:
    """Return every Python block with the place it stands at."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match.group(1)))
    return found


@pytest.mark.parametrize(("place", "code"), snippets(), ids=[place for place, _ in snippets()])
async def test_python_block_runs(place: str, code: str, tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(code, encoding="utf-8")
    mesh = f"docs-{os.urandom(6).hex()}"  # other tests on this machine must not be found
    async with run(str(snippet), environment={"ZMESH_MESH": mesh}, place=tmp_path) as program:
        status, out, error = await program.ended()
    assert status == 0, f"{place}\n{out}{error}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
