"""What comes from the application, checked before it can reach the engine."""

from collections.abc import Collection, Iterable
from typing import Final, get_args

from zmesh.bounds import SECONDS_MAX
from zmesh.errors import BodyTooLarge, InvalidOption
from zmesh.message import LANES, Record, size_of
from zmesh.options import NodeOptions, WireLimits
from zmesh.terms import LIMIT_DEFAULT, Guarantee, WhenFull
from zmesh.wire.bodies import check_text

RESERVED: Final = "zmesh."
"""What names of zmesh's own services and shared maps begin with."""

_GUARANTEES: Final = get_args(Guarantee)

LIMIT_MAX: Final = 1_000_000
"""Messages that may wait for a subscription: some 100 MB of small ones."""


def is_seconds(value: object) -> bool:
    """Return whether a value is a time that the wire and all clocks can carry; below 0 too."""
    is_number = isinstance(value, int | float) and type(value) is not bool
    return is_number and -SECONDS_MAX <= value <= SECONDS_MAX  # type: ignore[operator]


def check_timeout(value: object, option: str = "timeout") -> None:
    """Check a time to wait; at 0 what is there at once is all that counts.

    Raises:
        InvalidOption: it is no number of seconds, or below 0.
    """
    if value is not None and not (is_seconds(value) and value >= 0):  # type: ignore[operator]
        raise InvalidOption(option, value, "seconds, 0 or more, or None for no limit")


def check_deadline(value: object) -> None:
    """Check a time after which something ends for good.

    Raises:
        InvalidOption: it is no number of seconds above 0.
    """
    if not (is_seconds(value) and value > 0):  # type: ignore[operator]
        raise InvalidOption("timeout", value, "seconds above 0")


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


def check_queue(name: object, limits: WireLimits) -> None:
    """Check the name of a queue.

    Raises:
        InvalidOption: it is none.
    """
    if not isinstance(name, str) or not name:
        raise InvalidOption("queue", name, 'a name, as in node.push("thumbnails", ...)')
    check_text("queue", name, limits)


def check_delay(delay: float, ttl: float | None) -> None:
    """Check how long a job waits before it may begin.

    Raises:
        InvalidOption: it is no such time, or the job is not worth beginning any more then.
    """
    if not (is_seconds(delay) and delay >= 0):
        raise InvalidOption("delay", delay, "seconds, 0 or more")
    if ttl is not None and ttl <= delay:
        why = f"more than the {delay:g} s before it may begin: it counts from the push"
        raise InvalidOption("ttl", ttl, why)


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


def check_yes_no(option: str, value: object) -> None:
    """Check what is either so or not: the text "false" would count as true.

    Raises:
        InvalidOption: it is no bool.
    """
    if type(value) is not bool:
        raise InvalidOption(option, value, "True or False")


def check_durable(value: object) -> None:
    """Check whether a message is to be stored first, or as the node does.

    Raises:
        InvalidOption: it says neither yes nor no.
    """
    if value is not None and type(value) is not bool:
        expected = "True or False, or None for what the node does"
        raise InvalidOption("durable", value, expected)


