"""What records count against credit, all together."""

from collections.abc import Sequence

from zmesh.message import Record, sizes_of


def total_size(records: Sequence[Record]) -> int:
    return sum(sizes_of(records))
