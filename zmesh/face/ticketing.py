"""What an application does with requests whose answer may come later."""

from abc import ABC, abstractmethod

from zmesh.events import CallLater
from zmesh.face.assembly import Assembly
from zmesh.face.checks import check_call_options, check_is_text, check_message_options
from zmesh.face.outgoing import Headers
from zmesh.face.signing import signed
from zmesh.face.system import SystemEntropy
from zmesh.face.tickets import Ticket, Tickets
from zmesh.ids import TOKEN_BYTES
from zmesh.message import PRIORITY_DEFAULT, Kind
from zmesh.options import NodeOptions
from zmesh.security.rules import Action
from zmesh.terms import Compression
from zmesh.wire.bodies import check_text


class Ticketing(ABC):
    """The part of a node that asks for answers which may come in another life."""

    _options: NodeOptions

    @abstractmethod
    def _at_work(self) -> Assembly:
        """Return the node at work, or raise why there is none."""

    def _tickets(self) -> Tickets:
        return self._at_work().tickets

    async def call_later(
        self,
        service: str,
        body: object = None,
        *,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
        retries: int = 0,
        compression: Compression | None = None,
        sign: bool | None = None,
    ) -> Ticket:
        """Ask a service that nobody needs to provide yet; return once the request is on disk.

        ```python
        ticket = await node.call_later("render", {"page": 7})
        print(ticket.id)  # with which node.ticket(...) finds it, also after a restart
        picture = await ticket.reply()
        ```

        It is asked until it has an answer, whatever becomes of either process: a handler may run
        more than once for one ticket, where its process or this one dies in its middle. Where
        this call is cancelled the request may be made all the same: `tickets` tells.

        Args:
            service: its name.
            body: bytes, or anything msgpack can carry.
            headers: small values beside the body.
            priority: 0 (lowest) to 9 (highest).
            key: requests of one key go to one provider, which handles them one at a time.
            ttl: seconds after which no answer is wanted: then it fails with `Expired`.
            retries: how often it is asked again where the handler raised, in all lives together.
            compression, sign: as for `send`; of the answer its provider decides, unsigned.

        Raises:
            UsageError: the node has no storage, or too many tickets.
            JournalFull, JournalBroken: it could not be stored, and is not asked.
            BodyNotEncodable, BodyTooLarge, InvalidOption, MissingPackage: it cannot be asked.
        """
        assembly = self._at_work()
        tickets = assembly.tickets
        tickets.storing  # noqa: B018  # raises where there is none
        check_is_text("service", service)
        check_text("service", service, self._options.wire)
        assembly.engine.guard.check_own(Action.CALL, service)
        check_message_options(self._options.wire, priority, key, ttl)
        check_call_options(None, retries)
        compressor = assembly.outgoing.compressing.compressor(compression)
        record = assembly.outgoing.record(Kind.REQUEST, service, body, headers)
        record = signed(record, assembly.outgoing.signing.for_target(sign, priority, key, ttl))
        if compressor is not None:
            record = await assembly.outgoing.compressing.soon(record, compressor)
        name = SystemEntropy().token(TOKEN_BYTES).hex()
        await tickets.store(CallLater(name, record, priority, 0, key, ttl, retries))
        return Ticket(name, service, self._tickets)

    def ticket(self, id: str) -> Ticket:  # noqa: A002  # what it is called everywhere
        """Return the ticket of a request that was made in this life or an earlier one.

        Raises:
            TicketUnknown: there is none.
        """
        found = self._at_work().tickets.get(id)
        return Ticket(found.id, found.service, self._tickets)

    def tickets(self) -> list[Ticket]:
        """Return all tickets, answered or not, the oldest first."""
        found = self._at_work().tickets.all()
        return [Ticket(each.id, each.service, self._tickets) for each in found]
