import re
from pathlib import Path

import pytest

from zmesh.reliable.link_states import TRANSITIONS, LinkState, Trigger, mermaid

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"
BLOCK = re.compile(
    r"<!-- state diagram: begin -->\n```mermaid\n(.*?)\n```\n<!-- state diagram: end -->",
    re.DOTALL,
)


def reachable(start: LinkState) -> set[LinkState]:
    found = {start}
    while more := {to for (state, _), to in TRANSITIONS.items() if state in found} - found:
        found |= more
    return found


def test_every_state_can_be_reached_and_closed() -> None:
    assert reachable(LinkState.IDLE) == set(LinkState)
    for state in LinkState:
        assert LinkState.CLOSED in reachable(state)


def test_nothing_leads_out_of_closed_and_all_but_idle_can_go_down() -> None:
    assert not [state for state, _ in TRANSITIONS if state is LinkState.CLOSED]
    down = {state for state, trigger in TRANSITIONS if trigger is Trigger.DOWN}
    assert down == set(LinkState) - {LinkState.IDLE, LinkState.CLOSED}


@pytest.mark.parametrize("trigger", [Trigger.HELLO, Trigger.LEAVE])
def test_a_hello_and_a_close_are_taken_in_every_living_state(trigger: Trigger) -> None:
    states = {state for state, known in TRANSITIONS if known is trigger}
    assert states == set(LinkState) - {LinkState.CLOSED}


def test_a_trigger_leads_to_one_state_wherever_it_comes() -> None:
    targets = {
        trigger: {to for (_, t), to in TRANSITIONS.items() if t is trigger} for trigger in Trigger
    }
    assert all(len(states) == 1 for states in targets.values()), targets


def test_the_diagram_has_every_transition_of_the_table() -> None:
    lines = mermaid().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> idle"]
    assert lines[-1] == "    closed --> [*]"
    assert len(lines) == 3 + len(TRANSITIONS)
    assert "    calling --> open: WELCOME accepted / send PING" in lines


def test_the_diagram_in_the_protocol_is_the_table_that_runs() -> None:
    """To write the diagram anew, between its markers in `docs/protocol.md`:

    python -c "from tests.reliable.test_link_states import write; write()"
    """
    found = BLOCK.search(PROTOCOL.read_text())
    assert found is not None, "docs/protocol.md has no state diagram between its markers"
    assert found[1] == mermaid()


def write() -> None:
    """Put the diagram between the markers of `docs/protocol.md`."""
    block = (
        f"<!-- state diagram: begin -->\n```mermaid\n{mermaid()}\n```\n<!-- state diagram: end -->"
    )
    markers = r"<!-- state diagram: begin -->.*?<!-- state diagram: end -->"
    text = PROTOCOL.read_text()
    PROTOCOL.write_text(re.sub(markers, lambda _: block, text, flags=re.DOTALL))
