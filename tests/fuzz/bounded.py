"""Whether something takes more memory than it may."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def memory(bytes_max: int, what: str) -> Iterator[None]:
    """Assert that what happens inside never holds more than so many bytes at once."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= bytes_max, f"{what} took {peak} bytes, at most {bytes_max} are allowed"
