"""What the engine does about the journal, and about what the application has on disk itself."""

from collections.abc import Callable
from typing import Any, assert_never

from zmesh.core.link_news import LinkNews
from zmesh.core.turn import Turn
from zmesh.events import Event, JournalTold, MakeRoom, Post, RelayedGone, Remember

Handlers = dict[type[Event], Callable[[Any], None]]


def stored_commands(turn: Turn, news: LinkNews) -> Handlers:
    """Return what takes these events."""
    commands = _StoredCommands(turn, news)
    return {
        JournalTold: commands.on_journal,
        Post: commands.on_post,
        Remember: commands.on_memory,
        RelayedGone: commands.on_memory,
        MakeRoom: commands.on_memory,
    }


class _StoredCommands:
    def __init__(self, turn: Turn, news: LinkNews) -> None:
        self._turn = turn
        self._news = news

    def on_journal(self, told: JournalTold) -> None:
        """Let those who wait for the journal go on."""
        for event in told.events:
            self._turn.keeper.on_told(event)

    def on_post(self, post: Post) -> None:
        """Send messages; durable ones when they are on disk."""
        if post.durable:
            self._news.outbox.on_post(post)
        else:
            self._news.direct.on_post(post)

    def on_memory(self, event: Remember | RelayedGone | MakeRoom) -> None:
        """Learn what others keep, or make room for what finds none."""
        news = self._news
        match event:
            case Remember(node, journal, ranges, str(name)):
                self._turn.positions.remember(node, journal, ranges, name)
            case Remember(node, journal, ranges):
                self._turn.handled.remember(node, journal, ranges)
            case RelayedGone(keys):
                news.outbox.on_relayed_gone(keys)
            case MakeRoom(Post(to), size):
                news.outbox.make_room(to if isinstance(to, str) else to.hex(), size)
            case MakeRoom(_, size):
                news.topics.log.make_room(size)
            case _:
                assert_never(event)
