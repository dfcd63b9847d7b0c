from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.discovery.endpoints import (
    Endpoint,
    dialable,
    in_order,
    is_loopback,
    leading_to,
    split_target,
)

ADDRESSES = st.ip_addresses().map(str)
PORTS = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("printer:5555", "printer", 5555),
        ("tcp://printer.example.org:1", "printer.example.org", 1),
        ("192.0.2.7:65535", "192.0.2.7", 65535),
        ("[::1]:5555", "::1", 5555),
        ("tcp://[fe80::1%eth0]:5555", "fe80::1%eth0", 5555),
    ],
)
def test_a_target_is_split_into_host_and_port(text: str, host: str, port: int) -> None:
    assert split_target(text) == (host, port)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("printer", "no :port"),
        ("", "no :port"),
        ("udp://printer:1", "only tcp:// is spoken"),
        ("tcp://tcp://printer:1", "only tcp:// is spoken"),
        ("printer:", "'' is not a port"),
        ("printer:http", "'http' is not a port"),
        ("printer:+5", "is not a port"),
        ("printer:٣", "is not a port"),
        ("printer:0", "not in 1..65535"),
        ("printer:65536", "not in 1..65535"),
        ("printer:1000000", "is not a port"),
        (":5555", "neither an address nor a host name"),
        ("*:5555", "neither an address nor a host name"),
        ("-x:5555", "neither an address nor a host name"),
        ("a b:5555", "neither an address nor a host name"),
        ("::1:5555", "needs brackets"),
        ("[::1:5555", "its [ has no ]"),
        ("[::1]", "no :port after the ]"),
        ("[::1]5555", "no :port after the ]"),
    ],
)
def test_a_target_that_cannot_work_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".+") as raised:
        split_target(text)
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("127.0.0.1:5", "tcp://127.0.0.1:5"),
        ("tcp://127.0.0.1:00005", "tcp://127.0.0.1:5"),
        ("tcp://[0:0::1]:5", "tcp://[::1]:5"),
        ("tcp://[::ffff:192.0.2.7]:5", "tcp://192.0.2.7:5"),
        ("tcp://[2001:DB8::1%4]:5", "tcp://[2001:db8::1]:5"),
        ("tcp://[fe80::1%4]:5", "tcp://[fe80::1%4]:5"),
        ("tcp://[fe80::1%eth0.7]:5", "tcp://[fe80::1%eth0.7]:5"),
    ],
)
def test_an_endpoint_has_one_spelling(text: str, normal: str) -> None:
    assert str(Endpoint.parse(text)) == normal


@pytest.mark.parametrize(
    "text",
    [
        "printer:5555",  # a name would make us ask a name server
        "127.1:5555",
        "0.0.0.0:5555",
        "[::]:5555",
        "224.0.0.251:5353",
        "[ff02::fb%4]:5353",
        "255.255.255.255:5555",
        "[fe80::1]:5555",  # on which interface?
        "[fe80::1%]:5555",
        "[fe80::1%a b]:5555",
        "[fe80::1%averyverylongname]:5555",
        "[::ffff:0.0.0.0]:5555",
        "[::ffff:255.255.255.255]:5555",
    ],
)
def test_what_cannot_be_dialed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Endpoint.parse(text)


