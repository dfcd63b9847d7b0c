"""What publishers are asked for by subscriptions that read their logs."""

import json

import pytest

from zmesh.core.guard import Guard
from zmesh.core.loopback import Loopback
from zmesh.core.peers import Peer, Peers
from zmesh.core.turn import Turn
from zmesh.errors import InvalidOption
from zmesh.events import Source
from zmesh.ids import JournalId, NodeId, SessionId
from zmesh.message import InterestKind, Kind, Outcome, Record, Tag, head
from zmesh.options import NodeOptions
from zmesh.patterns.following import RANGES_TOLD_MAX, Following
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.wanted import check_terms
from zmesh.storage import POSITION_MAX, Identity, Opened
from zmesh.terms import Terms

OPTIONS = NodeOptions()
OPENED = Opened(Identity(NodeId(b"till" * 4), b"", JournalId(b"j" * 16), 1), (), True, None)
SESSION = SessionId(b"s" * 16)
NAMED = Terms(name="billing")


class Till:
    """A node that subscribes to its own log."""

    def __init__(self) -> None:
        self.local = Peer(NodeId(b"till" * 4), "till", Loopback(SESSION, OPTIONS.link))
        self.turn = Turn(Peers(self.local, OPTIONS), OPTIONS.link, 0.0, OPENED)
        guard = Guard(self.turn, None, OPTIONS.trust)
        interest = InterestTable(self.turn, OPTIONS, lambda *_: None, guard)
        self.following = Following(self.turn, interest, OPTIONS.wire)

    def handle(self, *positions: int) -> None:
        """Have the subscription handle publications at these positions."""
        source = Source(self.local.id, SESSION, 4, self.local.journal)
        for position in positions:
            tags = (int(Tag.POSITION), position, int(Tag.FOLLOWER), 1)
            record: Record = (head(Kind.PUBLICATION), "a.b", b"", tags)
            assert list(self.turn.positions.admit(source, position, position, [record]))
            self.turn.positions.on_settle(source, position, position, Outcome.ACCEPTED, "", 0.0)

    def asked(self, pattern: str) -> str:
        """Return what its publisher is asked for when the subscription begins anew."""
        self.following.on_unsubscribe(1)
        self.following.on_subscribe(1, pattern, NAMED)
        [text] = self.local.interests[InterestKind.LOG]
        return text


@pytest.mark.parametrize("length", [1, 500, 960])
def test_no_more_ranges_are_told_than_fit_into_a_text(length: int) -> None:
    till = Till()
    till.following.on_subscribe(1, ">", NAMED)
    first = POSITION_MAX // 2
    source = Source(till.local.id, SESSION, 4, till.local.journal)
    waiting: Record = (
        head(Kind.PUBLICATION), "a.b", b"", (int(Tag.POSITION), first, int(Tag.FOLLOWER), 1)
    )  # fmt: skip
    assert list(till.turn.positions.admit(source, first, first, [waiting]))
    till.handle(*(first + 2 * each for each in range(1, 2 * RANGES_TOLD_MAX)))
    text = till.asked("a" * length)
    assert len(text.encode()) <= OPTIONS.wire.text_bytes_max
    since = json.loads(text)[2]["since"]
    assert since["after"] == first - 1
    assert since.get("but", []) == [
        [first + 2 * each] * 2 for each in range(1, 1 + len(since.get("but", [])))
    ]
    assert ("but" in since) is (length < 960)


def test_a_pattern_that_leaves_no_room_for_a_position_is_refused() -> None:
    with pytest.raises(InvalidOption, match="size of pattern and filter"):
        check_terms("a" * 970, NAMED, OPTIONS.wire)
    check_terms("a" * 900, NAMED, OPTIONS.wire)
