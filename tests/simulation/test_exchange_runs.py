"""Exchanges through loss, partitions, deaths and restarts, by seed.

Once the network is whole and nobody binds any more, all nodes route alike: to what was bound and
not unbound, and to all who read now, each once, and to nobody who has gone. They agree on kinds.
Nothing is bound for a node that has gone, if anybody who is left could notice. And at every moment
the routing table says what the map says.
"""

from itertools import combinations
from random import Random

import pytest

from tests.engines import Host, World, publication
from tests.patterns.test_shared_state import NOON
from zmesh.actions import Action, PeerChange, PeerChanged, StateChanged
from zmesh.map_events import OpenState, WriteState
from zmesh.options import LinkOptions, NodeOptions, WireLimits
from zmesh.patterns.bindings import (
    TABLE,
    Binding,
    Declaration,
    Destination,
    DestinationKind,
    binding_of,
    from_value,
    key_of,
)
from zmesh.patterns.declarations import Declarations
from zmesh.patterns.exchanges import RoutingTable
from zmesh.terms import ExchangeKind
from zmesh.testing.network import Weather
from zmesh.wire.bodies import decode_body

SEEDS = 40
LIMITS = WireLimits()
LOGS = Declaration("logs", "topic")
PATTERNS = ("#", "a", "a.*", "*.b", "a.#.b")
KEYS = ("a", "a.b", "b.b", "a.x.b")
OPTIONS = NodeOptions(
    link=LinkOptions(
        session_linger=2.0,
        hello_timeout=0.2,
        acceptable_pause=0.5,  # so that some are taken for gone who live
        ping_after_max=0.5,
        ping_idle_max=2.0,
        probe_interval=0.5,
    ),
    shared_sync_every=1.5,
    reconnect_max=0.5,
)
STORM = Weather(loss=0.15, duplication=0.1, reordering=0.2)


class Life:
    """One life of a host that binds, routes, and reads."""

    def __init__(self, run: "Run", host: Host) -> None:
        self.run = run
        self.host = host
        self.declarations = Declarations(host.id.hex(), LIMITS, 8, self.write, lambda _: True)
        self.reading: dict[int, dict[str, Binding]] = {}  # by token
        self.there: set[str] = set()  # ids of nodes
        self.met: set[str] = set()  # keys of bindings whose owners were there meanwhile
        self.claim = Declaration("other", "fanout")
        self.rebound = 0  # what it held was taken back
        self.is_to_be_tended = False
        host.listeners.append(self.hear)
        host.do(OpenState(TABLE, self.wall()))
        run.world.run(0.0)

    def wall(self) -> int:
        return NOON + round(self.run.world.queue.now * 1000)

    def write(self, key: str, encoding: int | None, value: bytes) -> None:
        self.host.do(WriteState(TABLE, key, encoding, value, self.wall()))

    def hear(self, action: Action) -> None:
        match action:
            case StateChanged(name, changes) if name == TABLE:
                held = {key for each in self.reading.values() for key in each}
                self.met.difference_update(each.key for each in changes if each.encoding is None)
                for change in changes:
                    self.rebound += change.encoding is None and change.key in held
                    self.declarations.on_change(change.key, change.encoding, change.value)
            case PeerChanged(PeerChange.JOINED, peer):
                self.there.add(peer.id.hex())
            case PeerChanged(PeerChange.LEFT, peer):
                self.note_met()
                self.there.discard(peer.id.hex())
                self.declarations.on_left(peer.id.hex())
            case _:
                return
        self.note_met()
        if not self.is_to_be_tended:
            self.is_to_be_tended = True
            self.run.world.queue.after(0.0, self.tend)

    def note_met(self) -> None:
        """Note whose bindings are here while the owner is there as well."""
        for owner in self.there:
            self.met.update(self.declarations.table.owned(owner))

    def tend(self) -> None:
        self.is_to_be_tended = False
        if self.host.alive:
            self.declarations.tend()

    def read(self, pattern: str) -> None:
        token = self.run.next_number()
        subject = f"{TABLE}.{self.host.name}.{token}"
        to = Destination(DestinationKind.SUBJECT, subject)
        binding = binding_of(LOGS, to, pattern, None, "all", LIMITS, self.host.id.hex())
        self.reading[token] = {key_of(binding): binding}
        self.host.subscribe(token, subject)
        self.declarations.hold(self.reading[token])

    def stop_reading(self) -> None:
        token = self.run.random.choice(list(self.reading))
        self.declarations.let_go(self.reading.pop(token))
        self.host.unsubscribe(token)

    def is_heard(self, subject: str) -> bool:
        return bool(self.host.engine.receivers(publication(subject)))

    def route(self, key: str) -> set[Destination]:
        found = self.declarations.table.route("logs", key, {}, self.is_heard)
        assert len(set(found)) == len(found)
        return set(found)


