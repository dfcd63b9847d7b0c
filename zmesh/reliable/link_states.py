"""Every state of a link and every way from one to another: the table that runs.

`docs/protocol.md` shows the diagram that `mermaid` draws from it.
"""

from enum import Enum


class LinkState(Enum):
    """Where a link stands. The session is not part of it: that outlives links."""

    IDLE = "idle"
    CALLING = "calling"
    ANSWERED = "answered"
    OPEN = "open"
    CLOSED = "closed"


class Trigger(Enum):
    """What moves a link from one state to another."""

    CALL = "path verified / send HELLO"
    HELLO = "HELLO accepted / send WELCOME"
    WELCOME = "WELCOME accepted / send PING"
    CONFIRM = "first packet of the link"
    DOWN = "path down, no answer, cut off"
    BYE = "BYE received"
    LEAVE = "closed here / send BYE"


TRANSITIONS: dict[tuple[LinkState, Trigger], LinkState] = {
    (LinkState.IDLE, Trigger.CALL): LinkState.CALLING,
    (LinkState.IDLE, Trigger.HELLO): LinkState.ANSWERED,
    (LinkState.IDLE, Trigger.LEAVE): LinkState.CLOSED,
    (LinkState.CALLING, Trigger.WELCOME): LinkState.OPEN,
    (LinkState.CALLING, Trigger.HELLO): LinkState.ANSWERED,
    (LinkState.CALLING, Trigger.DOWN): LinkState.IDLE,
    (LinkState.CALLING, Trigger.LEAVE): LinkState.CLOSED,
    (LinkState.ANSWERED, Trigger.CONFIRM): LinkState.OPEN,
    (LinkState.ANSWERED, Trigger.WELCOME): LinkState.OPEN,
    (LinkState.ANSWERED, Trigger.HELLO): LinkState.ANSWERED,
    (LinkState.ANSWERED, Trigger.DOWN): LinkState.IDLE,
    (LinkState.ANSWERED, Trigger.LEAVE): LinkState.CLOSED,
    (LinkState.OPEN, Trigger.HELLO): LinkState.ANSWERED,
    (LinkState.OPEN, Trigger.DOWN): LinkState.IDLE,
    (LinkState.OPEN, Trigger.BYE): LinkState.IDLE,
    (LinkState.OPEN, Trigger.LEAVE): LinkState.CLOSED,
}


def mermaid() -> str:
    """Return the table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    lines += [
        f"    {state.value} --> {target.value}: {trigger.value}"
        for (state, trigger), target in TRANSITIONS.items()
    ]
    lines.append("    closed --> [*]")
    return "\n".join(lines)
