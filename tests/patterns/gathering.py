"""What tests of groups, fan-outs and surveys share: their commands, and what became of them."""

from tests.engines import Host, World, request
from zmesh.actions import (
    CallFailure,
    FanOutChanged,
    FanOutEnded,
    MemberStanding,
    MemberState,
    SurveyAnswered,
    SurveyEnded,
)
from zmesh.events import (
    CancelFanOut,
    CancelSurvey,
    JoinGroup,
    LeaveGroup,
    StartFanOut,
    StartSurvey,
)
from zmesh.message import Kind, head

GROUP = "cameras"


def join(*hosts: Host, group: str = GROUP) -> None:
    for host in hosts:
        host.do(JoinGroup(group))


def leave(host: Host) -> None:
    host.do(LeaveGroup(GROUP))


class Report:
    """A fan-out of a host, as its application sees it."""

    def __init__(self, host: Host, number: int, text: str) -> None:
        self.host = host
        self.number = number
        self.text = text

    @property
    def standings(self) -> dict[str, MemberStanding]:
        """By name; of equal names the last one counts."""
        places: dict[int, MemberStanding] = {}
        for action in self.host.actions:
            if isinstance(action, FanOutChanged) and action.fan_out == self.number:
                places |= {standing.place: standing for standing in action.members}
        return {standing.name: standing for standing in places.values()}

    @property
    def ended(self) -> FanOutEnded | None:
        ends = [
            action for action in self.host.actions
            if isinstance(action, FanOutEnded) and action.fan_out == self.number
        ]  # fmt: skip
        assert len(ends) <= 1, "a fan-out ends once"
        told = [a for a in self.host.actions if getattr(a, "fan_out", None) == self.number]
        assert not ends or told[-1] is ends[0], "and nothing is told afterwards"
        return ends[0] if ends else None

    def named(self, state: MemberState) -> list[str]:
        return sorted(n for n, standing in self.standings.items() if standing.state is state)

    @property
    def accepted(self) -> list[str]:
        return self.named(MemberState.ACCEPTED)

    @property
    def failed(self) -> list[str]:
        return self.named(MemberState.FAILED)

    @property
    def pending(self) -> list[str]:
        return self.named(MemberState.PENDING)

    def cancel(self) -> None:
        self.host.do(CancelFanOut(self.number))


def fan_out(
    host: Host,
    text: str,
    *,
    timeout: float = 30.0,
    include_late: bool = False,
    ttl: float | None = None,
    group: str = GROUP,
    durable: bool = False,
) -> Report:
    host.calls += 1
    record = (head(Kind.GROUP), group, text.encode())
    deadline = host.world.queue.now + timeout
    wall_ms = host.world.wall_ms if durable else 0
    host.do(StartFanOut(host.calls, record, 4, deadline, include_late, ttl, durable, wall_ms))
    return Report(host, host.calls, text)


class Answers:
    """A survey of a host, as its application sees it."""

    def __init__(self, host: Host, number: int) -> None:
        self.host = host
        self.number = number

    @property
    def all(self) -> list[SurveyAnswered]:
        return [
            action for action in self.host.actions
            if isinstance(action, SurveyAnswered) and action.survey == self.number
        ]  # fmt: skip

    @property
    def replies(self) -> dict[str, str]:
        """What came, by the name of who replied."""
        replies = [each for each in self.all if each.failure is None]
        assert len({each.node for each in replies}) == len(replies), "each is asked once"
        return {each.name: bytes(each.record[2]).decode() for each in replies if each.record}

    @property
    def failures(self) -> dict[str, CallFailure]:
        return {each.name: each.failure for each in self.all if each.failure is not None}

    @property
    def ended(self) -> SurveyEnded | None:
        ends = [
            action for action in self.host.actions
            if isinstance(action, SurveyEnded) and action.survey == self.number
        ]  # fmt: skip
        assert len(ends) <= 1, "a survey ends once"
        told = [a for a in self.host.actions if getattr(a, "survey", None) == self.number]
        assert not ends or told[-1] is ends[0], "and nothing is told afterwards"
        return ends[0] if ends else None

    def cancel(self) -> None:
        self.host.do(CancelSurvey(self.number))


def survey(
    host: Host,
    service: str,
    text: str = "",
    *,
    timeout: float = 1.0,
    group: str | None = None,
    count: int | None = None,
    quorum: float | None = None,
) -> Answers:
    host.calls += 1
    deadline = host.world.queue.now + timeout
    host.do(StartSurvey(host.calls, request(service, text), 4, deadline, group, count, quorum))
    return Answers(host, host.calls)


def cameras(*names: str, world: World | None = None) -> tuple[World, list[Host]]:
    """Return a mesh of which all but the first are in the group."""
    world = world or World()
    hosts = world.mesh(*names)
    join(*hosts[1:])
    world.run(0.1)
    return world, hosts
