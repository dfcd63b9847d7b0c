"""What a link makes of a peer that is silent, stopped, dead, far away, or back again."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.reliable.pair import OPTIONS, End, Pair, numbered
from zmesh.events import PathCause
from zmesh.reliable.link_events import Liveness, ProbeWanted, SessionEnd
from zmesh.reliable.link_states import LinkState
from zmesh.wire.frames import Data, Packet, Ping

ALIVE, BUSY, SUSPECT, LOST = Liveness.ALIVE, Liveness.BUSY, Liveness.SUSPECT, Liveness.LOST


def test_one_lost_heartbeat_is_no_event() -> None:
    for lost in range(5):
        pair = Pair().opened()
        pings = 0

        def drop_one(_source: End, packet: Packet, lost: int = lost) -> Sequence[float]:
            nonlocal pings
            if any(isinstance(frame, Ping) for frame in packet.frames):
                pings += 1
                return () if pings == lost + 1 else (0.0,)
            return (0.0,)

        pair.weather = drop_one
        for end in pair.ends:
            end.events.clear()
        pair.run(120.0)
        assert pings > 10
        assert pair.a.events == pair.b.events == []


@pytest.mark.parametrize("data", [False, True])
def test_a_handler_that_blocks_for_minutes_makes_busy_and_never_lost(data: bool) -> None:
    pair = Pair().opened()
    pair.b.probe_answer = None
    ticket = pair.a.post(numbered(100), pair.now) if data else None
    pair.freeze(pair.b)
    pair.turn(pair.a)
    pair.run(300.0)
    assert pair.a.verdicts[:3] == [ALIVE, SUSPECT, BUSY]
    assert LOST not in pair.a.verdicts
    assert pair.a.ended == []
    pair.thaw(pair.b)
    pair.run(30.0)
    assert pair.a.verdicts[-1] is ALIVE
    assert pair.a.link.is_open
    if ticket is not None:
        assert ticket.done
        assert pair.b.bodies == [b"%d" % number for number in range(100)]
    assert pair.a.ended == pair.b.ended == []


def test_a_short_stop_is_noticed_by_nobody() -> None:
    pair = Pair().opened()
    pair.run(20.0)
    pair.freeze(pair.b)
    pair.at(2.5, pair.thaw, pair.b)
    for end in pair.ends:
        end.events.clear()
    ticket = pair.a.post(numbered(10), pair.now)
    pair.turn(pair.a)
    pair.run(30.0)
    assert ticket.done
    assert pair.a.verdicts == pair.b.verdicts == []
    assert pair.a.statistics.links == 1


def test_a_killed_process_is_lost_in_milliseconds() -> None:
    pair = Pair().opened()
    pair.redial_after = None
    pair.b.probe_answer = PathCause.REFUSED
    pair.cut()
    pair.run(0.01)
    assert pair.a.verdicts == [ALIVE, SUSPECT, LOST]


def test_a_host_that_vanished_without_a_word_is_lost_within_seconds() -> None:
    """Its connections stay up until TCP gives up, long after."""
    pair = Pair().opened()
    pair.redial_after = None
    pair.weather = lambda _source, _packet: ()
    pair.a.post(numbered(1), pair.now)
    pair.turn(pair.a)
    pair.run(10.0)
    assert pair.a.verdicts == [ALIVE, SUSPECT, LOST]
    assert pair.a.link.state is LinkState.IDLE
    assert pair.a.ended == []
    pair.run(OPTIONS.session_linger)
    assert pair.a.ended == [SessionEnd.LINGER_OVER]


def test_a_host_out_of_reach_is_lost_after_its_connection_ended() -> None:
    pair = Pair().opened()
    pair.redial_after = None
    pair.run(5.0)
    pair.cut(PathCause.CLOSED)
    pair.run(2.5)
    assert pair.a.verdicts == [ALIVE, SUSPECT]
    pair.run(2.5)
    assert pair.a.verdicts == [ALIVE, SUSPECT, LOST]


def test_probes_that_nobody_answers_count_as_failed() -> None:
    pair = Pair().opened()
    pair.redial_after = None
    pair.b.answers_probes = False
    pair.cut()
    pair.run(10.0)
    assert pair.a.verdicts == [ALIVE, SUSPECT, LOST]


def test_a_host_that_accepts_connections_and_no_hello_is_busy() -> None:
    pair = Pair().opened()
    pair.b.probe_answer = None
    pair.redial_after = None
    pair.cut()
    pair.run(30.0)
    assert pair.a.verdicts == [ALIVE, SUSPECT, BUSY]


def test_a_connection_that_swallows_everything_is_replaced_when_tcp_gives_it_up() -> None:
    """Until then the peer looks like one that stands still: its host accepts connections."""
    pair = Pair().opened()
    pair.b.probe_answer = pair.a.probe_answer = None
    dead = {end.link.path for end in pair.ends}
    pair.weather = lambda source, _packet: () if source.link.path in dead else (0.0,)
    tickets = [end.post(numbered(50), pair.now) for end in pair.ends]
    for end in pair.ends:
        pair.turn(end)
    pair.run(15.0)
    assert pair.a.link.liveness is BUSY
    pair.cut()
    pair.run(1.0)
    assert all(ticket.done for ticket in tickets)
    assert pair.a.ended == []
    assert pair.a.verdicts[-1] is ALIVE


def test_a_suspect_that_acknowledges_nothing_is_given_up_and_called_again() -> None:
    """Probes cannot tell: the host answers none, and none is refused."""
    pair = Pair(replace(OPTIONS, lost_phi=1e9)).opened()
    dead = {end.link.path for end in pair.ends}
    pair.weather = lambda source, _packet: () if source.link.path in dead else (0.0,)
    ticket = pair.a.post(numbered(50), pair.now)
    pair.turn(pair.a)
    pair.run(15.0)
    assert ticket.done
    assert pair.a.statistics.links == 2
    assert pair.a.verdicts == [ALIVE, SUSPECT, ALIVE]


def test_a_lost_peer_that_comes_back_goes_on_with_its_session() -> None:
    pair = Pair()
    pair.b.accepts = False
    pair.opened()
    pair.redial_after = None
    ticket = pair.a.post(numbered(10), pair.now)
    pair.turn(pair.a)
    pair.weather = lambda _source, _packet: ()
    pair.run(20.0)
    assert pair.a.verdicts[-1] is LOST
    pair.weather = lambda _source, _packet: (0.0,)
    pair.connect()
    pair.run(1.0)
    assert pair.a.verdicts[-1] is ALIVE
    assert len(pair.b.bodies) == 10
    for event in pair.b.arrived:
        pair.b.settle(event, pair.now)
    pair.turn(pair.b)
    pair.run(0.1)
    assert ticket.done
    assert pair.a.ended == pair.b.ended == []


def test_waking_from_suspend_declares_nobody_dead() -> None:
    """Our own loop stood still for an hour; the peer's packets are behind it."""
    pair = Pair().opened()
    pair.run(20.0)
    link = pair.a.link
    link.on_timer(pair.now)
    ping_at = link.deadline
    assert ping_at is not None
    pair.run(ping_at - pair.now)
    pair.turn(pair.a)
    woken = pair.now + 3600.0
    link.on_loop_late(3600.0, woken)
    link.on_timer(woken)
    assert link.liveness is ALIVE
    assert link.is_open
    assert not any(isinstance(event, ProbeWanted) for event in link.take_events())


