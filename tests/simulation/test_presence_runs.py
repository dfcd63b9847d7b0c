"""What nodes say of themselves, through loss, partitions, crashes and restarts, by seed.

Once all is well again every node sees of each other what that one says, and nothing it took back:
services, groups, attributes. Who watched some of them was told of each that began and ceased to be
one of them, in turns, and knows in the end who they are.
"""

from random import Random

import pytest

from tests.engines import Host, World
from tests.simulation.schedule import Schedule
from zmesh.actions import PeerChanged
from zmesh.events import Describe, JoinGroup, LeaveGroup, Withdraw
from zmesh.face.peers_view import Joined, Left, Overrun, Wanted, Watcher, event_of, peer_of
from zmesh.options import LinkOptions, NodeOptions
from zmesh.patterns.interest import InterestTable
from zmesh.wire.attributes import attribute_text

SEEDS = 80
ACTIVE = 15.0  # seconds in which nodes describe themselves anew, and faults strike
REST = 60.0  # seconds after which all is well again
OPTIONS = NodeOptions(link=LinkOptions(session_linger=3.0))
ROOMS = ("kitchen", "cellar", "attic")
WATCHED = (
    Wanted(where={"room": "kitchen"}), Wanted(service="heat"), Wanted(group="sensors"),
    Wanted(group="sensors", where={"room": "cellar"}),
)  # fmt: skip


class Life:
    """One life of a node: what it says, and what its watchers were told."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.room: str | None = None
        self.groups: set[str] = set()
        self.services: set[str] = set()
        self.watchers = [Watcher([], wanted) for wanted in WATCHED]
        self.looked_at = 0

    def change(self, random: Random) -> None:
        """Say something else of itself."""
        match random.choice(("room", "room", "join", "leave", "serve", "withdraw")):
            case "room":
                self.room = random.choice((*ROOMS, None))
                limits = self.host.world.options.wire
                text = None if self.room is None else attribute_text("room", self.room, limits)
                self.host.do(Describe({"room": text}))
            case "join":
                self.groups.add("sensors")
                self.host.do(JoinGroup("sensors"))
            case "leave":
                self.groups.discard("sensors")
                self.host.do(LeaveGroup("sensors"))
            case "serve":
                self.services.add("heat")
                self.host.serve("heat")
            case "withdraw":
                self.services.discard("heat")
                self.host.do(Withdraw("heat"))

    def look(self) -> None:
        """Take what the engine told since the last look."""
        actions = self.host.actions
        for action in actions[self.looked_at :]:
            if isinstance(action, PeerChanged):
                for watcher in self.watchers:
                    watcher.add(event_of(action))
        self.looked_at = len(actions)

    def check(self, others: "list[Life]") -> None:
        """Check what it sees of the others, and what its watchers know."""
        self.look()
        peers = [peer_of(view) for view in self.host.engine.peers()]
        assert {peer.name for peer in peers} == {life.host.name for life in others}
        for life in others:
            [peer] = [each for each in peers if each.name == life.host.name]
            assert dict(peer.attributes) == ({} if life.room is None else {"room": life.room})
            assert peer.groups == life.groups
            assert peer.services == life.services
        for watcher, wanted in zip(self.watchers, WATCHED, strict=True):
            known: set[str] = set()
            for event in watcher._events:
                assert not isinstance(event, Overrun)
                is_new = event.peer.id not in known
                assert isinstance(event, Joined) is is_new, "told of one that is not among them"
                if isinstance(event, Joined):
                    known.add(event.peer.id)
                elif isinstance(event, Left):
                    known.discard(event.peer.id)
            assert known == {peer.id for peer in peers if wanted.meets(peer)}


class Run:
    """One seed: nodes that say who they are, and what befalls them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"presence {seed}")
        self.world = World(OPTIONS)
        self.schedule = Schedule(self.world, self.random)
        names = "abcd"[: self.random.randint(2, 4)]
        self.lives = {name: Life(self.world.host(name)) for name in names}
        hosts = [life.host for life in self.lives.values()]
        for number, host in enumerate(hosts):
            for other in hosts[:number]:
                self.world.introduce(other, host)

    def go(self) -> None:
        queue, random = self.world.queue, self.random
        for _ in range(random.randint(5, 25)):
            queue.after(random.uniform(0.0, ACTIVE), self._change)
        for _ in range(random.randint(1, 8)):
            at = random.uniform(0.0, ACTIVE)
            if random.random() < 0.25:
                queue.after(at, self._crash)
            else:
                queue.after(at, self.schedule.strike, 12.0)
        self.world.run(ACTIVE + REST)
        for life in self.lives.values():
            life.check([other for other in self.lives.values() if other is not life])

    def _change(self) -> None:
        self.random.choice([*self.lives.values()]).change(self.random)

    def _crash(self) -> None:
        life = self.random.choice([*self.lives.values()])
        if life.host.alive:
            life.host.kill()
            self.world.queue.after(
                self.random.choice((0.05, 1.0, 5.0)), self._restart, life.host.name
            )

    def _restart(self, name: str) -> None:
        """Start it again: what it said before ended with its process."""
        life = self.lives[name] = Life(self.world.host(name))
        for other in self.lives.values():
            if other is not life and other.host.alive:
                self.world.introduce(other.host, life.host)


def go(seed: int) -> None:
    try:
        Run(seed).go()
    except AssertionError as error:
        error.add_note(f"seed {seed}")
        raise


def go_all() -> None:
    for seed in range(SEEDS):
        go(seed)


def test_all_see_of_each_other_what_each_says() -> None:
    go_all()


def test_what_is_taken_back_and_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs would see a node that never tells what it takes back: plant the bug."""
    monkeypatch.setattr(InterestTable, "retract", lambda *_: None)
    with pytest.raises(AssertionError):
        go_all()
