from zmesh.testing.generator import generate
from zmesh.testing.scenario import Fault, FaultKind


def test_a_seed_is_always_the_same_scenario() -> None:
    assert generate(11) == generate(11)
    assert generate(11) != generate(12)
    assert generate(11, "node") != generate(11, "link")


def test_some_seeds_are_calm_and_every_fault_comes_up() -> None:
    scenarios = [generate(seed, "node") for seed in range(400)]
    assert 20 < sum(scenario.calm for scenario in scenarios) < 200
    kinds = {fault.kind for scenario in scenarios for fault in scenario.faults}
    kinds |= {fault.kind for seed in range(400) for fault in generate(seed, "durable").faults}
    kinds |= {fault.kind for seed in range(400) for fault in generate(seed).faults}
    assert kinds == set(FaultKind)


def test_every_limit_is_consistent_with_the_others() -> None:
    for seed in range(200):
        link = generate(seed).link
        assert link.window_bytes >= 4 * link.fragment_bytes
        assert link.window_messages <= link.window_messages_max
        assert link.ranges_max > link.window_messages_max // 2


def test_a_scenario_is_quiet_after_its_last_event() -> None:
    scenario = generate(3)
    assert all(fault.at + fault.seconds <= scenario.quiet_from for fault in scenario.faults)
    assert all(each.at <= scenario.quiet_from for each in scenario.submissions)


def test_a_fault_strikes_a_pair_or_all_that_one_host_has_to_do_with() -> None:
    crash = Fault(0.0, FaultKind.CRASH, 1, 2, 0.0)
    reset = Fault(0.0, FaultKind.RESET, 1, 2, 0.0)
    assert crash.strikes(0, 1)
    assert not crash.strikes(0, 2)
    assert reset.strikes(2, 1)
    assert not reset.strikes(0, 1)


def test_nodes_with_disks_send_by_name_and_by_id_what_is_stored_and_what_is_not() -> None:
    scenarios = [generate(seed, "durable") for seed in range(100)]
    hosts = [host for scenario in scenarios for host in scenario.hosts]
    assert all(scenario.hosts[0].has_disk for scenario in scenarios)
    assert {host.has_disk for host in hosts} == {True, False}
    assert not any(host.has_disk and host.fresh_identity for host in hosts)
    assert any(host.disk_bytes is not None for host in hosts)
    sent = [each for scenario in scenarios for each in scenario.submissions]
    stored = [each for each in sent if each.durable]
    assert len(sent) / 2 < len(stored) < len(sent)
    assert {each.by_name for each in stored} == {True, False}
    assert any(each.key for each in stored)
    assert any(each.ttl for each in stored)
    assert len({each.lane for each in stored}) > 3


def test_a_quarter_of_the_seeds_with_disks_have_logs_that_subscriptions_with_names_read() -> None:
    scenarios = [generate(seed, "durable") for seed in range(160)]
    published = [
        scenario
        for scenario in scenarios
        if any(each.kind == "publish" and each.durable for each in scenario.submissions)
    ]
    followed = [scenario for scenario in published if any(h.followed for h in scenario.hosts)]
    assert 20 < len(followed) <= len(published) <= 40
    assert {scenario.log_count for scenario in published} == {None, 8}
    readers = [host for scenario in scenarios for host in scenario.hosts if host.followed]
    assert all(host.has_disk for host in readers)
