"""Verdicts on messages that several memories keep, and the orders at the end of a turn."""

from typing import Any

from zmesh.actions import SendPackets, WriteJournal
from zmesh.core.loopback import Loopback
from zmesh.core.peers import Peer, Peers
from zmesh.core.turn import Turn
from zmesh.events import Source
from zmesh.ids import JournalId, NodeId, SessionId
from zmesh.message import Kind, Outcome, Record, Tag, head
from zmesh.options import NodeOptions
from zmesh.storage import (
    DropStream,
    Identity,
    Opened,
    SetEntries,
    StoreOutcomes,
    Stream,
    StreamKind,
)

ADA = NodeId(b"ada-" * 4)
SHOP = NodeId(b"shop" * 4)
OPENED = Opened(Identity(ADA, b"", JournalId(bytes(16)), 1), (), True, None)


def test_messages_of_a_box_and_of_a_log_in_one_range_are_both_kept() -> None:
    options = NodeOptions()
    local = Peer(ADA, "ada", Loopback(SessionId(bytes(16)), options.link))
    turn = Turn(Peers(local, options), options.link, 0.0, OPENED)
    told: list[tuple[Any, ...]] = []
    turn.handled.settle = turn.positions.settle = lambda *told_: told.append(told_)
    source = Source(SHOP, b"session", 4, b"journal-journal-")
    direct: Record = (head(Kind.DIRECT), "", b"", (int(Tag.STORED), 9))
    turn.positions.follow(7, "billing", 0)
    extras = (int(Tag.POSITION), 3, int(Tag.FOLLOWER), 7)
    published: Record = (head(Kind.PUBLICATION), "orders", b"", extras)
    assert [run[:2] for run in turn.handled.admit(source, 1, 1, [direct])] == [(1, 1)]
    assert [run[:2] for run in turn.positions.admit(source, 2, 2, [published])] == [(2, 2)]
    turn.settle(source, 1, 2, Outcome.ACCEPTED)
    commands = [
        command
        for action in turn.end()
        if isinstance(action, WriteJournal)
        for command in action.batch.commands
    ]
    assert [type(command) for command in commands if isinstance(command, StoreOutcomes)]
    names = [c.entries[0].key for c in commands if isinstance(c, SetEntries)]
    assert SHOP in names, "how far the log was read"
    assert told == [], "before it is on disk"


def test_orders_to_the_disk_come_before_those_to_the_network() -> None:
    """It is at work while the packets are sent, and nothing in them needs what is written."""
    options = NodeOptions()
    local = Peer(ADA, "ada", Loopback(SessionId(bytes(16)), options.link))
    turn = Turn(Peers(local, options), options.link, 0.0, OPENED)
    turn.actions.append(SendPackets(1, [[b"packet"]]))
    turn.keeper.write(DropStream(Stream(StreamKind.TOPIC)))
    assert [type(action) for action in turn.end()] == [WriteJournal, SendPackets]
