"""Receipts: waiting for outcomes, and the errors that tell of them."""

import asyncio

import pytest

from zmesh.errors import (
    Closed,
    DeadLettered,
    Expired,
    NoProvider,
    PeerLost,
    PeerRestarted,
    PeerUnknown,
    Rejected,
    ZmeshError,
)
from zmesh.face.receipts import Receipt, error_of
from zmesh.message import Failure, FailureKind


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FailureKind.REJECTED, Rejected),
        (FailureKind.EXPIRED, Expired),
        (FailureKind.DEAD_LETTERED, DeadLettered),
        (FailureKind.PEER_LOST, PeerLost),
        (FailureKind.PEER_RESTARTED, PeerRestarted),
        (FailureKind.PEER_UNKNOWN, PeerUnknown),
        (FailureKind.NO_PROVIDER, NoProvider),
        (FailureKind.CLOSED, Closed),
    ],
)
def test_every_failure_has_its_error(kind: FailureKind, error: type[ZmeshError]) -> None:
    raised = error_of(Failure(kind, "printer", "why", 3))
    assert type(raised) is error
    assert "printer" in str(raised) or error is Closed


def test_all_failure_kinds_are_covered() -> None:
    for kind in FailureKind:
        assert isinstance(error_of(Failure(kind, "printer")), ZmeshError)


async def test_awaiting_returns_how_many_were_accepted() -> None:
    receipt = Receipt(2)
    waiting = asyncio.ensure_future(receipt)
    await asyncio.sleep(0)
    receipt.accepted = 2
    receipt.finish()
    assert await waiting == 2
    assert await receipt == 2


async def test_failure_is_raised_for_everyone_who_awaits() -> None:
    receipt = Receipt()
    waiting = [asyncio.ensure_future(receipt) for _ in range(3)]
    await asyncio.sleep(0)
    receipt.fail(Failure(FailureKind.REJECTED, "printer", "no paper"))
    receipt.finish()
    for task in waiting:
        with pytest.raises(Rejected, match="no paper"):
            await task


async def test_failure_among_many_tells_how_many() -> None:
    receipt = Receipt(3)
    receipt.accepted = 2
    receipt.fail(Failure(FailureKind.REJECTED, "printer", "no"))
    with pytest.raises(Rejected) as caught:
        await receipt
    assert "1 of 3" in caught.value.__notes__[0]


async def test_cancelled_waiting_is_forgotten_and_hurts_nobody() -> None:
    receipt = Receipt()
    for _ in range(50):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await receipt
    receipt.outcome()
    assert receipt._waiters is not None
    assert len(receipt._waiters) == 1
    receipt.accepted = 1
    receipt.finish()
    assert await receipt == 1


def test_repr_counts() -> None:
    receipt = Receipt(3)
    receipt.accepted = 1
    assert repr(receipt) == "<Receipt: 1 accepted, 0 failed of 3>"
