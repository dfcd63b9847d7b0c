"""What a node may do on the network, by its keys and its words."""

import uuid

import pytest

from zmesh.errors import InvalidOption
from zmesh.face.settings import Settings, settle
from zmesh.face.system import SystemEntropy
from zmesh.options import NodeOptions
from zmesh.security.mesh_key import MeshKey

KEY = MeshKey.new(SystemEntropy())


def settings(environment: dict[str, str] | None = None, **options: object) -> Settings:
    told: dict[str, object] = {
        "name": "a", "mesh": uuid.uuid4().hex, "peers": (), "seeds": (), "mdns": False,
        "interfaces": None, "port": 0, "insecure": False, "options": NodeOptions(),
        "zeroconf": None, "environment": environment or {}, **options,
    }  # fmt: skip
    return settle(**told)  # type: ignore[arg-type]


def test_without_a_key_a_node_stays_on_loopback_and_tells_its_name() -> None:
    found = settings()
    assert (found.keys, found.interfaces, found.may_leave_loopback) == ((), None, False)
    assert found.announces_name


def test_with_a_key_a_node_is_everywhere_and_tells_its_id_only() -> None:
    found = settings(key=KEY)
    assert (found.keys, found.interfaces, found.may_leave_loopback) == ((KEY,), ("*",), True)
    assert not found.announces_name
    assert settings({"ZMESH_KEY": KEY.text}).keys == (KEY,)


def test_interfaces_hold_whatever_the_key() -> None:
    assert settings(key=KEY, interfaces=["127.0.0.1"]).interfaces == ("127.0.0.1",)
    assert settings(key=KEY, interfaces=["192.0.2.7"]).interfaces == ("192.0.2.7",)


def test_what_is_announced_can_be_chosen() -> None:
    assert settings(key=KEY, announce="name").announces_name
    assert not settings(announce="id-only").announces_name
    with pytest.raises(InvalidOption, match='"name" or "id-only"'):
        settings(announce="all")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("name", 5), ("mesh", 5), ("mesh", b"m"), ("port", "x"), ("port", True), ("port", 1.5),
        ("interfaces", 5), ("interfaces", [5]), ("peers", 5), ("peers", [5]), ("seeds", b"a:1"),
    ],
)  # fmt: skip
def test_what_is_of_another_type_is_named(option: str, value: object) -> None:
    with pytest.raises(InvalidOption) as caught:
        settings(None, **{option: value})
    assert caught.value.option == option


@pytest.mark.parametrize("interfaces", [["*"], ["192.0.2.7"], ["127.0.0.1", "fe80::1"]])
def test_network_takes_a_key_or_the_word(interfaces: list[str]) -> None:
    with pytest.raises(InvalidOption, match=r"zmesh keys new.*insecure=True"):
        settings(interfaces=interfaces)
    assert settings(interfaces=interfaces, insecure=True).may_leave_loopback


@pytest.mark.parametrize("option", ["peers", "seeds"])
def test_peers_on_the_network_take_a_key_or_the_word(option: str) -> None:
    there: dict[str, object] = {option: ["192.0.2.7:5555"]}
    with pytest.raises(InvalidOption, match=rf"{option}='192\.0\.2\.7:5555'.*insecure=True"):
        settings(None, **there)
    with pytest.raises(InvalidOption, match="mesh key"):
        settings({f"ZMESH_{option.upper()}": "[2001:db8::7]:5555"})
    assert getattr(settings(None, **there, insecure=True), option)
    assert getattr(settings(None, **there, key=KEY), option)
    here: dict[str, object] = {option: ["127.0.0.1:5555", "somewhere:5555"]}
    assert getattr(settings(None, **here), option)


@pytest.mark.parametrize(
    ("options", "environment", "source"),
    [({"key": KEY}, {}, "key="), ({}, {"ZMESH_KEY": KEY.text}, "ZMESH_KEY")],
)
def test_insecure_beside_a_key_is_refused(
    options: dict[str, object], environment: dict[str, str], source: str
) -> None:
    with pytest.raises(InvalidOption, match=f"mesh key .from {source}.: it encrypts everything"):
        settings(environment, insecure=True, **options)
    assert settings(environment, insecure=True, key=()).keys == ()


def test_settings_do_not_show_keys() -> None:
    told = repr(settings({"ZMESH_KEY": KEY.text}))
    assert KEY.text not in told
    assert repr(KEY.secret) not in told
