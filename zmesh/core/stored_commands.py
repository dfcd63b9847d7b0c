"""What the engine does about the journal, and about what the application has on disk itself."""

from collections.abc import Callable
from typing import Any, assert_never

from zmesh.core.link_news import LinkNews
from zmesh.core.turn import Turn
from zmesh.errors import ZmeshError
from zmesh.events import (
    Event,
    JournalTold,
    KeepReplays,
    MakeRoom,
    Post,
    RelayedGone,
    Remember,
)
from zmesh.storage import Entry, RemoveEntries, SetEntries

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
        KeepReplays: commands.on_replays,
    }


class _StoredCommands:
    def __init__(self, turn: Turn, news: LinkNews) -> None:
        self._turn = turn
        self._news = news
        self._unkept: dict[tuple[str, bytes], Entry] = {}  # for want of room

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

    def on_replays(self, keep: KeepReplays) -> None:
        """Have it on disk before the verdicts that follow; what found no room goes with it."""
        entries = self._unkept | {(entry.name, entry.key): entry for entry in keep.entries}
        self._unkept = {}
        gone = [entry for entry in entries.values() if not entry.value]
        kept = {key: entry for key, entry in entries.items() if entry.value}

        def on_written(error: ZmeshError | None) -> None:
            if error is not None:
                self._unkept = kept | self._unkept

        keeper = self._turn.keeper
        if gone:
            keeper.later(*(RemoveEntries(each.kind, each.name, each.key) for each in gone))
        if kept:
            keeper.write(SetEntries(tuple(kept.values())), then=on_written)

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
