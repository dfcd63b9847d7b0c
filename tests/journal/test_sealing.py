"""What is sealed opens at its place, with its key, and unchanged; nothing else opens."""

from pathlib import Path

import pytest
from msgpack import packb, unpackb

from tests.journal.support import BOX, KEY, run
from zmesh.journal import coding
from zmesh.journal.coding import Table, Unsound
from zmesh.journal.sealing import OVERHEAD_BYTES, Forged, Seal, looking, with_key
from zmesh.message import Outcome
from zmesh.security.storage_key import StorageKey
from zmesh.storage import Entry, EntryKind, Row, StoredOutcome, Stream, StreamKind
from zmesh.storage_errors import StorageKeyMissing, StorageKeyWrong, StorageNotEncrypted

OTHER = StorageKey(b"o" * 32)
SEAL = Seal.new("path", KEY)
ROW = Row(7, (0, "target", b"body", ((1, "header"),)), 1, 2, 3, 4, ("note",))  # type: ignore[arg-type]


def test_value_opens_at_its_place_alone() -> None:
    sealed = SEAL.seal(b"value", b"here")
    assert SEAL.open(sealed, b"here") == b"value"
    assert len(sealed) == len(b"value") + OVERHEAD_BYTES
    assert SEAL.seal(b"value", b"here") != sealed
    for data, place in (
        (sealed, b"there"), (sealed[:-1], b"here"), (b"", b"here"), (sealed[:30], b"here"),
        (b"\x00" + sealed[1:], b"here"),
    ):  # fmt: skip
        with pytest.raises(Forged):
            SEAL.open(data, place)
    for index in range(len(sealed)):
        with pytest.raises(Forged):
            SEAL.open(sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :], b"here")


def test_every_file_has_keys_of_its_own() -> None:
    other = Seal.new("path", KEY)
    with pytest.raises(Forged):
        other.open(SEAL.seal(b"value", b""), b"")
    assert other.blind(b"name") != SEAL.blind(b"name")


def test_what_the_file_says_tells_the_right_key_from_others() -> None:
    again = with_key("path", KEY)(SEAL.value)
    assert again is not None
    assert again.open(SEAL.seal(b"value", b""), b"") == b"value"
    assert KEY.secret not in SEAL.value
    for keyhole in (with_key("path", OTHER), looking("path", OTHER)):
        with pytest.raises(StorageKeyWrong, match=KEY.fingerprint) as caught:
            keyhole(SEAL.value)
        assert caught.value.given == OTHER.fingerprint
    with pytest.raises(StorageKeyMissing, match=KEY.fingerprint):
        with_key("path", None)(SEAL.value)
    with pytest.raises(StorageNotEncrypted):
        with_key("path", KEY)(None)
    assert with_key("path", None)(None) is None
    assert looking("path", KEY)(None) is None


def test_without_the_key_nothing_is_sealed_or_opened() -> None:
    seal = looking("path")(SEAL.value)
    assert seal is not None
    assert not seal.is_open
    with pytest.raises(StorageKeyMissing):
        seal.seal(b"", b"")
    with pytest.raises(StorageKeyMissing):
        seal.open(SEAL.seal(b"", b""), b"")
    with pytest.raises(StorageKeyMissing):
        seal.blind(b"")


def test_blind_names_are_those_of_the_same_name_only() -> None:
    seal = SEAL
    assert coding.blind_name(3, b"name", seal) == coding.blind_name(3, b"name", seal)
    blind = {
        coding.blind_name(3, b"name", seal), coding.blind_name(4, b"name", seal),
        coding.blind_key(3, b"name", b"", seal), coding.blind_key(3, b"nam", b"e", seal),
        coding.blind_key(3, b"", b"name", seal),
    }  # fmt: skip
    assert len(blind) == 5


def test_rows_come_back_and_show_nothing() -> None:
    (columns,) = coding.message_columns(16, [ROW], SEAL)
    assert coding.is_message_sound(columns)  # without the key
    assert coding.row_of(columns, SEAL) == ROW
    for each in columns:
        assert not isinstance(each, bytes) or not {b"body", b"target", b"note"} & {each}
    stored = b"".join(each for each in columns if isinstance(each, bytes))
    assert not any(word in stored for word in (b"body", b"target", b"header", b"note"))
    for columns in coding.run_columns(17, run(1, 300, BOX), SEAL):
        assert coding.block_columns(coding.block_of(columns, SEAL), None)[2:7:4] == (
            7,
            b"\x91\x04",
        )


def test_row_in_anothers_place_is_unsound_though_its_checksum_is_right() -> None:
    (one,) = coding.message_columns(16, [ROW], SEAL)
    for index, value in ((0, 5), (2, 9), (3, 9), (4, 9), (5, 9), (8, 2)):
        moved = [*one]
        moved[index] = value
        with pytest.raises(Unsound, match="does not open"):
            coding.opened(moved, SEAL)
    (other,) = coding.message_columns(16, [ROW._replace(note=("another",))], SEAL)
    swapped = [*one]
    swapped[1] = other[6]  # a note in the place of a record, and the record there as well
    with pytest.raises(Unsound):
        coding.opened(swapped, SEAL)


def test_entries_and_outcomes_do_not_open_elsewhere() -> None:
    entry = Entry(EntryKind.SHARED, "map", b"key", b"value")
    columns = coding.entry_columns(entry, SEAL)
    assert coding.is_entry_sound(columns)
    assert coding.entry_of(columns, SEAL) == entry
    other = coding.entry_columns(entry._replace(key=b"another"), SEAL)
    moved = (*other[:3], columns[3])
    forged = (*moved, coding._entry_checksum(*moved))
    assert coding.is_entry_sound(forged)
    with pytest.raises(Unsound, match="does not open"):
        coding.entry_of(forged, SEAL)
    outcome = StoredOutcome(1, 5, Outcome.REJECTED, "reason")
    value = coding.mark_value(Table.OUTCOMES, 1, 5, coding.outcome_value(outcome), SEAL)
    assert coding.outcome_of(1, 5, value, SEAL) == outcome
    with pytest.raises(Unsound):
        coding.outcome_of(1, 6, value, SEAL)


def test_path_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageKeyMissing, match=str(tmp_path)):
        with_key(str(tmp_path), None)(SEAL.value)


def test_watermark_that_somebody_moved_does_not_open() -> None:
    stream = Stream(StreamKind.LANE_IN, b"session-session-", 4)
    value = coding.stream_value(16, stream, 8, 5, ((7, 9),), SEAL)
    assert coding.stream_of(16, value, SEAL) == (stream, 8, 5, ((7, 9),))
    kind, owner, lane, *told = unpackb(value, use_list=False)
    for changed in ((7, 5, ((7, 9),)), (8, 4, ((7, 9),)), (8, 5, ())):
        assert [*changed] != told
        with pytest.raises(Unsound, match="stream 16"):
            coding.stream_of(16, packb((kind, owner, lane, *changed)), SEAL)
