"""Streams between whole nodes on a simulated network: credit, order, ends, failover."""

from itertools import count, islice

import pytest

from tests.engines import World, body
from tests.patterns.streaming import Application, Stream
from zmesh.actions import CallFailure, CancelRequest, Drained
from zmesh.events import CloseNode, DrainNode, Withdraw
from zmesh.message import Kind, Outcome, Record, StreamFault, head
from zmesh.options import NodeOptions

SMALL = NodeOptions(stream_parts=8, stream_bytes=4096)


def lines(text: str) -> list[str]:
    return [f"{text} {number}" for number in range(100)]


def texts(_: str) -> "map[str]":
    """Return parts without end."""
    return map(str, count())


def pair(options: NodeOptions = SMALL, **modes: bool) -> tuple[World, Application, Application]:
    """Return a reader and a provider of "tail"."""
    world = World(options)
    a, b = world.mesh("a", "b")
    reader, provider = Application(a, **modes), Application(b)
    provider.serve("tail", lines)
    world.run(1.0)
    return world, reader, provider


def trio() -> tuple[World, Application, list[Application]]:
    world = World(SMALL)
    a, b, c = world.mesh("a", "b", "c")
    providers = [Application(b), Application(c)]
    for provider in providers:
        provider.serve("tail", lines)
    world.run(1.0)
    return world, Application(a), providers


def ended(world: World, stream: Stream, within: float = 30.0) -> CallFailure | None:
    world.run_until(lambda: stream.end is not None, within)
    assert stream.end is not None
    return stream.end.failure


def is_clean(*apps: Application) -> bool:
    return all(
        (statistics.streams, statistics.calls, statistics.unsettled_in, statistics.queued_messages)
        == (0, 0, 0, 0)
        for statistics in (app.host.engine.statistics() for app in apps)
    )


# The plain way


def test_all_parts_arrive_in_order_and_then_the_end() -> None:
    world, reader, provider = pair()
    stream = reader.open("tail", "line")
    assert ended(world, stream) is None
    assert stream.parts == lines("line")
    assert stream.end is not None
    assert stream.end.peer == "b"
    world.run(1.0)
    assert is_clean(reader, provider)


def test_a_stream_without_parts_ends() -> None:
    world, reader, provider = pair()
    provider.answers["tail"] = lambda _: []
    stream = reader.open("tail")
    assert ended(world, stream) is None
    assert stream.parts == []


def test_a_node_streams_to_itself() -> None:
    world = World(SMALL)
    (a,) = world.mesh("a")
    app = Application(a)
    app.serve("tail", lines)
    stream = app.open("tail", "line", out=lines("up"))
    assert ended(world, stream) is None
    assert stream.parts == lines("line")


def test_parts_larger_than_a_fragment_arrive_whole() -> None:
    world, reader, provider = pair()
    large = ["x" * 200_000, "small", "y" * 70_000]
    provider.answers["tail"] = lambda _: large
    stream = reader.open("tail")
    assert ended(world, stream) is None
    assert stream.parts == large


# Credit


def test_a_slow_reader_suspends_the_writer() -> None:
    world, reader, provider = pair(takes=False)
    provider.answers["tail"] = texts
    stream = reader.open("tail")
    world.run(10.0)
    assert provider.served[0].written == len(stream.parts) == 8
    reader.take(stream, 3)
    world.run(10.0)
    assert stream.parts == [str(number) for number in range(11)]
    assert provider.host.engine.statistics().queued_messages == 0


def test_bytes_count_as_well_as_parts() -> None:
    world, reader, provider = pair(takes=False)
    provider.answers["tail"] = lambda _: ("x" * 2000 for _ in count())
    stream = reader.open("tail")
    world.run(10.0)
    assert len(stream.parts) == 3  # the third was begun below the limit of 4096


def test_a_slow_reader_holds_up_nobody_else() -> None:
    world, reader, provider = pair(takes=False)
    provider.answers["tail"] = texts
    reader.open("tail")
    provider.host.post(reader.host, *map(str, range(500)))
    world.run(5.0)
    assert len(reader.host.inbox) == 500