class Run:
    """One seed: hosts that bind and read, and what befalls them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"exchanges {seed}")
        self.world = World(OPTIONS)
        self.world.random.seed(seed)
        self.names = ["a", "b", "c", "d"][: self.random.randint(2, 4)]
        self.lives: dict[str, Life] = {}
        self.former: list[Life] = []
        self.cuts: set[tuple[str, str]] = set()
        self.number = 0
        self.bound: list[tuple[Life, Binding]] = []
        self.unbound: set[str] = set()
        for name in self.names:
            self.start(name)

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def start(self, name: str) -> None:
        if name in self.lives:
            self.former.append(self.lives[name])
        life = self.lives[name] = Life(self, self.world.host(name))
        for other in self.live():
            if other is not life:
                self.world.introduce(other.host, life.host)
        self.declare(life)

    def declare(self, life: Life) -> None:
        """Declare two exchanges; on the kind of one of them they may not agree."""
        own = life.declarations
        own.declare(LOGS, None)
        kind: ExchangeKind = "direct" if self.random.random() < 0.5 else "fanout"
        life.claim = Declaration("other", kind, life.wall())
        own.declare(life.claim, None)
        self.world.run(0.0)

    def live(self) -> list[Life]:
        return [life for life in self.lives.values() if life.host.alive]

    # What happens

    def work(self, life: Life) -> None:
        choice = self.random.random()
        if choice < 0.4:
            life.read(self.random.choice(PATTERNS))
        elif choice < 0.6 and life.reading:
            life.stop_reading()
        else:
            to = Destination(DestinationKind.QUEUE, f"queue-{self.random.randrange(6)}")
            pattern = self.random.choice(PATTERNS)
            binding = binding_of(LOGS, to, pattern, None, "all", LIMITS)
            if choice < 0.9:
                life.declarations.put(binding)
                self.bound.append((life, binding))
            elif life.declarations.erase(key_of(binding)):
                self.unbound.add(key_of(binding))
        self.world.run(0.0)

    def befall(self) -> None:
        one, other = self.random.sample(self.names, 2)
        first, second = self.lives[one].host, self.lives[other].host
        pair = min(one, other), max(one, other)
        match self.random.choice(
            ["cut", "cut", "heal", "kill", "start", "storm", "calm", "reset"]
        ):
            case "cut" if pair not in self.cuts:
                self.cuts.add(pair)
                self.world.network.cut(first.index, second.index)
                self.world.network.cut(second.index, first.index)
            case "heal" if pair in self.cuts:
                self.heal(pair)
            case "kill" if len(self.live()) > 1 and first.alive:
                first.kill()
            case "start" if not first.alive:
                self.start(one)
            case "storm":
                self.world.network.set_weather(first.index, second.index, STORM)
            case "calm":
                self.world.network.set_weather(first.index, second.index, None)
            case "reset":
                self.world.network.reset(first.index, second.index)
            case _:
                pass

    def heal(self, pair: tuple[str, str]) -> None:
        self.cuts.discard(pair)
        first, second = (self.lives[name].host for name in pair)
        self.world.network.heal(first.index, second.index)
        self.world.network.heal(second.index, first.index)
        if first.alive and second.alive:
            self.world.introduce(first, second)

    def live_through(self) -> None:
        for _ in range(self.random.randint(15, 40)):
            for life in self.live():
                for _ in range(self.random.choice((0, 0, 1, 2))):
                    self.work(life)
            if self.random.random() < 0.5:
                self.befall()
            self.world.run(self.random.choice((0.001, 0.05, 0.3, 2.0, 4.0)))
            self.check()

    def put_right(self) -> None:
        """Let the network be whole again, and some hosts be gone for good."""
        for pair in list(self.cuts):
            self.heal(pair)
        for pair in combinations(self.names, 2):
            first, second = (self.lives[name].host for name in pair)
            if first.alive and second.alive:
                self.world.introduce(first, second)
            self.world.network.set_weather(first.index, second.index, None)
            self.world.network.set_weather(second.index, first.index, None)

    # What holds

    def check(self) -> None:
        """Hold each routing table to the map of its host."""
        for life in self.live():
            entries = life.host.engine.shared_state.map(TABLE)
            assert entries is not None
            told = {
                key: from_value(key, decode_body(entry.encoding, entry.value), LIMITS)
                for key, entry in entries.entries()
                if not entry.deleted
            }
            here = life.declarations.table._declared
            assert {k: d for k, d in here.items() if isinstance(d, Binding)} == {
                k: d for k, d in told.items() if isinstance(d, Binding)
            }
            assert here.keys() == told.keys()
            assert life.declarations.refused == 0

    def is_settled(self) -> bool:
        lives = self.live()
        maps = [life.host.engine.shared_state.map(TABLE) for life in lives]
        held = {key for life in lives for each in life.reading.values() for key in each}
        # Whether its owner has gone nobody can tell of a binding that came when it was not there.
        met = held.union(*(life.met for life in lives))
        tables = [life.declarations.table for life in lives]
        owned = [{key for owner in each.owners() for key in each.owned(owner)} for each in tables]
        is_equal = len({own.root for own in maps if own is not None}) == 1
        return is_equal and all(each & met == held for each in owned)

    def check_end(self) -> None:
        lives = self.live()
        for key in KEYS:
            routes = [life.route(key) for life in lives]
            assert all(route == routes[0] for route in routes)
            readers = {
                binding.destination
                for life in lives
                for each in life.reading.values()
                for binding in each.values()
                if matches(binding, key)
            }
            subjects = {to for to in routes[0] if to.kind is DestinationKind.SUBJECT}
            assert subjects == readers
            for life, binding in self.bound:
                stands = life in lives and key_of(binding) not in self.unbound
                if stands and matches(binding, key):
                    assert binding.destination in routes[0], f"{binding} is lost"
        kinds = {life.declarations.table.kind("other") for life in lives}
        assert len(kinds) == 1
        oldest = min((life.claim for life in lives), key=lambda claim: claim.since_ms)
        kind = kinds.pop()
        claims = [life.claim for life in (*self.former, *self.lives.values())]
        assert any(each.kind == kind and each.since_ms <= oldest.since_ms for each in claims)

    def publish(self) -> None:
        """Let everybody send to all that read, and see that it comes once."""
        lives = self.live()
        for life in lives:
            life.host.heard.clear()
        sent = []
        for life in lives:
            for key in KEYS:
                for to in life.route(key):
                    if to.kind is DestinationKind.SUBJECT:
                        sent.append((to.name, f"{life.host.name} {key}"))
                        life.host.publish(*sent[-1])
        self.world.run(2.0)
        assert sorted(each for life in lives for each in life.host.heard) == sorted(sent)


def matches(binding: Binding, key: str) -> bool:
    alone = RoutingTable(cache_max=1)
    alone.put("exchange", LOGS)
    alone.put("binding", binding)
    return bool(alone.route("logs", key, {}, lambda _: True))


def run(seed: int) -> Run:
    through = Run(seed)
    through.live_through()
    through.put_right()
    through.world.run_until(through.is_settled, 60.0)
    through.world.run(5.0)
    assert through.is_settled()
    through.check()
    through.check_end()
    through.publish()
    return through


@pytest.mark.parametrize("block", range(4))
def test_all_nodes_route_alike_once_all_is_well_again(block: int) -> None:
    runs = []
    for seed in range(block * SEEDS // 4, (block + 1) * SEEDS // 4):
        try:
            runs.append(run(seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    are_not_idle(runs)


def are_not_idle(runs: list[Run]) -> None:
    """Find in runs what they are about."""
    lives = [life for each in runs for life in [*each.former, *each.lives.values()]]
    assert sum(len(each.bound) for each in runs) > 50
    assert sum(len(each.unbound) for each in runs) > 5
    assert sum(len(life.reading) for life in lives) > 25
    assert sum(life.rebound for life in lives) > 5, "some were taken for gone"
    assert sum(not life.host.alive for life in lives) > 5
