"""Signed messages, true ones and changed ones: what is taken was signed so, and is taken once.

The scene knows whatever was signed, by its meaning and not by its bytes, and which handler
accepted what, in all lives of the node that verifies.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.fuzz.script import Script
from zmesh.actions import Audited, AuditKind, Delivery
from zmesh.events import KeepReplays, Source
from zmesh.face.verifying import Guard, Signed, Verifying
from zmesh.ids import JournalId
from zmesh.message import (
    COMPRESSED,
    Algorithm,
    Encoding,
    Extras,
    ExtraValue,
    Kind,
    Outcome,
    Record,
    Tag,
    encoding_of,
    extra,
    extras_of,
    head,
    with_extra,
    without_extra,
)
from zmesh.options import NodeOptions
from zmesh.security.node_key import NodeKey
from zmesh.security.signing import Addressing, Signature, Signer
from zmesh.storage import Entry, EntryKind
from zmesh.wire.compression import Compressor, decompressed

OPTIONS: Final = NodeOptions(
    replay_blocks_max=6, replay_windows_max=3, signed_batches_max=2, clock_tolerance=60.0
)
"""Small, so that scripts reach them."""

STEPS_MAX: Final = 200
SIGNED_MAX: Final = 32
"""Messages that are remembered, to be sent again."""

OPEN_MAX: Final = 32
NUMBER_MAX: Final = 2**64 - 1
START_MS: Final = 1_800_000_000_000

ME: Final = NodeKey.of(b"me" * 16)
NAME: Final = "bob"
SIGNERS: Final = tuple(NodeKey.of(bytes([number]) * 32) for number in range(3))
JOURNALS: Final = tuple(JournalId(bytes([number]) * 16) for number in range(8))
OWN_JOURNALS: Final = (JournalId(b"m" * 16), JournalId(b"n" * 16))  # of a copy is the second
DESTINATIONS: Final = {
    Addressing.TARGET: (None,),
    Addressing.NODE: (ME.id.hex(), ME.id.hex(), SIGNERS[0].id.hex(), ""),
    Addressing.NAME: (NAME, NAME, "ada", ""),
}
KINDS: Final = (Kind.JOB, Kind.PUBLICATION, Kind.REQUEST, Kind.GROUP, Kind.STREAM)
SCOPES: Final = ("queue:jobs", "subscription:s", None)
_COMPRESSOR: Final = Compressor(Algorithm.ZSTD, 1)
_TOLERANCE_MS: Final = round(OPTIONS.clock_tolerance * 1000)

Meaning = tuple[object, ...]
"""All of a message that its signature vouches for."""

Handled = tuple[str, bytes, bytes, int]
"""Scope, signer, journal and counter of what a handler has, or had."""


def run(data: bytes) -> None:
    """Do to a node that verifies what the script says."""
    script = Script(data)
    scene = _Scene(script)
    for _ in script.turns(STEPS_MAX):
        scene.step()
        scene.check()


def of_signature(record: Record, lane: int, data: bytes) -> bytes:
    """Return the bytes that are read as a node that is told this signature by a stranger."""
    target = record[1].encode()
    step = bytes([10, lane, record[0], len(target)]) + target
    told = bytes([len(record[2])]) + bytes(record[2]) + len(data).to_bytes(2, "big") + data
    return b"\x01" + step + told


@dataclass(slots=True)
class _Sent:
    """A message as its signer sent it."""

    record: Record
    signer: NodeKey
    lane: int
    is_for_me: bool


@dataclass(slots=True)
class _Open:
    """What handlers have, and gave no verdict on."""

    delivery: Delivery
    taken: dict[int, list[Handled]] = field(default_factory=dict)  # by the index of the record


class _Scene:
    def __init__(self, script: Script) -> None:
        manner = script.byte()
        self._script = script
        self._now_ms = START_MS
        self._is_storing = bool(manner & 1)
        self._is_proved = bool(manner & 2)
        self._counter = 1
        self._lives = 0
        self._rows: dict[tuple[str, bytes], bytes] = {}
        self._sent: list[_Sent] = []
        self._meanings: set[Meaning] = set()
        self._open: list[_Open] = []
        self._accepted: set[Handled] = set()
        self._told = 0
        self._begin()
        self._sign(Script(b""))

    def _begin(self) -> None:
        """Begin a life of the node."""
        self._verifying = Verifying(
            ME.id, NAME, OPTIONS, "if-signed", lambda: self._now_ms, self._hear,
            is_storing=self._is_storing, is_proved=self._is_proved,
        )  # fmt: skip
        self._lives += 1
        self._guards = [self._verifying.guard("required", scope) for scope in SCOPES]
        self._open.clear()
        if self._is_storing:
            kept = self._rows.items()
            entries = [Entry(EntryKind.REPLAYS, *key, value) for key, value in kept]
            journal = OWN_JOURNALS[self._script.rarely()]
            self._keep(self._verifying.restore(entries, journal, self._lives))

    def _hear(self, audited: Audited) -> None:
        assert audited.kind in {AuditKind.BAD_SIGNATURE, AuditKind.REPLAYED}
        self._told += 1

    # What happens

    def step(self) -> None:
        """Do one thing."""
        script = self._script
        match script.below(16):
            case 0 | 1 | 2:
                self._sign(script)
            case 3 | 4 | 5 | 6:
                self._deliver_true()
            case 7 | 8 | 9:
                self._deliver_changed()
            case 10:
                self._deliver_anything()
            case 11 | 12:
                self._settle()
            case 13:
                self._now_ms += script.choice((1, 1000, 30_000, 3_600_000, 700_000_000))
            case 14:
                self._give_back()
            case _:
                self._end()

    def check(self) -> None:
        """Assert that nothing is larger than it may be."""
        table = self._verifying.table
        windows = table._windows.values()  # nothing else tells
        assert table.blocks == sum(len(window.blocks) for window in windows), "a sum is wrong"
        assert table.blocks <= OPTIONS.replay_blocks_max
        idle = sum(not window.pending for window in windows)
        assert idle <= OPTIONS.replay_windows_max, f"{idle} windows"
        assert len(self._verifying.roots) <= OPTIONS.signed_batches_max

    # Those who sign

    def _sign(self, script: Script) -> None:
        signer, journal = script.choice(SIGNERS), script.choice(JOURNALS)
        addressing = script.choice(tuple(Addressing))
        destination = script.choice(DESTINATIONS[addressing])
        key, lane = script.choice((None, None, "k", "")), script.choice((4, 4, 4, 0, 9))
        usual = KINDS if addressing is Addressing.TARGET else (Kind.DIRECT,)
        is_usual = not script.rarely()
        kinds: tuple[Kind, ...] = usual if is_usual else tuple(Kind)
        count = script.choice((1, 1, 1, 2, 5, 33))
        records = [_record(script, script.choice(kinds), key) for _ in range(min(count, 33))]
        counter = _number(script, self._counter)
        self._counter += script.choice((count, count, 300))
        signed_ms = _number(script, self._now_ms + script.choice((0, 0, -1000, 50_000, 120_000)))
        lasts_ms = script.choice((604_800_000, 604_800_000, 60_000, 1))
        expires_ms = _number(script, signed_ms + lasts_ms)
        counter = min(counter, NUMBER_MAX - count)
        told = Signer(signer, journal, addressing, lane, destination, key)
        is_for_me = is_usual and destination in (None, ME.id.hex(), NAME)
        for record in told.sign_all(records, counter, signed_ms, expires_ms):
            to = record[1] if destination is None else destination
            self._meanings.add(_meaning(record, to, record[2]))
            packed = _COMPRESSOR.compress(record) if script.flag() else record
            self._sent = [*self._sent, _Sent(packed, signer, lane, is_for_me)][-SIGNED_MAX:]

    # What comes

    def _deliver_true(self) -> None:
        """Have a message come as it was sent, be it again."""
        script = self._script
        sent = [script.choice(self._sent) for _ in range(script.choice((1, 1, 2)))]
        lane = script.below(10) if script.rarely() else sent[0].lane
        opened = self._deliver([each.record for each in sent], lane)
        for index, each in enumerate(sent):
            signature = Signature.of(extra(each.record, Tag.SIGNATURE))
            if signature is None or not each.is_for_me or lane != each.lane:
                continue
            if self._counts(signature):
                look = self._verifying.look(opened.delivery, index, signature.data)
                assert isinstance(look, Signed), f"a true message, and {look}"

    def _deliver_changed(self) -> None:
        """Have a message come that somebody changed."""
        script = self._script
        sent = script.choice(self._sent)
        self._deliver([self._changed(sent.record)], sent.lane)

    def _changed(self, record: Record) -> Record:
        script = self._script
        data = extra(record, Tag.SIGNATURE)
        assert isinstance(data, bytes)
        match script.below(8):
            case 0 | 1:
                at = script.byte() % len(data)
                flipped = bytes([data[at] ^ (script.byte() or 1)])
                return with_extra(record, Tag.SIGNATURE, data[:at] + flipped + data[at + 1 :])
            case 2:
                more = script.choice((b"", script.take(32), data[-32:]))
                cut = data[: -script.choice((1, 32))] if script.flag() else data
                return with_extra(record, Tag.SIGNATURE, cut + more)
            case 3:
                other = extra(script.choice(self._sent).record, Tag.SIGNATURE)
                return with_extra(record, Tag.SIGNATURE, data if other is None else other)
            case 4:
                other_body = script.choice((b"", b"a" * 201, script.data()[:64]))
                return (record[0], record[1], other_body, _extras_in(record))
            case 5:
                target = script.choice(("jobs", "news", "", NAME))
                return (record[0], target, record[2], _extras_in(record))
            case 6:
                told = record[0] ^ (script.byte() or 1)
                return (told, record[1], record[2], _extras_in(record))
            case _:
                tag, value = _extra(script)
                return without_extra(record, tag) if script.flag() else _with(record, tag, value)

    def _deliver_anything(self) -> None:
        """Have bytes come in the place of a signature, or none."""
        script = self._script
        lane, told = script.below(10), script.byte()
        target = script.take(script.byte()).decode(errors="replace")
        body = script.take(script.byte())
        data = script.take(script.byte() << 8 | script.byte())
        record: Record = (told & 0x7F, target, body)
        if data:
            record = with_extra(record, Tag.SIGNATURE, data)
        self._deliver([record], lane)

    def _deliver(self, records: list[Record], lane: int) -> _Open:
        """Have records come, and handlers ask for them."""
        script = self._script
        source = script.choice((*SIGNERS, ME)).id
        delivery = Delivery(Source(source, b"s" * 16, lane), "ada", 1, len(records), records)
        opened = _Open(delivery)
        for guard in script.choice(((0,), (0,), (1,), (2,), (0, 1), (0, 1, 2))):
            for index in range(len(records)):
                self._ask(opened, index, self._guards[guard])
        if opened.taken:
            self._open.append(opened)
        if len(self._open) > OPEN_MAX:
            self._conclude(self._open.pop(0), Outcome.RELEASED)
        return opened

    def _ask(self, opened: _Open, index: int, guard: Guard) -> None:
        delivery, told = opened.delivery, self._told
        refusal = guard.refusal(delivery, index)
        if refusal is not None:
            is_told_again = refusal == (Outcome.ACCEPTED, "")
            assert is_told_again or self._told == told + 1, "refused, and nobody was told"
            return
        handled = self._meant(delivery, index, guard.scope)
        is_sure = self._is_proved and handled[1] == delivery.source.node
        assert is_sure or handled not in self._accepted, "accepted before"
        is_open = any(handled in each for one in self._open for each in one.taken.values())
        assert is_sure or not is_open, "handled already"
        opened.taken.setdefault(index, []).append(handled)

    def _meant(self, delivery: Delivery, index: int, scope: str) -> Handled:
        """Assert that a message that was taken is as somebody signed it, and for here."""
        record = delivery.records[index]
        signature = Signature.of(extra(record, Tag.SIGNATURE))
        assert signature is not None, "taken, and not signed"
        assert self._counts(signature), "taken, and not in its time"
        is_direct = record[0] & 15 == Kind.DIRECT
        to = {Addressing.NODE: ME.id.hex(), Addressing.NAME: NAME}.get(signature.addressing)
        assert is_direct is (to is not None), "taken, and not addressed as its kind is"
        from_log = record[0] & 15 == Kind.PUBLICATION and extra(record, Tag.FOLLOWER) is not None
        assert delivery.source.lane == signature.lane or from_log, "taken on another lane"
        body = decompressed(record) if record[0] >= COMPRESSED else record[2]
        meaning = _meaning(record, record[1] if to is None else to, body)
        assert meaning in self._meanings, "taken, and never signed"
        return scope, signature.node, signature.journal, signature.counter

    def _counts(self, signature: Signature) -> bool:
        is_past = signature.signed_ms <= self._now_ms + _TOLERANCE_MS
        return is_past and self._now_ms <= signature.expires_ms + _TOLERANCE_MS

    # What becomes of it

    def _settle(self) -> None:
        if self._open:
            opened = self._open.pop(self._script.below(len(self._open)))
            self._conclude(opened, self._script.choice((Outcome.ACCEPTED, *Outcome)))

    def _conclude(self, opened: _Open, outcome: Outcome) -> None:
        last = len(opened.delivery.records) - 1
        self._verifying.settled(opened.delivery, 0, last, outcome)
        for handled in opened.taken.values():
            if outcome is Outcome.ACCEPTED or (outcome is Outcome.REJECTED and len(handled) > 1):
                self._accepted |= set(handled)
        self._keep(self._verifying.take_changes())

    def _keep(self, changes: KeepReplays | None) -> None:
        """Have the changes on the disk."""
        for entry in () if changes is None else changes.entries:
            if entry.value:
                self._rows[entry.name, entry.key] = entry.value
            else:
                self._rows.pop((entry.name, entry.key), None)

    def _give_back(self) -> None:
        """Have a handler give back what it has, and perhaps go, and come again."""
        place = self._script.below(len(SCOPES))
        guard = self._guards[place]
        guard.give_back()
        for opened in self._open:
            for index, handled in opened.taken.items():
                opened.taken[index] = [each for each in handled if each[0] != guard.scope]
        if self._script.flag():
            guard.close()
            self._guards[place] = self._verifying.guard("required", SCOPES[place])
        self._keep(self._verifying.take_changes())

    def _end(self) -> None:
        """End the node, and begin another life of it."""
        own = self._guards[-1].scope[:1]
        lasting = {each for each in self._accepted if each[0][:1] != own}
        # Without a disk its clock is all there is: who signs ahead of it passes for later.
        self._accepted = lasting if self._is_storing else set()
        self._begin()


def _number(script: Script, usual: int) -> int:
    """Return a number of 64 bits: mostly the usual one."""
    if not script.rarely():
        return min(usual, NUMBER_MAX)
    return script.choice(
        (NUMBER_MAX, NUMBER_MAX - script.byte(), min(script.number(), NUMBER_MAX))
    )


def _record(script: Script, kind: Kind, key: str | None) -> Record:
    encoding = script.choice((Encoding.RAW, Encoding.MSGPACK))
    target = "" if kind is Kind.DIRECT else script.choice(("jobs", "news", ""))
    body = script.choice((b"", b"a" * 200, script.data()[:64]))
    record: Record = (head(kind, encoding), target, body)
    for tag, value in _some_extras(script):
        record = with_extra(record, tag, value)
    return record if key is None else with_extra(record, Tag.KEY, key)


def _meaning(record: Record, destination: str, body: bytes | memoryview) -> Meaning:
    extras = extras_of(record)
    data = extras.get(Tag.SIGNATURE)
    assert isinstance(data, bytes)
    covered = [extras.get(tag) for tag in (Tag.KEY, Tag.HEADERS, Tag.TYPE, Tag.ROUTING_KEY)]
    return (data[:75], record[0] & 15, encoding_of(record), destination, *covered, bytes(body))


def _extras_in(record: Record) -> Extras:
    return record[3] if len(record) == 4 else ()


def _with(record: Record, tag: Tag, value: ExtraValue | None) -> Record:
    return record if value is None else with_extra(record, tag, value)


def _some_extras(script: Script) -> Iterable[tuple[Tag, ExtraValue]]:
    return [_extra(script) for _ in range(script.choice((0, 0, 1, 3)))]


def _extra(script: Script) -> tuple[Tag, ExtraValue]:
    tag = script.choice(
        (
            *(Tag.HEADERS, Tag.TYPE, Tag.ROUTING_KEY, Tag.FOLLOWER, Tag.RETAINED, Tag.STORED),
            *(Tag.ATTEMPT, Tag.CORRELATION),
        )
    )
    if tag is Tag.HEADERS:
        return tag, script.data()[:64]
    if tag in {Tag.TYPE, Tag.ROUTING_KEY}:
        return tag, script.choice(("", "k", "t"))
    return tag, script.below(4)
