"""What a node keeps for others, and what becomes of it where it makes room."""

from zmesh.actions import DeliverInbox, WriteJournal
from zmesh.core.engine import Engine
from zmesh.events import Event, JournalTold, MakeRoom, OpenInbox, Post, SettleDeliveries
from zmesh.ids import JournalId, MeshTag, NodeId
from zmesh.message import Kind, Outcome, Record, Ticket, head
from zmesh.options import LinkOptions, NodeOptions
from zmesh.patterns.outbox import RUN_MAX
from zmesh.reliable.handshake import LocalIdentity
from zmesh.storage import (
    DEAD_LETTERS,
    Command,
    DropOldest,
    Identity,
    Move,
    Opened,
    Store,
    StoreRun,
    Written,
)
from zmesh.testing.clock import SeededEntropy

ADA = NodeId(b"ada-" * 4)
JOURNAL = JournalId(b"journal-" * 2)
OPENED = Opened(Identity(ADA, b"", JOURNAL, 1), (), True, None)


class Ada:
    """A node that writes to itself, and accepts as much as it is told to."""

    def __init__(self, accepts: int, options: NodeOptions = NodeOptions()) -> None:  # noqa: B008
        local = LocalIdentity(MeshTag(bytes(16)), ADA, "ada", 1, JOURNAL)
        entropy = SeededEntropy("ada")
        self.engine = Engine(local, options, entropy, 0.0, opened=OPENED)
        self.accepts = accepts
        self.held: list[WriteJournal] = []  # what is handed over when the journal holds it up
        self.holds_up = False
        self.orders: list[Command] = []  # that were done

    def do(self, *events: Event) -> None:
        """Handle these, and whatever comes of them but for what the journal holds up."""
        waiting = list(events)
        while waiting:
            following: list[Event] = []
            for action in self.engine.handle(waiting, 0.0):
                if isinstance(action, WriteJournal) and self.holds_up:
                    self.held.append(action)
                elif isinstance(action, WriteJournal):
                    self.orders += action.batch.commands
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


def test_what_turns_out_to_be_too_large_to_be_sent_is_a_dead_letter() -> None:
    # As of a node whose options allowed more when it was stored.
    ada, ticket = Ada(0, NodeOptions(link=LinkOptions(body_bytes_max=4))), Ticket(2)
    records: list[Record] = [(head(Kind.DIRECT), "", b"large")] * 2
    ada.do(OpenInbox(), Post("ada", 4, records, ticket, durable=True))
    moves = [each for each in ada.orders if isinstance(each, Move)]
    assert [(each.ranges, each.target) for each in moves] == [
        (((1, 1),), DEAD_LETTERS),
        (((2, 2),), DEAD_LETTERS),
    ]
