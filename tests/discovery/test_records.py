import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.discovery.records import (
    ENTRY_BYTES_MAX,
    SERVICE,
    Announced,
    Announcement,
    Unfit,
    node_of,
    read,
)
from zmesh.errors import InvalidOption
from zmesh.ids import MeshTag, NodeId

MESH = MeshTag(b"meshmesh")
NODE = NodeId(b"nodenodenodenode")


def announcement(name: str, *endpoints: str) -> Announcement | None:
    return Announcement.of(MESH, NODE, name, endpoints)


def test_a_node_announces_its_id_mesh_name_and_addresses() -> None:
    announced = announcement("camera-3", "tcp://192.0.2.7:5555", "tcp://[2001:db8::7]:5555")
    assert announced is not None
    assert announced.instance == "6e6f64656e6f64656e6f64656e6f6465._zmesh._tcp.local."
    assert announced.server == "6e6f64656e6f64656e6f64656e6f6465.local."
    assert announced.port == 5555
    assert announced.addresses == ("192.0.2.7", "2001:db8::7")
    assert list(announced.entries.items()) == [
        ("txtvers", "1"),
        ("v", "1"),
        ("id", "6e6f64656e6f64656e6f64656e6f6465"),
        ("mesh", "6d6573686d657368"),
        ("name", "camera-3"),
    ]


def test_an_empty_name_is_left_out() -> None:
    announced = announcement("", "tcp://192.0.2.7:5555")
    assert announced is not None
    assert "name" not in announced.entries


def test_a_node_that_listens_nowhere_announces_nothing() -> None:
    assert announcement("a") is None


def test_loopback_is_announced_only_where_there_is_nothing_else() -> None:
    local = announcement("a", "tcp://127.0.0.1:5", "tcp://[::1]:5")
    assert local is not None
    assert local.addresses == ("127.0.0.1", "::1")
    both = announcement("a", "tcp://127.0.0.1:5", "tcp://192.0.2.7:5")
    assert both is not None
    assert both.addresses == ("192.0.2.7",)


def test_an_interface_is_nobody_elses_business() -> None:
    announced = announcement("a", "tcp://[fe80::7%eth0]:5")
    assert announced is not None
    assert announced.addresses == ("fe80::7",)


def test_a_name_that_fits_no_entry_is_refused_with_the_limit() -> None:
    assert announcement("é" * 125, "tcp://192.0.2.7:5") is not None
    with pytest.raises(InvalidOption, match="at most 250 bytes"):
        announcement("é" * 125 + "a", "tcp://192.0.2.7:5")


def test_several_ports_are_refused() -> None:
    with pytest.raises(InvalidOption, match="one port"):
        announcement("a", "tcp://192.0.2.7:5", "tcp://192.0.2.8:6")


@given(st.text(max_size=250))
def test_no_entry_is_longer_than_its_length_byte_can_say(name: str) -> None:
    try:
        announced = announcement(name, "tcp://192.0.2.7:5")
    except InvalidOption:
        return
    assert announced is not None
    for key, value in announced.entries.items():
        assert len(f"{key}={value}".encode()) <= ENTRY_BYTES_MAX


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Z"]), max_size=60))
def test_what_is_announced_reads_back(name: str) -> None:
    announced = announcement(name, "tcp://192.0.2.7:5", "tcp://[::7]:5")
    assert announced is not None
    assert node_of(announced.instance) == NODE
    assert read([MESH], NODE, announced.entries, announced.port, announced.addresses) == Announced(
        NODE, name, ("tcp://192.0.2.7:5", "tcp://[::7]:5")
    )


@pytest.mark.parametrize(
    "label",
    ["", "printer", NODE.hex()[:-2], NODE.hex() + "00", NODE.hex().upper(), " " + NODE.hex()[1:]],
)
def test_an_instance_not_named_as_ours_are_is_nobody(label: str) -> None:
    assert node_of(f"{label}.{SERVICE}") is None


@given(st.text(max_size=80))
def test_any_instance_name_is_read_without_harm(instance: str) -> None:
    node = node_of(instance)
    assert node is None or len(node) == 16


GOOD: dict[str, str | None] = {
    "txtvers": "1",
    "v": "1",
    "id": NODE.hex(),
    "mesh": MESH.hex(),
    "name": "camera-3",
}


@pytest.mark.parametrize(
    ("change", "unfit"),
    [
        ({"txtvers": None}, Unfit.MALFORMED),
        ({"txtvers": "2"}, Unfit.OTHER_VERSION),
        ({"v": "2"}, Unfit.OTHER_VERSION),
        ({"id": "00" * 16}, Unfit.MALFORMED),
        ({"id": None}, Unfit.MALFORMED),
        ({"mesh": "00" * 8}, Unfit.OTHER_MESH),
        ({"mesh": None}, Unfit.OTHER_MESH),
    ],
)
def test_a_record_that_is_not_for_us_says_why(change: dict[str, str | None], unfit: Unfit) -> None:
    assert read([MESH], NODE, {**GOOD, **change}, 5, ["192.0.2.7"]) is unfit


def test_a_record_without_a_port_is_malformed() -> None:
    assert read([MESH], NODE, GOOD, None, ["192.0.2.7"]) is Unfit.MALFORMED
    assert read([MESH], NODE, GOOD, 0, ["192.0.2.7"]) is Unfit.MALFORMED


def test_a_name_that_could_upset_a_terminal_is_not_taken() -> None:
    announced = read([MESH], NODE, {**GOOD, "name": "a\x1b[2J"}, 5, ["192.0.2.7"])
    assert announced == Announced(NODE, "", ("tcp://192.0.2.7:5",))
    assert read([MESH], NODE, {**GOOD, "name": None}, 5, []) == Announced(NODE, "", ())
