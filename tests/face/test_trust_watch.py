"""The directory of trust while a node runs."""

import asyncio
import logging
from pathlib import Path

import pytest

from zmesh.actions import Audited, AuditKind
from zmesh.face.trust_watch import TrustWatch
from zmesh.options import TrustOptions
from zmesh.security.node_key import NodeKey, to_text
from zmesh.security.trust import Trust
from zmesh.security.trust_files import TrustDirectory, TrustRead

BOB = NodeKey.of(bytes(32))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    (tmp_path / "bob.pub").write_text(to_text(BOB.public))
    return tmp_path


def revoke(place: Path) -> None:
    (place / "revoked").mkdir()
    (place / "revoked" / "bob.pub").write_text(to_text(BOB.public))


async def test_a_revocation_counts_after_a_look_that_failed_for_whatever_reason(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    used: list[Trust] = []
    told: list[Audited] = []
    failures = iter([RuntimeError("no thread"), OSError(24, "too many files")])
    read = TrustDirectory.read

    def failing(directory: TrustDirectory) -> TrustRead:
        for failure in failures:
            raise failure
        return read(directory)

    has_changed = asyncio.Event()

    def use(trust: Trust) -> None:
        used.append(trust)
        if not trust.admits(BOB.id):
            has_changed.set()

    watch = TrustWatch(place, TrustOptions(look_every=0.01), "ada", use, told.append)
    await watch.open()
    try:
        monkeypatch.setattr(TrustDirectory, "read", failing)
        revoke(place)
        with caplog.at_level(logging.ERROR, "zmesh"):
            async with asyncio.timeout(10):
                await has_changed.wait()
    finally:
        await watch.stop()
    assert [trust.admits(BOB.id) for trust in used] == [True, False]
    assert len([record for record in caplog.records if record.exc_info]) == 1
    assert [event.kind for event in told] == [AuditKind.BAD_TRUST]
