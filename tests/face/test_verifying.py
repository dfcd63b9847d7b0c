"""What a guard of signatures makes of deliveries, where no node is needed to see it."""

import asyncio

import pytest

from zmesh.actions import Audited, AuditKind, Delivery
from zmesh.errors import InvalidOption, UsageError
from zmesh.events import KeepReplays, Source
from zmesh.face.lossy import LossyQueue
from zmesh.face.signing import LIVES, Signing, signed
from zmesh.face.verifying import BEGUN_MIN, Verifying, check_verify
from zmesh.ids import JournalId, NodeId
from zmesh.message import Kind, Outcome, Record, Tag, head, with_extra
from zmesh.options import NodeOptions
from zmesh.security.node_key import NodeKey
from zmesh.security.signing import Addressing, Signer
from zmesh.storage import Entry
from zmesh.terms import WhenFull

ADA, BOB = NodeKey.of(b"a" * 32), NodeKey.of(b"b" * 32)
EVE = NodeId(b"e" * 16)
JOB: Record = (head(Kind.JOB), "jobs", b"x")


class World:
    def __init__(
        self, *, is_proved: bool = False, is_storing: bool = True, blocks_max: int = 100_000
    ) -> None:
        self.now_ms = 1_000_000
        self.audited: list[Audited] = []
        options = NodeOptions(replay_blocks_max=blocks_max)
        self.signing = Signing(
            ADA, JournalId(b"j" * 16), 1, options, is_default=True, wall_ms=self.wall_ms
        )
        self.verifying = Verifying(
            BOB.id, "bob", options, "if-signed", self.wall_ms, self.audited.append,
            is_storing=is_storing, is_proved=is_proved,
        )  # fmt: skip
        self.guard = self.verifying.guard(None, "queue:jobs")

    def wall_ms(self) -> int:
        return self.now_ms

    def job(self, record: Record = JOB) -> Record:
        sign = self.signing.for_target(None, 4)
        assert sign is not None
        return signed(record, sign)

    def delivered(self, record: Record, node: NodeId = ADA.id) -> Delivery:
        return Delivery(Source(node, b"s" * 16, 4), "ada", 1, 1, [record])

    def accept(self, record: Record, node: NodeId = ADA.id) -> bool:
        delivery = self.delivered(record, node)
        if self.guard.refusal(delivery, 0) is not None:
            return False
        self.verifying.settled(delivery, 0, 0, Outcome.ACCEPTED)
        return True


def test_what_comes_from_its_signer_over_a_link_that_proves_it_is_no_replay() -> None:
    world = World(is_proved=True)
    job = world.job()
    assert world.accept(job)
    assert world.accept(job)
    assert not world.accept(job, EVE)  # what the link did not tell apart is remembered
    assert [event.kind for event in world.audited] == [AuditKind.REPLAYED]


def test_without_proof_the_memory_always_counts() -> None:
    world = World()
    job = world.job()
    assert world.accept(job)
    assert not world.accept(job)


def test_what_goes_back_without_a_verdict_is_no_replay() -> None:
    world = World()
    jobs = [world.job() for _ in range(3 * BEGUN_MIN)]
    for job in jobs[:-1]:
        assert world.accept(job)
    assert world.guard.refusal(world.delivered(jobs[-1]), 0) is None
    assert not world.accept(jobs[-1])
    world.guard.give_back()
    assert world.accept(jobs[-1])
    assert not any(map(world.accept, jobs))


def test_a_delivery_is_verified_once_for_all_its_handlers() -> None:
    world = World()
    other = world.verifying.guard("required", "subscription:x")
    delivery = world.delivered(world.job())
    assert world.guard.refusal(delivery, 0) is None
    assert other.refusal(delivery, 0) is None
    assert world.verifying.verified == 1
    world.verifying.settled(delivery, 0, 0, Outcome.REJECTED)  # one of two, and it is over
    assert other.refusal(world.delivered(delivery.records[0]), 0) is not None


@pytest.mark.parametrize("data", [b"", bytes(139), b"\x01" + bytes(138), b"\xff" * 500])
def test_arbitrary_bytes_in_the_tag_only_have_the_message_refused(data: bytes) -> None:
    world = World()
    assert not world.accept(with_extra(JOB, Tag.SIGNATURE, data))
    assert [event.kind for event in world.audited] == [AuditKind.BAD_SIGNATURE]
    assert world.verifying.take_changes() is None


@pytest.mark.parametrize("counter", [0, 2**64 - 1])
def test_a_signature_for_ever_and_ever_only_has_the_message_refused(counter: int) -> None:
    world = World()
    signer = Signer(ADA, JournalId(b"j" * 16), Addressing.TARGET, 4, None, None)
    for expires_ms in (2**64 - 1, 2**63):
        assert not world.accept(signer.sign(JOB, counter, world.now_ms, expires_ms))
    assert world.accept(signer.sign(JOB, 2**64 - 257, world.now_ms, 2**63 - 1))
    assert isinstance(world.verifying.take_changes(), KeepReplays)


def test_a_full_memory_gives_up_the_highest_counter_as_any_other() -> None:
    world = World(blocks_max=1)
    journal, until_ms = JournalId(b"j" * 16), world.now_ms + 1000
    jobs = [
        Signer(key, journal, Addressing.TARGET, 4, None, None).sign(
            JOB, 2**64 - 257, world.now_ms, until_ms
        )
        for key in (ADA, BOB)
    ]
    for job in jobs:
        assert world.accept(job)
        assert isinstance(world.verifying.take_changes(), KeepReplays)
    assert not any(map(world.accept, jobs))


