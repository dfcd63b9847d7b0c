"""What comes from the application, checked before it can reach the engine."""

from typing import Final

from zmesh.errors import InvalidOption
from zmesh.message import LANES
from zmesh.options import NodeOptions, WireLimits
from zmesh.wire.bodies import check_text

SECONDS_MAX: Final = 1e9
"""Thirty years: what is longer means "no limit", and is to be said so."""


def is_seconds(value: object) -> bool:
    """Return whether a value is a time that the wire and all clocks can carry; below 0 too."""
    return isinstance(value, int | float) and value <= SECONDS_MAX


def check_timeout(value: float | None) -> None:
    """Check a time to wait.

    Raises:
        InvalidOption: it is no number of seconds.
    """
    if value is not None and not is_seconds(value):
        raise InvalidOption("timeout", value, "seconds, or None for no limit")


def check_message_options(
    limits: WireLimits, priority: int, key: str | None, ttl: float | None
) -> None:
    """Check the options every message can have.

    Raises:
        InvalidOption: one of them cannot work.
    """
    # A bool is an int, but travels as something else.
    if type(priority) is bool or not isinstance(priority, int) or not 0 <= priority < LANES:
        raise InvalidOption("priority", priority, f"0 (lowest) to {LANES - 1} (highest)")
    if key is not None:
        check_is_text("key", key)
        check_text("key", key, limits)
    if ttl is not None and not (is_seconds(ttl) and ttl > 0):
        raise InvalidOption("ttl", ttl, "seconds above 0, or None for no limit")


def check_call_options(hedge_after: float | None, retries: int) -> None:
    """Check how a call may be asked more than once.

    Raises:
        InvalidOption: one of them cannot work.
    """
    if hedge_after is not None and not (is_seconds(hedge_after) and hedge_after >= 0):
        raise InvalidOption("hedge_after", hedge_after, "seconds, 0 or more, or None for no hedge")
    if type(retries) is bool or not isinstance(retries, int) or retries < 0:
        raise InvalidOption("retries", retries, "a number of retries, 0 or more")


def check_is_text(option: str, value: object) -> None:
    """Check that a name, topic or key is a text.

    Raises:
        InvalidOption: it is not.
    """
    if not isinstance(value, str):
        raise InvalidOption(option, value, "a text")


def check_service(name: object, concurrency: int, options: NodeOptions) -> None:
    """Check what a service is to be called, and how many requests it handles at a time.

    Raises:
        InvalidOption: one of them cannot work.
    """
    if not isinstance(name, str) or not name:
        raise InvalidOption("service", name, 'a name, as in @node.service("resize")')
    check_text("service", name, options.wire)
    if concurrency < 1:
        raise InvalidOption("concurrency", concurrency, "1 or more")


def sendable_text(value: object) -> str:
    """Return the text of a reason or exception, as far as it can be told and can travel."""
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001  # what the application wrote
        return f"its text cannot be told: __str__ raised {type(error).__qualname__}"
    # Names of files may hold surrogates, which UTF-8 cannot carry.
    return text.encode(errors="replace").decode()
