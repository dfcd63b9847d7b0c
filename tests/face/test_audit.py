import asyncio
import logging
from dataclasses import replace

import pytest

from zmesh.actions import Audited, AuditKind
from zmesh.errors import Closed
from zmesh.face.audit import NAMES_TOLD_MAX, WAITING_MAX, WARNINGS_BURST, Audit

EVENT = Audited(AuditKind.FORBIDDEN, "eve", "tcp://127.0.0.1:1", "publish 'a.b'", "rule 1")


async def test_watchers_hear_what_happens_and_then_the_end() -> None:
    audit = Audit("ada")
    watcher = audit.watch()
    audit.tell(EVENT)
    assert await anext(watcher) is EVENT
    next_one = asyncio.create_task(anext(watcher, None))
    await asyncio.sleep(0)
    audit.close()
    assert await next_one is None


async def test_one_that_does_not_keep_up_is_told_what_it_missed() -> None:
    audit = Audit("ada")
    watcher = audit.watch()
    for _ in range(WAITING_MAX + 3):
        audit.tell(EVENT)
    assert watcher.missed == 3


async def test_two_tasks_cannot_share_one() -> None:
    watcher = Audit("ada").watch()
    first = asyncio.create_task(anext(watcher))
    await asyncio.sleep(0)
    with pytest.raises(Closed, match="another task"):
        await anext(watcher)
    first.cancel()


def test_what_a_culprit_does_again_is_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    audit = Audit("ada")
    with caplog.at_level(logging.WARNING, "zmesh.audit"):
        for _ in range(3):
            audit.tell(EVENT)
    assert [record.message for record in caplog.records] == [
        (
            "ada: forbidden peer='eve' endpoint='tcp://127.0.0.1:1' detail=\"publish 'a.b'\" "
            "rule='rule 1'"
        )
    ]
    assert audit.counts["forbidden"] == 3


def test_each_name_that_one_rule_forbids_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit("ada")
    with caplog.at_level(logging.WARNING, "zmesh.audit"):
        for _ in range(2):
            for detail in ("call 'door.close'", "send 'gate'", "send 'door.close'"):
                audit.tell(replace(EVENT, detail=detail))
    assert len(caplog.messages) == 3
    assert "send 'gate'" in caplog.text


def test_who_tries_many_names_leaves_warnings_for_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    audit = Audit("ada")
    with caplog.at_level(logging.WARNING, "zmesh.audit"):
        for number in range(WARNINGS_BURST * 2):
            audit.tell(replace(EVENT, detail=f"call '{number}'"))
        assert len(caplog.messages) == NAMES_TOLD_MAX
        audit.tell(replace(EVENT, peer="mallory"))
    assert "mallory" in caplog.messages[-1]
    assert len(caplog.messages) == NAMES_TOLD_MAX + 1


def test_a_peer_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "zmesh.audit"):
        Audit("ada").tell(Audited(AuditKind.NOT_TRUSTED, "eve\nada: all is well"))
    assert "\n" not in caplog.text.rstrip("\n")


@pytest.mark.parametrize("endpoints", [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_each_address_is_a_culprit_of_its_own(
    endpoints: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    audit = Audit("ada")
    with caplog.at_level(logging.WARNING, "zmesh.audit"):
        for endpoint in endpoints:  # as who listens knows them, without a port
            audit.tell(Audited(AuditKind.WRONG_KEY, endpoint=endpoint))
    first, second = caplog.messages
    assert endpoints[0] in first
    assert endpoints[1] in second


def test_one_that_dials_from_another_port_each_time_is_one_culprit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    audit = Audit("ada")
    with caplog.at_level(logging.WARNING, "zmesh.audit"):
        for port in range(1, 10):
            audit.tell(Audited(AuditKind.NOT_TRUSTED, endpoint=f"tcp://10.0.0.1:{port}"))
    assert len(caplog.records) == 1


def test_many_culprits_do_not_fill_the_log_and_hide_nothing_of_another_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 100.0
    audit = Audit("ada", lambda: now)
    with caplog.at_level(logging.WARNING, "zmesh.audit"):
        for number in range(WARNINGS_BURST + 50):
            audit.tell(Audited(AuditKind.NOT_TRUSTED, f"eve {number}"))
        assert len(caplog.records) == WARNINGS_BURST
        audit.tell(Audited(AuditKind.REVOKED, "bob"))
        assert "revoked" in caplog.messages[-1]
        now += 1.0
        audit.tell(Audited(AuditKind.NOT_TRUSTED, "another eve"))
        assert caplog.messages[-1].endswith(
            "(and 50 others like it, which are at the debug level)"
        )
        audit.tell(Audited(AuditKind.NOT_TRUSTED, "and another"))
    assert len(caplog.records) == WARNINGS_BURST + 2
    assert audit.counts["not_trusted"] == WARNINGS_BURST + 52
