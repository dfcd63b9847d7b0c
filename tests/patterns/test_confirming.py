"""What peers claim to have forgotten is taken note of, where a journal may have said so."""

from typing import Any

import pytest

from zmesh.actions import SenderForgot
from zmesh.core.loopback import Loopback
from zmesh.core.peers import Peer, Peers
from zmesh.core.turn import Turn
from zmesh.events import Source
from zmesh.ids import NodeId, SessionId
from zmesh.message import Kind, head
from zmesh.options import NodeOptions
from zmesh.patterns.confirming import RANGES_TOLD_MAX, Confirming
from zmesh.storage import POSITION_MAX
from zmesh.wire.bodies import encode_body

OPTIONS = NodeOptions()
SESSION = SessionId(b"s" * 16)
JOURNAL = b"journal-journal-"


def forgotten(told: object) -> list[SenderForgot]:
    """Return what is taken note of when a peer tells this."""
    shop = Peer(NodeId(b"shop" * 4), "shop", Loopback(SESSION, OPTIONS.link))
    turn = Turn(Peers(shop, OPTIONS), OPTIONS.link, 0.0)
    encoding, body = encode_body(told)
    record = (head(Kind.DURABILITY, encoding), "known", body)
    Confirming(turn, lambda: 1).on_record(shop, Source(shop.id, SESSION, 4, JOURNAL), record)
    return [action for action in turn.actions if isinstance(action, SenderForgot)]


def test_a_floor_and_ranges_are_taken_note_of() -> None:
    [told] = forgotten([7, 9, 9, 11, 15])
    assert (told.below, told.ranges) == (7, ((9, 9), (11, 15)))
    assert (told.node, told.journal) == (NodeId(b"shop" * 4), JOURNAL)
    [told] = forgotten([POSITION_MAX + 1])
    assert told.below == POSITION_MAX + 1


@pytest.mark.parametrize(
    "told",
    [
        [], 7, "all", [7, 9], ["all"], [7, 9, "x"], [True], [-1], [7, -2, 9],
        [2**64 - 1], [7, 9, 2**63], [7, 2**64 - 2, 2**64 - 1], [POSITION_MAX + 2], [7.0],
    ],
)  # fmt: skip
def test_what_no_journal_says_is_ignored(told: Any) -> None:
    assert forgotten(told) == []


def test_no_more_ranges_are_looked_at_than_a_sender_tells_at_once() -> None:
    ranges = [2 * number for number in range(10, 10 + 5000) for _ in "xx"]
    [told] = forgotten([7, *ranges])
    assert len(told.ranges) == RANGES_TOLD_MAX
