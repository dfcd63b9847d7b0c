"""What links tell, held against what happened: sessions, verdicts, control records, memory."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from zmesh.ids import SessionId
from zmesh.message import LANES
from zmesh.options import LinkOptions
from zmesh.reliable.link import Link
from zmesh.reliable.link_events import (
    Accepted,
    Clash,
    ControlArrived,
    Defect,
    LeftBehind,
    LinkEvent,
    Liveness,
    LivenessChanged,
    Opened,
    PathWanted,
    Returned,
    SessionEnd,
    SessionEnded,
)
from zmesh.testing.application import Verdict
from zmesh.testing.findings import Rule
from zmesh.testing.hosts import Lives, Surroundings, label_of
from zmesh.testing.ledger import Ledger, Message
from zmesh.testing.trace import Fact
from zmesh.testing.watch import WireWatch
from zmesh.wire.frames import Interest, Packet

PINGS_UNDER_WAY = 256  # bytes that heartbeats may have in flight at any time
LINGER_SLACK = 0.98  # clocks differ


@dataclass(slots=True)
class _View:
    """One process's relation to one peer, by what its link told."""

    session: SessionId | None = None
    incarnation: int = 0
    down_since: float | None = None  # when the link was given up
    interest_sent: int = 0
    interest_heard: int = 0


