"""What an application does with exchanges."""

from abc import ABC, abstractmethod
from typing import Final

from zmesh.face.assembly import Assembly
from zmesh.face.exchange import Exchange
from zmesh.terms import ExchangeKind

TABLE_TIMEOUT: Final = 10.0
"""Seconds `exchange` waits by default for what other nodes declared."""


class Exchanging(ABC):
    """The part of a node that declares exchanges."""

    @abstractmethod
    def _at_work(self) -> Assembly:
        """Return the node at work, or raise why there is none."""

    async def exchange(
        self,
        name: str,
        *,
        kind: ExchangeKind,
        alternate: str | Exchange | None = None,
        timeout: float | None = TABLE_TIMEOUT,  # noqa: ASYNC109  # it is no error
    ) -> Exchange:
        """Declare an exchange, as RabbitMQ has them, for all nodes of the mesh.

        ```python
        orders = await node.exchange("orders", kind="topic")
        await orders.bind(queue="invoices", routing_key="order.*.paid")
        await orders.publish({"id": 7}, "order.eu.paid")
        ```

        Producers and consumers both declare it, and either binds; all others hear of it. What is
        declared stays until the last node that uses exchanges has gone, and on the disk of nodes
        with storage.

        Args:
            name: of the exchange.
            kind: "direct" sends by a routing key, "topic" by a pattern of it, "headers" by
                headers, and "fanout" sends to all that is bound.
            alternate: the exchange that gets what no binding wants; None leaves it as it is.
            timeout: seconds to wait for what others declared; None waits for ever. It comes later
                where that is not enough.

        Raises:
            InvalidOption: the name or kind cannot be.
            ExchangeConflict: it is declared with another kind or alternate.
            ExchangeUnknown: the alternate is not declared.
            UsageError, MapFull: there are too many.
        """
        exchanges = self._at_work().exchanges
        other = alternate.name if isinstance(alternate, Exchange) else alternate
        declared = await exchanges.declare(name, kind, other, timeout, self._at_work)
        return Exchange(exchanges, declared, self._at_work)
