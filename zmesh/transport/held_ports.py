"""The ports a node listens on, which stay open while libzmq ends one listener and begins another.

Between two binds of libzmq a port is closed for a moment, because its I/O thread closes the first
when it comes to that. Peers who dial in this moment are refused, and take that for the end of the
process. So the sockets that listen are ours, and libzmq gets copies of them (ZMQ_USE_FD): whoever
dials in between waits in the kernel's backlog.
"""

import socket


class HeldPorts:
    """Sockets that listen, by host.

    Args:
        backlog: connections that wait in the kernel until they are accepted, for each.
    """

    def __init__(self, backlog: int) -> None:
        self._backlog = backlog
        self._held: dict[str, socket.socket] = {}

    def hold(self, host: str, port: int) -> None:
        """Listen on a host and port, 0 for a free one.

        Raises:
            OSError: the address is not of this machine, the port is taken, or no descriptor left.
        """
        kind, numeric = socket.SOCK_STREAM, socket.AI_NUMERICHOST
        family, *_, address = socket.getaddrinfo(host, port, type=kind, flags=numeric)[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # "::" is IPv4 as well
        held = socket.create_server(
            address, family=family, backlog=self._backlog, dualstack_ipv6=both
        )
        held.setblocking(False)  # two threads may be told of the same connection
        self._held[host] = held

    def endpoint(self, host: str) -> str:
        """Return the endpoint that is listened on for a host."""
        return endpoint_of(host, self._held[host].getsockname()[1])

    def lend(self, host: str) -> int:
        """Return a descriptor of one, which whoever gets it closes.

        Raises:
            OSError: there is no descriptor left.
        """
        return self._held[host].dup().detach()

    def release(self, host: str) -> None:
        """Hold one no more: it is closed as soon as nobody else listens on it."""
        self._held.pop(host).close()

    def close(self) -> None:
        """Hold none."""
        for host in tuple(self._held):
            self.release(host)


def endpoint_of(host: str, port: int) -> str:
    """Return the endpoint of a TCP port."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
