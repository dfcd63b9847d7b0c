"""Whose packets these are."""

from zmesh.transport.senders import Senders

K1, K2 = (bytes([byte]) * 32 for byte in (1, 2))


def test_a_path_is_routing_id_and_key() -> None:
    senders = Senders(10)
    assert senders.learn(b"id", K1.hex()) == b"id" + K1
    assert senders.known == {b"id": b"id" + K1}
    assert senders.routing_id(b"id" + K1) == b"id"
    assert senders.routing_id(b"id" + K2) is None
    assert senders.routing_id(b"di" + K1) is None


def test_in_doubt_everybody_is_asked_again_and_may_still_be_sent_to() -> None:
    senders = Senders(10)
    senders.learn(b"id", K1.hex())
    senders.doubt()
    assert senders.known == {}
    assert senders.routing_id(b"id" + K1) == b"id"
    senders.learn(b"id", K2.hex())
    assert senders.routing_id(b"id" + K1) is None
    assert senders.routing_id(b"id" + K2) == b"id"


def test_nobody_is_left_when_all_connections_have_ended() -> None:
    senders = Senders(10)
    senders.learn(b"id", K1.hex())
    senders.forget()
    assert senders.known == {}
    assert senders.routing_id(b"id" + K1) is None


def test_who_was_asked_longest_ago_is_forgotten_where_there_are_too_many() -> None:
    senders = Senders(2)
    for name in (b"a", b"b", b"a", b"c"):
        senders.learn(name, K1.hex())
    assert senders.known.keys() == {b"a", b"c"}
    assert senders.routing_id(b"b" + K1) is None
    assert senders.routing_id(b"a" + K1) == b"a"