def check_texts(option: str, values: object, expected: str) -> None:
    """Check a list of texts, of which there must be one at least.

    Raises:
        InvalidOption: it is none; a text alone would be taken apart.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Collection):
        raise InvalidOption(option, values, expected)
    if not values or not all(isinstance(each, str) for each in values):
        raise InvalidOption(option, values, expected)


def check_port(value: object) -> None:
    """Check a port to listen on.

    Raises:
        InvalidOption: it is none.
    """
    if type(value) is not int or not 0 <= value <= 65535:
        raise InvalidOption("port", value, "0 for any free one, or up to 65535")


def check_service(name: object, concurrency: int, options: NodeOptions) -> None:
    """Check what a service is to be called, and how many requests it handles at a time.

    Raises:
        InvalidOption: one of them cannot work.
    """
    if not isinstance(name, str) or not name:
        raise InvalidOption("service", name, 'a name, as in @node.service("resize")')
    check_unreserved("service", name)
    check_text("service", name, options.wire)
    check_concurrency(concurrency)


def check_concurrency(value: object) -> None:
    """Check how many are to be handled at a time.

    Raises:
        InvalidOption: it is no such number.
    """
    if not is_count(value, 1):
        raise InvalidOption("concurrency", value, "a whole number, 1 or more")


def check_bodies(bodies: object) -> None:
    """Check the bodies of many messages.

    Raises:
        InvalidOption: they are one body, or nothing that can be iterated.
    """
    # A text would be taken apart, and each of its characters sent.
    if isinstance(bodies, str | bytes | bytearray | memoryview) or not isinstance(
        bodies, Iterable
    ):
        expected = "an iterable of bodies, such as a list or generator"
        raise InvalidOption("bodies", bodies, expected)


def check_unreserved(option: str, name: object) -> None:
    """Check that a name is not one of zmesh's own.

    Raises:
        InvalidOption: it is.
    """
    if isinstance(name, str) and name.startswith(RESERVED):
        raise InvalidOption(option, name, f"a name that does not begin with {RESERVED!r}")


def check_receivers(count: int, timeout: float | None) -> None:
    """Check how many receivers a publication is to have, and how long it waits for them.

    Raises:
        InvalidOption: one of them cannot work, or there is nothing to wait for.
    """
    if not is_count(count, 0):
        raise InvalidOption("min_receivers", count, "how many, or 0")
    check_timeout(timeout)
    if timeout is not None and not count:
        raise InvalidOption("timeout", timeout, "None, where min_receivers does not say for what")


def is_at_most_once(guarantee: object) -> bool:
    """Return whether a publisher wants no more than that.

    Raises:
        InvalidOption: nobody promises that.
    """
    if guarantee not in _GUARANTEES:
        choices = " or ".join(f'"{each}"' for each in get_args(Guarantee))
        raise InvalidOption("guarantee", guarantee, choices)
    return guarantee == "at_most_once"


def kept_of(
    options: NodeOptions, body: object, *, retain: bool, history: int | None
) -> int | None:
    """Return how many publications of its topic are kept from this one on; None changes nothing.

    Raises:
        InvalidOption: the history is no number that can be kept, or one of them is no answer.
    """
    check_yes_no("retain", retain)
    if history is not None and not is_count(history, 1, options.history_max):
        raise InvalidOption("history", history, f"1 to {options.history_max}")
    if not retain and history is None:
        return None
    return 0 if body is None else history or 1


def check_retained(record: Record, options: NodeOptions) -> None:
    """Check that a publication can be kept; raises BodyTooLarge."""
    if size_of(record) > options.retained_bytes_max:
        raise BodyTooLarge(size_of(record), options.retained_bytes_max)


def check_when_full(when_full: str, limit: int) -> WhenFull:
    """Return what is to become of messages a subscription is too slow for.

    Raises:
        InvalidOption: this, or the limit from which on, cannot work, or they do not go together.
    """
    if not is_count(limit, 1, LIMIT_MAX):
        raise InvalidOption("limit", limit, f"1 to {LIMIT_MAX}")
    try:
        policy = WhenFull(when_full)
    except ValueError:
        choices = ", ".join(f'"{each.value}"' for each in WhenFull)
        raise InvalidOption("when_full", when_full, f"one of {choices}") from None
    if policy is WhenFull.BLOCK and limit != LIMIT_DEFAULT:
        expected = (
            'a when_full that has one: with "block" publishers wait at `queued_messages_max`'
        )
        raise InvalidOption("limit", limit, expected)
    return policy


def is_count(value: object, low: int, high: int | None = None) -> bool:
    """Return whether a value is an integer from `low` to `high`."""
    return type(value) is int and low <= value and (high is None or value <= high)


def sendable_text(value: object) -> str:
    """Return the text of a reason or exception, as far as it can be told and can travel."""
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001  # what the application wrote
        return f"its text cannot be told: __str__ raised {type(error).__qualname__}"
    # Names of files may hold surrogates, which UTF-8 cannot carry.
    return text.encode(errors="replace").decode()
