"""How many file descriptors this process can still open.

libzmq says nothing when it has none left: a listener spins on the connection it cannot accept, and
a dial never reports. So we look ourselves, before dialing and once in a while.
"""

import errno
import os
import sys


def descriptors_left(at_most: int) -> int:
    """Return how many descriptors can be opened now, counting up to `at_most`.

    They are opened and closed again, because the limit alone does not tell: half a microsecond
    each.
    """
    opened: list[int] = []
    try:
        # The first is a new file, so that a full system-wide table (ENFILE) shows as well.
        opened.append(os.open(os.devnull, os.O_RDONLY))
        while len(opened) < at_most:
            opened.append(os.dup(opened[0]))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return len(opened)


def are_scarce() -> bool:
    """Return whether half of those this process may have are in use. Costs a microsecond."""
    try:
        lowest_free = os.open(os.devnull, os.O_RDONLY)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        return True
    os.close(lowest_free)
    return lowest_free >= descriptors_max() // 2


if sys.platform == "win32":

    def descriptors_max() -> int:
        """Return how many descriptors this process may have."""
        return sys.maxsize

else:
    import resource

    def descriptors_max() -> int:
        """Return how many descriptors this process may have."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return sys.maxsize if soft == resource.RLIM_INFINITY else soft
