"""What the handler answers libzmq (RFC 27)."""

import asyncio
from collections.abc import Iterator

import pytest
import zmq

from tests.transport.lab import Socket
from zmesh.options import TransportOptions, WireLimits
from zmesh.transport.sockets import Sockets
from zmesh.transport.zap import ENDPOINT, Authenticator

KEY = bytes(range(32))
GOOD = [b"", b"1.0", b"7", b"zmesh", b"192.0.2.1", b"", b"CURVE", KEY]


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets(TransportOptions(), WireLimits())
    yield made
    made.close()


class Asker:
    """libzmq, as the handler sees it."""

    def __init__(self, sockets: Sockets) -> None:
        self.asked: list[str] = []
        self.answer = True
        loop = asyncio.get_running_loop()
        self.handler = Authenticator(loop, sockets, TransportOptions(), WireLimits(), self._admit)
        self.socket: Socket = sockets._context.socket(zmq.DEALER)
        self.socket.connect(ENDPOINT)
        self.handler.intake.look()

    def _admit(self, address: str, key: bytes) -> bool:
        assert key == KEY
        self.asked.append(address)
        return self.answer

    async def ask(self, request: list[bytes]) -> list[bytes]:
        self.socket.send_multipart(request)
        assert await asyncio.to_thread(self.socket.poll, 5000)
        return self.socket.recv_multipart()

    def close(self) -> None:
        self.socket.close()
        self.handler.close()


async def test_who_passed_curve_is_named_by_its_key(sockets: Sockets) -> None:
    asker = Asker(sockets)
    for _ in range(3):
        answer = await asker.ask(GOOD)
        assert answer == [b"", b"1.0", b"7", b"200", b"OK", KEY.hex().encode(), b""]
    assert asker.asked == ["192.0.2.1"] * 3
    asker.close()


async def test_who_is_not_admitted_is_refused(sockets: Sockets) -> None:
    asker = Asker(sockets)
    asker.answer = False
    assert (await asker.ask(GOOD))[3:] == [b"400", b"no room", b"", b""]
    asker.close()


@pytest.mark.parametrize(
    "change",
    [
        {1: b"2.0"}, {3: b""}, {3: b"other"}, {6: b"NULL"}, {6: b"PLAIN"}, {7: b""}, {7: KEY[1:]},
    ],
)  # fmt: skip
async def test_what_is_no_request_for_curve_is_refused(
    sockets: Sockets, change: dict[int, bytes]
) -> None:
    asker = Asker(sockets)
    request = [change.get(index, part) for index, part in enumerate(GOOD)]
    answer = await asker.ask(request)
    assert answer[2:4] == [b"7", b"500"]
    assert asker.asked == []
    asker.close()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
async def test_what_is_cut_off_is_refused(sockets: Sockets, count: int) -> None:
    asker = Asker(sockets)
    assert (await asker.ask(GOOD[:count]))[3] == b"500"
    assert (await asker.ask([*GOOD, b"more"]))[3] == b"500"
    asker.close()
