import asyncio
import errno
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.transport.peer import PATIENCE, endpoint_of, unused_endpoint
from zmesh.discovery.endpoints import Endpoint
from zmesh.events import PathCause
from zmesh.transport.probes import Probes


class Prober:
    """Probes whose answers can be awaited."""

    def __init__(self) -> None:
        self.probes = Probes(asyncio.get_running_loop())
        self.answers: asyncio.Queue[PathCause | None] = asyncio.Queue()

    def start(self, endpoint: str, within: float = PATIENCE) -> None:
        self.probes.start(Endpoint.parse(endpoint), within, self.answers.put_nowait)
        assert self.answers.empty(), "answered from inside the call"

    async def ask(self, endpoint: str, within: float = PATIENCE) -> PathCause | None:
        self.start(endpoint, within)
        return await asyncio.wait_for(self.answers.get(), PATIENCE)


@pytest_asyncio.fixture
async def prober() -> AsyncIterator[Prober]:
    made = Prober()
    yield made
    made.probes.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_who_listens_is_there_and_sees_the_connection_end(prober: Prober, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        assert (
            await prober.ask(f"tcp://[{host}]:{port}" if ":" in host else endpoint_of(server))
            is None
        )
        connection, _ = await asyncio.to_thread(server.accept)
        with connection:
            assert await asyncio.to_thread(connection.recv, 1) == b""


async def test_where_nobody_listens_is_refused(prober: Prober) -> None:
    assert await prober.ask(unused_endpoint()) is PathCause.REFUSED


async def test_a_black_hole_is_unreachable_after_the_timeout(prober: Prober) -> None:
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        assert await prober.ask(endpoint_of(server), 0.1) is PathCause.UNREACHABLE


async def test_an_interface_that_does_not_exist_is_unreachable(prober: Prober) -> None:
    assert await prober.ask("tcp://[fe80::1%nosuch0]:1") is PathCause.UNREACHABLE


async def test_who_asks_meanwhile_shares_the_answer(prober: Prober) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        for _ in range(3):
            prober.start(endpoint_of(server))
        assert [await asyncio.wait_for(prober.answers.get(), PATIENCE) for _ in range(3)] == [
            None
        ] * 3
        server.accept()[0].close()
        with pytest.raises(BlockingIOError):
            server.accept()
        assert await prober.ask(endpoint_of(server)) is None  # a new one
        server.accept()[0].close()


async def test_a_connection_with_itself_is_no_sign_of_life(
    prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel does it by chance; binding to the port makes it certain.
    connect_ex = socket.socket.connect_ex

    def connect_from_there(self: socket.socket, address: tuple[str, int]) -> int:
        self.bind(address)
        return connect_ex(self, address)

    monkeypatch.setattr(socket.socket, "connect_ex", connect_from_there)
    assert await prober.ask(unused_endpoint()) is PathCause.REFUSED


async def test_lack_of_descriptors_is_no_evidence_before_the_timeout(
    prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(socket, "socket", none_left)
        before = asyncio.get_running_loop().time()
        assert await prober.ask(endpoint_of(server), 0.1) is PathCause.UNREACHABLE
        assert asyncio.get_running_loop().time() - before >= 0.09


async def test_closing_answers_nobody_and_leaves_nothing(prober: Prober) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        prober.start(endpoint_of(server))
        prober.start(unused_endpoint(), 0.05)
        prober.probes.close()
        await asyncio.sleep(0.1)
        assert prober.answers.empty()
