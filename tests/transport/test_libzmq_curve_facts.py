"""What the transport knows of CURVE and ZAP in libzmq 4.3.5."""

import errno
import struct
import time
from contextlib import suppress

import pytest
import zmq
from zmq.utils import z85

from tests.transport.lab import Lab, Socket, nothing_comes, receive
from tests.transport.peer import server_pair
from tests.transport.zmtp import GREETING, part
from zmesh.security.mesh_key import CurvePair

ZAP = "inproc://zeromq.zap.01"
SERVER, OTHER = server_pair(1), server_pair(2)
CLIENT = CurvePair.of(bytes(range(32)))
DIED = zmq.EVENT_DISCONNECTED


def keyed(socket: Socket, pair: CurvePair) -> Socket:
    socket.set(zmq.CURVE_PUBLICKEY, z85.encode(pair.public))
    socket.set(zmq.CURVE_SECRETKEY, z85.encode(pair.secret))
    return socket


def listening(lab: Lab, pair: CurvePair = SERVER, *, asks: bool = True) -> tuple[Socket, str]:
    """A ROUTER with CURVE, and where."""
    router = keyed(lab.socket(zmq.ROUTER, CURVE_SERVER=1, ROUTER_MANDATORY=1), pair)
    if asks:
        router.set(zmq.ZAP_DOMAIN, b"any")
        router.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
    router.bind("tcp://127.0.0.1:0")
    return router, router.get_string(zmq.LAST_ENDPOINT)


def dealer(lab: Lab, server: CurvePair | None = SERVER, name: bytes = b"") -> Socket:
    made = lab.socket(zmq.DEALER, RECONNECT_IVL=86_400_000)
    if server is not None:
        keyed(made, CLIENT).set(zmq.CURVE_SERVERKEY, z85.encode(server.public))
    if name:
        made.set(zmq.ROUTING_ID, name)
    return made


def handler(lab: Lab) -> Socket:
    made = lab.socket(zmq.ROUTER)
    made.bind(ZAP)
    return made


def answer(zap: Socket, code: bytes = b"200", user: bytes = b"somebody") -> list[bytes]:
    """Answer one request; return it."""
    asker, *request = receive(zap)
    zap.send_multipart([asker, b"", b"1.0", request[2], code, b"", user, b""])
    return request


def failure(monitor: Socket) -> tuple[int, int]:
    """Read a monitor up to a handshake that failed; return the event and its value."""
    failed = (
        zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
        zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
        zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    )
    while True:
        event, value = struct.unpack("=HI", receive(monitor)[0])
        if event in failed:
            return event, value


# ZAP


def test_a_request_names_address_mechanism_and_the_key_that_was_proved(lab: Lab) -> None:
    zap = handler(lab)
    router, endpoint = listening(lab)
    client = dealer(lab)
    client.connect(endpoint)
    request = answer(zap)
    assert request == [
        b"", b"1.0", request[2], b"any", b"127.0.0.1", b"", b"CURVE", CLIENT.public,
    ]  # fmt: skip
    client.send(b"in")
    assert receive(router)[1] == b"in"


def test_every_part_tells_the_user_id_that_the_handler_gave(lab: Lab) -> None:
    zap = handler(lab)
    router, endpoint = listening(lab)
    client = dealer(lab)
    client.connect(endpoint)
    answer(zap, user=b"the user")
    for _ in range(2):
        client.send_multipart([b"one", b"two", b"three"])
        assert router.poll(5000)
        frames = router.recv_multipart(copy=False)
        assert [frame.get("User-Id") for frame in frames] == ["the user"] * 4


def test_without_a_handler_a_server_that_enforces_its_domain_lets_nobody_in(lab: Lab) -> None:
    router, endpoint = listening(lab)
    monitor = lab.monitor(router)
    client = dealer(lab)
    client.connect(endpoint)
    client.send(b"in?")
    assert failure(monitor) == (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, errno.EFAULT)
    assert nothing_comes(router)


def test_without_a_domain_whoever_knows_the_server_key_gets_in(lab: Lab) -> None:
    router, endpoint = listening(lab, asks=False)
    client = dealer(lab)
    client.connect(endpoint)
    client.send(b"in!")
    assert receive(router)[1] == b"in!"


def test_until_the_handler_answers_nothing_of_a_client_is_heard(lab: Lab) -> None:
    zap = handler(lab)
    router, endpoint = listening(lab)
    client = dealer(lab)
    client.connect(endpoint)
    client.send(b"in?")
    assert zap.poll(5000)
    assert nothing_comes(router)
    answer(zap)
    assert receive(router)[1] == b"in?"


def test_who_is_refused_is_told_the_status_and_cut_off(lab: Lab) -> None:
    zap = handler(lab)
    router, endpoint = listening(lab)
    ours = lab.monitor(router)
    client = dealer(lab)
    theirs = lab.monitor(client)
    client.connect(endpoint)
    answer(zap, b"400")
    assert failure(theirs) == (zmq.EVENT_HANDSHAKE_FAILED_AUTH, 400)
    assert failure(ours) == (zmq.EVENT_HANDSHAKE_FAILED_AUTH, 400)
    assert struct.unpack("=HI", receive(ours)[0])[0] == DIED


# What is told of keys that do not match


