"""Compressed bodies between whole nodes: who gets them so, and what a liar gets."""

from tests.engines import Host, World, direct, publication
from zmesh.actions import DeliverGroup, DeliverInbox, DeliverJobs, DeliverPublications
from zmesh.events import Call, CandidateFound, JoinGroup, Post, Publish, Push, StartFanOut
from zmesh.message import (
    COMPRESSED,
    Algorithm,
    Extras,
    FailureKind,
    Kind,
    Outcome,
    Record,
    Tag,
    Ticket,
    head,
)
from zmesh.options import MIB
from zmesh.wire.bodies import body_of
from zmesh.wire.compression import Compressor

ALL = (Algorithm.ZSTD, Algorithm.LZ4)
CLAIM: Extras = (int(Tag.COMPRESSED), (1, 65 * MIB))
TEXT = b"what is said again and again " * 100


def meet(world: World, **abilities: tuple[int, ...]) -> list[Host]:
    """Start hosts that decompress so much, and let them join."""
    hosts = [world.host(name, decompresses=each) for name, each in abilities.items()]
    for number, host in enumerate(hosts):
        for other in hosts[:number]:
            world.introduce(other, host)
    world.run(3.0)
    return hosts


def compressed(record: Record, algorithm: Algorithm = Algorithm.ZSTD) -> Record:
    made = Compressor(algorithm, 512).compress(record)
    assert made[0] >= COMPRESSED
    return made


def message(kind: Kind = Kind.DIRECT, target: str = "") -> Record:
    return compressed((head(kind), target, TEXT))


def bomb(kind: Kind = Kind.DIRECT, target: str = "") -> Record:
    return (head(kind) | COMPRESSED, target, b"boom", CLAIM)


def records_at(host: Host) -> list[Record]:
    found: list[Record] = []
    for action in host.actions:
        if isinstance(action, DeliverInbox | DeliverGroup):
            found += [record for each in action.deliveries for record in each.records]
        elif isinstance(action, DeliverPublications | DeliverJobs):
            found += [record for each, _ in action.deliveries for record in each.records]
    return found


def post(host: Host, to: Host, *records: Record) -> Ticket:
    ticket = Ticket(len(records))
    host.do(Post(to.id, 4, list(records), ticket))
    return ticket


# Who gets a body compressed


def test_peers_that_can_get_a_body_compressed_and_others_plain() -> None:
    world = World()
    a, b, c, d = meet(world, a=ALL, b=ALL, c=(Algorithm.LZ4,), d=())
    tickets = [post(a, to, message()) for to in (b, c, d)]
    world.run_until(lambda: all(map(a.finished, tickets)))
    assert records_at(b) == [message()]
    assert records_at(c) == records_at(d) == [(head(Kind.DIRECT), "", TEXT)]


def test_the_node_itself_gets_what_it_sent() -> None:
    world = World()
    (a,) = meet(world, a=ALL)
    ticket = post(a, a, message())
    world.run_until(lambda: a.finished(ticket))
    assert [body_of(record) for record in records_at(a)] == [TEXT]


def test_what_is_posted_before_a_peer_said_what_it_takes_travels_plain() -> None:
    world = World()
    a, b = world.host("a", decompresses=ALL), world.host("b", decompresses=ALL)
    a.do(CandidateFound("mdns", b.id, "b", (b.endpoint,)))
    early = post(a, b, message())
    world.run_until(lambda: a.finished(early))
    late = post(a, b, message())
    world.run_until(lambda: a.finished(late))
    assert [record[0] >= COMPRESSED for record in records_at(b)] == [False, True]


def test_a_publication_is_made_plain_once_for_all_who_need_it_so() -> None:
    world = World()
    a, *others = meet(world, a=ALL, b=ALL, c=(), d=(), e=())
    for host in others:
        host.subscribe(1, "news")
    world.run(1.0)
    ticket = Ticket()
    a.do(Publish(message(Kind.PUBLICATION, "news"), 4, ticket))
    world.run_until(lambda: a.finished(ticket))
    assert ticket.accepted == 4
    heads = [[record[0] >= COMPRESSED for record in records_at(host)] for host in others]
    assert heads == [[True], [False], [False], [False]]
    assert [body_of(record) for host in others for record in records_at(host)] == [TEXT] * 4
    assert a.engine.statistics().decompressed == 1


def test_what_is_kept_for_late_joiners_comes_as_each_can_take_it() -> None:
    world = World()
    a, b, c = meet(world, a=ALL, b=ALL, c=())
    a.do(Publish(message(Kind.PUBLICATION, "news"), 4, Ticket(), keep=1))
    for host in (b, c):
        host.subscribe(1, "news")
    world.run(1.0)
    assert records_at(b) == []  # these did not ask for a replay
    ticket = Ticket()
    a.do(Publish(message(Kind.PUBLICATION, "news"), 4, ticket, keep=1))
    world.run_until(lambda: a.finished(ticket))
    assert [[record[0] >= COMPRESSED for record in records_at(host)] for host in (b, c)] == [
        [True],
        [False],
    ]


