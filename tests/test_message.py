from hypothesis import given
from hypothesis import strategies as st

from zmesh.message import (
    INTEGER_TAGS,
    Record,
    Tag,
    extra,
    extras_of,
    size_of,
    sizes_of,
    tags_of,
    with_extra,
)

VALUES = st.one_of(st.integers(0, 9), st.text(max_size=3), st.binary(max_size=3))
EXTRAS = st.dictionaries(st.sampled_from(list(Tag)), VALUES)
NUMBERS = st.dictionaries(st.sampled_from(sorted(INTEGER_TAGS)).map(Tag), st.integers(0, 9))
OTHERS = st.dictionaries(st.sampled_from([tag for tag in Tag if tag not in INTEGER_TAGS]), VALUES)


def made(extras: dict[Tag, int | str | bytes]) -> Record:
    flat = [item for tag in sorted(extras) for item in (int(tag), extras[tag])]
    return (0, "target", b"body", tuple(flat)) if flat else (0, "target", b"body")


@given(EXTRAS, st.sampled_from(list(Tag)), VALUES)
def test_an_extra_is_put_in_its_place_or_in_that_of_an_older_one(
    extras: dict[Tag, int | str | bytes], tag: Tag, value: int | str | bytes
) -> None:
    assert with_extra(made(extras), tag, value) == made(extras | {tag: value})


@given(EXTRAS)
def test_extras_are_found_by_their_tags(extras: dict[Tag, int | str | bytes]) -> None:
    record = made(extras)
    assert {tag: extra(record, tag) for tag in Tag} == {tag: extras.get(tag) for tag in Tag}
    assert extras_of(record) == extras


@given(NUMBERS, OTHERS)
def test_bytes_and_texts_in_extras_count(
    numbers: dict[Tag, int], others: dict[Tag, int | str | bytes]
) -> None:
    extras = numbers | others
    told = sum(len(value) for value in extras.values() if not isinstance(value, int))
    assert size_of(made(extras)) == size_of((0, "target", b"body")) + told


def test_extras_may_be_there_and_empty() -> None:
    assert extra((0, "", b"", ()), Tag.KEY) is None
    assert with_extra((0, "", b"", ()), Tag.KEY, "k") == (0, "", b"", (int(Tag.KEY), "k"))


def test_tags_of_many_records_are_told_together() -> None:
    plain: Record = (0, "", b"x")
    keyed = with_extra(with_extra(plain, Tag.KEY, "4"), Tag.MESSAGE_ID, Tag.TTL_MS)
    assert tags_of([plain, plain]) == frozenset()
    assert tags_of([keyed, plain]) == {Tag.KEY, Tag.MESSAGE_ID}
    assert tags_of([keyed, with_extra(plain, Tag.TTL_MS, 1)]) == {
        Tag.KEY,
        Tag.MESSAGE_ID,
        Tag.TTL_MS,
    }


ALIKE = st.sampled_from(
    [
        {Tag.KEY: "key"},
        {Tag.MESSAGE_ID: 7, Tag.CORRELATION: 1},
        {Tag.HEADERS: b"\x80", Tag.KEY: "k", Tag.TTL_MS: 9},
        {Tag.MISSED: 3},
        {},
    ]
)


@given(st.lists(ALIKE, max_size=4), st.integers(1, 3))
def test_sizes_are_those_of_each(extras: list[dict[Tag, int | str | bytes]], times: int) -> None:
    records = [made(each) for each in extras] * times
    assert sizes_of(records) == [size_of(record) for record in records]
