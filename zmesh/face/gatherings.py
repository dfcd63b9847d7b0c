"""Groups, fan-outs and surveys of one node, joined."""

import asyncio
from collections.abc import Callable
from typing import assert_never

from zmesh.actions import (
    DeliverGroup,
    FanOutAction,
    FanOutChanged,
    FanOutEnded,
    FanOutRestored,
    FanOutStored,
    SurveyAnswered,
    SurveyEnded,
)
from zmesh.errors import NoMembers, NoProvider, ZmeshError
from zmesh.events import Event, StartSurvey
from zmesh.face.fan_outs import FanOutReport, FanOuts
from zmesh.face.groups import Groups
from zmesh.face.surveys import Surveys
from zmesh.face.verdicts import Settlements
from zmesh.options import NodeOptions

GatheringAction = DeliverGroup | FanOutAction | SurveyAnswered | SurveyEnded
"""What the engine tells of them."""


class Gatherings:
    """What an assembly holds of the patterns about many peers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        command: Callable[[Event], None],
        settlements: Settlements,
        options: NodeOptions,
        unheard: Callable[[FanOutReport], None],
        no_provider: Callable[[str], NoProvider],
        no_members: Callable[[str], NoMembers],
    ) -> None:
        """Begin with none.

        Args:
            loop: that all calls come from.
            command: takes commands to the engine.
            settlements: takes the verdicts on what was fanned out to this node.
            options: bound how many there are.
            unheard: told of a fan-out that members did not accept, and nobody looked at.
            no_provider: tells why nobody provides a service.
            no_members: tells why nobody is in a group.
        """
        self.groups = Groups(loop, command, settlements, options)
        self.fan_outs = FanOuts(command, options, unheard)
        self.surveys = Surveys(loop, command, options, no_provider, self._missing)
        self._no_provider = no_provider
        self._no_members = no_members

    def _missing(self, start: StartSurvey) -> ZmeshError:
        """Return why there is nobody a survey could ask."""
        if start.group is not None:
            missing = self._no_members(start.group)
            if start.group not in missing.known:
                return missing
        return self._no_provider(start.record[1])

    def perform(self, action: GatheringAction) -> None:
        """Hand the engine's news to whoever waits for it."""
        match action:
            case DeliverGroup(deliveries):
                self.groups.deliver(deliveries)
            case FanOutStored() | FanOutRestored() | FanOutChanged() | FanOutEnded():
                self.fan_outs.perform(action)
            case SurveyAnswered():
                self.surveys.answered(action)
            case SurveyEnded():
                self.surveys.ended(action)
            case _:
                assert_never(action)

    def close(self, failure: str | None) -> None:
        """End all: loops, waiting, and what is under way; a failure is told."""
        self.groups.close(failure)
        self.fan_outs.close(failure or "node")
        self.surveys.close(failure or "node")