class LinkBooks:
    """Judges every event of every link of a run."""

    def __init__(
        self,
        around: Surroundings[Packet],
        lives: list[Lives],
        may_be_lost: Callable[[int, int], bool],
    ) -> None:
        self._around = around
        self._options: LinkOptions = around.scenario.link
        self._calm = around.scenario.calm
        self._lives = lives
        self._may_be_lost = may_be_lost
        self.ledger = Ledger(around.wrong)
        self.watch = WireWatch(self._options, around.findings, self.ledger, calm=self._calm)
        self._views: dict[tuple[str, int], _View] = {}
        self._opened: set[tuple[int, SessionId]] = set()  # sessions a host was in
        self._ended: set[tuple[int, SessionId]] = set()  # sessions a host has ended
        self._held: dict[tuple[str, bytes, int], list[int]] = {}  # messages and bytes, by lane

    # The wire

    def on_sent(self, label: str, to: int, packet: Packet, now: float) -> None:
        """Look at a packet as a process sends it; `now` is on its clock."""
        self.watch.on_sent(label, to, packet, now, self._around.queue.now)

    def on_read(self, label: str, source: int, packet: Packet, now: float) -> None:
        """Look at a packet as a process reads it; `now` is on its clock."""
        self.watch.on_read(label, source, packet, now, self._around.queue.now)

    # Events

    def review(self, label: str, index: int, peer: int, events: Iterable[LinkEvent]) -> None:
        """Judge what a link told, in order."""
        session_over = False
        for event in events:
            match event:
                case Returned():
                    self._note(label, "returned", event.outcome.name, event.lane)
                    self.ledger.on_returned(label, event, session_over=session_over)
                case Accepted():
                    self.ledger.on_accepted(label, event.tickets)
                case ControlArrived():
                    self._on_control(label, peer, event)
                case Opened():
                    self._on_opened(label, index, peer, event)
                case SessionEnded():
                    session_over = True
                    self._on_ended(label, index, peer, event)
                case LivenessChanged():
                    self._on_liveness(label, index, peer, event)
                case _:
                    self._on_other(label, peer, event)

    def _on_other(self, label: str, peer: int, event: LinkEvent) -> None:
        match event:
            case LeftBehind():
                if not self._lives[peer].left:
                    self._wrong(Rule.LIVENESS, label, f"hears goodbye of {peer}, who stays")
            case Clash():
                self._wrong(Rule.IDENTITY, label, f"sees a clash (fenced: {event.fenced})")
            case Defect():
                self._note(label, "defect", event.kind, event.detail)
                if self._calm:
                    text = f"counts a defect: {event.kind}, {event.detail}"
                    self._wrong(Rule.RESENT, label, text)
            case PathWanted():
                self._note(label, "given up")
                view = self._view(label, peer)
                if view.down_since is None:
                    view.down_since = self._around.queue.now
            case _:
                self._note(label, type(event).__name__)

    def _on_opened(self, label: str, index: int, peer: int, event: Opened) -> None:
        self._opened.add((index, event.session))
        self._note(label, "opened", label_of(peer, event.incarnation), event.session)
        view = self._view(label, peer)
        if event.name != label_of(peer, event.incarnation):
            self._wrong(Rule.IDENTITY, label, f"is linked to {event.name}, host {peer}")
        if not view.incarnation <= event.incarnation <= self._lives[peer].current:
            self._wrong(Rule.IDENTITY, label, f"is linked to a dead life, {event.name}")
        if event.resumed != (event.session == view.session):
            self._wrong(Rule.IDENTITY, label, f"resumed is {event.resumed}, wrongly")
        view.incarnation = event.incarnation
        view.down_since = None
        if event.session != view.session:
            view.session = event.session
            view.interest_sent = view.interest_heard = 0

    def _on_ended(self, label: str, index: int, peer: int, event: SessionEnded) -> None:
        self._note(label, "ended", event.reason.value, event.session)
        view = self._view(label, peer)
        if event.session != view.session:
            self._wrong(Rule.IDENTITY, label, "a session ends that it was not in")
        lives = self._lives[peer]
        restarted = lives.current > view.incarnation
        if event.reason is SessionEnd.PEER_RESTARTED:
            justified = restarted
        elif event.reason is SessionEnd.PEER_FORGOT:
            # A peer that answered HELLO and heard nothing more may forget it without a word.
            key = (peer, event.session)
            justified = key in self._ended or (key not in self._opened and not self._calm)
        elif event.reason is SessionEnd.LINGER_OVER:
            justified = self._is_long_away(view) or restarted or not lives.alive
        elif event.reason is SessionEnd.PEER_LEFT:
            justified = lives.left
        else:
            justified = self._lives[index].left
        if not justified:
            self._wrong(
                Rule.IDENTITY, label, f"ends a session for no reason ({event.reason.value})"
            )
        self._ended.add((index, event.session))
        view.session = None

    def _on_liveness(self, label: str, index: int, peer: int, event: LivenessChanged) -> None:
        self._note(label, "liveness", event.old.value, event.new.value, event.why)
        if event.new in (Liveness.ALIVE, Liveness.JOINING):
            return
        wrongly_lost = (
            event.new is Liveness.LOST
            and not self._may_be_lost(index, peer)
            and not self._is_long_away(self._view(label, peer))
        )
        if self._calm or wrongly_lost:
            text = f"takes {label_of(peer, self._lives[peer].current)} for {event.new.value}"
            self._wrong(Rule.LIVENESS, label, f"{text} ({event.why})")

    def _is_long_away(self, view: _View) -> bool:
        """Return whether there was no link for as long as a session lingers."""
        if view.down_since is None:
            return False
        away = self._around.queue.now - view.down_since
        return away >= self._options.session_linger * LINGER_SLACK

    # Control records: each once and in order, and all of them, while a session lasts

    def announce(self, label: str, peer: int, link: Link) -> None:
        """Send the next control record, numbered."""
        view = self._view(label, peer)
        link.send_control(Interest((("topic", str(view.interest_sent)),), ()))
        view.interest_sent += 1

    def _on_control(self, label: str, peer: int, event: ControlArrived) -> None:
        view = self._view(label, peer)
        for record in event.records:
            heard = record.added[0][1] if isinstance(record, Interest) else "drain"
            if heard != str(view.interest_heard):
                text = f"hears control record {heard}, not {view.interest_heard}"
                self._wrong(Rule.MISORDERED, label, text)
            view.interest_heard += 1

    # What the application holds

    def on_held(
        self, label: str, session: bytes, lane: int, message: Message, *, whole: bool
    ) -> None:
        """Count what a link handed over; it must be within what the lane may ever hold.

        A large body, or a `whole` one that came in fragments, has room of its own, and takes none
        of the window.
        """
        held = self._held.setdefault((label, session, lane), [0, 0])
        held[0] += not (whole or self._is_large(message))
        held[1] += len(message.body)
        options = self._options
        if held[0] > options.window_messages_max:
            text = f"holds {held[0]} messages of one lane, at most {options.window_messages_max}"
            self._wrong(Rule.MEMORY, label, text)
        if held[1] > options.window_bytes_max + options.transfer_bytes_max:
            self._wrong(Rule.MEMORY, label, f"holds {held[1]} bytes of one lane")

    def on_settled(
        self,
        label: str,
        session: bytes,
        lane: int,
        messages: list[Message],
        verdict: Verdict,
        *,
        whole: bool,
    ) -> None:
        """Note a verdict that the link took."""
        held = self._held[label, session, lane]
        held[0] -= 0 if whole else len(messages) - sum(map(self._is_large, messages))
        held[1] -= sum(len(message.body) for message in messages)
        self.ledger.on_settled(messages, verdict.outcome, verdict.reason, verdict.delay)

    def _is_large(self, message: Message) -> bool:
        return len(message.body) > self._options.fragment_bytes

    # Memory, and the end

    def check_bounds(self, label: str, peer: int, link: Link) -> None:
        """Hold what a link keeps against the options."""
        statistics = link.statistics()
        options = self._options
        if statistics.held_messages > LANES * options.window_messages_max:
            self._wrong(Rule.MEMORY, label, f"{statistics.held_messages} messages of {peer} held")
        windows = LANES * options.window_bytes + options.peer_bytes_max
        if statistics.held_bytes > windows:
            self._wrong(Rule.MEMORY, label, f"{statistics.held_bytes} bytes of {peer} held")

    def check_rest(self, label: str, peer: int, link: Link) -> None:
        """Nothing may be left of anything once all is settled."""
        statistics = link.statistics()
        rest = {
            "queued messages": statistics.queued_messages,
            "queued bytes": statistics.queued_bytes,
            "held messages": statistics.held_messages,
            "held bytes": statistics.held_bytes,
            "bytes in flight": statistics.bytes_in_flight,
        }
        for what, count in rest.items():
            if count > PINGS_UNDER_WAY * (what == "bytes in flight"):
                text = f"{count} {what} are left with host {peer}"
                self._wrong(Rule.MEMORY, label, text)

    def strangers(self, one: str, index: int, other: str, peer: int) -> str:
        """Return what two processes disagree on, or nothing."""
        here, there = self._view(one, peer), self._view(other, index)
        if here.session is None or here.session != there.session:
            return "no session in common"
        if here.interest_heard != there.interest_sent:
            return f"{here.interest_heard} of {there.interest_sent} control records heard"
        return ""

    def _view(self, label: str, peer: int) -> _View:
        view = self._views.get((label, peer))
        if view is None:
            view = self._views[label, peer] = _View()
        return view

    def _note(self, label: str, what: str, *facts: Fact) -> None:
        self._around.trace.note(self._around.queue.now, label, what, *facts)

    def _wrong(self, rule: Rule, label: str, text: str) -> None:
        self._around.wrong(rule, label, text)
