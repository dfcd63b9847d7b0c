"""Run libFuzzer on one target in this process: `python -m tests.fuzz.child TARGET OPTION...`.

Needs `atheris`. The options are libFuzzer's, see `run`.
"""

import sys

import atheris

with atheris.instrument_imports(include=["zmesh"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until time or the target's patience is over; never returns."""
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
