"""One session with one peer over whatever link carries it at the moment.

Pure: call a command or an input, then `packets(now)` for what to send and `take_events()` for
what happened; `deadline` says when `on_timer` is due. `docs/protocol.md` is the specification.
"""

from collections.abc import Sequence
from math import inf
from typing import Final, assert_never

from zmesh.errors import ProtocolError
from zmesh.events import PathCause
from zmesh.ids import LINK_ID_BYTES, NO_LINK, LinkId, Path
from zmesh.message import Keys, Outcome, Record, Ticket
from zmesh.reliable import link_events as happened
from zmesh.reliable.handshake import HelloVerdict, NotProved, SessionChoice
from zmesh.reliable.link_events import LinkEvent, Liveness, SessionEnd
from zmesh.reliable.link_facts import LinkFacts
from zmesh.reliable.link_states import TRANSITIONS, LinkState, Trigger
from zmesh.reliable.recovery import Piece
from zmesh.reliable.session import Session
from zmesh.wire.frames import (
    Ack,
    Bye,
    ByeCode,
    ControlData,
    ControlNews,
    Data,
    Error,
    ErrorCode,
    Fenced,
    Frame,
    Hello,
    Iam,
    LaneState,
    Packet,
    Ping,
    Pong,
    Welcome,
    Who,
)

_OPEN: Final = LinkState.OPEN  # a member of an enum is found in five times the time of a global
_CLOSED: Final = LinkState.CLOSED
_CALLING: Final = LinkState.CALLING
_ANSWERED: Final = LinkState.ANSWERED