def test_a_target_does_not_sign_for_a_receiver() -> None:
    world = World()
    sign = world.signing.for_target(None, 4)
    assert sign is not None
    assert not world.accept(signed((head(Kind.DIRECT), "", b"x"), sign))
    by_name = world.signing.for_name("bob", 4, None, None)
    assert world.accept(signed((head(Kind.DIRECT), "", b"x"), by_name))
    by_id = world.signing.for_name(BOB.id.hex(), 4, None, None)
    assert world.accept(signed((head(Kind.DIRECT), "", b"x"), by_id))
    assert not world.accept(signed(JOB, by_name))


def test_what_cannot_be_is_refused() -> None:
    world = World()
    with pytest.raises(InvalidOption):
        check_verify("always")
    with pytest.raises(InvalidOption):
        world.signing.is_wanted(1)  # type: ignore[arg-type]
    keyless = Signing(
        None, JournalId(b"j" * 16), 1, NodeOptions(), is_default=False, wall_ms=world.wall_ms
    )
    assert keyless.for_target(None, 4) is None
    with pytest.raises(UsageError, match="cannot sign"):
        keyless.for_target(True, 4)


def test_only_publications_may_come_on_another_lane_from_a_log() -> None:
    world = World()
    for record, is_taken in ((JOB, False), ((head(Kind.PUBLICATION), "news", b"x"), True)):
        delivery = world.delivered(with_extra(world.job(record), Tag.FOLLOWER, 1))
        delivery.source = Source(ADA.id, b"s" * 16, 5)
        assert (world.guard.refusal(delivery, 0) is None) is is_taken


class Settler:
    """Takes verdicts on deliveries of one record."""

    def __init__(self, verifying: Verifying) -> None:
        self.verifying = verifying
        self.told: list[Outcome] = []

    def settle(
        self, delivery: Delivery, first: int, last: int, outcome: Outcome, *_: object
    ) -> None:
        self.told.append(outcome)
        self.verifying.settled(delivery, first, last, outcome)


@pytest.mark.parametrize("when_full", [WhenFull.LATEST, WhenFull.DROP_OLDEST, WhenFull.DISCONNECT])
def test_what_is_refused_drops_nothing_of_a_lossy_subscription(when_full: WhenFull) -> None:
    world = World()
    settler = Settler(world.verifying)
    loop = asyncio.new_event_loop()
    try:
        guard = world.verifying.guard("required")
        queue = LossyQueue(loop, None, "news", when_full, 1, guard)  # type: ignore[arg-type]
        news: Record = (head(Kind.PUBLICATION), "news", b"x")
        signed = world.job(news)
        forged: Record = (signed[0], signed[1], b"y", *signed[3:])
        for record in (signed, news, forged):
            queue.put(settler, world.delivered(record), 0, 1)  # type: ignore[arg-type]
        assert settler.told == [Outcome.REJECTED] * 2
        assert (queue.dropped, queue.is_overrun, len(queue)) == (0, False, 1)
        chunk = queue.take()
        assert chunk is not None
        assert next(chunk.messages).signer == ADA.id.hex()
    finally:
        loop.close()


@pytest.mark.parametrize("incarnation", [1, LIVES - 1, LIVES, 17 << 20])
def test_a_node_of_many_rescues_still_signs(incarnation: int) -> None:
    world = World()
    world.signing = Signing(
        ADA, JournalId(b"k" * 16), incarnation, NodeOptions(), is_default=True,
        wall_ms=world.wall_ms,
    )  # fmt: skip
    assert world.accept(world.job())
    assert world.accept(world.job())


def entries_of(changes: KeepReplays | None) -> list[Entry]:
    assert changes is not None
    return list(changes.entries)


def test_another_journal_with_its_memory_takes_nothing_from_before() -> None:
    world = World()
    old, new = JournalId(b"o" * 16), JournalId(b"n" * 16)
    whose = entries_of(world.verifying.restore([], old, 1))
    first = world.job()
    assert world.accept(first)
    kept = whose + entries_of(world.verifying.take_changes())
    world.now_ms += 1000
    lost = world.job()  # accepted after a copy was made, or on a page that was lost
    again = World()
    again.now_ms = world.now_ms = world.now_ms + 1000
    assert again.verifying.restore(kept, old, 2) is None
    assert again.accept(lost)
    again = World()
    again.now_ms = world.now_ms
    whose = entries_of(again.verifying.restore(kept, new, 1 << 20))
    third = World()
    third.now_ms = world.now_ms = world.now_ms + 1000
    assert third.verifying.restore([*kept[1:], *whose], new, (1 << 20) + 1) is None
    for each in (again, third):
        assert not each.accept(first)
        assert not each.accept(lost)
        assert each.accept(world.job())


def test_a_stored_message_that_its_signer_sends_again_was_accepted_before() -> None:
    world = World()
    job = with_extra(world.job(), Tag.STORED, 7)
    assert world.guard.refusal(world.delivered(job), 0) is None
    told = world.guard.refusal(world.delivered(job), 0)  # it is being handled
    assert told is not None
    assert told[0] is Outcome.REJECTED
    world.guard.give_back()
    assert world.accept(job)
    world.audited.clear()
    again = World()  # which died before the outcome was on disk
    again.verifying.restore(entries_of(world.verifying.take_changes()), JournalId(b"o" * 16), 1)
    assert again.guard.refusal(again.delivered(job), 0) == (Outcome.ACCEPTED, "")
    assert again.audited == []
    assert again.guard.refusal(again.delivered(job, EVE), 0) is not None
    assert [event.kind for event in again.audited] == [AuditKind.REPLAYED]
    request = with_extra(world.job((head(Kind.REQUEST), "pay", b"x")), Tag.STORED, 8)
    assert world.accept(request)
    assert not world.accept(request)  # its caller waits for an answer