def test_another_server_key_is_told_to_the_server_and_looks_like_any_end_to_the_client(
    lab: Lab,
) -> None:
    handler(lab)
    router, endpoint = listening(lab)
    ours = lab.monitor(router)
    client = dealer(lab, OTHER)
    theirs = lab.monitor(client)
    before = time.monotonic()
    client.connect(endpoint)
    crypto = zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC
    assert failure(ours) == (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, crypto)
    assert struct.unpack("=HI", receive(ours)[0])[0] == DIED, "right after"
    assert failure(theirs) == (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, errno.EPIPE)
    assert time.monotonic() - before < 2


@pytest.mark.parametrize("guarded", ["server", "client"])
def test_a_key_on_one_side_only_is_told_to_one_of_them_at_least(lab: Lab, guarded: str) -> None:
    handler(lab)
    if guarded == "server":
        router, endpoint = listening(lab)
        client = dealer(lab, None)
    else:
        router, endpoint = lab.listening()
        client = dealer(lab)
    monitors = lab.monitor(router), lab.monitor(client)
    client.connect(endpoint)
    mismatch = zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
    told = [failure(monitor) for monitor in monitors]
    assert (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, mismatch) in told
    for event, value in told:
        if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            assert value in (errno.EPIPE, errno.ECONNRESET)


@pytest.mark.parametrize("mechanism", [b"NULL", b"CURVE"])
def test_to_signature_and_version_a_listener_answers_with_its_mechanism(
    lab: Lab, mechanism: bytes
) -> None:
    handler(lab)
    _, endpoint = listening(lab) if mechanism == b"CURVE" else lab.listening()
    with lab.connected(endpoint) as stranger:
        stranger.sendall(GREETING[:12])
        said = b""
        while len(said) < 32:
            said += stranger.recv(32 - len(said))
    assert said[:1] == b"\xff"
    assert said[12:].rstrip(b"\0") == mechanism


# What a stranger can do


def test_who_did_not_pass_curve_sends_no_message_and_no_unfinished_one(lab: Lab) -> None:
    handler(lab)
    router, endpoint = listening(lab)
    monitor = lab.monitor(router)
    with lab.connected(endpoint) as stranger:
        stranger.sendall(GREETING.replace(b"NULL\0", b"CURVE"))
        stranger.sendall(part(b"x" * 1000, more=True))
        assert failure(monitor)[0] == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        assert struct.unpack("=HI", receive(monitor)[0])[0] == DIED
    assert nothing_comes(router)


def test_a_claimed_routing_id_in_use_is_ignored_and_free_once_its_owner_left(lab: Lab) -> None:
    zap = handler(lab)
    router, endpoint = listening(lab)
    monitor = lab.monitor(router)
    owner, thief, heir = (dealer(lab, name=b"same") for _ in range(3))
    owner.connect(endpoint)
    answer(zap, user=b"owner")
    owner.send(b"mine")
    assert receive(router) == [b"same", b"mine"]
    thief.connect(endpoint)
    answer(zap, user=b"thief")
    thief.send(b"no, mine")
    assert nothing_comes(router)
    owner.monitor(None)
    owner.close()
    while struct.unpack("=HI", receive(monitor)[0])[0] != DIED:
        pass
    assert nothing_comes(router)
    heir.connect(endpoint)
    answer(zap, user=b"heir")
    heir.send(b"now mine")
    assert router.poll(5000)
    name, content = router.recv_multipart(copy=False)
    assert (name.bytes, content.bytes) == (b"same", b"now mine")
    assert content.get("User-Id") == "heir"


def test_a_key_that_is_set_holds_for_what_is_bound_after(lab: Lab) -> None:
    zap = handler(lab)
    router, endpoint = listening(lab)
    keyed(router, OTHER)
    before, after = dealer(lab, SERVER), dealer(lab, OTHER)
    before.connect(endpoint)
    answer(zap)
    before.send(b"with the old key")
    assert receive(router)[1] == b"with the old key"
    router.unbind(endpoint)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:  # the I/O thread closes the port
        with suppress(zmq.ZMQError):
            router.bind(endpoint)
            break
        time.sleep(0.002)
    after.connect(endpoint)
    answer(zap)
    after.send(b"with the new key")
    assert receive(router)[1] == b"with the new key"


def test_unbinding_tells_of_the_end_of_the_endpoint_and_not_of_its_connections(lab: Lab) -> None:
    router, endpoint = lab.listening()
    monitor = lab.monitor(router)
    client = lab.dealer(endpoint)
    client.send(b"hello")
    receive(router)
    router.unbind(endpoint)
    told = []
    while monitor.poll(200):
        told.append(struct.unpack("=HI", monitor.recv_multipart()[0])[0])
        router.poll(0)
    assert zmq.EVENT_CLOSED in told
    assert DIED not in told


def test_the_handler_may_answer_many_and_late(lab: Lab) -> None:
    zap = handler(lab)
    router, endpoint = listening(lab)
    clients = [dealer(lab) for _ in range(20)]
    for each in clients:
        each.connect(endpoint)
        each.send(b"in?")
    assert nothing_comes(router)
    for _ in clients:
        answer(zap)
    assert {receive(router)[1] for _ in clients} == {b"in?"}