def test_members_of_a_group_get_it_as_each_can_take_it() -> None:
    world = World()
    a, b, c = meet(world, a=ALL, b=ALL, c=())
    for host in (b, c):
        host.do(JoinGroup("cameras"))
    world.run(1.0)
    a.do(StartFanOut(1, message(Kind.GROUP, "cameras"), 4, world.queue.now + 10))
    world.run(1.0)
    assert [record[0] >= COMPRESSED for record in records_at(b) + records_at(c)] == [True, False]


def test_a_job_that_moves_to_a_consumer_that_cannot_decompress_moves_plain() -> None:
    world = World()
    a, b, c = meet(world, a=ALL, b=ALL, c=())
    b.pull("thumbnails")
    world.run(1.0)
    ticket = Ticket()
    a.do(Push([message(Kind.JOB, "thumbnails")], 4, ticket))
    world.run(1.0)
    assert [record[0] >= COMPRESSED for record in records_at(b)] == [True]
    b.kill()
    c.pull("thumbnails")
    c.job_outcome = Outcome.ACCEPTED
    world.run_until(lambda: a.finished(ticket), 120)
    assert records_at(c)[0][:3] == (head(Kind.JOB), "thumbnails", TEXT)


def test_a_peer_that_restarts_without_its_library_gets_what_waits_plain() -> None:
    world = World()
    a, b = meet(world, a=ALL, b=ALL)
    b.accepts = False
    post(a, b, message())
    world.run(1.0)
    b.kill()
    world.run(0.5)
    ticket = post(a, b, message())  # it waits for its return
    b = world.host("b")
    world.introduce(a, b)
    world.run_until(lambda: a.finished(ticket), 60)
    assert ticket.accepted == 1
    assert records_at(b) == [(head(Kind.DIRECT), "", TEXT)]


# What a liar gets


def test_a_bomb_is_refused_alone_and_its_sender_is_told() -> None:
    world = World()
    a, b = meet(world, a=(), b=ALL)
    ticket = post(a, b, direct("before"), bomb(), direct("after"))
    world.run_until(lambda: a.finished(ticket))
    assert b.inbox == ["before", "after"]
    assert ticket.accepted == 2
    (failure,) = ticket.failures
    assert (failure.kind, failure.peer) == (FailureKind.REJECTED, "b")
    assert "68157440 bytes when decompressed" in failure.reason
    assert b.engine.statistics().defects == {"compression": 1}


def test_a_publication_that_is_a_bomb_is_refused_and_the_next_comes() -> None:
    world = World()
    a, b = meet(world, a=(), b=ALL)
    b.subscribe(1, "news")
    world.run(1.0)
    bad, good = Ticket(), Ticket()
    a.do(Publish(bomb(Kind.PUBLICATION, "news"), 4, bad))
    a.do(Publish(publication("news", "good"), 4, good))
    world.run_until(lambda: a.finished(bad) and a.finished(good))
    assert (b.heard, good.accepted) == ([("news", "good")], 1)
    assert [failure.kind for failure in bad.failures] == [FailureKind.REJECTED]


def test_thousands_of_bombs_use_up_no_credit() -> None:
    world = World()
    a, b = meet(world, a=(), b=ALL)
    bombs = [post(a, b, *[bomb()] * 1000) for _ in range(5)]
    world.run_until(lambda: all(map(a.finished, bombs)))
    assert [len(ticket.failures) for ticket in bombs] == [1000] * 5
    ticket = post(a, b, direct("still there"))
    world.run_until(lambda: a.finished(ticket))
    assert b.inbox == ["still there"]
    assert b.engine.statistics().unsettled_in == 0


def test_a_request_that_is_a_bomb_is_rejected_and_not_handled() -> None:
    world = World()
    a, b = meet(world, a=(), b=ALL)
    b.serve("resize")
    world.run(1.0)
    call = 1
    a.do(Call(call, bomb(Kind.REQUEST, "resize"), 4, world.queue.now + 10))
    world.run_until(lambda: call in a.answers)
    assert a.answers[call].failure is not None
    assert "when decompressed" in a.answers[call].reason
    assert b.handled == []


def test_an_answer_that_is_a_bomb_reaches_the_caller_as_unreadable() -> None:
    world = World()
    a, b = meet(world, a=ALL, b=())
    b.serve("resize", lambda _: bomb(Kind.REPLY))
    world.run(1.0)
    call = a.call("resize")
    world.run_until(lambda: call in a.answers)
    record = a.answers[call].record
    assert record is not None
    assert record[0] >= COMPRESSED
    assert a.engine.statistics().defects == {"compression": 1}
