"""Hold `docs/protocol.md` to the code: its codes, its limits, its example, its links."""

import re
from collections.abc import Iterable
from dataclasses import fields
from enum import IntEnum
from pathlib import Path

import pytest

from tests.wire.proof_cases import FRESH, JOURNAL, LINK, MESH
from tests.wire.vector_cases import ADA, BOB
from zmesh.ids import NO_LINK, JournalId
from zmesh.message import Encoding, Kind, Outcome, Record, Tag, size_of
from zmesh.options import LinkOptions, NodeOptions, WireLimits
from zmesh.wire.codec import decode, encode
from zmesh.wire.frames import (
    Ack,
    ByeCode,
    ControlData,
    ControlType,
    Data,
    ErrorCode,
    Evidence,
    FrameType,
    Hello,
    Iam,
    LaneState,
    Packet,
    Ping,
    Pong,
    Settle,
    Welcome,
    Who,
)

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
LIMITS = WireLimits()


def section(heading: str) -> str:
    """The text from a heading to the next one."""
    begin = TEXT.index(f" {heading}\n")
    end = TEXT.find("\n#", begin)
    return TEXT[begin : end if end > 0 else None]


def rows(text: str) -> Iterable[list[str]]:
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def numbered(text: str) -> dict[str, int]:
    """Names by their numbers, from the rows that begin with both."""
    return {cells[1]: int(cells[0]) for cells in rows(text) if cells[0].isdigit()}


def members(enum: type[IntEnum]) -> dict[str, int]:
    return {member.name: int(member) for member in enum}


# Codes


def test_frames_are_numbered_as_in_the_code() -> None:
    assert numbered(section("5. Frames")) == members(FrameType)
    assert numbered(section("5.8 BYE")) == members(ByeCode)
    assert numbered(section("5.10 ERROR")) == members(ErrorCode)


def test_records_are_numbered_as_in_the_code() -> None:
    kinds, encodings = section("6. Records").split("| encoding |")
    assert numbered(kinds) == members(Kind)
    assert numbered(encodings) == members(Encoding)
    assert numbered(section("6.1 Extras")) == members(Tag)
    assert numbered(section("7. Control records")) == members(ControlType)
    assert numbered(section("7.1 SETTLE")) == members(Outcome)


# Limits and times


def values(heading: str) -> dict[str, float]:
    return {
        cells[0].strip("`"): float(cells[1]) for cells in rows(section(heading)) if "`" in cells[0]
    }


def test_every_limit_of_packets_is_told() -> None:
    assert values("13.1 Limits of packets") == {
        field.name: getattr(LIMITS, field.name) for field in fields(WireLimits)
    }


def test_sizes_and_times_are_those_of_the_options() -> None:
    told = values("13.2 Sizes and times")
    assert len(told) > 20
    assert told == {name: getattr(LinkOptions(), name) for name in told}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", TEXT))))
def test_what_is_named_in_code_type_exists(name: str) -> None:
    of_frames = {
        field.name for frame in (Hello, LaneState, Ack, Evidence) for field in fields(frame)
    }
    options = {field.name for of in (WireLimits, LinkOptions, NodeOptions) for field in fields(of)}
    assert name in options | of_frames


# The example

NOTHING: tuple[()] = ()
LANES = (LaneState(4, 1, 0, NOTHING, 1024, 262144), LaneState(10, 1, 0, NOTHING, 0, 0))
RECORDS: tuple[Record, ...] = (
    (0x10, "", b"\x81\xa3job\x07"),
    (1, "resize", b"photo", (int(Tag.MESSAGE_ID), 1, int(Tag.CORRELATION), 42)),
)
BOBS_JOURNAL = JournalId(b"\x20" * 16)
HERE, THERE = ("tcp://192.168.1.7:49152",), ("tcp://192.168.1.8:49152",)
EXAMPLE = {
    "16.1 ada asks who is there": Packet(NO_LINK, 0, (Who(MESH, ADA),)),
    "16.2 bob answers": Packet(NO_LINK, 0, (Iam(MESH, BOB, "bob", 3, THERE, ()),)),
    "16.3 ada asks for a link": Packet(
        LINK, 0, (Hello(MESH, ADA, BOB, "ada", 1, JOURNAL, 1, None, FRESH, HERE, LANES),)
    ),
    "16.4 bob grants it": Packet(
        LINK, 0, (Welcome(BOB, "bob", 3, BOBS_JOURNAL, 1, 0, FRESH, THERE, LANES),)
    ),
    "16.5 ada sends a message and a request": Packet(LINK, 1, (Ping(1), Data(4, 1, RECORDS))),
    "16.6 bob acknowledges, settles one and answers the other": Packet(
        LINK,
        1,
        (
            Ack(1, 850, ((4, 2, ()), (10, 0, ())), ((4, 1026, 262193),)),
            Pong(1),
            ControlData(1, (Settle(4, ((Outcome.ACCEPTED, 1, 2),)),)),
            Data(4, 1, ((2, "", b"small", (int(Tag.CORRELATION), 42)),)),
        ),
    ),
}


def hex_of(heading: str) -> bytes:
    block = section(heading).split("```hex\n")[1].split("```")[0]
    return bytes.fromhex("".join(line.split(";")[0] for line in block.splitlines()))


@pytest.mark.parametrize("heading", EXAMPLE)
def test_example_is_what_the_codec_makes_of_it(heading: str) -> None:
    assert decode([hex_of(heading)], LIMITS) == EXAMPLE[heading]
    assert encode(EXAMPLE[heading], LIMITS, 16384) == [hex_of(heading)]


def test_every_example_is_checked() -> None:
    assert TEXT.count("```hex") == len(EXAMPLE)


def test_sizes_in_the_example_are_those_of_the_credit() -> None:
    assert [size_of(record) for record in RECORDS] == [22, 27]


# Links


def anchors() -> set[str]:
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", text.lower()).replace(" ", "-") for text in headings}


def test_links_inside_the_document_lead_somewhere() -> None:
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert links
    assert set(links) <= anchors()


def test_sections_spoken_of_exist() -> None:
    numbers = set(re.findall(r"^#+ ([0-9.]+?)\.? ", TEXT, re.MULTILINE))
    spoken = re.findall(r"\bsections? ([0-9]+(?:\.[0-9]+)?)(?: and ([0-9.]+[0-9]))?", TEXT)
    foreign = {"3.4"}  # of AMQP 1.0
    assert {number for pair in spoken for number in pair if number} - foreign <= numbers


def test_the_place_of_the_state_diagram_is_marked_once() -> None:
    assert TEXT.count("<!-- state diagram: begin -->") == 1
    assert TEXT.count("<!-- state diagram: end -->") == 1