def test_writer_beyond_its_credit_is_cut_short() -> None:
    world, reader, provider = pair(takes=False)
    provider.answers["tail"] = texts
    stream = reader.open("tail")
    world.run(1.0)
    outflow = provider.host.engine._news.streams.serving._served[2].outflow
    outflow.raise_limits(1000, 1_000_000)
    provider.pump(provider.served[0])
    assert ended(world, stream) is CallFailure.BROKEN
    assert len(stream.parts) == 8
    assert reader.host.engine.statistics().defects["stream"] == 1
    world.run(1.0)
    assert provider.served[0].cancelled


# Bodies in parts


def test_the_body_travels_in_parts() -> None:
    world, reader, provider = pair()
    stream = reader.open("tail", "down", out=lines("up"))
    assert ended(world, stream) is None
    assert provider.served[0].parts == lines("up")
    assert stream.parts == lines("down")
    world.run(1.0)
    assert is_clean(reader, provider)


def test_no_part_of_a_body_leaves_before_a_handler_wants_it() -> None:
    world, reader, provider = pair()
    provider.begins = False
    stream = reader.open("tail", out=lines("up"))
    world.run(5.0)
    assert stream.written == 0
    provider.begin(provider.served[0], texts)
    world.run(1.0)
    assert stream.written == 100


def test_a_slow_handler_suspends_the_writer_of_the_body() -> None:
    world, reader, provider = pair()
    provider.takes = False
    provider.answers["tail"] = texts
    reader.takes = False
    stream = reader.open("tail", out=texts(""))
    world.run(10.0)
    assert stream.written == 8
    provider.take(provider.served[0], 2)
    world.run(10.0)
    assert stream.written == 10


def test_the_answer_may_end_before_the_body_does() -> None:
    world, reader, provider = pair()
    provider.answers["tail"] = lambda _: ["enough"]
    provider.hears_out = False
    stream = reader.open("tail", out=texts(""))
    assert ended(world, stream) is None
    assert stream.parts == ["enough"]
    world.run(1.0)
    assert is_clean(reader, provider)


# Ends before the end


def test_a_handler_that_raises_ends_the_stream_after_its_parts() -> None:
    world, reader, provider = pair()
    provider.answers["tail"] = lambda _: islice(texts(""), 3)
    provider.begins = False
    stream = reader.open("tail")
    world.run(1.0)
    served = provider.served[0]
    provider.begin(served, texts)
    provider.fail(served, StreamFault.RAISED)
    assert ended(world, stream) is CallFailure.REMOTE_ERROR
    assert stream.parts == [str(number) for number in range(8)]
    assert stream.end is not None
    assert stream.end.record is not None
    assert body(stream.end.record) == b"why"


def test_a_handler_that_refuses_is_told() -> None:
    world, reader, provider = pair()
    provider.begins = False
    stream = reader.open("tail")
    world.run(1.0)
    provider.refuse(provider.served[0], Outcome.REJECTED, "no")
    assert ended(world, stream) is CallFailure.REJECTED
    assert stream.end is not None
    assert stream.end.reason == "no"


def test_a_reader_that_leaves_stops_the_handler() -> None:
    world, reader, provider = pair(takes=False)
    provider.answers["tail"] = texts
    stream = reader.open("tail")
    world.run(1.0)
    reader.cancel(stream)
    world.run(1.0)
    assert provider.served[0].cancelled
    assert stream.end is None
    assert is_clean(reader, provider)


def test_a_reader_that_leaves_before_the_handler_begins_takes_its_request_back() -> None:
    world, reader, provider = pair()
    provider.begins = False
    stream = reader.open("tail")
    world.run(1.0)
    reader.cancel(stream)
    world.run(1.0)
    assert provider.served[0].cancelled
    assert is_clean(reader, provider)


def test_a_deadline_ends_the_stream_on_both_sides() -> None:
    world, reader, provider = pair(takes=False)
    provider.answers["tail"] = texts
    stream = reader.open("tail", deadline=world.queue.now + 5.0)
    world.run(4.9)
    assert stream.end is None
    world.run(0.2)
    assert ended(world, stream) is CallFailure.DEADLINE
    world.run(1.0)
    assert provider.served[0].cancelled
    assert is_clean(reader, provider)


def test_nobody_provides_the_service() -> None:
    world, reader, provider = pair()
    assert ended(world, reader.open("head")) is CallFailure.NO_PROVIDER
    stream = reader.open("tail", provider=reader.host.id)
    assert ended(world, stream) is CallFailure.NO_PROVIDER
    assert not provider.served


# Providers that go