def test_probes_name_the_endpoints_the_peer_told() -> None:
    pair = Pair().opened()
    pair.redial_after = None
    pair.cut()
    pair.run(0.01)
    wanted = [event for event in pair.a.events if isinstance(event, ProbeWanted)]
    assert wanted == [ProbeWanted(("tcp://b",))]


def test_bytes_count_as_life_though_no_heartbeat_gets_through() -> None:
    pair = Pair().opened()
    pair.weather = lambda _source, packet: (
        () if any(isinstance(frame, Ping) for frame in packet.frames) else (0.0,)
    )
    for turn in range(300):
        for end in pair.ends:
            end.post(numbered(1, turn), pair.now)
            pair.turn(end)
        pair.run(0.2)
    assert pair.a.verdicts == pair.b.verdicts == [ALIVE]
    assert pair.a.statistics.retransmitted == 0


def test_heartbeats_get_through_beside_a_large_body() -> None:
    """200 MB at 5 MB/s is PITFALLS' case; 20 MB at 500 KB/s here."""
    pair = Pair().opened()
    free_at = 0.0

    def slow(source: End, packet: Packet) -> Sequence[float]:
        nonlocal free_at
        if source is not pair.a:
            return (0.0,)
        size = sum(
            len(item[2])
            for frame in packet.frames
            if isinstance(frame, Data)
            for item in frame.records
        )
        free_at = max(free_at, pair.now) + size / 500_000
        return (free_at - pair.now,)

    pair.weather = slow
    ticket = pair.a.post([(0, "", b"x" * 20_000_000)], pair.now)
    pair.turn(pair.a)
    pair.run(60.0)
    assert ticket.done
    assert pair.a.verdicts == pair.b.verdicts == [ALIVE]
    assert pair.a.statistics.retransmitted == 0
