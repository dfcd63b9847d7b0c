import pytest

import zmesh
from zmesh.actions import CallFailure, PeerState
from zmesh.errors import UsageError
from zmesh.testing.mesh import SimulatedMesh
from zmesh.testing.network import Weather


def joined(*names: str, seed: int = 0) -> SimulatedMesh:
    mesh = SimulatedMesh(*names, seed=seed)
    mesh.run_until_joined()
    return mesh


def test_nodes_find_each_other_and_answer_calls() -> None:
    mesh = SimulatedMesh("a", "b")
    mesh["b"].service("double")(lambda body: 2 * int(str(body)))
    mesh.run_until_joined()
    mesh.run(0.1)
    call = mesh["a"].call("double", 21)
    assert not call.done
    with pytest.raises(UsageError, match="still open"):
        _ = call.reply
    mesh.run_until(lambda: call.done)
    assert call.reply == 42
    assert mesh["a"].peers == {"b": PeerState.ALIVE}


def test_what_handlers_raise_is_heard() -> None:
    mesh = joined("a", "b")

    def refuse(_: object) -> object:
        raise zmesh.Reject("never")

    def fail(_: object) -> object:
        raise ValueError("broken")

    mesh["b"].service("refuse")(refuse)
    mesh["b"].service("fail")(fail)
    mesh.run(0.1)
    calls = [mesh["a"].call(service, None) for service in ("refuse", "fail", "missing")]
    mesh.run_until(lambda: all(call.done for call in calls))
    assert [call.failure for call in calls] == [
        CallFailure.REJECTED, CallFailure.REMOTE_ERROR, CallFailure.NO_PROVIDER,
    ]  # fmt: skip
    with pytest.raises(UsageError, match="never"):
        _ = calls[0].reply
    with pytest.raises(UsageError, match="ValueError: broken"):
        _ = calls[1].reply


def test_messages_and_publications_survive_bad_weather() -> None:
    mesh = joined("a", "b")
    inbox, heard = list[object](), list[object]()
    mesh["b"].inbox()(inbox.append)
    mesh["b"].subscription("news.>")(heard.append)
    mesh.run(0.1)
    mesh.weather("a", "b", Weather(loss=0.3, duplication=0.3, reordering=0.3))
    tickets = [mesh["a"].send("b", number) for number in range(30)]
    tickets += [mesh["a"].publish("news.local", number) for number in range(30)]
    mesh.run_until(lambda: all(ticket.done for ticket in tickets))
    assert inbox == heard == list(range(30))
    assert mesh.violations == []


def test_a_handler_that_fails_is_given_the_message_again() -> None:
    mesh = joined("a", "b")
    seen = list[object]()

    def second_time_lucky(body: object) -> object:
        seen.append(body)
        if len(seen) == 1:
            raise OSError
        return None

    mesh["b"].inbox()(second_time_lucky)
    ticket = mesh["a"].send("b", "x")
    mesh.run_until(lambda: ticket.done)
    assert (seen, ticket.accepted) == (["x", "x"], 1)


def test_a_crashed_node_is_seen_to_go_and_comes_back_with_its_handlers() -> None:
    mesh = joined("a", "b")
    mesh["b"].service("ping")(lambda _: "pong")
    mesh.run(0.1)
    mesh["b"].crash(restart_after=5.0)
    assert not mesh["b"].alive
    with pytest.raises(UsageError, match="dead"):
        mesh["b"].call("ping", None)
    mesh.run(1.0)
    assert mesh["a"].peers == {}
    mesh.run_until_joined()
    mesh.run(5.0)
    mesh.run_until_joined()
    mesh.run(0.1)
    call = mesh["a"].call("ping", None)
    mesh.run_until(lambda: call.done)
    assert call.reply == "pong"


def test_a_blocked_node_is_busy_and_a_sleeping_one_returns() -> None:
    mesh = joined("a", "b")
    mesh["b"].stall(20.0)
    mesh.run(15.0)
    assert mesh["a"].peers == {"b": PeerState.BUSY}
    mesh.run(10.0)
    assert mesh["a"].peers == {"b": PeerState.ALIVE}
    mesh["b"].suspend(5.0)
    mesh.run_until_joined()


@pytest.mark.parametrize("fault", ["partition", "cut", "reset", "black_hole"])
def test_what_was_sent_into_a_fault_arrives_after_it(fault: str) -> None:
    mesh = joined("a", "b")
    inbox = list[object]()
    mesh["b"].inbox()(inbox.append)
    mesh.run(1.0)
    if fault == "partition":
        mesh.partition("a", "b", seconds=5.0)
    elif fault == "cut":
        mesh.cut("a", "b", seconds=5.0)
    elif fault == "reset":
        mesh.reset("a", "b")
    else:
        mesh.black_hole("a", "b")
    ticket = mesh["a"].send("b", "still there?")
    mesh.run_until(lambda: ticket.done)
    assert inbox == ["still there?"]
    assert ticket.accepted == 1


def test_time_that_runs_out_is_told() -> None:
    mesh = SimulatedMesh("a")
    with pytest.raises(TimeoutError):
        mesh.run_until(lambda: False, within=1.0)
    mesh.run(2.0)
    assert mesh.now >= 2.0


def test_names_must_differ() -> None:
    with pytest.raises(UsageError):
        SimulatedMesh("a", "a")
    with pytest.raises(UsageError):
        SimulatedMesh()


def test_the_same_seed_takes_the_same_time() -> None:
    times = set()
    for _ in range(2):
        mesh = SimulatedMesh("a", "b", "c", seed=3)
        mesh.run_until_joined()
        times.add(mesh.now)
    assert len(times) == 1
