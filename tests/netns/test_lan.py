"""The LAN of the other tests: it leaves nothing behind."""

import socket

import pytest

from tests.netns.lan import Lan, namespaces


def test_everything_is_deleted_though_a_test_fails() -> None:
    interfaces, before = socket.if_nameindex(), namespaces()
    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert (socket.if_nameindex(), namespaces()) == (interfaces, before)


def fail_inside() -> None:
    with Lan("a", "b") as lan:
        lan["a"].plug(1, "10.88.0.1/24")
        assert len(namespaces()) >= 3
        raise ZeroDivisionError


def test_everything_is_deleted_though_it_cannot_be_built() -> None:
    before = namespaces()
    with pytest.raises(RuntimeError, match="failed"), Lan("a", "no/such name"):
        pass
    assert namespaces() == before


def test_nothing_leads_out_of_it() -> None:
    with Lan("a") as lan, pytest.raises(RuntimeError, match="unreachable"):
        lan["a"].ip("route get 192.0.2.1")
