"""What is declared of exchanges: that there is one, its alternate, and what is bound to it.

Each declaration is a value of one shared map, which all nodes that use exchanges hold a replica
of; so a consumer binds, and producers route. What a peer wrote there is checked as what the
application says: a value that is none has no effect.

docs/protocol.md, section 17.6.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final, NamedTuple, get_args

from zmesh.errors import InvalidOption, ProtocolError
from zmesh.options import WireLimits
from zmesh.patterns.filters import filter_of
from zmesh.patterns.routing import check_binding_key, check_topic
from zmesh.terms import ExchangeKind, Filter, Match, Scalar
from zmesh.wire.bodies import check_text, encode_body

TABLE: Final = "zmesh.exchanges"
"""The shared map of all declarations."""

KINDS: Final[tuple[ExchangeKind, ...]] = get_args(ExchangeKind)


class DestinationKind(StrEnum):
    """What can be bound to an exchange."""

    QUEUE = "queue"  # a work queue: one of its consumers does the job
    SUBJECT = "subject"  # a topic: all its subscribers get it
    EXCHANGE = "exchange"


class Destination(NamedTuple):
    """Where an exchange sends to."""

    kind: DestinationKind
    name: str


@dataclass(frozen=True, slots=True)
class Declaration:
    """There is an exchange of this name and kind: a claim, of which the oldest holds."""

    name: str
    kind: ExchangeKind
    since_ms: int = 0  # wall time

    @property
    def content(self) -> str:
        """What all are to agree on."""
        return self.kind


@dataclass(frozen=True, slots=True)
class Alternate:
    """What no binding of an exchange wants goes to another one: a claim as well."""

    exchange: str
    name: str
    since_ms: int = 0

    @property
    def content(self) -> str:
        """What all are to agree on."""
        return self.name


@dataclass(frozen=True, slots=True)
class Binding:
    """An exchange sends messages to a destination: those with a key, or with headers.

    It counts as long as the exchange is of the kind it was made for. `owner` is the node, as hex,
    that it ends with; empty where it stays until it is unbound.
    """

    exchange: str
    kind: ExchangeKind
    destination: Destination
    routing_key: str = ""
    headers: Filter | None = None
    owner: str = ""


Claim = Declaration | Alternate
Declared = Claim | Binding


# What an application says


def check_exchange(name: object, limits: WireLimits, option: str = "exchange") -> str:
    """Return the name of an exchange.

    Raises:
        InvalidOption: it cannot be one.
    """
    if not isinstance(name, str) or not name:
        expected = 'a name, as in node.exchange("orders", ...); the default exchange is node.push'
        raise InvalidOption(option, name, expected)
    check_text(option, name, limits)
    return name


def check_kind(kind: object) -> ExchangeKind:
    """Return the kind of an exchange.

    Raises:
        InvalidOption: there is no such kind.
    """
    for known in KINDS:
        if kind == known:
            return known
    raise InvalidOption("kind", kind, "one of " + ", ".join(f'"{each}"' for each in KINDS))


def destination_of(
    queue: object, subject: object, exchange: object, limits: WireLimits
) -> Destination:
    """Return the one destination that was named.

    Raises:
        InvalidOption: none was, or several, or it cannot be one.
    """
    named = [
        Destination(kind, name)  # type: ignore[arg-type]  # checked below
        for kind, name in zip(DestinationKind, (queue, subject, exchange), strict=True)
        if name is not None
    ]
    if len(named) != 1:
        told = [each.kind.value for each in named]
        raise InvalidOption("destination", told, "one of queue=, subject= and exchange=")
    _check_destination(named[0], limits)
    return named[0]


def _check_destination(destination: Destination, limits: WireLimits) -> None:
    kind, name = destination
    if not isinstance(name, str) or not name:
        raise InvalidOption(kind.value, name, "a name")
    if kind is DestinationKind.SUBJECT:
        check_topic(name, limits.text_bytes_max)
    else:
        check_text(kind.value, name, limits)


def binding_of(
    declared: Declaration,
    destination: Destination,
    routing_key: object,
    where: Mapping[str, Scalar] | None,
    match: Match,
    limits: WireLimits,
    owner: str = "",
) -> Binding:
    """Return a binding to an exchange, as its kind takes it.

    Raises:
        InvalidOption: what it looks for cannot be, or the kind does not look at it.
    """
    kind = declared.kind
    if kind == "headers":
        _check_no_key(kind, routing_key)
        headers = filter_of(None, {} if where is None else where, match, None, limits)
        return Binding(declared.name, kind, destination, "", headers, owner)
    if where is not None or match != "all":
        told = where if where is not None else match
        raise InvalidOption("where", told, f"None: a {kind} exchange looks at no headers")
    if kind == "fanout":
        _check_no_key(kind, routing_key)
        return Binding(declared.name, kind, destination, "", None, owner)
    if not isinstance(routing_key, str):
        expected = f"a text: a {kind} exchange sends by routing key"
        raise InvalidOption("routing_key", routing_key, expected)
    if kind == "topic":
        check_binding_key(routing_key, limits.text_bytes_max)
    check_text("routing_key", routing_key, limits)
    return Binding(declared.name, kind, destination, routing_key, None, owner)


def _check_no_key(kind: ExchangeKind, routing_key: object) -> None:
    if routing_key is not None:
        expected = f"None: a {kind} exchange looks at no routing key"
        raise InvalidOption("routing_key", routing_key, expected)


# As it stands in the map


def key_of(declared: Declared) -> str:
    """Return the key of a declaration in the map: what is declared again has the same."""
    match declared:
        case Declaration(name):
            identity: list[object] = ["exchange", name]
        case Alternate(exchange):
            identity = ["alternate", exchange]
        case Binding():
            identity = to_value(declared)
    return blake2b(encode_body(identity)[1], digest_size=16).hexdigest()


def to_value(declared: Declared) -> list[object]:
    """Return a declaration as it is written into the map."""
    match declared:
        case Declaration(name, kind, since_ms):
            return ["exchange", name, kind, since_ms]
        case Alternate(exchange, name, since_ms):
            return ["alternate", exchange, name, since_ms]
        case Binding(exchange, kind, destination, routing_key, headers, owner):
            told: list[object] = ["binding", exchange, kind, *destination, routing_key, owner]
            return told if headers is None else [*told, headers.match, dict(headers.where)]


def from_value(key: str, value: object, limits: WireLimits) -> Declared:
    """Return the declaration that stands at a key of the map.

    Raises:
        ProtocolError: it is none, or stands at another one's key.
    """
    try:
        declared = _declared(value, limits)
        is_in_place = key_of(declared) == key
    except (InvalidOption, ValueError) as error:
        raise ProtocolError("exchange", str(error)) from error
    if not is_in_place:
        raise ProtocolError("exchange", "a declaration stands at the key of another one")
    return declared


def _declared(value: Any, limits: WireLimits) -> Declared:
    match value:
        case ["exchange", name, kind, int(since_ms)]:
            return Declaration(check_exchange(name, limits), check_kind(kind), since_ms)
        case ["alternate", name, other, int(since_ms)]:
            other = check_exchange(other, limits, "alternate")
            return Alternate(check_exchange(name, limits), other, since_ms)
        case ["binding", name, kind, str(where_to), str(to), str(key), str(owner), *headers]:
            declared = Declaration(check_exchange(name, limits), check_kind(kind))
            destination = Destination(DestinationKind(where_to), to)
            _check_destination(destination, limits)
            routing_key = key if declared.kind in ("direct", "topic") or key else None
            match, where = headers or ["all", None]
            return binding_of(declared, destination, routing_key, where, match, limits, owner)
        case _:
            raise ProtocolError("exchange", "no declaration of an exchange")
