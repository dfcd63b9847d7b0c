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
        services: Callable[[], list[str]],
        groups: Callable[[], set[str]],
    ) -> None:
        """Begin with none.

        Args:
            loop: that all calls come from.
            command: takes commands to the engine.
            settlements: takes the verdicts on what was fanned out to this node.
            options: bound how many there are.
            unheard: told of a fan-out that members did not accept, and nobody looked at.
            services: returns the services in sight.
            groups: returns the groups in sight.
        """
        self.groups = Groups(loop, command, settlements, options)
        self.fan_outs = FanOuts(command, options, unheard)
        self.surveys = Surveys(loop, command, options, services, self._missing)
        self._services = services
        self._groups_seen = groups

    def _missing(self, start: StartSurvey) -> ZmeshError:
        """Return why there is nobody a survey could ask."""
        groups = self._groups_seen()
        if start.group is not None and start.group not in groups:
            return NoMembers(start.group, sorted(groups))
        return NoProvider(start.record[1], self._services())

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
