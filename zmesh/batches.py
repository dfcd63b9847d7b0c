"""Batches of records with consecutive numbers, and how to part them."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TypeVar

L = TypeVar("L")
R = TypeVar("R")


def runs(
    first: int, last: int, records: Sequence[R], labels: Sequence[L]
) -> Iterator[tuple[L, int, int, list[R]]]:
    """Part the records numbered `first..last` wherever the label of a record changes.

    Yields `(label, first, last, records)` of each run. A record put together from fragments has
    several numbers and is alone in its batch.
    """
    for label, indexes in groupby(range(len(records)), key=labels.__getitem__):
        run = list(indexes)
        start, stop = run[0], run[-1] + 1
        end = last if stop == len(records) else first + stop - 1
        yield label, first + start, end, list(records[start:stop])
