"""Producers and consumers of one queue, and what they had."""

from tests.engines import Host, World


def mesh_of(world: World, producers: str, consumers: str, prefetch: int = 1) -> list[Host]:
    """Return hosts, a letter each, of which the consumers pull from the queue "work"."""
    hosts = world.mesh(*producers, *consumers)
    for host in hosts[len(producers) :]:
        host.pull("work", prefetch)
    world.run(1.0)
    return hosts


def bodies(host: Host) -> list[str]:
    """Return the jobs a host was given."""
    return [text for text, _ in host.jobs]


def numbers(stop: int) -> list[str]:
    """Return so many jobs, which are in order as texts."""
    return [f"{number:03}" for number in range(stop)]
