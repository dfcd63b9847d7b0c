"""What a subscription may ask for beside its topics; publishers hear of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

Match = Literal["all", "any"]
Policy = Literal["block", "drop_oldest", "drop_newest", "latest", "disconnect"]
"""What people write for `WhenFull`."""

Compression = Literal["zstd", "lz4", "none"]
"""How bodies are compressed; "none" for messages that are not, where others of the node are."""

Guarantee = Literal["at_most_once", "at_least_once"]
"""What a publisher wants to be sure of."""

ExchangeKind = Literal["direct", "topic", "fanout", "headers"]
"""What an exchange looks at: a key, a key by a pattern, nothing, or headers."""

Role = Literal["hub", "edge"]
"""Whom a node has links with: everybody, or hubs alone."""

Scalar = str | int | float | bool | None

Since = Literal["first"] | int | tuple[tuple[str, int], ...] | None
"""Where to begin in a log: at its first, at a time in milliseconds since 1970, or after positions
by the ids of publishers; None is now."""

LIMIT_DEFAULT: Final = 1000


class WhenFull(StrEnum):
    """What becomes of publications for a subscription that is read too slowly."""

    BLOCK = "block"  # its publishers wait
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    LATEST = "latest"  # one a topic is kept, the last
    DISCONNECT = "disconnect"  # the subscription ends


@dataclass(frozen=True, slots=True)
class Filter:
    """Which publications on its topics a subscription wants: those that meet all of this.

    `where` holds headers and their values, sorted by name; with `match="any"` one of them is
    enough. `content` is a JMESPath expression over the body.
    """

    type: str | None = None
    where: tuple[tuple[str, Scalar], ...] = ()
    match: Match = "all"
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """How a subscription wants its publications.

    `limit` is how many may wait for it unless `when_full` is BLOCK. With `replay` it is sent
    what its publishers keep. With a name or `since` it follows their logs instead: with a name
    from where it was in its life before.
    """

    filter: Filter | None = None
    when_full: WhenFull = WhenFull.BLOCK
    limit: int = LIMIT_DEFAULT
    replay: bool = False
    name: str | None = None
    since: Since = None

    @property
    def follows(self) -> bool:
        """Whether it reads what is durable from its publishers' logs."""
        return self.name is not None or self.since is not None


PLAIN: Final = Terms()
"""Everything on its topics from now on, and nothing lost."""
