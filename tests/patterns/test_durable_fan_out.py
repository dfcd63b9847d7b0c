"""Fan-outs on disk: what is there when, what is told when, and what another life goes on with."""

import pytest

from tests.engines import Host, World
from tests.patterns.gathering import Report, fan_out, join, leave
from tests.scribe import entries_of
from zmesh.actions import FanOutRestored, FanOutStored, MemberState
from zmesh.events import CloseNode, JournalTold
from zmesh.message import FailureKind, Outcome
from zmesh.options import NodeOptions
from zmesh.storage import EntryKind, SetEntries
from zmesh.storage_errors import JournalFull
from zmesh.testing.journal import Disk

FULL = JournalFull("journal", 1, 1)


class Office:
    """A sender with a disk, and cameras that are in the group."""

    def __init__(self, *names: str, options: NodeOptions | None = None) -> None:
        self.world = World(options)
        self.disk = Disk()
        self.sender = self.world.host("office", disk=self.disk)
        self.cameras = [self.world.host(name) for name in names]
        for camera in self.cameras:
            self.world.introduce(self.sender, camera)
        join(*self.cameras)
        self.run(3.0)
        assert len(self.sender.engine.peers()) == len(names)

    def run(self, seconds: float) -> None:
        self.world.run(seconds)

    def fan_out(self, text: str = "firmware", **how: float) -> Report:
        report = fan_out(self.sender, text, durable=True, **how)  # type: ignore[arg-type]
        self.run(0.0)
        return report

    def write(self) -> None:
        """Let the disk go on."""
        self.sender.is_stuck = False
        self.sender.write()

    def kill(self) -> None:
        """End the sender, with all that waits for its disk."""
        self.sender.kill()

    def start(self) -> Report | None:
        """Begin another life of it; return the fan-out that goes on, if one does."""
        self.sender = self.world.host("office", disk=self.disk)
        for camera in self.cameras:
            if camera.alive:
                self.world.introduce(self.sender, camera)
        restored = [each for each in self.sender.actions if isinstance(each, FanOutRestored)]
        assert len(restored) <= 1
        return Report(self.sender, restored[0].fan_out, "") if restored else None

    def restart_camera(self, index: int) -> Host:
        camera = self.cameras[index] = self.world.host(self.cameras[index].name)
        self.world.introduce(self.sender, camera)
        join(camera)
        return camera

    @property
    def kept(self) -> int:
        return len(entries_of(self.disk, EntryKind.FAN_OUT))

    @property
    def stored(self) -> list[FanOutStored]:
        return [each for each in self.sender.actions if isinstance(each, FanOutStored)]


def heard(*hosts: Host) -> list[list[str]]:
    return [[text for _, text in host.grouped] for host in hosts]


def test_nothing_is_sent_before_it_is_on_disk() -> None:
    office = Office("one", "two")
    office.sender.is_stuck = True
    office.fan_out()
    office.run(5.0)
    assert heard(*office.cameras) == [[], []]
    assert office.stored == []
    office.write()
    office.run(1.0)
    assert heard(*office.cameras) == [["firmware"], ["firmware"]]
    assert [each.error for each in office.stored] == [None]


def test_fan_out_that_is_over_is_gone_from_the_disk() -> None:
    office = Office("one", "two")
    report = office.fan_out()
    assert office.kept == 3
    office.run(1.0)
    assert report.accepted == ["one", "two"]
    assert report.ended is not None
    assert office.kept == 0
    office.kill()
    assert office.start() is None


def test_fan_out_without_room_is_sent_to_nobody_and_leaves_no_trace() -> None:
    office = Office("one")
    office.sender.scribe.error = FULL
    office.fan_out()
    office.run(5.0)
    assert [each.error for each in office.stored] == [FULL]
    assert heard(*office.cameras) == [[]]
    assert office.kept == 0
    assert office.sender.engine.statistics().fan_outs == 0


def test_sender_that_dies_before_it_is_on_disk_sends_nothing() -> None:
    office = Office("one")
    office.sender.is_stuck = True
    office.fan_out()
    office.kill()
    assert office.start() is None
    office.run(5.0)
    assert heard(*office.cameras) == [[]]


def test_sender_that_dies_before_anything_is_sent_goes_on() -> None:
    office = Office("one", "two")
    office.sender.is_stuck = True
    office.fan_out()
    office.sender.scribe.work()  # it is on disk, and nobody was told
    office.kill()
    report = office.start()
    assert report is not None
    assert report.pending == ["one", "two"]
    office.run(5.0)
    assert report.accepted == ["one", "two"]
    assert report.ended is not None
    assert heard(*office.cameras) == [["firmware"], ["firmware"]]


