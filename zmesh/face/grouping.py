"""What an application does with many peers at once: groups, fan-outs, surveys, and presence."""

from abc import ABC, abstractmethod
from typing import Final

from zmesh.errors import InvalidOption
from zmesh.events import StartSurvey
from zmesh.face.assembly import Assembly
from zmesh.face.checks import (
    check_deadline,
    check_durable,
    check_message_options,
    check_yes_no,
)
from zmesh.face.fan_outs import FanOut
from zmesh.face.groups import Group
from zmesh.face.inbox import Settle, check_settle
from zmesh.face.outgoing import Headers
from zmesh.face.peers_view import Peer, peer_of
from zmesh.face.signing import signed
from zmesh.face.storing import wall_ms
from zmesh.face.surveys import Survey
from zmesh.face.verifying import Verify
from zmesh.message import PRIORITY_DEFAULT, Kind
from zmesh.options import NodeOptions
from zmesh.security.rules import Action
from zmesh.terms import Compression
from zmesh.wire.attributes import Scalar
from zmesh.wire.bodies import check_text

FAN_OUT_TIMEOUT: Final = 30.0
"""Seconds a fan-out lasts by default: a member has time to restart."""

SURVEY_TIMEOUT: Final = 1.0
"""Seconds a survey lasts by default: a person waits for it."""


