"""The work of the demonstration: what a worker finds out about one file."""

import hashlib
import re
import sysconfig
from collections import Counter
from pathlib import Path
from typing import TypedDict

from zmesh.errors import InvalidOption

IDENTIFIER = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
TOP = 10
SKIPPED_DIRECTORIES = frozenset({"__pycache__", "site-packages"})


class Analysis(TypedDict):
    """What is found out about a file."""

    sha256: str
    lines: int
    identifiers: list[list[str | int]]  # the ten most frequent and how often, ties by name


def analyse(content: bytes) -> Analysis:
    """Return digest, line count and most frequent identifiers of a file's content."""
    counts = Counter(IDENTIFIER.findall(content))
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "lines": content.count(b"\n"),
        "identifiers": [[name.decode("ascii"), count] for name, count in top],
    }


def files_below(tree: Path | None) -> list[Path]:
    """Return every readable file of the tree, in order; default is the standard library.

    Raises InvalidOption where there is none.
    """
    root = Path(sysconfig.get_paths()["stdlib"]) if tree is None else tree
    found = [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not SKIPPED_DIRECTORIES.intersection(path.relative_to(root).parts)
    ]
    if not found:
        raise InvalidOption("--tree", str(root), "a directory with at least one file")
    return found