def test_outcome_is_told_when_it_is_on_disk() -> None:
    office = Office("one", "two")
    office.cameras[1].accepts = False
    report = office.fan_out()
    office.sender.is_stuck = True
    office.run(1.0)
    assert heard(office.cameras[0]) == [["firmware"]]
    assert report.accepted == []
    office.write()
    office.run(0.1)
    assert report.accepted == ["one"]


def test_member_that_accepted_is_not_sent_it_in_another_life() -> None:
    office = Office("one", "two")
    office.cameras[1].accepts = False
    office.fan_out()
    office.run(1.0)
    office.cameras[1].kill()
    office.kill()
    office.restart_camera(0)  # which knows nothing of its earlier life
    report = office.start()
    assert report is not None
    assert (report.accepted, report.pending) == (["one"], ["two"])
    office.run(3.0)
    two = office.restart_camera(1)
    office.run(3.0)
    assert heard(office.cameras[0], two) == [[], ["firmware"]]
    assert report.ended is not None
    assert report.accepted == ["one", "two"]


def test_member_whose_outcome_the_sender_lost_knows_the_copy() -> None:
    office = Office("one", "two")
    office.cameras[1].accepts = False
    office.fan_out()
    office.sender.is_stuck = True
    office.run(1.0)
    assert heard(office.cameras[0]) == [["firmware"]]
    office.kill()
    report = office.start()
    assert report is not None
    assert report.pending == ["one", "two"]
    office.run(5.0)
    assert report.accepted == ["one"]
    assert heard(office.cameras[0]) == [["firmware"]]


def test_member_that_has_it_at_work_while_the_sender_restarts_handles_it_once() -> None:
    office = Office("one")
    [one] = office.cameras
    one.accepts = False
    office.fan_out()
    office.run(1.0)
    office.kill()
    report = office.start()
    office.run(5.0)
    assert heard(one) == [["firmware"]]
    one.accepts = True
    deliveries = [each for each in one.actions if type(each).__name__ == "DeliverGroup"]
    one._read(deliveries[0])  # type: ignore[arg-type]
    office.run(2.0)
    assert report is not None
    assert report.accepted == ["one"]


def test_refusal_is_kept_with_its_reason() -> None:
    office = Office("one", "two")
    office.cameras[0].group_verdict = Outcome.REJECTED
    office.cameras[1].accepts = False
    office.fan_out()
    office.run(1.0)
    office.kill()
    report = office.start()
    assert report is not None
    standing = report.standings["one"]
    assert (standing.state, standing.failure) == (MemberState.FAILED, FailureKind.REJECTED)


def test_attempts_of_all_lives_count_together() -> None:
    options = NodeOptions(attempts_max=3, redeliver_min=1.0, redeliver_max=1.0)
    office = Office("one", options=options)
    office.cameras[0].group_verdict = Outcome.MODIFIED
    office.fan_out()
    office.run(0.1)
    office.kill()
    report = office.start()
    office.run(20.0)
    assert report is not None
    standing = report.standings["one"]
    assert (standing.failure, standing.attempts) == (FailureKind.DEAD_LETTERED, 3)
    assert heard(office.cameras[0]) == [["firmware"] * 3]


def test_deadline_is_by_the_wall_clock_in_all_lives() -> None:
    office = Office("one")
    office.cameras[0].accepts = False
    office.fan_out(timeout=20.0)
    office.run(1.0)
    office.kill()
    office.cameras[0].kill()
    office.run(9.0)
    report = office.start()
    assert report is not None
    office.run(9.0)
    assert office.kept == 2
    office.run(1.5)
    assert report.ended is not None
    assert report.pending == ["one"]
    assert office.kept == 0


def test_fan_out_whose_deadline_came_while_nobody_lived_ends_at_once() -> None:
    office = Office("one")
    office.cameras[0].accepts = False
    office.fan_out(timeout=5.0)
    office.run(1.0)
    office.kill()
    office.run(10.0)
    report = office.start()
    assert report is not None
    office.run(0.1)
    assert report.ended is not None
    assert report.pending == ["one"]


def test_time_to_live_goes_on_while_nobody_lives() -> None:
    office = Office("one")
    office.sender.is_stuck = True
    office.fan_out(ttl=5.0, timeout=60.0)
    office.sender.scribe.work()
    office.kill()
    office.run(10.0)
    report = office.start()
    office.run(3.0)
    assert report is not None
    assert report.standings["one"].failure is FailureKind.EXPIRED
    assert heard(*office.cameras) == [[]]


