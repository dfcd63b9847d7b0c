"""Bodies and options made into records."""

import pytest

from zmesh.errors import BodyNotEncodable, BodyTooLarge, InvalidOption
from zmesh.face.outgoing import Outgoing, failure_of
from zmesh.message import Encoding, Kind, Tag, extra, head
from zmesh.options import LinkOptions, NodeOptions
from zmesh.wire.bodies import decode_body, decode_headers

OUTGOING = Outgoing(NodeOptions(link=LinkOptions(body_bytes_max=100)))


def test_record_carries_kind_target_and_body() -> None:
    assert OUTGOING.record(Kind.PUBLICATION, "a.b", b"raw") == (
        head(Kind.PUBLICATION, Encoding.RAW), "a.b", b"raw",
    )  # fmt: skip
    record = OUTGOING.record(Kind.DIRECT, "", {"a": 1})
    assert decode_body(record[0] >> 4, record[2]) == {"a": 1}


def test_headers_are_an_extra() -> None:
    record = OUTGOING.record(Kind.DIRECT, "", b"", {"unit": "C"})
    headers = extra(record, Tag.HEADERS)
    assert isinstance(headers, bytes)
    assert decode_headers(headers) == {"unit": "C"}
    assert len(OUTGOING.record(Kind.DIRECT, "", b"", {})) == 3


@pytest.mark.parametrize("bodies", [[b"a", b"b"], [b"a", "b", 3], []])
@pytest.mark.parametrize("headers", [None, {"h": 1}])
def test_many_records_are_as_many_single_ones(
    bodies: list[object], headers: dict[str, int] | None
) -> None:
    single = [OUTGOING.record(Kind.DIRECT, "", body, headers) for body in bodies]
    assert OUTGOING.records(Kind.DIRECT, "", bodies, headers) == single


def test_changed_buffer_does_not_change_the_record() -> None:
    body = bytearray(b"before")
    [record] = OUTGOING.records(Kind.DIRECT, "", [body], None)
    body[:] = b"after!"
    assert record[2] == b"before"


def test_body_over_the_limit_is_refused() -> None:
    OUTGOING.record(Kind.DIRECT, "", bytes(100))
    for make in (
        lambda: OUTGOING.record(Kind.DIRECT, "", bytes(101)),
        lambda: OUTGOING.records(Kind.DIRECT, "", [b"", bytes(101)], None),
        lambda: OUTGOING.records(Kind.DIRECT, "", [1, bytes(101)], None),
        lambda: OUTGOING.reply("x" * 101),
    ):
        with pytest.raises(BodyTooLarge):
            make()
    with pytest.raises(BodyNotEncodable):
        OUTGOING.reply(object())


def test_failure_tells_type_and_text() -> None:
    record = Outgoing(NodeOptions()).failure(KeyError("paper"))
    assert failure_of(record) == ("KeyError", "'paper'")


def test_failure_with_a_text_nobody_can_send_is_still_told() -> None:
    outgoing = Outgoing(NodeOptions())
    type_name, text = failure_of(outgoing.failure(ValueError("\ud800" + "x" * 10_000)))
    assert type_name == "ValueError"
    assert text.startswith("?xxx")
    assert len(text) == 4096


def test_options_in_range_pass() -> None:
    OUTGOING.check_options(0, None, None)
    OUTGOING.check_options(9, "k", 0.001)


@pytest.mark.parametrize(
    ("priority", "key", "ttl", "named"),
    [
        (-1, None, None, "priority"),
        (10, None, None, "priority"),
        (4, "k" * 5000, None, "key"),
        (4, "\ud800", None, "key"),
        (4, None, 0, "ttl"),
        (4, None, float("inf"), "ttl"),
    ],
)
def test_option_out_of_range_is_named(
    priority: int, key: str | None, ttl: float | None, named: str
) -> None:
    with pytest.raises(InvalidOption, match=named):
        OUTGOING.check_options(priority, key, ttl)
