"""Work queues, the consuming side: grants room to the producers that have jobs, and takes these.

The room of a queue is the prefetch of those who pull it, less the jobs they have and the grants
that are out. It goes to the producers that want some, in turns; what is left is granted ahead to
those that lately did, so that their next job leaves without a question, and is called back when
another wants it. `work_queue` is the other side.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heapreplace
from itertools import repeat
from operator import itemgetter
from typing import Final, NamedTuple, cast

from zmesh.actions import Delivery, GiveBackJobs, PeerState
from zmesh.batches import runs
from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines
from zmesh.events import Pull, SettleDeliveries, Source, Unpull
from zmesh.ids import JournalId, NodeId
from zmesh.message import InterestKind, Outcome, Record, Tag, extra, tag_rows, tags_of, values_of
from zmesh.options import NodeOptions
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.job_control import Grant, Offer, encode
from zmesh.patterns.telling import Telling
from zmesh.reliable.seen import PENDING, MessageId, SeenTable

Place = tuple[Source, int, int]
"""Where a copy of a job came from, and its numbers there."""

_TARGET = itemgetter(1)
_PULL: Final[Callable[["_Held"], "_Pull"]] = itemgetter(1)
_SILENT = (PeerState.BUSY, PeerState.SUSPECT)


_LIMIT_MAX: Final = 2**63 - 1
"""Of grants, whatever a producer asks for: they travel as 64 bits."""


@dataclass(slots=True, eq=False)
class _Pull:
    """One `pull` of the application."""

    token: int
    queue: "_Queue"
    prefetch: int
    jobs: int = 0  # the application has

    @property
    def room(self) -> int:
        return self.prefetch - self.jobs


class _Held(NamedTuple):
    """A job the application has."""

    message_id: MessageId
    pull: _Pull
    source: Source
    first: int
    last: int
    is_stored: bool  # at its producer: `Turn.handled` knows of copies, and of what was handled


_MAKE_HELD = partial(tuple.__new__, _Held)


@dataclass(slots=True, eq=False)
class _Producer:
    """What is agreed with one producer; all counts are of one relation: see `job_control`."""

    peer: Peer
    relation: int
    wanted: int = 0  # the limit it would like
    is_active: bool = False  # it had jobs, and has not given grants back since
    limit: int = 0  # how many jobs were granted in all
    arrived: int = 0
    returned: int = 0  # grants it gave back
    told: int = 0  # up to this limit it said that it used its grants, or gave them back
    recalled: int = 0  # up to this limit it knows that we want back what it does not use
    is_overdue: bool = False  # and it kept it, without using it

    @property
    def out(self) -> int:
        """Grants that are not used yet."""
        return max(0, self.limit - self.arrived - self.returned)

    @property
    def wants(self) -> int:
        """How many more it would use now."""
        return max(0, self.wanted - self.limit)

    @property
    def counts(self) -> bool:
        """Whether it uses its grants, or gives them back: else those it has hold up nobody."""
        is_silent = not self.peer.present or self.peer.state in _SILENT
        return not (is_silent or self.is_overdue)

    def write_off(self) -> None:
        """Count as used what it said to be: jobs that expired on their way do not arrive."""
        self.arrived = max(self.arrived, self.told - self.returned)

    def settle_up(self) -> None:
        """Trust it again where it has used or given back what was recalled."""
        if self.arrived + self.returned >= self.recalled:
            self.is_overdue = False


@dataclass(slots=True, eq=False)
class _Queue:
    """A queue that is pulled here."""

    name: str
    pulls: dict[int, _Pull] = field(default_factory=dict)
    producers: dict[NodeId, _Producer] = field(default_factory=dict)  # who is next comes first

    @property
    def room(self) -> int:
        """How many more jobs could be granted."""
        free = sum(pull.room for pull in self.pulls.values())
        return free - sum(each.out for each in self.producers.values() if each.counts)


class JobsTaken:
    """The pulls of this node, and the jobs they have."""

    def __init__(self, turn: Turn, interest: InterestTable, options: NodeOptions) -> None:
        self._turn = turn
        self._interest = interest
        self._seen = SeenTable(options.seen_messages_max, options.seen_horizon)
        self._queues: dict[str, _Queue] = {}
        self._pulls: dict[int, _Pull] = {}
        self._held: dict[tuple[bytes, int], dict[int, _Held]] = {}  # session, lane -> number
        self._copies: dict[MessageId, list[Place]] = {}  # that came of these since
        self._touched: dict[_Queue, None] = {}  # where something may be granted
        self._options = options
        self._patience: Deadlines[tuple[str, NodeId]] = Deadlines(turn.agenda)  # with producers
        self._telling = Telling(turn, self._standing, options.answers_max, options.pulls_max)
        self.gathered = (self._touched, *self._telling.gathered)  # all empty: nothing to flush
        self.duplicates = 0
        self.is_forbidden: Callable[[Peer, str], bool] = lambda *_: False  # to push, by rules
        self._void: dict[tuple[NodeId, str], Grant] = {}  # to tell those who are

    def __len__(self) -> int:
        """Count the jobs the application has."""
        return sum(map(len, self._held.values()))

    @property
    def pulls(self) -> int:
        """How many pulls there are."""
        return len(self._pulls)

    # This node

    def on_pull(self, command: Pull) -> None:
        """Take jobs of a queue from now on."""
        queue = self._queues.get(command.queue)
        if queue is None:
            queue = self._queues[command.queue] = _Queue(command.queue)
        pull = _Pull(command.token, queue, command.prefetch)
        self._pulls[command.token] = queue.pulls[command.token] = pull
        self._interest.declare(InterestKind.QUEUE, command.queue)
        self._touched[queue] = None

    def on_unpull(self, command: Unpull) -> None:
        """End a pull, if there is such; its jobs go back, unless it only drains."""
        pull = self._pulls.get(command.token)
        if pull is None:
            return
        queue = pull.queue
        queue.pulls.pop(command.token, None)
        if not command.drains:
            del self._pulls[command.token]
            everything = [held for each in self._held.values() for held in each.values()]
            for held in [held for held in everything if held.pull is pull]:
                self._end(held)
                if not held.is_stored:
                    self._seen.forget(held.message_id)
                copies = self._copies.pop(held.message_id, ())
                for place in ((held.source, held.first, held.last), *copies):
                    self._settle(place, Outcome.RELEASED)
        if not queue.pulls and self._queues.get(queue.name) is queue:
            self._interest.retract(InterestKind.QUEUE, queue.name)
        self._touched[queue] = None

    # Jobs

    def on_jobs(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        """Hand jobs over, but for copies, and for those of queues nobody here pulls."""
        if Tag.STORED not in tags_of(records):
            self._take(peer, source, first, last, records)
            return
        fresh = self._turn.handled.admit(source, first, last, records)
        if sum(len(run) for _, _, run in fresh) < len(records):
            self._note_copies(peer, first, records, fresh)
        for low, high, run in fresh:
            self._take(peer, source, low, high, run)

    def _note_copies(
        self,
        peer: Peer,
        first: int,
        records: Sequence[Record],
        fresh: list[tuple[int, int, Sequence[Record]]],
    ) -> None:
        """Count what stored jobs used of our grants that came again, and take no room."""
        new = {low + at for low, _, run in fresh for at in range(len(run))}
        for seq, record in enumerate(records, first):
            queue = self._queues.get(record[1])
            if seq in new:
                continue
            self.duplicates += 1
            if queue is not None:
                self._on_arrived(queue, peer, record)
                self._touched[queue] = None

    def _take(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        single = len(records) == 1
        if not single and self._take_alike(peer, source, first, records):
            return
        takers = [
            self._admit(peer, record, (source, seq, last if single else seq))
            for seq, record in enumerate(records, first)
        ]
        for token, low, high, run in runs(first, last, records, takers):
            if token:
                self._turn.deliver_jobs(Delivery(source, peer.label, low, high, run), token)

    def _take_alike(
        self, peer: Peer, source: Source, first: int, records: Sequence[Record]
    ) -> bool:
        """Hand over jobs that are all new, for one pull, and differ in nothing that counts here.

        So nearly all are. Returns False where they have to be looked at one by one.
        """
        row, *other_rows = tag_rows(records)
        name, *other_names = set(map(_TARGET, records))
        queue = self._queues.get(name)
        if other_rows or other_names or queue is None or len(queue.pulls) != 1:
            return False
        if Tag.STORED in row or Tag.MESSAGE_ID not in row or Tag.CORRELATION not in row:
            return False
        [pull] = queue.pulls.values()
        numbers = cast("list[int]", values_of(records, row, Tag.MESSAGE_ID))
        relation, *other_relations = set(values_of(records, row, Tag.CORRELATION))
        count = len(records)
        if other_relations or pull.room < count or len(set(numbers)) < count:
            return False
        ids = list(zip(repeat(peer.id), repeat(_journal(peer.incarnation)), numbers))
        if not self._seen.begin_all(ids, self._turn.now):
            return False
        producer = queue.producers.get(peer.id)
        if producer is not None and producer.relation == relation:
            producer.arrived += min(count, producer.out)
            producer.settle_up()
        places = range(first, first + count)
        rows = zip(ids, repeat(pull), repeat(source), places, places, repeat(False))
        self._held.setdefault((source.session, source.lane), {}).update(
            zip(places, map(_MAKE_HELD, rows), strict=True)
        )
        pull.jobs += count
        last = first + count - 1
        self._turn.deliver_jobs(Delivery(source, peer.label, first, last, records), pull.token)
        return True

    def _admit(self, peer: Peer, record: Record, place: Place) -> int:
        """Return the pull that gets a job; 0 where it is settled here, now or later."""
        queue = self._queues.get(record[1])
        if queue is None or not queue.pulls:
            self._settle(place, Outcome.RELEASED, "the queue is not pulled here")
            return 0
        self._on_arrived(queue, peer, record)
        number = extra(record, Tag.MESSAGE_ID)
        if not isinstance(number, int):
            self._settle(place, Outcome.REJECTED, "a job without an id")
            return 0
        stored = extra(record, Tag.STORED)
        is_stored = isinstance(stored, int)
        if isinstance(stored, int):
            message_id = (peer.id, JournalId(place[0].journal), stored)
        else:
            message_id = (peer.id, _journal(peer.incarnation), number)
        pull = max(queue.pulls.values(), key=lambda pull: pull.room)
        is_known = not is_stored and self._is_known(message_id, place)
        if is_known or self._is_too_much(message_id, place, pull, is_stored=is_stored):
            self._touched[queue] = None  # it took no room
            return 0
        source, first, last = place
        held = _Held(message_id, pull, source, first, last, is_stored)
        self._held.setdefault((source.session, source.lane), {})[first] = held
        pull.jobs += 1
        return pull.token

    @staticmethod
    def _on_arrived(queue: _Queue, peer: Peer, record: Record) -> None:
        """Note which grant a job used."""
        producer = queue.producers.get(peer.id)
        if producer is not None and producer.relation == extra(record, Tag.CORRELATION):
            if producer.out:  # else it was written off, and comes after all
                producer.arrived += 1
            producer.settle_up()

    def _is_known(self, message_id: MessageId, place: Place) -> bool:
        """Return whether the job is here, or was: then nobody gets it."""
        state = self._seen.check(message_id, self._turn.now)
        if state is PENDING:
            self.duplicates += 1
            self._copies.setdefault(message_id, []).append(place)
            return True
        if state is not None:
            self.duplicates += 1
            self._settle(place, state, "it was handled before")
            return True
        return False

    def _is_too_much(
        self, message_id: MessageId, place: Place, pull: _Pull, *, is_stored: bool
    ) -> bool:
        """Return whether there is no room for a job: it goes back then.

        A producer that was silent may use a grant that has gone to another meanwhile.
        """
        if pull.room > 0 and (is_stored or self._seen.begin(message_id, self._turn.now)):
            return False
        self._settle(place, Outcome.RELEASED, "there is no room for it here")
        return True

    # Outcomes

    def on_settled(self, settled: SettleDeliveries) -> None:
        """Note the outcome of jobs; `Turn.settle` tells their producers."""
        place = (settled.source.session, settled.source.lane)
        there = self._held.get(place)
        if there is None:
            return
        numbers = range(settled.first_seq, settled.last_seq + 1)
        ended = [held for held in map(there.pop, numbers, repeat(None)) if held is not None]
        if not there:
            del self._held[place]
        for pull, count in Counter(map(_PULL, ended)).items():
            pull.jobs -= count
            self._touched[pull.queue] = None
        ids = [held.message_id for held in ended if not held.is_stored]
        if settled.outcome in (Outcome.ACCEPTED, Outcome.REJECTED):
            self._seen.finish_all(ids, settled.outcome, self._turn.now)
        else:
            for message_id in ids:
                self._seen.forget(message_id)
        for message_id in ids if self._copies else ():
            for source, first, last in self._copies.pop(message_id, ()):
                self._turn.settle(
                    source, first, last, settled.outcome, settled.reason, settled.delay
                )

    def _end(self, held: _Held) -> None:
        """Forget a job that the application no longer has: there is room for another."""
        place = (held.source.session, held.source.lane)
        del self._held[place][held.first]
        if not self._held[place]:
            del self._held[place]
        held.pull.jobs -= 1
        self._touched[held.pull.queue] = None

    def _settle(self, place: Place, outcome: Outcome, reason: str = "") -> None:
        source, first, last = place
        self._turn.settle(source, first, last, outcome, reason)

    # Producers

    def on_offer(self, peer: Peer, offer: Offer) -> None:
        """Take what a producer wants, and what it gives back."""
        queue = self._queues.get(offer.queue)
        if queue is None or not queue.pulls:
            return  # it learns that the queue is not pulled here
        if self.is_forbidden(peer, queue.name):
            self._on_void_offer(queue, peer, offer)
            return
        producer = queue.producers.get(peer.id)
        if producer is None or producer.relation != offer.relation:
            producer = _Producer(peer, offer.relation, limit=offer.limit)
            producer.arrived = offer.limit - offer.returned
            queue.producers[peer.id] = producer
        producer.returned = offer.returned
        producer.wanted = offer.limit + offer.waiting
        producer.is_active = offer.waiting > 0
        producer.told = min(offer.limit, producer.limit)
        producer.settle_up()
        self._touched[queue] = None
        place = (queue.name, peer.id)
        if producer.out and producer.wants and place not in self._patience:
            self._patience.set(place, self._turn.now + self._options.recall_patience)

    def _on_void_offer(self, queue: _Queue, peer: Peer, offer: Offer) -> None:
        """Let a producer send jobs that rules forbid: each is refused, so it takes no room.

        Without a grant they would wait there, and nobody would learn why.
        """
        if queue.producers.pop(peer.id, None) is not None:
            self._touched[queue] = None
        if offer.waiting:
            limit = min(offer.limit + offer.waiting, _LIMIT_MAX)
            self._void[peer.id, queue.name] = Grant(queue.name, offer.relation, limit, False)
            self._telling.tell(peer, queue.name)

    def on_refused(self, peer: Peer, records: list[Record]) -> None:
        """Note which grants jobs used that rules forbid."""
        for record in records:
            queue = self._queues.get(record[1])
            if queue is not None:
                self._on_arrived(queue, peer, record)
                self._touched[queue] = None

    def on_peer_changed(self, peer: Peer) -> None:
        """Share room anew: a producer fell silent, or speaks again."""
        for queue in self._queues.values():
            if peer.id in queue.producers:
                self._touched[queue] = None

    def on_lost(self, peer: Peer) -> None:
        """Give back what the application has not begun, unless its producer died: it moves it."""
        if any(
            place.source.node == peer.id for each in self._held.values() for place in each.values()
        ):
            self._turn.actions.append(GiveBackJobs(peer.id))

    def on_session_ended(self, peer: Peer) -> None:
        """Forget what was agreed with a producer."""
        self._telling.forget(peer)
        for key in [key for key in self._void if key[0] == peer.id]:
            del self._void[key]
        for queue in self._queues.values():
            if queue.producers.pop(peer.id, None) is not None:
                self._touched[queue] = None

    # Grants

    def flush(self) -> None:
        """Grant what room there is."""
        self._telling.flush()
        touched = list(self._touched)
        self._touched.clear()
        for queue in touched:
            if queue.pulls:
                self._grant(queue)
            elif self._queues.get(queue.name) is queue:
                del self._queues[queue.name]

    def _grant(self, queue: _Queue) -> None:
        room = queue.room
        spoken = [producer for producer in queue.producers.values() if producer.counts]
        wanting = [producer for producer in spoken if producer.wants]
        granted: dict[NodeId, _Producer] = {}
        for producer, share in _shares(wanting, room):
            producer.limit += share
            room -= share
            granted[producer.peer.id] = producer
        for producer in granted.values():  # whose turn it was comes last the next time
            queue.producers[producer.peer.id] = queue.producers.pop(producer.peer.id)
        for producer in _ahead([producer for producer in spoken if producer.is_active], room):
            producer.limit += 1
            granted[producer.peer.id] = producer
        for producer in granted.values():
            self._telling.tell(producer.peer, queue.name)
        if any(producer.wants and not producer.out for producer in wanting):
            for producer in spoken:
                if producer.out and producer.recalled < producer.limit:
                    producer.recalled = producer.limit
                    until = self._turn.now + self._options.recall_patience
                    self._patience.set((queue.name, producer.peer.id), until)
                    self._telling.tell(producer.peer, queue.name)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._patience.next

    def on_timer(self) -> None:
        """Grant anew what somebody keeps who neither uses it nor gives it back.

        To others where it was recalled; to the same where its jobs were lost on their way.
        """
        for name, node in self._patience.due(self._turn.now):
            queue = self._queues.get(name)
            producer = None if queue is None else queue.producers.get(node)
            if queue is not None and producer is not None:
                producer.write_off()
                producer.is_overdue = True
                producer.settle_up()
                self._touched[queue] = None

    def _standing(self, peer: Peer, name: str) -> Record | None:
        """Return what a producer is granted, None where nothing is agreed with it any more."""
        queue = self._queues.get(name)
        producer = None if queue is None else queue.producers.get(peer.id)
        if producer is None:
            void = self._void.pop((peer.id, name), None)
            return None if void is None else encode(void)
        recalls = 0 < producer.limit == producer.recalled
        return encode(Grant(name, producer.relation, producer.limit, recalls))


def _shares(wanting: list[_Producer], room: int) -> Iterator[tuple[_Producer, int]]:
    """Yield shares of the room, until there is none or nobody wants any."""
    while room > 0 and wanting:
        share = max(1, room // len(wanting))
        for producer in wanting[:room]:
            part = min(share, producer.wants)
            room -= part
            yield producer, part
        wanting = [producer for producer in wanting if producer.wants]


def _ahead(active: list[_Producer], room: int) -> Iterator[_Producer]:
    """Yield who gets one grant more, until there is no room: always who has the fewest out."""
    fewest = [(producer.out, index) for index, producer in enumerate(active)]
    heapify(fewest)
    while room > 0 and fewest:
        out, index = fewest[0]
        heapreplace(fewest, (out + 1, index))
        room -= 1
        yield active[index]


def _journal(incarnation: int) -> JournalId:
    """Return what stands for a producer's process: its numbers begin with it."""
    return JournalId(incarnation.to_bytes(16, "big"))
