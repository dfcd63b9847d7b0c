import errno
import os
import resource
import sys
from pathlib import Path

import pytest

from zmesh.transport.descriptors import are_scarce, descriptors_left, descriptors_max


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("left", [0, 1, 5])
def test_counts_what_the_limit_leaves(left: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    opened = [os.open(os.devnull, os.O_RDONLY)]
    while opened[-1] < highest + 2:  # no hole below the last one, and none that is taken above
        opened.append(os.open(os.devnull, os.O_RDONLY))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened[-1] + 1 + left, hard))
        assert descriptors_left(8) == left
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in opened:
            os.close(descriptor)


def test_counts_no_further_than_asked_and_leaves_nothing_open() -> None:
    before = open_descriptors()
    assert descriptors_left(7) == 7
    assert open_descriptors() == before


def test_another_error_is_not_taken_for_a_full_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_device(*_: object) -> int:
        raise OSError(errno.ENOENT, "no such file")

    monkeypatch.setattr(os, "open", no_such_device)
    with pytest.raises(OSError, match="no such file"):
        descriptors_left(1)


@pytest.mark.parametrize(("soft", "most"), [(1024, 1024), (resource.RLIM_INFINITY, sys.maxsize)])
def test_tells_how_many_there_may_be(
    soft: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, resource.RLIM_INFINITY))
    assert descriptors_max() == most


def test_they_are_scarce_once_half_of_them_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    before = open_descriptors()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 2 * lowest_free + 2), hard))
        assert not are_scarce()
        opened = os.dup(0)
        assert are_scarce()
        os.close(opened)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert open_descriptors() == before

    def no_more(*_: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "open", no_more)
    assert are_scarce()
