"""Having zeroconf forget instances, of which it keeps ten thousand and more.

It goes through all it knows of a service whenever it asks for it or somebody begins to listen,
and tells others of all of them: for ten thousand that takes the loop for 20 ms, each time.
"""

from collections.abc import Collection
from typing import Final

from zeroconf import Zeroconf

from zmesh.discovery.records import SERVICE

_PTR: Final = 12
_IN: Final = 1


def forget(zeroconf: Zeroconf, names: Collection[str]) -> None:
    """Remove what is known of instances of ours: that they are there, where, and what they say.

    Their hosts' addresses stay until they expire, in two minutes: others may be on the same host.
    """
    cache = zeroconf.cache
    pointers = cache.async_all_by_details(SERVICE, _PTR, _IN)
    cache.async_remove_records([each for each in pointers if getattr(each, "alias", "") in names])
    for name in names:
        cache.async_remove_records(cache.async_entries_with_name(name))
