"""What a node keeps for others, and what becomes of it where it makes room."""

from zmesh.actions import DeliverInbox, WriteJournal
from zmesh.core.engine import Engine
from zmesh.events import Event, JournalTold, MakeRoom, OpenInbox, Post, SettleDeliveries
from zmesh.ids import JournalId, MeshTag, NodeId
from zmesh.message import Kind, Outcome, Record, Ticket, head
from zmesh.options import NodeOptions
from zmesh.patterns.outbox import RUN_MAX
from zmesh.reliable.handshake import LocalIdentity
from zmesh.storage import DropOldest, Identity, Opened, Store, StoreRun, Written
from zmesh.testing.clock import SeededEntropy

ADA = NodeId(b"ada-" * 4)
JOURNAL = JournalId(b"journal-" * 2)
OPENED = Opened(Identity(ADA, b"", JOURNAL, 1), (), True, None)


class Ada:
    """A node that writes to itself, and accepts as much as it is told to."""

    def __init__(self, accepts: int) -> None:
        local = LocalIdentity(MeshTag(bytes(16)), ADA, "ada", 1, JOURNAL)
        entropy = SeededEntropy("ada")
        self.engine = Engine(local, NodeOptions(), entropy, 0.0, opened=OPENED)
        self.accepts = accepts
        self.held: list[WriteJournal] = []  # what is handed over when the journal holds it up
        self.holds_up = False

    def do(self, *events: Event) -> None:
        """Handle these, and whatever comes of them but for what the journal holds up."""
        waiting = list(events)
        while waiting:
            following: list[Event] = []
            for action in self.engine.handle(waiting, 0.0):
                if isinstance(action, WriteJournal) and self.holds_up:
                    self.held.append(action)
                elif isinstance(action, WriteJournal):
                    following.append(JournalTold([Written((action.batch.ticket,))]))
                elif isinstance(action, DeliverInbox):
                    for each in action.deliveries:
                        last = min(each.last_seq, each.first_seq + self.accepts - 1)
                        self.accepts -= last - each.first_seq + 1
                        following.append(
                            SettleDeliveries(each.source, each.first_seq, last, Outcome.ACCEPTED)
                        )
            waiting = following


def test_what_was_accepted_is_not_dropped_as_well_where_it_is_forgotten_a_moment_later() -> None:
    ada, ticket = Ada(accepts=RUN_MAX), Ticket(RUN_MAX + 44)
    records: list[Record] = [(head(Kind.DIRECT), "", b"x")] * ticket.expected
    post = Post("ada", 4, records, ticket, durable=True)
    ada.do(OpenInbox())
    ada.do(post)
    assert (ticket.accepted, ticket.failures) == (RUN_MAX, [])
    ada.holds_up = True
    ada.do(MakeRoom(post, 1))
    # The order to forget what was accepted goes along behind, so that this takes it too.
    [order] = ada.held
    [stream] = [each.stream for each in order.batch.commands if isinstance(each, DropOldest)]
    assert not any(isinstance(each, Store | StoreRun) for each in order.batch.commands)
    dropped = ((stream, 1, ticket.expected),)
    ada.do(JournalTold([Written((order.batch.ticket,), dropped)]))
    assert (ticket.accepted, len(ticket.failures)) == (RUN_MAX, 44)
