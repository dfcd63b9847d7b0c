"""The books of a run: what was sent, what handlers saw and decided, what senders were told.

Kept apart from the code under test: nothing here asks a link or an engine how it is doing. Every
message carries its number in the first bytes of its body, so it is known wherever it turns up.
"""

from collections.abc import Callable, Iterable, Sequence

from zmesh.message import Kind, Outcome, Record, Ticket, head
from zmesh.reliable.link_events import Returned
from zmesh.testing.findings import Rule
from zmesh.testing.scenario import Submission

NUMBER_BYTES = 4
TTL_SLACK = 0.005  # seconds: milliseconds are rounded, clocks differ by a thousandth
_FILLER = bytes(range(256)) * 1025  # bodies are cut out of it


def body_of(number: int, size: int) -> bytes:
    """Return the body of a message: its number, and bytes that differ from its neighbours'."""
    start = number * 37 % 256
    filler = _FILLER[start : start + max(0, size - NUMBER_BYTES)]
    return number.to_bytes(NUMBER_BYTES, "big") + filler


def number_in(body: bytes | memoryview) -> int:
    """Return the number of the message with this body."""
    return int.from_bytes(body[:NUMBER_BYTES], "big")


class Parcel:
    """Messages submitted together, with one ticket."""

    __slots__ = ("messages", "sender", "ticket", "told", "withdrawn")

    def __init__(self, sender: str, ticket: Ticket) -> None:
        self.sender = sender
        self.ticket = ticket
        self.messages: list[Message] = []
        self.withdrawn = False
        self.told = 0  # how many came back other than accepted

    @property
    def done(self) -> bool:
        """Whether the sender was told the end of every message."""
        return self.ticket.accepted + self.told >= self.ticket.expected


class Message:
    """One message, from submission to the end its sender was told."""

    __slots__ = (
        "body", "delay", "expires_at", "handled_by", "key", "lane", "number", "parcel",
        "reason", "submitted_at", "target", "told", "ttl", "unsent", "verdict",
    )  # fmt: skip

    def __init__(
        self, number: int, parcel: Parcel, submission: Submission, size: int, now: float
    ) -> None:
        self.number = number
        self.parcel = parcel
        self.target = submission.target
        self.lane = submission.lane
        self.key = submission.key
        self.ttl = submission.ttl
        self.body = body_of(number, size)
        self.submitted_at = now  # on the sender's clock
        self.expires_at: float | None = None  # on the receiver's, as far as it was told
        self.handled_by: str | None = None  # the process whose handler saw it
        self.verdict: Outcome | None = None  # the handler's, once the receiver's link took it
        self.reason = ""
        self.delay = 0.0
        self.told: Outcome | None = None  # what the sender was told, other than accepted
        self.unsent = False  # the sender was told that it never left

    def __str__(self) -> str:
        return f"message {self.number} of {self.parcel.sender} (lane {self.lane})"