def test_a_provider_that_dies_in_the_middle_ends_the_stream() -> None:
    world, reader, providers = trio()
    for provider in providers:
        provider.answers["tail"] = texts
    reader.takes = False
    stream = reader.open("tail")
    world.run(1.0)
    [provider] = [each for each in providers if each.served]
    provider.host.kill()
    assert ended(world, stream, 5.0) is CallFailure.PEER_LOST
    assert len(stream.parts) == 8
    assert not any(each.served for each in providers if each is not provider)


def test_a_stream_that_has_not_begun_moves_to_another_provider() -> None:
    world, reader, providers = trio()
    for provider in providers:
        provider.begins = False
    stream = reader.open("tail", "line", out=lines("up"))
    world.run(1.0)
    [first] = [each for each in providers if each.served]
    [second] = [each for each in providers if each is not first]
    second.begins = True
    first.host.kill()
    assert ended(world, stream) is None
    assert stream.parts == lines("line")
    assert second.served[0].parts == lines("up")


def test_a_stream_given_back_before_it_began_moves() -> None:
    world, reader, providers = trio()
    for provider in providers:
        provider.begins = False
    stream = reader.open("tail", "line")
    world.run(1.0)
    [first] = [each for each in providers if each.served]
    [second] = [each for each in providers if each is not first]
    second.begins = True
    first.refuse(first.served[0], Outcome.RELEASED, "leaving")
    assert ended(world, stream) is None
    assert stream.parts == lines("line")


def test_nobody_is_asked_twice() -> None:
    world, reader, provider = pair()
    provider.begins = False
    stream = reader.open("tail")
    world.run(1.0)
    provider.refuse(provider.served[0], Outcome.RELEASED, "leaving")
    assert ended(world, stream) is CallFailure.BROKEN
    assert len(provider.served) == 1


def test_a_stream_given_back_in_its_middle_is_broken() -> None:
    world, reader, providers = trio()
    for provider in providers:
        provider.answers["tail"] = texts
    reader.takes = False
    stream = reader.open("tail")
    world.run(1.0)
    [provider] = [each for each in providers if each.served]
    provider.fail(provider.served[0], StreamFault.RELEASED)
    assert ended(world, stream) is CallFailure.BROKEN


def test_a_partition_shorter_than_the_session_loses_no_part() -> None:
    world, reader, provider = pair()
    provider.answers["tail"] = lambda _: islice(texts(""), 2000)
    stream = reader.open("tail")
    world.run_until(lambda: len(stream.parts) > 50)
    for one, other in ((0, 1), (1, 0)):
        world.network.cut(one, other)
    world.run(40.0)
    assert stream.end is None
    assert reader.host.sees(provider.host) is None  # lost, but its session lives
    for one, other in ((0, 1), (1, 0)):
        world.network.heal(one, other)
    assert ended(world, stream, 60.0) is None
    assert stream.parts == [str(number) for number in range(2000)]


def test_a_partition_longer_than_the_session_ends_both_sides() -> None:
    world, reader, provider = pair()
    provider.answers["tail"] = texts
    stream = reader.open("tail")
    world.run(1.0)
    for one, other in ((0, 1), (1, 0)):
        world.network.cut(one, other)
    world.run(150.0)
    assert ended(world, stream) is CallFailure.PEER_LOST
    assert provider.served[0].cancelled
    assert provider.host.engine.statistics().streams == 0


def test_a_caller_that_restarts_leaves_no_handler_behind() -> None:
    world, reader, provider = pair(takes=False)
    provider.answers["tail"] = texts
    reader.open("tail")
    world.run(1.0)
    reader.host.kill()
    again = Application(world.host("a"))
    world.introduce(again.host, provider.host)
    world.run(3.0)
    assert provider.served[0].cancelled
    provider.answers["tail"] = lines
    stream = again.open("tail", "line")
    assert ended(world, stream) is None
    assert stream.parts == lines("line")


def test_withdrawn_service_gives_the_stream_to_another() -> None:
    world, reader, providers = trio()
    for provider in providers:
        provider.begins = False
        provider.host.do(Withdraw("tail"))
    stream = reader.open("tail")  # the news of it is on its way
    assert ended(world, stream) is CallFailure.BROKEN
    assert not any(provider.served for provider in providers)


# Draining and closing


