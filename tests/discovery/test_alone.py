from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from zmesh.discovery.alone import Surroundings, why_alone
from zmesh.events import PathCause

LOCAL = Surroundings(mesh="lab", mdns=True, mdns_addresses=("127.0.0.1",))
OFF = Surroundings(mesh="lab", mdns=False)


def test_loopback_alone_reaches_this_machine_alone() -> None:
    line = why_alone(LOCAL)
    assert line.startswith("no peers in mesh 'lab': ")
    assert "nobody on this machine" in line


def test_a_silent_network_suggests_static_peers() -> None:
    line = why_alone(replace(LOCAL, mdns_addresses=("192.0.2.7", "fe80::1")))
    assert "nobody on 192.0.2.7, fe80::1" in line
    assert "peers=" in line


def test_nothing_to_look_for_is_said() -> None:
    assert "mDNS is off and no peers are written down" in why_alone(OFF)


def test_no_interface_is_said() -> None:
    assert "no network interface is up" in why_alone(replace(LOCAL, mdns_addresses=()))


def test_broken_mdns_is_said() -> None:
    assert "(port taken)" in why_alone(replace(LOCAL, mdns_failure="port taken"))


def test_other_meshes_are_said() -> None:
    assert "2 other mesh(es) only" in why_alone(replace(LOCAL, other_meshes=2))
    assert "nodes of another mesh answer" in why_alone(replace(OFF, written_down=1, wrong_mesh=1))


def test_refused_dials_are_named_and_the_line_stays_short() -> None:
    causes = {f"tcp://192.0.2.{last}:5": PathCause.REFUSED for last in range(1, 9)}
    line = why_alone(replace(OFF, written_down=8, causes=causes))
    assert "tcp://192.0.2.1:5 (refused, nobody listens there)" in line
    assert "and 5 more" in line
    assert "192.0.2.4" not in line


def test_keys_that_do_not_match_are_named_apart_from_what_cannot_be_reached() -> None:
    causes = {
        "tcp://192.0.2.1:5": PathCause.WRONG_KEY,
        "tcp://192.0.2.2:5": PathCause.REFUSED,
    }
    line = why_alone(replace(OFF, written_down=2, causes=causes))
    assert "who listens at tcp://192.0.2.1:5 uses another mesh key" in line
    assert "give all nodes the same key=" in line
    assert "cannot reach tcp://192.0.2.2:5 (refused" in line
    assert "192.0.2.1:5 (" not in line
    only = {"tcp://192.0.2.1:5": PathCause.WRONG_KEY}
    assert "cannot reach" not in why_alone(replace(OFF, written_down=1, causes=only))


def test_unresolved_names_are_named() -> None:
    line = why_alone(replace(OFF, written_down=1, unresolved={"printer:5": "unknown host"}))
    assert "cannot use printer:5 (unknown host)" in line


def test_a_list_of_peers_that_is_this_node_is_said() -> None:
    assert "this node itself" in why_alone(replace(OFF, written_down=1, itself=1))
    assert "this node itself" not in why_alone(replace(OFF, written_down=2, itself=1))


def test_a_node_that_just_began_says_so() -> None:
    assert "still dialing" in why_alone(replace(OFF, written_down=1))


def test_stale_records_are_said() -> None:
    assert "out of date" in why_alone(replace(LOCAL, wrong_node=1))


def test_nodes_that_do_not_trust_each_other_are_told_whose_list_lacks_a_key() -> None:
    assert "are not listed here" in why_alone(replace(LOCAL, not_trusted=1))
    assert "do not list this node's key" in why_alone(replace(LOCAL, not_trusted_there=1))


def test_who_was_revoked_is_not_told_to_have_its_key_listed() -> None:
    told = why_alone(replace(LOCAL, not_trusted_there=2, revoked_there=2))
    assert "revoked this node's key" in told
    assert "do not list" not in told
    assert "do not list" in why_alone(replace(LOCAL, not_trusted_there=2, revoked_there=1))


@given(
    st.builds(
        Surroundings,
        mesh=st.text(max_size=9),
        mdns=st.booleans(),
        mdns_failure=st.sampled_from(["", "why"]),
        mdns_addresses=st.sampled_from([(), ("127.0.0.1",), ("192.0.2.7",)]),
        other_meshes=st.integers(0, 2),
        written_down=st.integers(0, 2),
        unresolved=st.dictionaries(st.just("name:5"), st.just("why")),
        causes=st.dictionaries(st.just("tcp://192.0.2.7:5"), st.sampled_from(PathCause)),
        itself=st.integers(0, 2),
        wrong_mesh=st.integers(0, 2),
        wrong_node=st.integers(0, 2),
        not_trusted=st.integers(0, 2),
        not_trusted_there=st.integers(0, 2),
    )
)
def test_there_is_always_one_line_with_a_reason(seen: Surroundings) -> None:
    line = why_alone(seen)
    assert len(line.splitlines()) == 1
    assert len(line) > len(f"no peers in mesh {seen.mesh!r}: ") + 10
