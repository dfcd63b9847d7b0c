"""Run a target on inputs from files: `python -m tests.fuzz.replay TARGET FILE...`."""

import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS


def main() -> None:
    """Raise what the target raises."""
    name, *files = sys.argv[1:]
    for file in files:
        TARGETS[name](Path(file).read_bytes())


if __name__ == "__main__":
    main()
