"""The routing table: which exchanges there are, and where a message published to one goes.

Every node that publishes routes by its own copy of what was declared (`bindings`), so nothing
stands in the middle. What it does is RabbitMQ's: a message goes to each destination once, however
many bindings lead there; exchanges bound to exchanges may form circles; and what matches no
binding of an exchange goes to its alternate, where it has one. A subject that nobody subscribes to
is no destination, as an exclusive queue is gone with its consumer.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol, assert_never

from zmesh.patterns.bindings import (
    Alternate,
    Binding,
    Declaration,
    Declared,
    Destination,
    DestinationKind,
)
from zmesh.patterns.filters import meets_headers
from zmesh.patterns.routing import KeyTable
from zmesh.terms import ExchangeKind
from zmesh.wire.bodies import HeaderValue

Headers = Mapping[str, HeaderValue]


class _Matcher(Protocol):
    """The bindings to an exchange of some kind, and which of them a message matches."""

    def add(self, key: str, binding: Binding) -> None:
        """Take in the one that stands at a key."""
        ...

    def remove(self, key: str, binding: Binding) -> None:
        """Forget it."""
        ...

    def match(self, routing_key: str, headers: Headers) -> Iterable[Binding]:
        """Return those that want a message."""
        ...


class _Direct:
    """Those with the very key."""

    def __init__(self) -> None:
        self._bindings: dict[str, dict[str, Binding]] = {}

    def add(self, key: str, binding: Binding) -> None:
        self._bindings.setdefault(binding.routing_key, {})[key] = binding

    def remove(self, key: str, binding: Binding) -> None:
        alike = self._bindings[binding.routing_key]
        del alike[key]
        if not alike:
            del self._bindings[binding.routing_key]

    def match(self, routing_key: str, headers: Headers) -> Iterable[Binding]:  # noqa: ARG002
        return self._bindings.get(routing_key, {}).values()


class _Topic:
    """Those whose key is a pattern of it."""

    def __init__(self, cache_max: int) -> None:
        self._bindings: KeyTable[Binding] = KeyTable(cache_max)

    def add(self, key: str, binding: Binding) -> None:  # noqa: ARG002
        self._bindings.add(binding.routing_key, binding)

    def remove(self, key: str, binding: Binding) -> None:  # noqa: ARG002
        self._bindings.remove(binding.routing_key, binding)

    def match(self, routing_key: str, headers: Headers) -> Iterable[Binding]:  # noqa: ARG002
        return self._bindings.match(routing_key)


class _Fanout:
    """All of them."""

    def __init__(self) -> None:
        # By key: two that want the headers 1 and True are not the same, and equal to Python.
        self._bindings: dict[str, Binding] = {}

    def add(self, key: str, binding: Binding) -> None:
        self._bindings[key] = binding

    def remove(self, key: str, binding: Binding) -> None:  # noqa: ARG002
        del self._bindings[key]

    def match(self, routing_key: str, headers: Headers) -> Iterable[Binding]:  # noqa: ARG002
        return self._bindings.values()


class _Headers(_Fanout):
    """Those that want such headers."""

    def match(self, routing_key: str, headers: Headers) -> Iterable[Binding]:  # noqa: ARG002
        return [
            binding
            for binding in self._bindings.values()
            if binding.headers is not None and meets_headers(binding.headers, headers)
        ]


class _Exchange:
    """What was declared of an exchange, in whatever order it came."""

    def __init__(self) -> None:
        self.kind: ExchangeKind | None = None
        self.alternate: str | None = None
        self.matchers: dict[ExchangeKind, _Matcher] = {}
        self.bindings: dict[str, Binding] = {}

    @property
    def is_empty(self) -> bool:
        return self.kind is None and self.alternate is None and not self.bindings

    def match(self, routing_key: str, headers: Headers) -> Iterable[Binding]:
        matcher = None if self.kind is None else self.matchers.get(self.kind)
        return () if matcher is None else matcher.match(routing_key, headers)


_NONE: Final = _Exchange()


class RoutingTable:
    """Everything declared, by the key it stands at in the map.

    Routing keys that were matched lately are remembered, `cache_max` at most an exchange.
    """

    def __init__(self, cache_max: int) -> None:
        self._cache_max = cache_max
        self._declared: dict[str, Declared] = {}
        self._exchanges: dict[str, _Exchange] = {}
        self._owned: dict[str, dict[str, None]] = {}  # keys of bindings, by their owner

    # What there is

    def exchanges(self) -> dict[str, ExchangeKind]:
        """Return the exchanges that are declared, and their kinds."""
        named = self._exchanges.items()
        return {name: each.kind for name, each in named if each.kind is not None}

    def kind(self, name: str) -> ExchangeKind | None:
        """Return the kind of an exchange; None where it is not declared."""
        return self._exchanges.get(name, _NONE).kind

    def alternate(self, name: str) -> str | None:
        """Return the alternate of an exchange."""
        return self._exchanges.get(name, _NONE).alternate

    def bindings(self, name: str) -> list[Binding]:
        """Return the bindings to an exchange that count."""
        exchange = self._exchanges.get(name, _NONE)
        return [each for each in exchange.bindings.values() if each.kind == exchange.kind]

    def get(self, key: str) -> Declared | None:
        """Return what stands at a key."""
        return self._declared.get(key)

    def owners(self) -> list[str]:
        """Return the nodes that bindings end with."""
        return list(self._owned)

    def owned(self, owner: str) -> list[str]:
        """Return the keys of the bindings that end with a node."""
        return list(self._owned.get(owner, ()))

    def __contains__(self, key: object) -> bool:
        return key in self._declared

    # What changes

    def put(self, key: str, declared: Declared) -> None:
        """Take in what stands at a key now."""
        self.remove(key)
        self._declared[key] = declared
        match declared:
            case Declaration(name, kind):
                self._exchange(name).kind = kind
            case Alternate(name, other):
                self._exchange(name).alternate = other
            case Binding():
                exchange = self._exchange(declared.exchange)
                exchange.bindings[key] = declared
                self._matcher(exchange, declared.kind).add(key, declared)
                if declared.owner:
                    self._owned.setdefault(declared.owner, {})[key] = None
            case _:
                assert_never(declared)

    def remove(self, key: str) -> None:
        """Forget what stood at a key, if anything did."""
        declared = self._declared.pop(key, None)
        match declared:
            case None:
                return
            case Declaration(name):
                self._exchange(name).kind = None
            case Alternate(name):
                self._exchange(name).alternate = None
            case Binding(name, kind):
                exchange = self._exchange(name)
                del exchange.bindings[key]
                self._matcher(exchange, kind).remove(key, declared)
                if declared.owner:
                    self._disown(declared.owner, key)
            case _:
                assert_never(declared)
        if self._exchanges[name].is_empty:
            del self._exchanges[name]

    def _disown(self, owner: str, key: str) -> None:
        del self._owned[owner][key]
        if not self._owned[owner]:
            del self._owned[owner]

    def _exchange(self, name: str) -> _Exchange:
        exchange = self._exchanges.get(name)
        if exchange is None:
            exchange = self._exchanges[name] = _Exchange()
        return exchange

    def _matcher(self, exchange: _Exchange, kind: ExchangeKind) -> _Matcher:
        matcher = exchange.matchers.get(kind)
        if matcher is None:
            matcher = exchange.matchers[kind] = self._new_matcher(kind)
        return matcher

    def _new_matcher(self, kind: ExchangeKind) -> _Matcher:
        match kind:
            case "direct":
                return _Direct()
            case "topic":
                return _Topic(self._cache_max)
            case "fanout":
                return _Fanout()
            case "headers":
                return _Headers()
            case _:
                assert_never(kind)

    # Routing

    def route(
        self,
        name: str,
        routing_key: str,
        headers: Headers,
        is_heard: Callable[[str], bool],
    ) -> list[Destination]:
        """Return the queues and subjects that a message goes to, each once.

        Args:
            name: of the exchange it is published to.
            routing_key: it is published with.
            headers: it has.
            is_heard: returns whether anybody subscribes to a subject.
        """
        found: dict[Destination, None] = {}
        seen = {name}
        ahead = [name]
        while ahead:
            exchange = self._exchanges.get(ahead.pop(), _NONE)
            matched = {each.destination: None for each in exchange.match(routing_key, headers)}
            destinations = [each for each in matched if _is_there(each, is_heard)]
            if not destinations and exchange.kind is not None and exchange.alternate is not None:
                destinations = [Destination(DestinationKind.EXCHANGE, exchange.alternate)]
            for destination in destinations:
                if destination.kind is not DestinationKind.EXCHANGE:
                    found[destination] = None
                elif destination.name not in seen:
                    seen.add(destination.name)
                    ahead.append(destination.name)
        return list(found)


def _is_there(destination: Destination, is_heard: Callable[[str], bool]) -> bool:
    return destination.kind is not DestinationKind.SUBJECT or is_heard(destination.name)