def test_late_member_is_kept_too() -> None:
    office = Office("one")
    leave(office.cameras[0])
    office.run(0.5)
    office.fan_out(include_late=True, timeout=60.0)
    office.run(0.5)
    join(office.cameras[0])
    office.run(1.0)
    assert office.kept == 2
    office.kill()
    report = office.start()
    assert report is not None
    assert report.accepted == ["one"]
    office.run(3.0)
    assert heard(*office.cameras) == [["firmware"]]


def test_cancelled_fan_out_is_gone_from_the_disk() -> None:
    office = Office("one")
    office.cameras[0].accepts = False
    report = office.fan_out()
    office.run(0.5)
    report.cancel()
    office.run(0.5)
    assert office.kept == 0


def test_fan_out_cancelled_before_it_is_on_disk_is_sent_to_nobody() -> None:
    office = Office("one")
    office.sender.is_stuck = True
    report = office.fan_out()
    report.cancel()
    office.run(0.1)
    office.write()
    office.run(1.0)
    assert (office.kept, heard(*office.cameras)) == (0, [[]])


def test_drain_does_not_wait_for_members_that_another_life_goes_on_with() -> None:
    office = Office("one")
    office.cameras[0].accepts = False
    report = office.fan_out(timeout=600.0)
    office.run(1.0)
    office.cameras[0].kill()
    office.run(30.0)
    assert report.pending == ["one"]
    assert office.sender.engine.open_work() == (0, 0)


def test_node_that_closes_leaves_it_to_another_life() -> None:
    office = Office("one")
    office.cameras[0].accepts = False
    report = office.fan_out()
    office.run(0.5)
    office.sender.do(CloseNode())
    office.run(0.1)
    assert report.ended is not None
    assert report.ended.is_closed
    assert office.kept == 2


def test_member_that_leaves_while_it_is_stored_gets_it_when_it_is_back() -> None:
    office = Office("one")
    office.sender.is_stuck = True
    report = office.fan_out()
    leave(office.cameras[0])
    office.run(1.0)
    office.write()
    office.run(2.0)
    assert (report.pending, heard(*office.cameras)) == (["one"], [[]])
    join(office.cameras[0])
    office.run(2.0)
    assert report.accepted == ["one"]


def test_members_forget_what_is_not_sent_again() -> None:
    office = Office("one", "two")
    office.cameras[1].accepts = False
    office.fan_out()
    office.run(0.2)
    known = office.cameras[0].engine._turn.handled
    assert len(known) == 1
    office.run(2.0)
    assert len(known) == 0


def test_member_that_tries_again_is_not_told_to_forget() -> None:
    office = Office("one", options=NodeOptions(redeliver_min=5.0, redeliver_max=5.0))
    office.cameras[0].group_verdict = Outcome.MODIFIED
    report = office.fan_out()
    told: list[tuple[int, int]] = []
    stored = office.sender.engine._news.gatherings.fan_out.stored
    stored._known = lambda _, first, last: told.append((first, last))
    office.run(1.0)
    assert report.standings["one"].attempts == 2
    assert told == []
    office.cameras[0].group_verdict = Outcome.ACCEPTED
    office.run(10.0)
    assert report.accepted == ["one"]
    assert len(told) == 1


def test_floor_stays_below_a_fan_out_until_it_is_gone_from_the_disk() -> None:
    office = Office("one")
    news = office.sender.engine._news
    office.cameras[0].accepts = False
    report = office.fan_out()
    office.run(0.5)
    floor = news._floor()
    second = office.fan_out("more")
    assert news._floor() == floor
    report.cancel()
    office.run(0.5)
    assert news._floor() == floor + 1
    second.cancel()
    office.run(0.5)
    assert news._floor() == office.sender.engine._turn.keeper.next_number


def test_entry_that_cannot_be_read_is_told_of_and_passed_over() -> None:
    office = Office("one")
    office.cameras[0].accepts = False
    office.fan_out()
    entry = entries_of(office.disk, EntryKind.FAN_OUT)[0]._replace(value=b"\x91\x63")
    office.disk.content.apply(SetEntries((entry,)))
    office.kill()
    assert office.start() is None
    assert office.sender.traces("fan_out_unreadable")


@pytest.mark.parametrize("moment", range(8))
def test_sender_may_die_at_any_moment(moment: int) -> None:
    """Whatever batches are on disk, each member handles it once, or nobody was promised it."""
    office = Office("one", "two")
    office.sender.is_stuck = True
    office.fan_out()
    for _ in range(moment):
        events = office.sender.scribe.work()
        if events:
            office.sender.do(JournalTold(events))
        office.run(0.02)
    office.kill()
    report = office.start()
    office.run(5.0)
    expected = [] if moment == 0 else ["firmware"]
    assert heard(*office.cameras) == [expected, expected]
    assert report is None or report.ended is not None
    assert office.kept == 0
