"""What a guard of signatures makes of deliveries, where no node is needed to see it."""

import pytest

from zmesh.actions import Audited, AuditKind, Delivery
from zmesh.errors import InvalidOption, UsageError
from zmesh.events import Source
from zmesh.face.signing import Signing, signed
from zmesh.face.verifying import BEGUN_MIN, Verifying, check_verify
from zmesh.ids import JournalId, NodeId
from zmesh.message import Kind, Outcome, Record, Tag, head, with_extra
from zmesh.options import NodeOptions
from zmesh.security.node_key import NodeKey

ADA, BOB = NodeKey.of(b"a" * 32), NodeKey.of(b"b" * 32)
EVE = NodeId(b"e" * 16)
JOB: Record = (head(Kind.JOB), "jobs", b"x")


class World:
    def __init__(self, *, is_proved: bool = False, is_storing: bool = True) -> None:
        self.now_ms = 1_000_000
        self.audited: list[Audited] = []
        options = NodeOptions()
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

    def job(self) -> Record:
        sign = self.signing.for_target(None, 4)
        assert sign is not None
        return signed(JOB, sign)

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