class Grouping(ABC):
    """The part of a node that deals with groups and all providers of a service."""

    _options: NodeOptions

    @abstractmethod
    def _at_work(self) -> Assembly:
        """Return the node at work, or raise why there is none."""

    # Presence

    def describe(self, /, **attributes: Scalar | None) -> None:
        """Tell peers what describes this node, as `node.describe(room="kitchen", floor=2)`.

        They see it as `peer.attributes`. What was told before stays; None takes one back.

        Raises:
            InvalidOption: a key with "=", a value that is no text, number or bool, or too long.
            UsageError: more than `attributes_max` of them.
        """
        self._at_work().gatherings.groups.describe(attributes)

    # Groups

    def join(self, group: str, *, settle: Settle = "auto", verify: Verify | None = None) -> Group:
        """Be a member of a group, for as long as an `async with` block runs.

        ```python
        async with node.join("cameras") as group:
            async for message in group:
                install(message.body)
        ```

        What is fanned out to the group is read and settled as in `inbox`.

        Args:
            group: its name; it is there as soon as somebody is in it.
            settle: "auto" or "manual".
            verify: "required" for signed messages alone, "if-signed" where a signature that is
                there must hold; what the node says by default.

        Raises:
            InvalidOption: the name cannot work.
        """
        assembly = self._at_work()
        check_settle(settle)
        self._check_group(group)
        assembly.engine.guard.check_own(Action.JOIN, group)
        guard = assembly.verifying.guard(verify, f"group:{group}")
        return assembly.gatherings.groups.group(group, settle, guard)

    def members(self, group: str) -> list[Peer]:
        """Return who is in a group and there, this node included."""
        assembly = self._at_work()
        self._check_group(group)
        assembly.runner.flush()  # who joined in this very turn counts
        return [peer_of(view) for view in assembly.engine.members(group)]

    def fan_out(
        self,
        group: str,
        body: object,
        *,
        timeout: float = FAN_OUT_TIMEOUT,
        include_late: bool = False,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        ttl: float | None = None,
        compression: Compression | None = None,
        durable: bool | None = None,
        sign: bool | None = None,
    ) -> FanOut:
        """Send a message to every member of a group, and return a report that grows.

        ```python
        report = await node.fan_out("cameras", firmware, timeout=30)
        print(report.accepted, report.failed, report.pending)
        ```

        `async for outcome in node.fan_out(...)` tells each member's outcome as it comes. A member
        that is lost or restarts is waited for, and gets the message when it is back in the group.
        The report is final when all members have their outcome, or at the deadline.

        Args:
            group: its name.
            body: bytes, which pass untouched, or anything msgpack can carry; encoded once.
            timeout: seconds until the deadline; what has not arrived then is taken back.
            include_late: whether members that join before the deadline get it as well. Then the
                report is final at the deadline and not before.
            headers, priority, ttl, compression, sign: as for `send`.
            durable: whether it is on disk before it is sent, and goes on in another life of this
                node (`fan_outs`) until the deadline; by default where the node has `storage`.
                Without room there the report raises `JournalFull`; `await ....stored()` waits.

        Raises:
            NoMembers: nobody is in the group, and late members are not included.
            BodyNotEncodable, BodyTooLarge, InvalidOption: it cannot be sent.
            UsageError: too many are under way.
        """
        assembly = self._at_work()
        self._check_group(group)
        assembly.engine.guard.check_own(Action.FAN_OUT, group)
        check_deadline(timeout)
        check_yes_no("include_late", include_late)
        check_durable(durable)
        check_message_options(self._options.wire, priority, None, ttl)
        compressing = assembly.outgoing.compressing
        compressor = compressing.compressor(compression)
        record = assembly.outgoing.record(Kind.GROUP, group, body, headers)
        record = signed(record, assembly.outgoing.signing.for_target(sign, priority, None, ttl))
        record = compressing.now(record, compressor)
        assembly.runner.flush()  # who joined in this very turn counts
        if not include_late and not assembly.engine.members(group):
            raise assembly.no_members(group)
        deadline = assembly.runner.now + timeout
        is_durable = assembly.durable.is_wanted(durable)
        return assembly.gatherings.fan_outs.start(
            record,
            priority,
            deadline,
            include_late=include_late,
            ttl=ttl,
            wall_ms=wall_ms() if is_durable else None,
        )

    def fan_outs(self) -> list[FanOut]:
        """Return the fan-outs that are under way, those of earlier lives of this node first.

        With them are those of earlier lives that ended before anybody looked at them in this one.
        """
        return self._at_work().gatherings.fan_outs.all()

    # Surveys

    def survey(
        self,
        service: str,
        body: object = None,
        *,
        timeout: float = SURVEY_TIMEOUT,
        count: int | None = None,
        quorum: float | None = None,
        group: str | None = None,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        compression: Compression | None = None,
        sign: bool | None = None,
    ) -> Survey:
        """Ask every provider of a service, and read the replies that come in time.

        ```python
        async for reply in node.survey("status", timeout=1):
            print(reply.sender, reply.body)
        ```

        It ends with enough replies, when all have replied or cannot, or at the deadline; leaving
        the loop ends it as well, and handlers that are at work for it are cancelled. Providers
        without a reply are in the survey's `failures`.

        Args:
            service: its name; providers serve it as they do calls.
            body: bytes, or anything msgpack can carry.
            timeout: seconds until the deadline.
            count: so many replies are enough.
            quorum: replies of more than this share of those asked are enough: 0.5 for a majority.
            group: ask only the providers in this group.
            headers, priority, compression, sign: as for `call`.

        Raises:
            BodyNotEncodable, BodyTooLarge, InvalidOption: it cannot be asked.
            NoProvider, NoMembers: there is nobody to ask; raised by the loop.
        """
        assembly = self._at_work()
        assembly.check_call(service)
        check_deadline(timeout)
        if group is not None:
            self._check_group(group)
        if count is not None and (type(count) is not int or count < 1):
            raise InvalidOption("count", count, "1 or more, or None")
        if quorum is not None and not (isinstance(quorum, int | float) and 0 <= quorum < 1):
            raise InvalidOption("quorum", quorum, "a share from 0 to below 1, or None")
        check_message_options(self._options.wire, priority, None, None)
        compressing = assembly.outgoing.compressing
        compressor = compressing.compressor(compression)
        record = assembly.outgoing.record(Kind.REQUEST, service, body, headers)
        by = assembly.outgoing.signing.for_target(sign, priority, None, timeout)
        record = signed(record, by)
        record = compressing.now(record, compressor)
        start = StartSurvey(0, record, priority, 0.0, group, count, quorum)
        return Survey(assembly.gatherings.surveys, start, timeout)

    def _check_group(self, group: object) -> None:
        if not isinstance(group, str) or not group:
            raise InvalidOption("group", group, 'a name, as in node.join("cameras")')
        check_text("group", group, self._options.wire)
