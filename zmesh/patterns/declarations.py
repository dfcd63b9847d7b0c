"""What all nodes declared of exchanges, as one of them knows it, and what it writes about that.

The shared map brings declarations to everybody; this makes a routing table of them. A binding may
have an owner, the node that reads what it sends, and ends with it: whoever hears that a node has
left takes its bindings back. One that was only out of reach writes its own again when it hears of
that; what it finds of a former life of its own it takes back.

What all have to agree on, kinds and alternates, are claims, and the oldest holds: who comes later
with another one, before it could hear of it, is told better by those who know.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress

from zmesh.errors import ExchangeConflict, ExchangeUnknown, MapFull, ProtocolError
from zmesh.options import WireLimits
from zmesh.patterns.bindings import (
    Alternate,
    Binding,
    Claim,
    Declaration,
    Declared,
    from_value,
    key_of,
    to_value,
)
from zmesh.patterns.exchanges import RoutingTable
from zmesh.wire.bodies import decode_body, encode_body

Write = Callable[[str, int | None, bytes], None]
"""Sets a key of the map to an encoding and a value, or deletes it (None); may raise MapFull."""


class Declarations:
    """A replica of the declarations, and those that this node holds."""

    def __init__(
        self,
        node: str,
        limits: WireLimits,
        cache_max: int,
        write: Write,
        is_there: Callable[[str], bool],
    ) -> None:
        """Begin with nothing.

        Args:
            node: the id of this node, as hex.
            limits: of names and headers.
            cache_max: routing keys remembered, an exchange.
            write: changes the map at once, and tells `on_change` as of all changes.
            is_there: returns whether another node is known, by its id as hex.
        """
        self.table = RoutingTable(cache_max)
        self.refused = 0  # values that declare nothing
        self._node = node
        self._limits = limits
        self._write = write
        self._is_there = is_there
        self._held: dict[str, Binding] = {}
        self._disputed: dict[str, Claim] = {}  # where the map has a younger one
        self._gone: dict[str, None] = {}  # nodes that left since it was tended last

    # What holds

    def check_known(self, name: str) -> None:
        """Raise ExchangeUnknown where an exchange is not declared."""
        if self.table.kind(name) is None:
            raise ExchangeUnknown(name, list(self.table.exchanges()))

    def check_agreed(self, declared: Declaration) -> None:
        """Raise ExchangeUnknown or ExchangeConflict unless the exchange is declared so."""
        kind = self.table.kind(declared.name)
        if kind is None:
            raise ExchangeUnknown(declared.name, list(self.table.exchanges()))
        if kind != declared.kind:
            raise ExchangeConflict(declared.name, f"kind={declared.kind!r}", f"kind={kind!r}")

    # Commands

    def declare(self, declared: Declaration, alternate: str | None) -> None:
        """Declare an exchange, and its alternate if there is to be one.

        Raises:
            ExchangeConflict: it is declared with another kind or alternate.
            ExchangeUnknown: the alternate is not declared.
            MapFull: there is no room.
        """
        name = declared.name
        if self.table.kind(name) is not None:
            self.check_agreed(declared)
        if alternate is not None:
            self.check_known(alternate)
            known = self.table.alternate(name)
            if known not in (None, alternate):
                wanted, told = (f"alternate={each!r}" for each in (alternate, known))
                raise ExchangeConflict(name, wanted, told)
            self.put(Alternate(name, alternate, declared.since_ms))
        self.put(declared)

    def put(self, declared: Declared) -> None:
        """Tell all of a declaration, unless they know; raises MapFull."""
        key = key_of(declared)
        if key not in self.table:
            self._put(key, declared)

    def _put(self, key: str, declared: Declared) -> None:
        encoding, value = encode_body(to_value(declared))
        try:
            self._write(key, int(encoding), bytes(value))
        except MapFull:
            self._make_room()
            self._write(key, int(encoding), bytes(value))

    def _make_room(self) -> None:
        """Take back what strangers own: those may have gone when nobody was there to notice."""
        for owner in self.table.owners():
            if owner != self._node and not self._is_there(owner):
                for key in self.table.owned(owner):
                    self.erase(key)

    def erase(self, key: str) -> bool:
        """Take a declaration back everywhere; return whether it was known."""
        is_known = key in self.table
        if is_known:
            self._write(key, None, b"")
        return is_known

    def hold(self, bindings: Mapping[str, Binding]) -> None:
        """Put bindings that this node owns, by their keys, and keep them; raises MapFull."""
        self._held |= bindings
        for binding in bindings.values():
            self.put(binding)

    def let_go(self, bindings: Mapping[str, Binding]) -> None:
        """Take back bindings that were held."""
        for key in bindings:
            self._held.pop(key, None)
        for key in bindings:
            self.erase(key)

    # What happens; then `tend` is due

    def on_change(self, key: str, encoding: int | None, value: bytes) -> None:
        """Take in what stands at a key of the map now, or that nothing does."""
        self._disputed.pop(key, None)
        if encoding is None:
            self.table.remove(key)
            return
        try:
            declared = from_value(key, decode_body(encoding, value), self._limits)
        except ProtocolError:
            self.refused += 1
            self.table.remove(key)
            return
        known = self.table.get(key)
        if isinstance(known, Claim) and isinstance(declared, Claim) and _is_older(known, declared):
            if known.content != declared.content:
                self._disputed[key] = known
        else:
            self.table.put(key, declared)

    def on_left(self, node: str) -> None:
        """Note that a node has gone."""
        self._gone[node] = None

    def tend(self) -> None:
        """Put right what is claimed, and what this node and those that have gone own."""
        disputed, self._disputed = self._disputed, {}
        for key, claim in disputed.items():
            with suppress(MapFull):  # it holds here nevertheless
                self._put(key, claim)
        gone, self._gone = self._gone, {}
        for node in gone:
            for key in self.table.owned(node):
                self.erase(key)
        for key in self.table.owned(self._node):
            if key not in self._held:  # of a former life
                self.erase(key)
        for binding in self._held.values():
            with suppress(MapFull):  # then it is put when something was taken back
                self.put(binding)  # unless it stands: else somebody took this node for gone


def _is_older(one: Claim, other: Claim) -> bool:
    """Return whether a claim holds against another on the same thing."""
    return (one.since_ms, one.content) <= (other.since_ms, other.content)