@given(st.text(max_size=60))
def test_any_text_is_an_endpoint_or_a_value_error(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except ValueError:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint


@given(ADDRESSES, PORTS)
def test_what_is_written_reads_back_the_same(host: str, port: int) -> None:
    text = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
    try:
        endpoint = Endpoint.parse(text)
    except ValueError:
        address = ip_address(host)
        mapped = getattr(address, "ipv4_mapped", None) or address
        assert (
            mapped.is_unspecified
            or mapped.is_multicast
            or address.is_link_local
            or str(mapped) == "255.255.255.255"
        )
        return
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert endpoint.port == port


def test_endpoints_are_kept_once_in_order_and_within_the_limit() -> None:
    texts = ["127.0.0.1:5", "tcp://127.0.0.1:5", "nonsense", "[::1]:5", "127.0.0.2:5"]
    assert dialable(texts, 2) == (("tcp://127.0.0.1:5", "tcp://[::1]:5"), 2)


def test_a_foreign_interface_makes_an_address_useless() -> None:
    texts = ["[fe80::1%eth0]:5", "192.0.2.7:5"]
    assert dialable(texts, 16) == (("tcp://[fe80::1%eth0]:5", "tcp://192.0.2.7:5"), 0)
    assert dialable(texts, 16, scoped=False) == (("tcp://192.0.2.7:5",), 1)


def test_a_long_list_of_nonsense_is_not_read_to_its_end() -> None:
    assert dialable(["x"] * 64 + ["192.0.2.7:5"], 16) == ((), 65)


def test_loopback_is_known_by_its_address() -> None:
    assert is_loopback("tcp://127.8.9.10:5")
    assert is_loopback("tcp://[::1]:5")
    assert not is_loopback("tcp://192.0.2.7:5")


def test_a_node_on_loopback_alone_is_on_this_machine() -> None:
    endpoints = ["tcp://[::1]:5", "tcp://127.0.0.1:5"]
    assert in_order(endpoints, ["127.0.0.1"]) == endpoints


def test_loopback_comes_first_for_a_node_that_shares_an_address_with_us() -> None:
    endpoints = ["tcp://192.0.2.2:5", "tcp://127.0.0.1:5"]
    assert in_order(endpoints, ["192.0.2.2"]) == ["tcp://127.0.0.1:5", "tcp://192.0.2.2:5"]


def test_loopback_comes_last_for_a_node_elsewhere() -> None:
    endpoints = ["tcp://127.0.0.1:5", "tcp://192.0.2.9:5"]
    assert in_order(endpoints, ["192.0.2.2"]) == ["tcp://192.0.2.9:5", "tcp://127.0.0.1:5"]


def test_a_docker_bridge_both_hosts_have_does_not_make_them_one_machine() -> None:
    endpoints = ["tcp://172.17.0.1:5", "tcp://127.0.0.1:5", "tcp://192.0.2.9:5"]
    assert in_order(endpoints, ["172.17.0.1", "192.0.2.2"]) == [
        "tcp://192.0.2.9:5",
        "tcp://172.17.0.1:5",
        "tcp://127.0.0.1:5",
    ]


def test_containers_on_one_bridge_are_near_each_other() -> None:
    endpoints = ["tcp://10.9.9.9:5", "tcp://172.17.0.2:5"]
    assert in_order(endpoints, ["172.17.0.3"]) == ["tcp://172.17.0.2:5", "tcp://10.9.9.9:5"]


def test_addresses_are_tried_from_near_to_unlikely() -> None:
    expected = [
        "tcp://192.0.2.9:5",  # in our subnet
        "tcp://10.1.2.3:5",
        "tcp://[2001:db8::9]:5",
        "tcp://[fe80::9%eth0]:5",
        "tcp://192.168.122.1:5",  # libvirt's bridge
        "tcp://127.0.0.1:5",
    ]
    assert in_order(expected[::-1], ["192.0.2.2"]) == expected


def test_our_own_prefix_is_near_in_ipv6_too() -> None:
    endpoints = ["tcp://10.1.2.3:5", "tcp://[fd00:1::9]:5"]
    assert in_order(endpoints, ["fd00:1::2"]) == endpoints[::-1]


@given(st.lists(st.tuples(ADDRESSES, PORTS), max_size=12), st.lists(ADDRESSES, max_size=4))
def test_ordering_loses_no_endpoint(pairs: list[tuple[str, int]], here: list[str]) -> None:
    texts = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in pairs]
    endpoints, _ = dialable(texts, 16)
    assert sorted(in_order(endpoints, here)) == sorted(endpoints)


def test_what_is_ours_too_does_not_lead_to_a_node_elsewhere() -> None:
    told = ["tcp://127.0.0.1:5", "tcp://172.17.0.1:5", "tcp://192.0.2.9:5", "tcp://[::1]:5"]
    assert leading_to(told, ["127.0.0.1", "172.17.0.1", "192.0.2.2"], []) == ["tcp://192.0.2.9:5"]


def test_what_is_ours_leads_to_a_node_on_this_machine() -> None:
    told = ["tcp://127.0.0.1:6", "tcp://192.0.2.2:6"]
    assert leading_to(told, ["127.0.0.1", "192.0.2.2"], ["tcp://192.0.2.2:5"]) == told


def test_our_own_endpoint_leads_to_nobody_else() -> None:
    assert leading_to(["tcp://127.0.0.1:5"], ["127.0.0.1"], ["tcp://127.0.0.1:5"]) == []


def test_link_local_addresses_lead_somewhere_where_there_are_no_others() -> None:
    told = ["tcp://[fe80::9%eth0]:5", "tcp://192.0.2.9:5"]
    assert leading_to(told, ["192.0.2.2"], []) == ["tcp://192.0.2.9:5"]
    assert leading_to(told[:1], ["192.0.2.2"], []) == ["tcp://[fe80::9%eth0]:5"]


def test_what_is_no_endpoint_leads_nowhere() -> None:
    assert leading_to(["tcp://0.0.0.0:5", "name:5", "?"], ["192.0.2.2"], []) == []
