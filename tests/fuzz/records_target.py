"""What is announced by mDNS and told by peers of where nodes are: read, and put in the table."""

from contextlib import suppress
from typing import Final

from zeroconf import ServiceInfo

from tests.fuzz.script import Script
from zmesh.discovery.candidates import ITSELF, MDNS, PEER, STATIC, CandidateTable
from zmesh.discovery.endpoints import Endpoint, dialable, in_order, leading_to, split_target
from zmesh.discovery.records import SERVICE, Announced, node_of, read
from zmesh.ids import MeshTag, NodeId

MESH: Final = MeshTag(b"testmesh")
HERE: Final = ("192.168.1.7", "fe80::7%eth0", "127.0.0.1", "fd00::7")
HOSTS: Final = (
    *("192.168.1.9", "127.0.0.1", "::1", "fe80::9%eth0", "fe80::9", "0.0.0.0", "::", "fd00::9"),  # noqa: S104
    *("255.255.255.255", "224.0.0.1", "ff02::1", "::ffff:10.0.0.1", "172.17.0.1", "a.example"),
    *("", "[", "]", "%", "1.2.3", "01.2.3.4", "::%", "1:2", "fe80::1%eth0%eth1", "\u0661.2.3.4"),
)
PORTS: Final = (
    "5555",
    "0",
    "65535",
    "65536",
    "-1",
    "",
    "05",
    "\u0665",
    " 5",
    "5 ",
    "1e3",
    "5555/",
)
CANDIDATES_MAX: Final = 4
ENDPOINTS_MAX: Final = 4


def run(data: bytes) -> None:
    """Read records and endpoints, and hold the table to its bounds."""
    script = Script(data)
    table = CandidateTable(CANDIDATES_MAX, ENDPOINTS_MAX)
    while script.more:
        node = NodeId(bytes([script.below(16)]) * 16)
        match script.below(4):
            case 0:
                _read_text(script, table)
            case 1:
                source = script.choice((MDNS, PEER, ITSELF))
                table.found(source, node, script.text(), _endpoints(script))
            case 2:
                # What the operator wrote down is not bounded, so it is little.
                table.found(STATIC, None, script.choice(("a", "b")), _endpoints(script))
                table.gone(script.choice((MDNS, STATIC)), node)
            case _:
                _meet(script, table, node)
        _check(table)


def of_txt(txt: bytes) -> bytes:
    """Return the bytes that are read as one TXT record of node 1."""
    return bytes([1, 0, 0, 224, len(txt)]) + txt + bytes([0, 3, 0, 2, 3])


def _read_text(script: Script, table: CandidateTable) -> None:
    instance = script.text(("01" * 16, "zz" * 16, "01" * 15 + "0", "\uff10" * 32))
    node = node_of(f"{instance}.{SERVICE}")
    if node is None:
        return
    info = ServiceInfo(SERVICE, f"{node.hex()}.{SERVICE}", properties=script.data()[:4096])
    port = script.choice((5555, 0, None, 65535))
    addresses = [script.text(HOSTS) for _ in range(script.below(40))]
    announced = read([MESH], node, info.decoded_properties, port, addresses)
    if isinstance(announced, Announced):
        assert announced.node == node
        assert announced.name.isprintable(), "a name that moves a terminal's cursor"
        table.found(MDNS, announced.node, announced.name, announced.endpoints)


def _meet(script: Script, table: CandidateTable, node: NodeId) -> None:
    candidates = list(table)
    if not candidates:
        return
    candidate = script.choice(candidates)
    if script.flag():
        candidate.failures += 1
        candidate.linked = script.flag()
    elif candidate.pinned and script.flag():
        table.identified(candidate, next(iter(candidate.pinned)), node)
    elif not candidate.is_lasting and not candidate.linked:
        table.forget(candidate)


def _endpoints(script: Script) -> list[str]:
    return [_endpoint(script) for _ in range(script.choice((1, 2, 3, 24)))]


def _endpoint(script: Script) -> str:
    first = script.byte()
    if first < 32:
        return script.data().decode(errors="replace")
    host = script.choice(HOSTS)
    if first < 160:
        return f"tcp://[{host}]:5555" if ":" in host else f"tcp://{host}:5555"
    shape = script.choice(("tcp://{}:{}", "tcp://[{}]:{}", "{}:{}", "udp://{}:{}", "tcp://{}{}"))
    return shape.format(host, script.choice(PORTS))


def _check(table: CandidateTable) -> None:
    kept_for_sure = sum(candidate.is_pinned or candidate.linked for candidate in table)
    assert len(table) <= CANDIDATES_MAX + kept_for_sure, "more than there is room for"
    for candidate in table:
        endpoints = candidate.endpoints(ENDPOINTS_MAX)
        assert len(endpoints) <= ENDPOINTS_MAX
        for text in endpoints:
            assert str(Endpoint.parse(text)) == text, "an endpoint that is not as it is written"
            assert split_target(text)[1] == Endpoint.parse(text).port
        assert sorted(in_order(endpoints, HERE)) == sorted(endpoints)
        kept, dropped = dialable(endpoints, ENDPOINTS_MAX)
        assert (list(kept), dropped) == (endpoints, 0), "what was kept is not kept again"
        assert set(leading_to(endpoints, HERE, ())) <= set(endpoints)
    with suppress(ValueError):
        split_target("")
