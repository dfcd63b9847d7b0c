"""`zmesh doctor`: what on this machine makes a mesh weak."""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from zmesh.cli.checkup import State, checkup
from zmesh.face.settings import MESH_DEFAULT

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


def add_doctor(commands: "Commands") -> None:
    """Add the command to a parser; its options have `run`."""
    doctor = commands.add_parser(
        "doctor",
        help="tell what on this machine makes a mesh weak, and what to do",
        description="Look at keys, key files, variables, journals and the machine, as a node "
        "started from here would find them. Nothing is changed. Exit with 1 where something is "
        "weak, or was begun and is to be finished.",
    )
    doctor.add_argument(
        "--mesh", metavar="NAME", help=f"ZMESH_MESH or {MESH_DEFAULT!r} by default"
    )
    doctor.add_argument(
        "--journal", type=Path, action="append", default=[], metavar="PATH",
        help="a journal to look at as well; may be repeated",
    )  # fmt: skip
    doctor.add_argument(
        "--trust", type=Path, action="append", default=[], metavar="DIR",
        help="a directory of trust to look at as well; may be repeated",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="print one line of JSON and no more")
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    mesh = options.mesh or os.environ.get("ZMESH_MESH") or MESH_DEFAULT
    findings = checkup(mesh, options.journal, os.environ, trusts=options.trust)
    weak = sum(each.state is State.WEAK for each in findings)
    unfinished = sum(each.state is State.OPEN for each in findings)
    if options.json:
        told = {"mesh": mesh, "weak": weak, "unfinished": unfinished}
        print(json.dumps(told | {"findings": [asdict(each) for each in findings]}))
        return 1 if weak or unfinished else 0
    for each in findings:
        print(f"{each.state:5} {each.check}: {each.what}")
        if each.todo:
            print(f"      -> {each.todo}")
    if weak:
        print(f"{weak} of {len(findings)} are weak")
    if unfinished:
        print(f"{unfinished} of {len(findings)} are to be finished")
    if not weak and not unfinished:
        print("all is well")
    return 1 if weak or unfinished else 0