def test_a_drain_waits_for_streams_on_both_sides() -> None:
    world, reader, provider = pair(takes=False)
    provider.answers["tail"] = lambda _: islice(texts(""), 20)
    stream = reader.open("tail")
    world.run(1.0)
    for host in (reader.host, provider.host):
        host.do(DrainNode(world.queue.now + 30.0))
    world.run(5.0)
    assert not reader.host.ordered(Drained)
    assert not provider.host.ordered(Drained)
    reader.takes = True
    reader.take(stream)
    world.run(5.0)
    assert reader.host.ordered(Drained) == provider.host.ordered(Drained) == [Drained(0, 0)]


def test_closing_ends_the_streams_of_both_sides() -> None:
    world, reader, provider = pair(takes=False)
    provider.answers["tail"] = texts
    stream = reader.open("tail")
    world.run(1.0)
    reader.host.do(CloseNode())
    assert ended(world, stream) is CallFailure.CLOSED
    world.run(1.0)
    assert provider.served[0].cancelled


# Bad input


def send(world: World, source: Application, target: Application, *records: Record) -> None:
    """Let a node say what it would not."""
    turn = source.host.engine._turn
    peer = turn.peers.find(target.host.id)
    assert peer is not None
    turn.submit(peer, 4, records, source.host.engine._news.streams.calls._stops)
    source.host.do()
    source.host.do(Withdraw("nothing"))
    world.run(1.0)


@pytest.mark.parametrize(
    "record",
    [
        (head(Kind.STREAM), "", b"no tag"),
        (head(Kind.STREAM), "", b"", (13, (1, 2, 3))),
        (head(Kind.STREAM_CONTROL), "", b"", (13, (1, 9))),
        (head(Kind.STREAM_CONTROL), "tail", b"", (13, (1, 0, 0, 9, 9))),
        (head(Kind.STREAM_CONTROL), "tail", b"", (13, (1, 0, 4, 9, 9))),
        (head(Kind.STREAM_CONTROL), "tail", b"", (13, (1, 0, 2))),
    ],
)
def test_what_makes_no_sense_is_counted_and_does_no_harm(record: Record) -> None:
    world, reader, provider = pair()
    send(world, reader, provider, record)
    assert provider.host.engine.statistics().defects["stream"] == 1
    assert not provider.served
    assert ended(world, reader.open("tail", "line")) is None


def test_a_number_that_is_open_opens_no_other_stream() -> None:
    world, reader, provider = pair(takes=False)
    provider.answers["tail"] = texts
    reader.open("tail")
    world.run(1.0)
    again = (head(Kind.STREAM_CONTROL), "tail", b"", (13, (1, 0, 2, 9, 999)))
    send(world, reader, provider, again)
    assert len(provider.served) == 1
    assert provider.host.engine.statistics().defects["stream"] == 1


def test_an_end_that_comes_too_early_is_no_end() -> None:
    world, reader, provider = pair(takes=False)
    provider.answers["tail"] = texts
    stream = reader.open("tail")
    world.run(1.0)
    send(world, provider, reader, (head(Kind.STREAM_CONTROL), "", b"", (13, (1, 2, 9))))
    assert ended(world, stream) is CallFailure.BROKEN
    world.run(1.0)
    assert provider.served[0].cancelled


def test_others_have_no_say_in_a_stream() -> None:
    world, reader, providers = trio()
    reader.takes = False
    for provider in providers:
        provider.answers["tail"] = texts
    stream = reader.open("tail")
    world.run(1.0)
    [other] = [each for each in providers if not each.served]
    send(world, other, reader, (head(Kind.STREAM_CONTROL), "", b"", (13, (1, 2, 8))))
    send(world, other, reader, (head(Kind.STREAM), "", b"9", (13, (1, 9))))
    assert stream.end is None
    assert len(stream.parts) == 8
    assert reader.host.engine.statistics().late_parts == 2


def test_a_provider_that_missed_the_word_to_stop_is_told_again() -> None:
    world, reader, provider = pair(takes=False)
    provider.answers["tail"] = texts
    stream = reader.open("tail")
    streams = reader.host.engine._news.streams.calls
    world.run_until(lambda: bool(provider.served))
    streams._opened[stream.number].ticket = None
    reader.cancel(stream)
    world.run(1.0)
    assert provider.served[0].cancelled
    assert provider.host.ordered(CancelRequest)
