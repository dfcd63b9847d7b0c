"""The machine figures come from, and how quickly it wakes a process up just now."""

import os
import platform
from enum import Enum
from pathlib import Path

THRESHOLD_US = 52.0
"""Between what was seen of one machine, some 26 us and 105 us: the same factor from both."""


class WakeUp(Enum):
    """How soon a waiting process runs again: a virtual machine may change from one to the other.

    Figures that wait a lot, such as a call's, and their ratios are compared within one only.
    """

    QUICK = "quick"
    SLOW = "slow"

    @classmethod
    def of(cls, call_us: float) -> "WakeUp":
        """Tell by the median time of a bare call."""
        return cls.QUICK if call_us < THRESHOLD_US else cls.SLOW


def facts() -> dict[str, str]:
    """Return what the machine is."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
