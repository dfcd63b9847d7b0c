import sys
from types import FrameType

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from zmesh.discovery.candidates import (
    ITSELF,
    MDNS,
    PEER,
    SEED,
    STATIC,
    Candidate,
    CandidateTable,
    Change,
)
from zmesh.ids import NodeId

E1, E2, E3 = "tcp://192.0.2.1:5", "tcp://192.0.2.2:5", "tcp://192.0.2.3:5"


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(16, "big"))


A, B = node(1), node(2)


def table(candidates_max: int = 8, endpoints_max: int = 4) -> CandidateTable:
    return CandidateTable(candidates_max, endpoints_max)


def only(candidates: CandidateTable) -> Candidate:
    (candidate,) = candidates
    return candidate


def test_a_finding_is_new_then_the_same_then_changed() -> None:
    candidates = table()
    assert candidates.found(MDNS, A, "a", [E1]).seen[0][1] is Change.NEW
    assert candidates.found(MDNS, A, "a", [E1]).seen[0][1] is Change.SAME
    assert candidates.found(MDNS, A, "a", [E1, E2]).seen[0][1] is Change.CHANGED
    assert only(candidates).endpoints(4) == [E1, E2]


def test_what_a_source_says_replaces_what_it_said() -> None:
    candidates = table()
    candidates.found(MDNS, A, "a", [E1])
    candidates.found(MDNS, A, "b", [E2])
    assert only(candidates).endpoints(4) == [E2]
    assert only(candidates).name == "b"


def test_an_address_another_source_told_already_is_no_change() -> None:
    candidates = table()
    candidates.found(MDNS, A, "a", [E1])
    assert candidates.found(PEER, A, "", [E1]).seen[0][1] is Change.SAME
    assert only(candidates).endpoints(4) == [E1]
    assert only(candidates).name == "a"


def test_sources_vouch_apart_and_each_takes_back_its_own() -> None:
    candidates = table()
    candidates.found(MDNS, A, "", [E1])
    candidates.found(PEER, A, "", [E2])
    candidates.gone(MDNS, A)
    assert only(candidates).endpoints(4) == [E2]
    assert not only(candidates).is_lasting
    candidates.gone(MDNS, B)  # nobody knows it


def test_a_liar_cannot_push_out_the_addresses_of_other_sources() -> None:
    candidates = table(endpoints_max=4)
    candidates.found(PEER, A, "", [f"tcp://198.51.100.{last}:5" for last in range(9)])
    candidates.found(MDNS, A, "", [E1, E2])
    endpoints = only(candidates).endpoints(4)
    assert E1 in endpoints
    assert E2 in endpoints
    assert len(endpoints) == 4
    assert candidates.statistics().endpoints_dropped == 5


def test_names_and_foreign_interfaces_are_dropped_from_hints() -> None:
    candidates = table()
    assert candidates.found(PEER, A, "", ["evil.example:5", "[fe80::1%eth0]:5"]).seen == ()
    candidates.found(MDNS, A, "", ["evil.example:5", "[fe80::1%2]:5"])
    assert only(candidates).endpoints(4) == ["tcp://[fe80::1%2]:5"]
    assert candidates.statistics().endpoints_dropped == 3


def test_a_pinned_endpoint_is_a_candidate_of_its_own_until_somebody_answers() -> None:
    candidates = table()
    ((candidate, change),) = candidates.found(STATIC, None, "host:5", [E1]).seen
    assert change is Change.NEW
    assert candidate.node is None
    assert candidate.is_pinned
    assert candidates.identified(candidate, E1, A) == (candidate, None)
    assert candidates.get(A) is candidate


def test_every_address_of_a_name_is_a_candidate() -> None:
    # Three addresses of one name may be three nodes, as behind a headless service.
    candidates = table()
    seen = candidates.found(SEED, None, "seeds.example:5", [E1, E2]).seen
    assert [candidate.endpoints(4) for candidate, _ in seen] == [[E1], [E2]]


def test_a_pinned_endpoint_merges_into_the_node_that_answers() -> None:
    candidates = table()
    candidates.found(MDNS, A, "a", [E2])
    ((pinned, _),) = candidates.found(STATIC, None, "host:5", [E1]).seen
    known = candidates.get(A)
    assert known is not None
    assert candidates.identified(pinned, E1, A) == (known, pinned)
    assert only(candidates) is known
    assert known.endpoints(4) == [E1, E2]
    assert known.is_pinned
    candidates.gone(MDNS, A)
    assert known.endpoints(4) == [E1]


def test_a_pinned_endpoint_moves_to_the_node_that_answers_now() -> None:
    candidates = table()
    ((pinned, _),) = candidates.found(STATIC, None, "host:5", [E1]).seen
    candidates.identified(pinned, E1, A)
    candidates.found(MDNS, A, "a", [E2])
    moved = candidates.identified(pinned, E1, B)
    assert moved is not None
    owner, absorbed = moved
    assert owner is candidates.get(B)
    assert owner.endpoints(4) == [E1]
    assert absorbed is None
    assert pinned.endpoints(4) == [E2]
    assert not pinned.is_pinned


