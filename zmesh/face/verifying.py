"""Verifying what comes: who signed it, whether it came before, and what a handler asks for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Literal, get_args

from zmesh.actions import Audited, AuditKind, Delivery
from zmesh.errors import InvalidOption, ProtocolError
from zmesh.events import KeepReplays
from zmesh.ids import TOKEN_BYTES, JournalId, NodeId
from zmesh.message import COMPRESSED, Kind, Outcome, Record, Tag, extra
from zmesh.options import NodeOptions
from zmesh.security.replays import ReplayTable, Verdict
from zmesh.security.signing import Addressing, Roots, Signature
from zmesh.security_errors import SIGNATURE_REFUSED
from zmesh.storage import Entry, EntryKind
from zmesh.wire.compression import decompressed

Verify = Literal["required", "if-signed"]
"""`required`: what is not signed is refused. `if-signed`: a signature that is there must hold."""

UNSIGNED: Final = "it is not signed, and only signed messages are taken here"
DOES_NOT_HOLD: Final = "its signature does not hold"
EXPIRED: Final = "its signature has expired"
NOT_YET: Final = "it was signed in the future: the clocks differ by more than clock_tolerance"
REPLAYED: Final = "it came before"
TOO_OLD: Final = "it was signed before what is remembered, and may have come before"

Refusal = tuple[Outcome, str]

BEGUN_MIN: Final = 256
"""Messages a handler has begun with, before those with an outcome are sorted out."""

_KIND: Final = 0b1111

_WHOSE: Final = ""
"""In the place of a handler: of which journal this is the memory, and until when parts miss."""


def check_verify(verify: object) -> None:
    """Raise InvalidOption where it is nothing that can be asked of signatures."""
    if verify is not None and verify not in get_args(Verify):
        raise InvalidOption("verify", verify, '"required" or "if-signed"')


@dataclass(slots=True)
class Signed:
    """A verified signature of a record that was delivered, and who here has begun with it."""

    node: NodeId
    public: bytes
    journal: JournalId
    counter: int
    signed_ms: int
    until_ms: int  # it may be replayed until then
    is_sure: bool  # it came from its signer itself, over a link that proves it
    scopes: list[str] = field(default_factory=list)


class Verifying:
    """Verifies for all handlers of one node.

    Args:
        node: its id.
        name: its name.
        options: `clock_tolerance`, and what bounds the memories.
        default: what handlers ask for that say nothing.
        wall_ms: returns what the wall clock reads.
        audit: told of what is refused.
        is_storing: whether there is another life.
        is_proved: whether links prove who is at their other end.
    """

    def __init__(
        self,
        node: NodeId,
        name: str,
        options: NodeOptions,
        default: Verify,
        wall_ms: Callable[[], int],
        audit: Callable[[Audited], None],
        *,
        is_storing: bool,
        is_proved: bool,
    ) -> None:
        self.verified = 0
        self._node = node.hex()
        self._name = name
        self._default = default
        self._tolerance_ms = round(options.clock_tolerance * 1000)
        self._wall_ms = wall_ms
        self._audit = audit
        self._is_storing = is_storing
        self._is_proved = is_proved
        lost_ms = 0 if is_storing else wall_ms()
        self.table = ReplayTable(options.replay_blocks_max, options.replay_windows_max, lost_ms)
        self.roots = Roots(options.signed_batches_max)
        self._own = count(1)

    def guard(self, verify: Verify | None, scope: str | None = None) -> "Guard":
        """Return what looks at messages for one handler.

        Args:
            verify: what it asks for; None: as the node does.
            scope: what it is called in all lives; None where each is another one.

        Raises:
            InvalidOption: it asks for what nobody can verify.
        """
        check_verify(verify)
        is_required = (verify or self._default) == "required"
        if scope is None:
            return Guard(self, f"#{next(self._own)}", is_kept=False, is_required=is_required)
        return Guard(self, scope, is_kept=True, is_required=is_required)

    def restore(
        self, entries: list[Entry], journal: JournalId, incarnation: int
    ) -> KeepReplays | None:
        """Take what another life kept; return what to keep of that, if anything.

        A copy of a journal knows nothing of what came since, and a rescue may have lost some: both
        have another journal id than they say themselves.
        """
        told = next((entry.value for entry in entries if entry.name == _WHOSE), None)
        lost_ms = 0
        if told is not None and told[:TOKEN_BYTES] == journal:
            lost_ms = int.from_bytes(told[TOKEN_BYTES:])
        elif incarnation > 1:
            lost_ms = self._wall_ms()
        kept = ((each.name, each.key, each.value) for each in entries if each.name != _WHOSE)
        self.table.restore(kept, lost_ms, self._wall_ms())
        value = journal + lost_ms.to_bytes(8)
        if value == told:
            return None
        return KeepReplays((Entry(EntryKind.REPLAYS, _WHOSE, b"", value),))

    # What comes

    def look(self, delivery: Delivery, index: int, data: object) -> Signed | str:
        """Return the verified signature of a record, or why it does not hold.

        Several handlers may get one delivery: it is verified for the first of them.
        """
        if delivery.signed is None:
            delivery.signed = {}
        known = delivery.signed.get(index)
        if known is None:
            known = delivery.signed[index] = self._look(delivery, delivery.records[index], data)
        if not isinstance(known, Signed | str):
            raise TypeError("a delivery has something else in the place of signatures")
        return known

    def _look(self, delivery: Delivery, record: Record, data: object) -> Signed | str:
        signature = Signature.of(data)
        if signature is None or not self._holds(delivery, record, signature):
            return DOES_NOT_HOLD
        now_ms = self._wall_ms()
        until_ms = signature.expires_ms + self._tolerance_ms
        if now_ms > until_ms:
            return EXPIRED
        if signature.signed_ms > now_ms + self._tolerance_ms:
            return NOT_YET
        self.verified += 1
        node = signature.node
        is_sure = self._is_proved and node == delivery.source.node
        return Signed(
            node, signature.public, signature.journal, signature.counter, signature.signed_ms,
            until_ms, is_sure,
        )  # fmt: skip

    def _holds(self, delivery: Delivery, record: Record, signature: Signature) -> bool:
        if delivery.source.lane != signature.lane and not _is_of_log(record):
            return False
        match signature.addressing:
            case Addressing.NODE:
                to = self._node
            case Addressing.NAME:
                to = self._name
            case Addressing.TARGET:
                to = record[1]
        is_direct = record[0] & _KIND == Kind.DIRECT
        if is_direct is (signature.addressing is Addressing.TARGET):
            return False
        body = record[2]
        if record[0] >= COMPRESSED:
            try:
                body = decompressed(record)
            except ProtocolError:
                return False
        return signature.holds(record, to, body, self.roots)

    def tell(self, delivery: Delivery, index: int, why: str) -> None:
        """Have the audit log know that a message was refused."""
        kind = AuditKind.REPLAYED if why in (REPLAYED, TOO_OLD) else AuditKind.BAD_SIGNATURE
        record = delivery.records[index]
        what = Kind(record[0] & _KIND).name.lower() if record[0] & _KIND in _KINDS else "message"
        what = "direct message" if what == "direct" else what
        on = f" for {record[1]!r}" if record[1] else ""
        self._audit(Audited(kind, delivery.sender_name, "", f"a {what}{on}: {why}"))

    # What becomes of it

    def settled(self, delivery: Delivery, first: int, last: int, outcome: Outcome) -> None:
        """Note the outcome of records (by indexes) for all who began with them."""
        signed = delivery.signed
        if signed is None:
            return
        for index in (first,) if first == last else range(first, last + 1):
            each = signed.get(index)
            if isinstance(each, Signed) and each.scopes:
                scopes, each.scopes = each.scopes, []
                self._end(each, scopes, outcome)

    def _end(self, signed: Signed, scopes: list[str], outcome: Outcome) -> None:
        # What one of several handlers rejected does not come again; what the only one rejected
        # may, from the dead letters.
        is_over = outcome is Outcome.ACCEPTED or (outcome is Outcome.REJECTED and len(scopes) > 1)
        origin, now_ms = (signed.node, signed.journal), self._wall_ms()
        for scope in scopes:
            if is_over:
                self.table.finish(
                    scope, origin, signed.counter, signed.signed_ms, signed.until_ms, now_ms
                )
            else:
                self.table.forget(scope, origin, signed.counter, now_ms)

    def take_changes(self) -> KeepReplays | None:
        """Return what another life must know, to be ordered before verdicts are passed on."""
        changes = self.table.take_changes()
        if not changes or not self._is_storing:
            return None
        return KeepReplays(
            tuple(
                Entry(EntryKind.REPLAYS, change.scope, change.key, change.value or b"")
                for change in changes
            )
        )

    def release(self, signed: Signed, scope: str) -> None:
        """Note that a handler gave back what it had begun with, and does not settle it."""
        if scope in signed.scopes:
            signed.scopes.remove(scope)
            origin = (signed.node, signed.journal)
            self.table.forget(scope, origin, signed.counter, self._wall_ms())


_KINDS: Final = frozenset(map(int, Kind))


def _is_of_log(record: Record) -> bool:
    """Return whether it comes on the lane of its log, whatever it was published on."""
    is_publication = record[0] & _KIND == Kind.PUBLICATION
    return is_publication and extra(record, Tag.FOLLOWER) is not None


class Guard:
    """Looks at the messages of one handler before it has them."""

    __slots__ = ("_begun", "_begun_max", "_is_kept", "_verifying", "is_required", "scope")

    def __init__(
        self, verifying: Verifying, scope: str, *, is_kept: bool, is_required: bool
    ) -> None:
        self.is_required = is_required
        self.scope = scope
        self._is_kept = is_kept
        self._verifying = verifying
        self._begun: list[Signed] = []  # some of it has its outcome
        self._begun_max = BEGUN_MIN

    def refusal(self, delivery: Delivery, index: int) -> Refusal | None:
        """Return the outcome of a message that is not to be handled; None where it is."""
        record = delivery.records[index]
        data = None if len(record) == 3 else extra(record, Tag.SIGNATURE)
        if data is None:
            return self._refuse(delivery, index, UNSIGNED) if self.is_required else None
        signed = self._verifying.look(delivery, index, data)
        if isinstance(signed, str):
            return self._refuse(delivery, index, signed)
        if self.scope in signed.scopes:
            return None  # it was taken before, and put back
        verdict = self._verifying.table.begin(
            self.scope,
            (signed.node, signed.journal),
            signed.counter,
            signed.signed_ms,
            is_kept=self._is_kept,
            is_sure=signed.is_sure,
        )
        if verdict is Verdict.NEW:
            signed.scopes.append(self.scope)
            self._note_begun(signed)
            return None
        if verdict is Verdict.REPLAYED and self._is_told_again(delivery, record, signed):
            return Outcome.ACCEPTED, ""
        why = REPLAYED if verdict is Verdict.REPLAYED else TOO_OLD
        return self._refuse(delivery, index, why)

    def _is_told_again(self, delivery: Delivery, record: Record, signed: Signed) -> bool:
        """Return whether a sender that has to hear of it does so, and nothing more happens."""
        if extra(record, Tag.RETAINED) is not None:
            return True  # who joins again is sent again what is kept
        if record[0] & _KIND == Kind.REQUEST or extra(record, Tag.STORED) is None:
            return False
        # A crash may come after this memory is on disk, and before the outcome is.
        origin = (signed.node, signed.journal)
        is_its_own = delivery.source.node == signed.node
        return is_its_own and self._verifying.table.was_accepted(
            self.scope, origin, signed.counter
        )

    def _refuse(self, delivery: Delivery, index: int, why: str) -> Refusal:
        self._verifying.tell(delivery, index, why)
        return Outcome.REJECTED, SIGNATURE_REFUSED + why

    def _note_begun(self, signed: Signed) -> None:
        self._begun.append(signed)
        if len(self._begun) > self._begun_max:
            self._begun = [each for each in self._begun if self.scope in each.scopes]
            self._begun_max = max(BEGUN_MIN, 2 * len(self._begun))

    def give_back(self) -> None:
        """Note that all without outcome goes back, and nothing more is settled."""
        begun, self._begun = self._begun, []
        for signed in begun:
            self._verifying.release(signed, self.scope)

    def close(self) -> None:
        """Forget what this handler accepted, where no other is the same."""
        if not self._is_kept:
            self._verifying.table.drop(self.scope)