class Link(LinkFacts):
    """Everything that stands between this node and one peer."""

    # Commands

    def submit(
        self,
        lane: int,
        records: Sequence[Record],
        ticket: Ticket,
        now: float,
        *,
        key: Keys = None,
        ttl: float | None = None,
    ) -> tuple[int, int]:
        """Queue records for the peer, linked or not; return the first and last of their numbers.

        A body above `fragment_bytes` may take several numbers. With `key`, records keep the order
        of submission across lanes. With `ttl` (seconds) they expire unless begun by then.
        Raises BodyTooLarge. Call `packets` next.
        """
        return self._session.submit(lane, records, ticket, now, key, ttl)

    def send_control(self, record: ControlNews) -> None:
        """Queue a control record; it survives links but not the session."""
        self._session.send_control(record)

    def settle(
        self,
        session: bytes,
        lane: int,
        first: int,
        last: int,
        outcome: Outcome,
        now: float,  # noqa: ARG002  it goes with the next packet
        reason: str = "",
        delay: float = 0.0,
    ) -> bool:
        """Tell the peer what became of `first..last` of a lane.

        Returns False where the session is over or the numbers were settled before.
        """
        if session != self._handshake.session:
            return False
        return self._session.settle(lane, first, last, outcome, reason, delay)

    def accept_later(
        self, session: bytes, lane: int, first: int, last: int, now: float
    ) -> bool | None:
        """Tell the peer that `first..last` were accepted, with others, within `ack_delay_max`.

        Returns whether that is a reason to call `packets`, or look at `deadline`, that was not
        there before; None where the session is over. To be called once of each number.
        """
        if session != self._handshake.session:
            return None
        return self._session.accept_later(lane, first, last, now)

    def withdraw(self, ticket: Ticket, index: int | None = None) -> bool:
        """Take back what was submitted with the ticket, as far as it is not with the peer.

        With an index that one alone of small records that were submitted together.
        What never left returns as RELEASED. For what may be with the peer, its verdict decides:
        EXPIRED where it will not be handled. Returns whether there is any of that.
        """
        return self._session.withdraw(ticket, index)

    def has_arrived(self, ticket: Ticket) -> bool:
        """Return whether what a ticket waits for is with the peer, which has not settled it."""
        return any(
            all(seq in lane.acked for seq in numbers)
            for lane in self._session.outgoing.values()
            if (numbers := lane.open_numbers(ticket, in_runs=True))
        )

    def open_of(self, ticket: Ticket) -> list[tuple[Record, bool]]:
        """Return the records of a ticket without outcome, and whether each was transmitted."""
        return self._session.open_of(ticket)

    def refuse(self, lane: int, seq: int, reason: str) -> None:
        """End as REJECTED a record of a packet that could not be made into bytes."""
        self._session.refuse(lane, seq, reason)

    def hello(self, path: Path, now: float, incarnation: int = 0) -> None:
        """Begin a handshake on a path on which this peer answered, unless a link lives.

        `incarnation` is what it told there; a proof of HELLO names it.
        """
        self._handshake.told = incarnation
        if self.state is LinkState.IDLE and not self._conduct.refused(now):
            self._call(path, now)

    def close(self, code: ByeCode, text: str, end: SessionEnd = SessionEnd.CLOSED) -> None:
        """Say BYE and end the session; the link takes nothing any more."""
        if self.state is LinkState.CLOSED:
            return
        if self.path is not None and self.state in (LinkState.OPEN, LinkState.ANSWERED):
            self._send(self.path, self._link_id, Bye(code, text))
        self._move(Trigger.LEAVE)
        self._leave_path()
        self._verdict.on_left()
        self.events += self._verdict.take_events()
        self._end_session(end)

    # Inputs

    def on_packet(self, path: Path, packet: Packet, now: float) -> bool:
        """Take a packet from this peer; whatever it holds, nothing is raised.

        Returns True where there is nothing to do but to take the events: nothing is to be sent
        because of it, and `deadline` is where it was.
        """
        if self.state is _CLOSED or now < self._conduct.refused_until:
            return False
        frame, is_all = packet.frames[0], False
        try:
            if type(frame) is Hello:
                self._on_hello(path, packet.link, frame, now)
            elif type(frame) is Welcome:
                self._on_welcome(path, packet.link, frame, now)
            elif packet.link != self._link_id or path != self.path:
                self._on_stale(path, packet, now)
            elif self.state is _CALLING:
                self._on_refusal(frame, now)
            else:
                is_all = self._on_link_packet(packet, now)
        except NotProved as error:
            self._on_not_proved(error, now)
        except ProtocolError as error:
            self.on_violation(error, now)
        if self._verdict.events:
            self._drain_verdict(now)
            return False
        return is_all

    @property
    def refused_until(self) -> float:
        """When the peer is listened to again, where it was cut off; else a time past."""
        return self._conduct.refused_until

    def _on_stale(self, path: Path, packet: Packet, now: float) -> None:
        """Drop a packet of another link; a peer that still uses it is told, once a second."""
        self._counters.packets_stale += 1
        silent = isinstance(packet.frames[0], Error | Bye | Fenced)
        if not silent and self._conduct.may_complain(now):
            self._send(path, packet.link, Error(ErrorCode.UNKNOWN_LINK, "say HELLO"))

    def _on_refusal(self, frame: Frame, now: float) -> None:
        """Our HELLO was answered by something else than WELCOME."""
        if isinstance(frame, Fenced):
            self._on_fenced(frame)
        elif isinstance(frame, Error) and frame.code is ErrorCode.DUPLICATE_IDENTITY:
            self._handshake.check_duplicate(frame)
            self.events.append(happened.Clash(fenced=False))
        if isinstance(frame, Error | Fenced):
            self._give_up("HELLO was refused", now)

    def _on_link_packet(self, packet: Packet, now: float) -> bool:
        is_all = self.state is _OPEN
        if self.state is _ANSWERED:
            self._move(Trigger.CONFIRM)
            self._on_open(now)
        self._counters.packets_received += 1
        self._writer.on_packet(packet.number, now)
        self._verdict.on_heard(now)
        if self._verdict.events:
            self._drain_verdict(now)
            is_all = False
        for frame in packet.frames:  # these three are in nearly every packet, and end no link
            if type(frame) is Data:
                if not self._session.on_data(frame.lane, frame.first_seq, frame.records, now):
                    is_all = False
                continue
            is_all = False
            if type(frame) is Ack:
                self._session.on_ack(frame.lanes, frame.credit)
                lost = self._recovery.on_ack(frame.largest, frame.delay_us / 1_000_000, now)
                self._session.cutter.burst_bytes = self._recovery.burst_bytes
                if lost:
                    self._resend(lost)
            elif type(frame) is ControlData:
                self._session.on_control(frame.first_seq, frame.records, now)
            else:
                self._on_rare_frame(frame, now)
                if self.state is not LinkState.OPEN:
                    return False
        return is_all

    def _on_rare_frame(self, frame: Frame, now: float) -> None:
        match frame:
            case Ping(nonce):
                self._writer.pong = nonce
                self._session.tell_all()
            case Pong():
                pass  # the ACK beside it says all
            case Bye(code, text):
                self._on_bye(code, text)
            case Fenced():
                self._on_fenced(frame)
                self._give_up("fenced", now)
            case Error(code, text):
                self._on_error(code, text, now)
            case Who() | Iam() | Hello() | Welcome() | Ack() | Data() | ControlData():
                raise ProtocolError("misplaced", f"{type(frame).__name__} inside a link")
            case _:
                assert_never(frame)

    def _on_fenced(self, fenced: Fenced) -> None:
        self._handshake.check_fenced(fenced)
        self.events.append(happened.Clash(fenced=True))

    def _resend(self, lost: Sequence[Piece]) -> None:
        count = sum(window.on_lost(first, last) for window, first, last in lost)
        if count:
            self._defect("gap", f"{count} records were lost on a live link")

    def _on_bye(self, code: ByeCode, text: str) -> None:
        self._move(Trigger.BYE)
        self._leave_path()
        self.events.append(happened.LeftBehind(code, text))
        self._verdict.on_left()
        self._end_session(SessionEnd.PEER_LEFT)

    def _on_error(self, code: ErrorCode, text: str, now: float) -> None:
        path = self.path
        self._defect("error", f"peer says {code.name}: {text}")
        if code is ErrorCode.UNKNOWN_LINK and path is not None:
            self._move(Trigger.DOWN)
            self._leave_path()
            self._call(path, now)
        else:
            self._give_up(f"peer says {code.name}", now)

    def on_violation(self, error: ProtocolError, now: float) -> None:
        """Count a lie; a peer that goes on is cut off, and refused for a while."""
        self._defect(error.kind, error.detail)
        if not self._conduct.on_violation(now):
            return
        if self.path is not None and self.state is not LinkState.IDLE:
            code = ErrorCode.OVER_CREDIT if error.kind == "credit" else ErrorCode.MALFORMED
            self._send(self.path, self._link_id, Error(code, error.detail[:200]))
        self._give_up("it broke the protocol", now)

    def _on_not_proved(self, error: NotProved, now: float) -> None:
        """Give up the link on which something false was said: nobody but its other end can."""
        self._defect(error.kind, error.detail)
        self._own_call = None
        if self.state is not LinkState.ANSWERED:
            self._give_up("it proves nothing", now)

    def on_path_down(self, path: Path, cause: PathCause, now: float) -> None:
        """A path ended; where it carried the link, the link is given up."""
        if path == self.path:
            self._give_up(f"its connection ended ({cause.value})", now)

    def on_path_full(self, path: Path) -> None:
        """The transport took no more; what it refused is resent when the peer lacks it."""
        self._path_full = self._path_full or path == self.path

    def on_path_writable(self, path: Path) -> None:
        """The transport takes packets again."""
        if path == self.path:
            self._path_full = False
            self._writer.ping_wanted = True  # its answer tells what was refused

    def on_probe(self, endpoint: str, cause: PathCause | None, now: float) -> None:
        """Take the result of a probe that was wanted."""
        self._verdict.on_probe(endpoint, cause, now)
        self._drain_verdict(now)

    def on_loop_late(self, lag: float, now: float) -> None:
        """Our own loop was late by `lag` seconds: the silence meanwhile is not the peer's."""
        self._verdict.detector.on_loop_late(lag, now)
        self._hello_timer.on_loop_late(lag)

    def on_timer(self, now: float) -> None:
        """Do what is due; call `packets` next."""
        self._session.expire(now)
        if self.state is LinkState.OPEN:
            self._on_open_timer(now)
        elif self._hello_timer.at <= now:
            self._on_hello_timer(now)
        self._verdict.on_timer(self.endpoints or (), now)
        self._drain_verdict(now)
        if self._lingers_until <= now:
            self._down_until = None
            self._verdict.on_linger_over()
            self._drain_verdict(now)
            self._end_session(SessionEnd.LINGER_OVER)

    def _on_open_timer(self, now: float) -> None:
        lost, probe = self._recovery.on_timer(now)
        self._resend(lost)
        detector = self._verdict.detector
        if probe or detector.ping_due(now, self._session.data_pending):
            self._writer.ping_wanted = True
            if self._path_full:
                detector.on_ping_sent(now)  # the peer owes us room: that is silence, too
        stopped = self._recovery.probes_unanswered >= self._options.probes_max
        if stopped and self.liveness is Liveness.SUSPECT:
            self._give_up("it acknowledges nothing", now)

    @property
    def _lingers_until(self) -> float:
        """When the session ends for want of a link; never while a handshake is under way."""
        if self._down_until is None or self.state is not LinkState.IDLE:
            return inf
        return self._down_until

    def due_by(self, latest: float) -> float:
        """Return when `on_timer` is due, or `latest` where that is before: it looks no further."""
        session, verdict = self._session, self._verdict
        if self.state is not _OPEN:
            waits = (session.expiry, verdict.due, self._lingers_until, self._hello_timer.at)
            return min(latest, *waits)
        recovery, due, expiry = self._recovery, latest, session.expiry
        if expiry < due:  # noqa: PLR1730  # `min` takes four times as long, in every turn
            due = expiry
        if recovery.loss_at < due:  # noqa: PLR1730
            due = recovery.loss_at
        if recovery.probe_at < due:  # noqa: PLR1730
            due = recovery.probe_at
        if session.ack_at < due and not self._path_full:
            due = session.ack_at
        if session.settle_at < due and not self._path_full:
            due = session.settle_at
        if due <= verdict.detector.calm_until:
            return due
        return min(due, verdict.due, verdict.detector.ping_deadline(session.data_pending))

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due; None where nothing is."""
        due = self.due_by(inf)
        return None if due == inf else due

    # Handshake

    def _call(self, path: Path, now: float) -> None:
        self._move(Trigger.CALL)
        self.path = path
        self._link_id = LinkId(self._entropy.token(LINK_ID_BYTES))
        self._handshake.call()
        self._hello_timer.begin()
        self._say_hello(path, now)

    def _say_hello(self, path: Path, now: float) -> None:
        lanes = self._session.lane_states()
        hello = self._handshake.hello(self.local_endpoints, lanes, path, self._link_id)
        self._send(path, self._link_id, hello)
        self._hello_timer.on_hello(now)

    def _on_hello_timer(self, now: float) -> None:
        if self.state is LinkState.CALLING and self.path is not None:
            if self._hello_timer.may_retry:
                self._say_hello(self.path, now)
                return
            self._give_up("no answer to HELLO", now)
        elif self.state is LinkState.ANSWERED:
            self._give_up("no packet after WELCOME", now)

    def _on_hello(self, path: Path, link: LinkId, hello: Hello, now: float) -> None:
        answered = link == self._link_id
        match self._handshake.judge(hello, answered=answered):
            case HelloVerdict.STALE:
                self._counters.packets_stale += 1
            case HelloVerdict.FENCED:
                self._send(path, link, self._handshake.fenced())
            case HelloVerdict.CLASH:
                self._send(path, link, self._handshake.duplicate())
                self._defect("clone", "two nodes have this peer's id and incarnation")
            case HelloVerdict.REPEAT:
                if path == self.path:
                    self._welcome(path, hello.attempt)
            case HelloVerdict.ACCEPT:
                self._accept(path, link, hello, now)

    def _accept(self, path: Path, link: LinkId, hello: Hello, now: float) -> None:
        # Our own HELLO may have crossed the peer's: the lower id takes the answer to it as well.
        calls = self.state is LinkState.CALLING and self.local.node < self.peer
        own_call = (self.path, self._link_id) if calls else None
        choice = self._handshake.accept(hello, path, link)
        self._enter(choice, hello.lanes, now)
        self._move(Trigger.HELLO)
        self._leave_path()
        self._down_until = None  # the peer is back
        self._own_call = own_call
        self.path = path
        self._link_id = link
        self._welcome(path, hello.attempt)
        self._hello_timer.on_welcome_sent(now)

    def _welcome(self, path: Path, attempt: int) -> None:
        lanes = self._session.lane_states()
        link, where = self._link_id, self.local_endpoints
        welcome = self._handshake.welcome(attempt, where, lanes, path, link)
        self._send(path, self._link_id, welcome)

    def _on_welcome(self, path: Path, link: LinkId, welcome: Welcome, now: float) -> None:
        calls = self.state is LinkState.CALLING
        call = (self.path, self._link_id) if calls else self._own_call
        choice = None
        if (path, link) == call:
            choice = self._handshake.on_welcome(welcome, path, link)
        if choice is None:
            self._counters.packets_stale += 1
            return
        self._enter(choice, welcome.lanes, now)
        if choice.ended is not None:
            self._session.grant_all()  # our HELLO told of the session that ended
        self._move(Trigger.WELCOME)
        self.path, self._link_id = path, link
        self._on_open(now)
        self._writer.ping_wanted = True  # the peer waits for a packet, and both for a round trip

    def _enter(self, choice: SessionChoice, lanes: tuple[LaneState, ...], now: float) -> None:
        """Go on with the session, or begin the one that was chosen."""
        if choice.ended is not None and self._handshake.announced is None:
            self._session.forget_credit()  # it never carried anything: what is queued stays
        elif choice.ended is not None:
            self._replace_session(choice.ended)
        try:
            self._session.resume(lanes if choice.lanes_count else ())
        except ProtocolError:
            self._end_session(SessionEnd.PEER_FORGOT)  # the next HELLO starts another
            self._give_up("it contradicts what it acknowledged", now)
            raise

    def _on_open(self, now: float) -> None:
        self._counters.links += 1
        self._own_call = None
        self._hello_timer.stop()
        self._down_until = None
        self._recovery.start()
        self._session.cutter.burst_bytes = 0
        self._writer.start(now)
        self._path_full = False
        self._verdict.on_open(now)
        self.events.append(self._handshake.announce())
        self._drain_verdict(now)

    # Ends

    def _give_up(self, why: str, now: float) -> None:
        """Leave the link; the session waits for another one."""
        if self.state in (LinkState.IDLE, LinkState.CLOSED):
            return
        self._move(Trigger.DOWN)
        self._leave_path()
        if self._down_until is None and self.session is not None:
            self._down_until = now + self._options.session_linger
        self._verdict.on_link_down(why, now)
        self.events.append(happened.PathWanted())
        self._drain_verdict(now)

    def _leave_path(self) -> None:
        self.path = None
        self._link_id = NO_LINK
        self._own_call = None
        self._hello_timer.stop()
        self._recovery.stop()

    def _replace_session(self, reason: SessionEnd) -> None:
        """Return everything without outcome, and begin anew with empty lanes."""
        ended = self._session
        self._session = Session(self._options, self._limits, self._pool, self.events)
        self._counters.duplicates += ended.duplicates
        announced, self._handshake.announced = self._handshake.announced, None
        if announced is not None:
            self.events.append(happened.SessionEnded(announced, reason))
        ended.abandon()

    def _end_session(self, reason: SessionEnd) -> None:
        self._handshake.forget_session()
        self._replace_session(reason)

    def _move(self, trigger: Trigger) -> None:
        self.state = TRANSITIONS[self.state, trigger]

    def _defect(self, kind: str, detail: str) -> None:
        self._counters.defects += 1
        self.events.append(happened.Defect(kind, detail))

    def _drain_verdict(self, now: float) -> None:
        """Pass on what the verdict says, and act on a peer found lost."""
        events = self._verdict.take_events()
        self.events += events
        for event in events:
            if not isinstance(event, happened.LivenessChanged) or event.new is not Liveness.LOST:
                continue
            if self._verdict.process_gone and self._down_until is not None:
                self._down_until = min(self._down_until, now + self._options.gone_linger)
            self._give_up(event.why, now)

    # Outputs

    def take_events(self) -> list[LinkEvent]:
        """Return what happened since the last call, in order."""
        events = self.events[:]
        self.events.clear()  # the session appends to this very list
        return events

    def packets(self, now: float) -> list[tuple[Path, Packet]]:
        """Return what is to be sent now, in order; all of a turn shares few packets."""
        out: list[tuple[Path, Packet]] = []
        if self._outbox:
            out, self._outbox = self._outbox, out
        path = self.path
        if self.state is _OPEN and path is not None:
            session = self._session
            if session.control_out.items and session.has_too_much_control:
                self._give_up("it does not take control records", now)
                self._end_session(SessionEnd.PEER_FORGOT)
                return out
            if not self._path_full:
                for packet in self._writer.packets(self._link_id, session, now):
                    out.append((path, packet))  # most often one, or none
        if out:
            self._counters.packets_sent += len(out)
        return out

    def _send(self, path: Path, link: LinkId, frame: Frame) -> None:
        """Queue a packet outside the flow of the link: numbered 0, never acknowledged."""
        self._outbox.append((path, Packet(link, 0, (frame,))))
