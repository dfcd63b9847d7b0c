"""Traces as log lines."""

import logging

import pytest

from zmesh.actions import Trace
from zmesh.observe import logs
from zmesh.observe.logs import TraceLog


def warning(peer: str, kind: str = "decode") -> Trace:
    return Trace("bad_packet", logging.WARNING, {"peer": peer, "kind": kind})


def test_warning_is_told_once_per_peer_and_kind(caplog: pytest.LogCaptureFixture) -> None:
    log = TraceLog("camera-3")
    for peer, kind in [("a", "x"), ("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")]:
        log.write(warning(peer, kind))
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [
        "camera-3: bad packet peer='a' kind='x'",
        "camera-3: bad packet peer='b' kind='x'",
        "camera-3: bad packet peer='a' kind='y'",
    ]
    assert log.count("bad_packet", "a", "x") == 3


def test_repeated_warning_is_still_seen_when_debugging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "zmesh")
    log = TraceLog("camera-3")
    log.write(warning("a"))
    log.write(warning("a"))
    assert caplog.records[1].levelno == logging.DEBUG
    assert "times=2" in caplog.records[1].getMessage()


def test_news_below_warning_is_told_every_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "zmesh")
    log = TraceLog("camera-3")
    for _ in range(2):
        log.write(Trace("joined", logging.INFO, {"peer": "a"}))
    assert len(caplog.records) == 2


def test_peer_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    TraceLog("camera-3").write(warning("a\nERROR everything is lost"))
    assert "\n" not in caplog.records[0].getMessage()


def test_flood_of_kinds_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "KINDS_MAX", 8)
    log = TraceLog("camera-3")
    for number in range(100):
        log.write(warning(str(number)))
    assert len(log._counts) == 8
    assert log.count("bad_packet", "0", "decode") == 0
    assert log.count("bad_packet", "99", "decode") == 1