def test_another_node_at_an_announced_endpoint_is_no_match() -> None:
    candidates = table()
    candidates.found(MDNS, A, "a", [E1])
    assert candidates.identified(only(candidates), E1, B) is None
    assert candidates.get(B) is None
    assert only(candidates).endpoints(4) == [E1]


def test_a_name_that_resolves_elsewhere_gives_up_its_old_addresses() -> None:
    candidates = table()
    ((first, _), (second, _)) = candidates.found(STATIC, None, "host:5", [E1, E2]).seen
    candidates.identified(second, E2, A)
    findings = candidates.found(STATIC, None, "host:5", [E3])
    assert findings.gone == (first,)
    assert (second, Change.SAME) in findings.seen  # it lost something: look at it
    assert not second.is_pinned  # it is a node now; others may vouch for it
    assert [endpoint for each in candidates for endpoint in each.endpoints(4)] == [E3]


def test_an_address_two_names_share_stays_while_one_of_them_has_it() -> None:
    candidates = table()
    candidates.found(STATIC, None, "one:5", [E1])
    candidates.found(SEED, None, "two:5", [E1])
    assert len(candidates) == 1
    assert candidates.found(STATIC, None, "one:5", []).gone == ()
    assert len(candidates.found(SEED, None, "two:5", []).gone) == 1
    assert len(candidates) == 0


def test_seeds_are_the_nodes_that_answer_at_their_endpoints() -> None:
    candidates = table()
    ((seed, _), _) = candidates.found(SEED, None, "seeds:5", [E1, E2]).seen
    ((static, _),) = candidates.found(STATIC, None, "host:5", [E3]).seen
    candidates.identified(seed, E1, A)
    candidates.identified(static, E3, B)
    assert candidates.seeds() == [A]


def test_a_flood_waits_for_its_own_entries_to_fail() -> None:
    candidates = table(candidates_max=8)
    for number in range(1, 5):
        candidates.found(MDNS, node(number), "", [E1])
    for number in range(100, 1000):
        candidates.found(MDNS, node(number), "", [E2])
    assert all(candidates.get(node(number)) is not None for number in range(1, 5))
    assert candidates.statistics().refused == 900  # half of the table is all mDNS gets
    failed = candidates.get(node(4))
    assert failed is not None
    failed.failures = 1
    assert candidates.found(MDNS, node(1000), "", [E2]).gone == (failed,)


def test_who_is_turned_away_in_a_flood_costs_no_look_at_every_candidate() -> None:
    candidates = table(candidates_max=2000)
    candidates.found(PEER, A, "", [E1])
    for number in range(100, 1100):
        candidates.found(MDNS, node(number), "", [E2])
    looks = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal looks
        looks += event == "call" and frame.f_code.co_name == "is_pinned"

    sys.setprofile(count)
    try:
        candidates.found(MDNS, node(5000), "", [E2])
    finally:
        sys.setprofile(None)
    assert candidates.statistics().refused == 1
    assert looks == 0


def test_a_flood_of_one_source_leaves_room_for_another() -> None:
    candidates = table(candidates_max=8)
    for number in range(100, 200):
        candidates.found(MDNS, node(number), "", [E2])
    for number in range(1, 5):
        assert candidates.found(PEER, node(number), "", [E1]).seen
    assert len(candidates) == 8


def test_who_proved_itself_frees_its_place_among_the_strangers() -> None:
    candidates = table(candidates_max=4)
    candidates.found(MDNS, A, "", [E1])
    candidates.found(MDNS, B, "", [E1])
    assert candidates.found(MDNS, node(3), "", [E1]).seen == ()
    for candidate in candidates:
        candidates.proved(candidate)
    assert candidates.found(MDNS, node(3), "", [E1]).seen
    assert candidates.found(MDNS, node(4), "", [E1]).seen


def test_linked_and_pinned_candidates_are_never_displaced() -> None:
    candidates = table(candidates_max=2)
    ((pinned, _),) = candidates.found(STATIC, None, "host:5", [E1]).seen
    candidates.found(MDNS, A, "", [E2])
    linked = candidates.get(A)
    assert linked is not None
    linked.linked = True
    pinned.failures = linked.failures = 99
    assert candidates.found(PEER, B, "", [E3]).seen == ()
    assert candidates.ensure(B).gone == ()  # who stands in the door gets in all the same
    assert set(candidates) >= {pinned, linked}


def test_strangers_go_before_those_who_proved_themselves_and_the_worst_first() -> None:
    candidates = table(candidates_max=3)
    for number, source in ((1, MDNS), (2, PEER), (3, "other")):
        candidates.found(source, node(number), "", [E1])
    first, second, third = candidates
    candidates.proved(first)
    first.failures = 50
    second.failures = 2
    third.failures = 3
    assert candidates.found(ITSELF, node(4), "", [E1]).gone == (third,)
    assert candidates.found("another", node(5), "", [E1]).gone == (second,)
    assert candidates.found("yet another", node(6), "", [E1]).gone == (first,)


