"""Groups, fan-outs, surveys and what describes a node: the patterns about many peers, joined."""

from collections.abc import Callable, Iterable
from typing import assert_never

from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import earliest
from zmesh.events import (
    CancelFanOut,
    CancelSurvey,
    Describe,
    GatheringCommand,
    JoinGroup,
    LeaveGroup,
    StartFanOut,
    StartSurvey,
)
from zmesh.ids import NodeId
from zmesh.message import InterestKind, Ticket
from zmesh.options import NodeOptions
from zmesh.patterns.fan_out import FanOut
from zmesh.patterns.groups import Groups
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.redelivery import Redelivery
from zmesh.patterns.survey import Survey
from zmesh.reliable.link_events import Returned


class Gatherings:
    """What the engine tells the four of them, in one place."""

    def __init__(
        self,
        turn: Turn,
        interest: InterestTable,
        redelivery: Redelivery,
        options: NodeOptions,
        known: Callable[[NodeId, int, int], None],
    ) -> None:
        self._turn = turn
        self._interest = interest
        self._attributes: dict[str, str] = {}  # of this node, as told to others
        self.groups = Groups(turn, options)
        self.fan_out = FanOut(turn, interest, redelivery, options, known)
        self.survey = Survey(turn, interest)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return earliest(self.fan_out.deadline, self.survey.deadline)

    def on_timer(self) -> None:
        """Do what is due."""
        self.fan_out.on_timer()
        self.survey.on_timer()

    def on_command(self, command: GatheringCommand) -> None:
        """Do what the application asks for."""
        match command:
            case JoinGroup(group):
                self._interest.declare(InterestKind.GROUP, group)
                self.fan_out.on_member(self._turn.peers.local, (group,))
            case LeaveGroup(group):
                self._interest.retract(InterestKind.GROUP, group)
            case Describe(attributes):
                self._on_describe(attributes)
            case StartFanOut():
                self.fan_out.on_start(command)
            case CancelFanOut(number):
                self.fan_out.on_cancel(number)
            case StartSurvey():
                self.survey.on_start(command)
            case CancelSurvey(number):
                self.survey.on_cancel(number)
            case _:
                assert_never(command)

    def _on_describe(self, attributes: dict[str, str | None]) -> None:
        for key, text in attributes.items():
            before = self._attributes.pop(key, None)
            if before is not None and before != text:
                self._interest.retract(InterestKind.ATTRIBUTE, before)
            if text is not None:
                self._attributes[key] = text
                self._interest.declare(InterestKind.ATTRIBUTE, text)

    # Peers

    def on_here(self, peer: Peer, groups: Iterable[str]) -> None:
        """Take note that a node is in these groups now, newly or again."""
        if groups:
            self.fan_out.on_member(peer, groups)

    def on_away(self, peer: Peer, reason: str) -> None:
        """Take note that a node was lost, has left, or forgot its session."""
        self.fan_out.on_away(peer, reason)
        self.survey.on_away(peer, reason)

    def on_accepted(self, _: Peer, tickets: Iterable[Ticket]) -> None:
        """Note what a peer accepted."""
        self.fan_out.on_accepted(tickets)

    def on_returned(self, peer: Peer, returned: Returned) -> None:
        """Decide on what was not accepted, where it is one of ours."""
        self.fan_out.on_returned(peer, returned)
        self.survey.on_returned(returned)

    def close(self) -> None:
        """End all: the node closes."""
        self.fan_out.close()
        self.survey.close()
