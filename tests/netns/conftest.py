"""Where there is no LAN to be had, its tests are skipped, and say why."""

import pytest

from tests.netns.lan import why_no_firewall, why_not


@pytest.fixture(scope="session")
def why_no_lan() -> str:
    return why_not()


@pytest.fixture(autouse=True)
def needs_lan(why_no_lan: str) -> None:
    if why_no_lan:
        pytest.skip(why_no_lan)


@pytest.fixture(scope="session")
def needs_firewall() -> None:
    """For tests that drop packets."""
    why = why_no_firewall()
    if why:
        pytest.skip(why)