def test_a_pinned_endpoint_displaces_even_what_was_not_tried_yet() -> None:
    candidates = table(candidates_max=2)
    candidates.found(MDNS, A, "", [E1])
    candidates.found(PEER, B, "", [E1])
    first = candidates.get(A)
    assert candidates.found(STATIC, None, "host:5", [E3]).gone == (first,)
    assert candidates.statistics().displaced == 1


NODES = st.integers(0, 30).map(node)
ENDPOINTS = st.lists(
    st.integers(1, 12).map(lambda last: f"tcp://192.0.2.{last}:5"), max_size=6, unique=True
)


class Tables(RuleBasedStateMachine):
    """Any order of findings, identifications and failures keeps the table whole and bounded."""

    candidates_max = 6

    def __init__(self) -> None:
        super().__init__()
        self.table = CandidateTable(self.candidates_max, 4)
        self.pinned: dict[tuple[str, str], list[str]] = {}

    known = Bundle("known")

    @rule(target=known, source=st.sampled_from([MDNS, PEER, ITSELF]), who=NODES, where=ENDPOINTS)
    def hint(self, source: str, who: NodeId, where: list[str]) -> NodeId:
        before = set(self.table)
        findings = self.table.found(source, who, "", where)
        assert set(findings.gone) <= before
        assert not any(each.linked or each.is_pinned for each in findings.gone)
        return who

    @rule(source=st.sampled_from([STATIC, SEED]), name=st.sampled_from("xy"), where=ENDPOINTS)
    def pin(self, source: str, name: str, where: list[str]) -> None:
        self.pinned[source, name] = where[:4]
        self.table.found(source, None, name, where)

    @rule(source=st.sampled_from([MDNS, PEER, ITSELF]), who=known)
    def unvouch(self, source: str, who: NodeId) -> None:
        self.table.gone(source, who)

    @rule(who=NODES, index=st.integers(0, 20))
    def identify(self, who: NodeId, index: int) -> None:
        everybody = list(self.table)
        if not everybody:
            return
        candidate = everybody[index % len(everybody)]
        endpoints = candidate.endpoints(9)
        if not endpoints:
            return
        endpoint = endpoints[index % len(endpoints)]
        answer = self.table.identified(candidate, endpoint, who)
        if answer is None:
            assert candidate.node not in {None, who}
            assert endpoint not in candidate.pinned
        else:
            assert answer[0].node == who
            assert answer[1] is not answer[0]

    @rule(index=st.integers(0, 20), linked=st.booleans(), failures=st.integers(0, 3))
    def live(self, index: int, linked: bool, failures: int) -> None:
        everybody = list(self.table)
        if everybody:
            candidate = everybody[index % len(everybody)]
            candidate.linked = linked and sum(each.linked for each in everybody) < 2
            candidate.failures = failures

    @rule(index=st.integers(0, 20))
    def prove(self, index: int) -> None:
        everybody = list(self.table)
        if everybody:
            self.table.proved(everybody[index % len(everybody)])

    @invariant()
    def nodes_and_pins_lead_to_members(self) -> None:
        members = set(self.table)
        pins: dict[str, Candidate] = {}
        for member in members:
            if member.node is not None:
                assert self.table.get(member.node) is member
            else:
                assert len(member.pinned) == 1
            for endpoint in member.pinned:
                assert endpoint not in pins
                pins[endpoint] = member
        assert set(pins) == {each for where in self.pinned.values() for each in where}

    @invariant()
    def strangers_are_filed_under_the_one_source_that_tells_of_them(self) -> None:
        filed = {
            (source, serial, candidate)
            for source, strangers in self.table._strangers.items()
            for serial, candidate in strangers.items()
        }
        assert filed == {
            (next(iter(each.vouched)), each.serial, each)
            for each in self.table
            if not each.proven and len(each.vouched) == 1
        }

    @invariant()
    def the_table_is_bounded(self) -> None:
        # Those without endpoints are for the membership to forget.
        kept = [
            each for each in self.table if each.is_pinned or each.linked or not each.endpoints(1)
        ]
        assert len(self.table) <= self.candidates_max + len(kept)


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(NODES, ENDPOINTS), max_size=200))
def test_no_flood_displaces_what_was_there_first(flood: list[tuple[NodeId, list[str]]]) -> None:
    candidates = table(candidates_max=8)
    honest = NodeId(b"honest honest ho")
    candidates.found(MDNS, honest, "", [E1])
    for who, where in flood:
        candidates.found(MDNS, who, "", where)
        candidates.found(PEER, who, "", where)
    assert candidates.get(honest) is not None
    assert len(candidates) <= 8
