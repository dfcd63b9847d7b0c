"""Publications: to every node with a matching subscription, this one included.

The publisher filters, so a node gets a publication once however many of its subscriptions match,
and not at all where none does. Who asked for a replay gets what is kept first; who would rather
miss some has a backlog of its own, and holds nobody up.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from zmesh.actions import Delivery, PeerState
from zmesh.batches import Block, TicketRun, are_bare, blocks, runs
from zmesh.core.peers import InternalTicket, OnceTicket, Peer
from zmesh.core.positions import RESUMED, may_be_logged
from zmesh.core.turn import Turn
from zmesh.events import Publish, PublishMany, Source
from zmesh.ids import NodeId
from zmesh.message import (
    Failure,
    FailureKind,
    Outcome,
    Record,
    Tag,
    Ticket,
    extra,
    with_extra,
    without_extra,
)
from zmesh.options import NodeOptions
from zmesh.patterns.backlog import Backlog, Waiting, waiting_of
from zmesh.patterns.filters import Allowance, Filters, Sight
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.retained import Kept, Retained
from zmesh.patterns.wanted import Wanted

_TOPIC = itemgetter(1)

_SILENT = (PeerState.BUSY, PeerState.SUSPECT)


class _Subscriber:
    """What a publisher knows of a peer that subscribes on terms."""

    __slots__ = ("allowance", "backlog", "replayed", "replays", "subscriptions")

    def __init__(self, backlog: Backlog, allowance: Allowance) -> None:
        self.backlog = backlog
        self.allowance = allowance
        self.replayed = 0  # the highest number of those that had their replay
        self.replays: deque[Wanted] = deque()  # that wait for room
        self.subscriptions = 0


class PublishSubscribe:
    """Sends publications to those who want them, and hands over those that came."""

    def __init__(self, turn: Turn, interest: InterestTable, options: NodeOptions) -> None:
        self._turn = turn
        self._interest = interest
        self._options = options
        self._block_max = (options.wire.records_max, options.link.packet_bytes)
        self._subscribers: dict[NodeId, _Subscriber] = {}
        self._eager: dict[Peer, _Subscriber] = {}  # for whom something waits here
        self.gathered = (self._eager, interest.wanted.news)  # all empty: nothing to flush
        self.filters = Filters(options)
        self.retained = Retained(options.retained_max, options.retained_bytes_max)
        self.unwanted = 0  # arrived though no subscription wants them (any more)
        self.replayed = 0
        self.is_resuming: Callable[[Peer], bool] = lambda _: False  # it reads the log for now
        self.were_here: Callable[[NodeId], int] = lambda _: 0  # the last that misses what it did
        self._missed = 0  # by subscriptions that have ended, and where there was no room

    @property
    def waiting(self) -> int:
        """How many publications wait for peers that would rather miss some."""
        return sum(len(each.backlog) for each in self._eager.values())

    @property
    def missed(self) -> int:
        """How many were not sent to such a peer, or to one without room for what it may miss."""
        return self._missed + sum(each.backlog.missed for each in self._subscribers.values())

    # Who receives

    def receivers(self, topic: str) -> list[Peer]:
        """Return the nodes that want everything on a topic, as far as they are there."""
        return [peer for peer in self._interest.receivers(topic) if peer.present]

    def audience(
        self, record: Record, *, is_resumed: bool = False
    ) -> tuple[list[Peer], dict[Peer, list[Wanted]]]:
        """Return who receives a publication now: those it is for, and those that may miss it.

        Who reads it from the log is not among them, unless `is_resumed`: by who has missed it.
        """
        receivers = self.receivers(record[1])
        if extra(record, Tag.POSITION) is not None:
            return self._audience_beside_log(record, receivers, is_resumed=is_resumed)
        return self._audience(record, receivers, self._interest.wanted.match(record[1]))

    def _audience_beside_log(
        self, record: Record, receivers: list[Peer], *, is_resumed: bool
    ) -> tuple[list[Peer], dict[Peer, list[Wanted]]]:
        matching = self._interest.wanted.match(record[1])
        wanted = tuple(each for each in matching if not each.follows)
        sure, casual = self._audience(record, receivers, wanted)
        if not is_resumed:
            sure = [peer for peer in sure if not self.is_resuming(peer)]
        return sure, casual

    def _audience(
        self, record: Record, receivers: list[Peer], wanted: tuple[Wanted, ...]
    ) -> tuple[list[Peer], dict[Peer, list[Wanted]]]:
        if not wanted:
            return receivers, {}
        sure = dict.fromkeys(receivers)
        casual: dict[Peer, list[Wanted]] = {}
        sight = Sight(record)
        local = self._turn.peers.local
        for each in wanted:
            peer = each.peer
            if peer in sure or not peer.present or not self._is_for(each, sight):
                continue
            if each.may_miss and peer is not local:  # what is here waits in the application
                casual.setdefault(peer, []).append(each)
            else:
                sure[peer] = None
                casual.pop(peer, None)
        return list(sure), casual

    def names(self, record: Record) -> list[str]:
        """Return what those are called that would receive a publication now."""
        sure, casual = self.audience(record)
        return [peer.label for peer in (*sure, *casual)]

    def _is_for(self, wanted: Wanted, sight: Sight) -> bool:
        if wanted.ended:
            return False
        if wanted.sieve is None:
            return True
        subscriber = self._subscribers.get(wanted.peer.id)
        allowance = None if subscriber is None else subscriber.allowance
        # What cannot be found out here is for the peer to find out.
        return self.filters.passes(wanted.sieve, sight, self._turn.now, allowance) is not False

    def room(self, topic: str) -> int | None:
        """Return how many publications on a topic fit the fullest receiver that takes any.

        One that is silent with a full queue does not count: `on_publish` fails it at once, so
        that it holds nobody up. None where nobody receives.
        """
        receivers = dict.fromkeys(self.receivers(topic))
        for wanted in self._interest.wanted.match(topic):
            if wanted.peer.present and not (wanted.may_miss or self._reads_log(wanted)):
                receivers[wanted.peer] = None
        rooms = [self._turn.room(peer) for peer in receivers if not self._is_stuck(peer)]
        return min(rooms, default=None)

    def _reads_log(self, wanted: Wanted) -> bool:
        return wanted.follows and self._turn.keeper.is_there

    def _is_stuck(self, peer: Peer) -> bool:
        return peer.state in _SILENT and self._turn.room(peer) <= 0

    # Publishing

    def on_publish(self, publish: Publish) -> None:
        """Submit a publication to all receivers; its ticket counts the outcomes of the sure.

        The one that the ticket expects of it becomes as many as there are. What is to come at most
        once is handed to those with room, and nobody counts anything.
        """
        turn, ticket, record = self._turn, publish.ticket, publish.record
        expires = None if publish.ttl is None else turn.now + publish.ttl
        sure, casual = self.audience(record)
        ticket.expected += (0 if publish.at_most_once else len(sure)) - 1
        ticket.expires = expires
        is_kept = self._keep(publish, expires)
        if publish.at_most_once or not sure:
            turn.note_accepted((ticket,))
        records = [record]
        for peer in sure:
            if is_kept:
                records = [self._as_kept(record, peer)]
            if publish.at_most_once:
                self._submit_once(peer, publish, records)
            elif self._is_stuck(peer):
                self._fail_stuck(peer, ticket)
            else:
                turn.submit(peer, publish.lane, records, ticket, key=publish.key, ttl=publish.ttl)
        for peer, wanted in casual.items():
            copy = self._as_kept(record, peer) if is_kept else record
            if publish.durable:  # of what may be missed, and may come late, nobody keeps account
                copy = without_extra(copy, Tag.POSITION)
            waiting = waiting_of(copy, publish.lane, publish.key, expires, wanted)
            waiting.at_most_once = publish.at_most_once
            self._wait(peer, waiting)

    def on_publish_many(self, publish: PublishMany) -> None:
        """Submit publications on a topic, each as `on_publish` does, with as little as can be.

        Where all receivers take all of the topic they get the same blocks, packed once for all.
        """
        turn, records, tickets = self._turn, publish.records, publish.tickets
        is_each = len(tickets) == len(records)
        receivers = self.receivers(records[0][1])
        if len(records) == 1 or not self._take_all(records[0][1], receivers):
            each = tickets if is_each else tickets * len(records)
            for record, ticket in zip(records, each, strict=True):
                self.on_publish(_alone(publish, record, ticket))
            return
        more = (0 if publish.at_most_once else len(receivers)) - 1
        expires = None if publish.ttl is None else turn.now + publish.ttl
        for ticket in tickets:
            ticket.expected += more if is_each else more * len(records)
            ticket.expires = expires
        if publish.at_most_once or not receivers:
            turn.note_accepted(tickets)
        start, remote = 0, len(receivers) - (turn.peers.local in receivers)
        for block in blocks(records, *self._block_max):
            block.shares = remote if remote > 1 else 0
            own = tickets[start : start + len(block)] if is_each else tickets
            start += len(block)
            run = own[0] if len(own) == 1 else TicketRun(own)
            for peer in receivers:
                if publish.at_most_once:
                    self._submit_block_once(peer, publish, block)
                elif self._is_stuck(peer):
                    for ticket in own if is_each else own * len(block):
                        self._fail_stuck(peer, ticket)
                else:
                    turn.submit(peer, publish.lane, block, run, key=publish.key, ttl=publish.ttl)

    def _take_all(self, topic: str, receivers: list[Peer]) -> bool:
        """Return whether all who want anything on a topic want everything."""
        wanted = self._interest.wanted.match(topic)
        if not wanted:
            return True
        known = set(receivers)
        return all(each.peer in known or not each.peer.present for each in wanted)

    def _submit_block_once(self, peer: Peer, publish: PublishMany, block: Block) -> None:
        room = self._turn.room(peer)
        some = block if room >= len(block) else block[: max(0, room)]
        self._missed += len(block) - len(some)
        if some:
            ticket = OnceTicket(len(some))
            self._turn.submit(peer, publish.lane, some, ticket, key=publish.key, ttl=publish.ttl)

    def _fail_stuck(self, peer: Peer, ticket: Ticket) -> None:
        why = "it is silent and its queue is full: this was not sent"
        self._turn.fail(ticket, Failure(FailureKind.PEER_LOST, peer.label, why))

    def _submit_once(self, peer: Peer, publish: Publish, records: list[Record]) -> None:
        if self._turn.room(peer) > 0:
            ticket = OnceTicket()
            self._turn.submit(
                peer, publish.lane, records, ticket, key=publish.key, ttl=publish.ttl
            )
        else:
            self._missed += 1

    def _keep(self, publish: Publish, expires: float | None) -> bool:
        """Keep a publication that is to be kept; return whether it is."""
        if publish.keep is None:
            return False
        record = publish.record
        if not publish.keep:
            self.retained.clear(record[1])
            return False
        for topic in self.retained.keep(record, publish.lane, publish.key, expires, publish.keep):
            self._turn.trace("retained_forgotten", 30, topic=topic)
        return True

    def _as_kept(self, record: Record, peer: Peer) -> Record:
        """Return a publication that is kept as a peer gets it.

        It tells which of the peer's subscriptions have had their replay, and so lack it.
        """
        subscriber = self._subscribers.get(peer.id)
        return with_extra(record, Tag.KEPT, 0 if subscriber is None else subscriber.replayed)

    def _wait(self, peer: Peer, waiting: Waiting) -> None:
        subscriber = self._subscribers[peer.id]
        subscriber.backlog.add(waiting)
        self._eager[peer] = subscriber

    # Subscribers

    def flush(self) -> None:
        """Note which subscriptions came or went, and send what waits where there is room."""
        for wanted, has_begun in self._interest.wanted.take_news():
            if has_begun:
                self._on_begun(wanted)
            else:
                self._on_ended(wanted)
        for peer, subscriber in list(self._eager.items()):
            while subscriber.replays and self._turn.room(peer) > 0:
                self._replay(subscriber, subscriber.replays.popleft())
            if not subscriber.replays:
                subscriber.backlog.flush()
            if not subscriber.replays and subscriber.backlog.is_idle:
                del self._eager[peer]

    def _on_begun(self, wanted: Wanted) -> None:
        peer, options = wanted.peer, self._options
        subscriber = self._subscribers.get(peer.id)
        if subscriber is None:
            allowance = Allowance(options.filter_steps_per_second, self._turn.now)
            subscriber = _Subscriber(Backlog(peer, self._turn, options), allowance)
            self._subscribers[peer.id] = subscriber
        subscriber.subscriptions += 1
        if wanted.terms.replay and not wanted.ended:
            subscriber.replays.append(wanted)
            self._eager[peer] = subscriber

    def _on_ended(self, wanted: Wanted) -> None:
        subscriber = self._subscribers[wanted.peer.id]
        subscriber.subscriptions -= 1
        subscriber.backlog.forget(wanted)
        if wanted in subscriber.replays:
            subscriber.replays.remove(wanted)
        if not subscriber.subscriptions:
            self._missed += subscriber.backlog.missed
            del self._subscribers[wanted.peer.id]
            self._eager.pop(wanted.peer, None)

    def _replay(self, subscriber: _Subscriber, wanted: Wanted) -> None:
        """Send a subscription what is kept for it, as it was published."""
        turn, peer = self._turn, wanted.peer
        subscriber.replayed = max(subscriber.replayed, wanted.number)
        for batch in _batches(self._kept_for(wanted)):
            first = batch[0]
            records = [with_extra(kept.record, Tag.RETAINED, wanted.number) for kept in batch]
            ticket = InternalTicket(len(records))
            ticket.expires = first.expires
            ttl = None if first.expires is None else first.expires - turn.now
            turn.submit(peer, first.lane, records, ticket, key=first.key, ttl=ttl)
            self.replayed += len(records)

    def _kept_for(self, wanted: Wanted) -> Iterator[Kept]:
        for kept in self.retained.matching(wanted.pattern, self._turn.now):
            if self._is_for(wanted, Sight(kept.record)):
                yield kept

    # What arrives

    def on_records(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        """Hand publications over; those nobody here wants are accepted."""
        if are_bare(records) or not any(map(may_be_logged, records)):
            self._hand_over(peer, source, first, last, records)
            return
        for low, high, run in self._turn.positions.admit(source, first, last, records):
            self._hand_over(peer, source, low, high, run)

    def _hand_over(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        tokens = self._tokens_of(source, records)
        if all(tokens):
            delivery = Delivery(source, peer.label, first, last, records)
            self._turn.deliver_publications(delivery, tokens)
            return
        start = 0
        for wanted, low, high, run in runs(first, last, records, [bool(t) for t in tokens]):
            stop = start + len(run)
            if wanted:
                delivery = Delivery(source, peer.label, low, high, run)
                self._turn.deliver_publications(delivery, tokens[start:stop])
            else:
                self.unwanted += len(run)
                self._turn.settle(source, low, high, Outcome.ACCEPTED, lazy=True)
            start = stop

    def _tokens_of(self, source: Source, records: Sequence[Record]) -> list[tuple[int, ...]]:
        """Return the subscriptions of this node that each publication is for."""
        if self._interest.filtering or not are_bare(records):
            return [self._tokens(source, record) for record in records]
        # The topic says all: it is looked up once, and nothing is done for each but in C.
        if type(records) is Block and len(records.targets) == 1:
            return [self._interest.tokens(records[0][1])] * len(records)
        topics = list(map(_TOPIC, records))
        known = {topic: self._interest.tokens(topic) for topic in set(topics)}
        return list(map(known.__getitem__, topics))

    def _tokens(self, source: Source, record: Record) -> tuple[int, ...]:
        """Return the subscriptions of this node that a publication is for."""
        interest = self._interest
        tokens = interest.tokens(record[1])
        if len(record) == 4:
            tokens = self._tokens_by_replay(record, tokens)
            if extra(record, Tag.PUBLISHED) is not None:
                tokens = self._tokens_by_log(source, record, tokens)
        if not interest.filtering or not tokens:
            return tokens
        sight, now = Sight(record), self._turn.now
        chosen = []
        for token in tokens:
            sieve = interest.subscription(token).sieve
            if sieve is None or self.filters.passes(sieve, sight, now) is not False:
                chosen.append(token)
        return tuple(chosen)

    def _tokens_by_replay(self, record: Record, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Leave out subscriptions that got a publication, or will, by a replay, or whose it isn't.

        What is kept is for those whose replay came before, by its publisher's word, and for
        those that wanted none; what is of a replay is for the one that it was sent to.
        """
        replay_of, replayed = extra(record, Tag.RETAINED), extra(record, Tag.KEPT)
        if isinstance(replay_of, int):
            return (replay_of,) if replay_of in tokens else ()
        if not isinstance(replayed, int):
            return tokens
        return tuple(
            token
            for token in tokens
            if token <= replayed or not self._interest.subscription(token).terms.replay
        )

    def _tokens_by_log(
        self, source: Source, record: Record, tokens: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Return those of the subscriptions that a publication from a log is for, as it came."""
        follower = extra(record, Tag.FOLLOWER)
        if isinstance(follower, int) and follower != RESUMED:
            return (follower,) if follower in tokens else ()
        followers = self._turn.positions.followers
        tokens = tuple(token for token in tokens if token not in followers)
        if follower == RESUMED:
            last = self.were_here(source.node)
            return tuple(token for token in tokens if token <= last)
        return tokens

    def on_missed(self, source: Source, first: int, last: int, records: Sequence[Record]) -> None:
        """Tell subscriptions how many publications they were not sent."""
        self._turn.settle(source, first, last, Outcome.ACCEPTED, lazy=True)
        for record in records:
            told = extra(record, Tag.MISSED)
            if isinstance(told, tuple):
                counts = [int(each) for each in told if isinstance(each, int)]
                self._turn.deliver_missed(list(zip(counts[::2], counts[1::2], strict=True)))


def _alone(publish: PublishMany, record: Record, ticket: Ticket) -> Publish:
    once = publish.at_most_once
    return Publish(record, publish.lane, ticket, publish.key, publish.ttl, at_most_once=once)


def _batches(found: Iterator[Kept]) -> Iterator[list[Kept]]:
    """Part what is kept wherever it cannot be submitted together."""
    for _, batch in groupby(found, key=lambda kept: (kept.lane, kept.key, kept.expires)):
        yield list(batch)
