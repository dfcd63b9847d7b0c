"""What holds for every test."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.postgresql import postgresql, postgresql_server

__all__ = ["postgresql", "postgresql_server"]

# How long an example takes says how busy the machine is, and must not fail a test.
settings.register_profile(
    "zmesh", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("zmesh")


# Tests that are started in the background have SIGINT ignored, and so the programs they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


WAITERS_MAX = 4
"""How many more tests than cores run at a time: half of their time many only wait."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Say how many `-n auto` are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) + min(cores or 1, WAITERS_MAX)


def pytest_collection_finish() -> None:
    """Let no garbage collection go through all the tests there are, each time anew."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_the_developers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep keys and settings of this machine out, from processes that tests start as well."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in [each for each in os.environ if each.startswith("ZMESH_")]:
            patch.delenv(variable)
        empty: Path = tmp_path_factory.mktemp("config")
        patch.setenv("XDG_CONFIG_HOME", str(empty))
        yield