class Ledger:
    """Books for links: a message goes to one peer, and is never submitted again."""

    def __init__(self, wrong: Callable[[Rule, str, str], None]) -> None:
        self._wrong = wrong  # told of each violation: rule, host, text
        self.messages: list[Message] = []
        self._parcels: dict[Ticket, Parcel] = {}
        self._open: dict[Parcel, None] = {}  # whose sender still waits, in order
        self._damaged: set[tuple[str, int, int]] = set()  # large bodies, by sender and lane
        self._last_of_lane: dict[tuple[str, str, int], int] = {}
        self._last_of_key: dict[tuple[str, str, str], int] = {}

    # What senders do, and are told

    def submit(
        self, sender: str, submission: Submission, now: float
    ) -> tuple[list[Record], Ticket]:
        """Make the records of a submission, and their ticket."""
        parcel = Parcel(sender, Ticket(len(submission.sizes)))
        self._parcels[parcel.ticket] = parcel
        self._open[parcel] = None
        for number, size in enumerate(submission.sizes, len(self.messages)):
            parcel.messages.append(Message(number, parcel, submission, size, now))
        self.messages += parcel.messages
        return [(head(Kind.DIRECT), "", m.body) for m in parcel.messages], parcel.ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Note that the caller gave up waiting."""
        self._parcels[ticket].withdrawn = True

    def on_accepted(self, sender: str, tickets: Iterable[Ticket]) -> None:
        """Check what a sender is told: no more acceptances than handlers gave."""
        for ticket in tickets:
            parcel = self._parcels[ticket]
            if parcel.sender != sender:
                self._wrong(Rule.UNTRUE, sender, f"told of a ticket of {parcel.sender}")
            settled = [m for m in parcel.messages if m.verdict is Outcome.ACCEPTED]
            if ticket.accepted > len(settled):
                self._wrong(
                    Rule.UNTRUE,
                    sender,
                    f"{ticket.accepted} of messages {parcel.messages[0].number}.. are said to be "
                    f"accepted, handlers accepted {len(settled)}",
                )
            self._check_end(parcel)

    def on_returned(self, sender: str, event: Returned, *, session_over: bool) -> None:
        """Check what a sender is told of a record that was not accepted."""
        message = self._find(event.record, sender)
        if message is None:
            return
        parcel = message.parcel
        if parcel.sender != sender or parcel.ticket is not event.ticket:
            self._wrong(Rule.UNTRUE, sender, f"{message} came back with a foreign ticket")
        if message.told is not None:
            self._wrong(Rule.DUPLICATED, sender, f"{message} ended twice: {event.outcome.name}")
            return
        message.told = event.outcome
        message.unsent = not event.transmitted
        parcel.told += 1
        why = self._untrue(message, event, session_over=session_over)
        if why:
            self._wrong(Rule.UNTRUE, sender, f"{message} came back {event.outcome.name}: {why}")
        self._check_end(parcel)

    def _untrue(self, message: Message, event: Returned, *, session_over: bool) -> str:
        """Return what is wrong with an outcome, or nothing."""
        handled = message.handled_by is not None
        if handled and not event.transmitted:
            return "said to be unsent, but a handler saw it"
        if not event.transmitted and event.outcome is Outcome.RELEASED:
            return ""  # the pattern may send it elsewhere
        if session_over and event.outcome is Outcome.UNKNOWN:
            return ""
        if event.outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN):
            return "which cannot be while its session goes on"
        if not handled:
            return self._untrue_unhandled(message, event.outcome)
        if event.outcome is not message.verdict:
            return f"the handler said {message.verdict and message.verdict.name}"
        if event.reason != message.reason or abs(event.delay - message.delay) > 0.001:
            return f"reason {event.reason!r} and delay {event.delay} are not the handler's"
        return ""

    def _untrue_unhandled(self, message: Message, outcome: Outcome) -> str:
        may_be = {
            Outcome.EXPIRED: message.ttl is not None or message.parcel.withdrawn,
            Outcome.REJECTED: (message.parcel.sender[0], message.target, message.lane)
            in self._damaged,  # the digest told
        }
        return "" if may_be.get(outcome) else "and no handler saw it"

    def _check_end(self, parcel: Parcel) -> None:
        ticket = parcel.ticket
        if ticket.accepted + parcel.told > ticket.expected:
            numbers = f"{parcel.messages[0].number}..{parcel.messages[-1].number}"
            self._wrong(
                Rule.DUPLICATED,
                parcel.sender,
                f"{ticket.expected} messages {numbers} have {ticket.accepted} acceptances "
                f"and {parcel.told} other ends",
            )
        if parcel.done and self._open.pop(parcel, True) is None:
            for message in parcel.messages:
                if message.told is None and message.verdict is not Outcome.ACCEPTED:
                    self._wrong(
                        Rule.UNTRUE,
                        parcel.sender,
                        f"{message} counts as accepted, its handler said "
                        f"{message.verdict and message.verdict.name}",
                    )

    def on_death(self, process: str) -> None:
        """Note that a process died: nobody waits for its messages any more."""
        for parcel in [parcel for parcel in self._open if parcel.sender == process]:
            del self._open[parcel]

    def on_damage(self, source: int, target: int, lane: int) -> None:
        """Note that the network changed a large body on its way."""
        self._damaged.add((chr(ord("a") + source), target, lane))

    # What handlers see, and decide

    def on_delivered(
        self, receiver: str, index: int, sender: int, lane: int, record: Record, now: float
    ) -> Message | None:
        """Check a message that a handler of `receiver` is given; None where it is nobody's."""
        message = self._find(record, receiver)
        if message is None:
            return None
        source = message.parcel.sender
        if message.handled_by is not None:
            self._wrong(
                Rule.DUPLICATED, receiver, f"{message} was handled by {message.handled_by} already"
            )
            return None
        message.handled_by = receiver
        if message.target != index or source[0] != chr(ord("a") + sender) or message.lane != lane:
            self._wrong(Rule.DAMAGED, receiver, f"{message} was not for {receiver}, lane {lane}")
        if record[2] != message.body:
            self._wrong(Rule.DAMAGED, receiver, f"{message} has another body than was sent")
        if message.unsent or message.told is Outcome.EXPIRED:
            self._wrong(Rule.UNTRUE, receiver, f"{message} is delivered, its sender knows not")
        if message.ttl is not None:
            self._check_ttl(message, receiver, now)
        self._check_order(message, source, receiver)
        return message

    def _check_ttl(self, message: Message, receiver: str, now: float) -> None:
        if message.expires_at is None:
            self._wrong(Rule.LATE, receiver, f"{message} came without its time to live")
        elif now > message.expires_at + TTL_SLACK:
            late = now - message.expires_at
            self._wrong(Rule.LATE, receiver, f"{message} is handled {late:.3f} s after its end")

    def _check_order(self, message: Message, source: str, receiver: str) -> None:
        lane = (source, receiver, message.lane)
        last = self._last_of_lane.get(lane, -1)
        if last > message.number:
            self._wrong(Rule.MISORDERED, receiver, f"{message} comes after message {last}")
        self._last_of_lane[lane] = message.number
        if message.key is None:
            return
        key = (source, receiver, message.key)
        last = self._last_of_key.get(key, -1)
        if last > message.number:
            self._wrong(
                Rule.MISORDERED,
                receiver,
                f"{message} comes after message {last} of the same key {message.key!r}",
            )
        self._last_of_key[key] = message.number

    @staticmethod
    def on_settled(
        messages: Sequence[Message], outcome: Outcome, reason: str, delay: float
    ) -> None:
        """Note that the receiver's link took a handler's verdict on these messages."""
        for message in messages:
            message.verdict = outcome
            message.reason = reason
            message.delay = delay

    # In the end

    @property
    def settled(self) -> bool:
        """Whether every sender that lives was told everything."""
        return not self._open

    def finish(self) -> None:
        """Find what was lost: nobody was ever told its end."""
        for parcel in self._open:
            ends = parcel.ticket.accepted + parcel.told
            numbers = f"{parcel.messages[0].number}..{parcel.messages[-1].number}"
            for _ in range(parcel.ticket.expected - ends):
                self._wrong(Rule.LOST, parcel.sender, f"of messages {numbers}, one has no end")

    def peek(self, record: Record) -> Message | None:
        """Return the message a record carries, or None for a later fragment of one."""
        if record[0] & 15 == Kind.FRAGMENT:
            return None
        number = number_in(record[2])
        return self.messages[number] if number < len(self.messages) else None

    def _find(self, record: Record, host: str) -> Message | None:
        number = number_in(record[2])
        if number < len(self.messages):
            return self.messages[number]
        self._wrong(Rule.DAMAGED, host, f"a body that nobody sent: {bytes(record[2][:16]).hex()}")
        return None
