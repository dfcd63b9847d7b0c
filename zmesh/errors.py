"""Every error zmesh raises, split by who must act. Each carries its facts as fields."""

from collections.abc import Sequence


class ZmeshError(Exception):
    """The base of every zmesh error."""


class UsageError(ZmeshError):
    """The caller must change the call."""


class ProtocolError(ZmeshError):
    """A peer broke the protocol; what it sent had no effect. The peer must be mended."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind = kind
        self.detail = detail
        super().__init__(f"peer broke the protocol ({kind}): {detail}")


class DeliveryError(ZmeshError):
    """A message did not come to a good end. What to do depends on the kind."""


class Backpressure(ZmeshError):
    """There is no room now. Wait with `post` or `push`, or try again later."""

    def __init__(
        self, peer: str, queued_messages: int, queued_bytes: int, instead: str = "post"
    ) -> None:
        self.peer = peer
        self.queued_messages = queued_messages
        self.queued_bytes = queued_bytes
        super().__init__(
            f"{queued_messages} messages ({queued_bytes} bytes) already wait for {peer}: "
            f"await `{instead}` to wait for room, or try again later"
        )


class Closed(ZmeshError):
    """The node was closed on this side; make a new one."""

    def __init__(self, what: str = "node") -> None:
        self.what = what
        super().__init__(f"this {what} is closed: open a new one")


class ForkedProcess(UsageError):
    """A node was used in a child process made by fork; ZeroMQ contexts do not survive it."""

    def __init__(self, owner_pid: int, pid: int) -> None:
        self.owner_pid = owner_pid
        self.pid = pid
        super().__init__(
            f"this node belongs to process {owner_pid} and was used in its fork {pid}: "
            "create the node after the fork, or start processes with 'spawn'"
        )


class NotOpen(UsageError):
    """A node was used before it was opened."""

    def __init__(self) -> None:
        super().__init__("this node is not open yet: use it inside `async with zmesh.Node(...)`")


class WrongThread(UsageError):
    """A node was used outside the thread that runs its event loop."""

    def __init__(self) -> None:
        super().__init__(
            "this node was used from another thread than its event loop's: "
            "use asyncio.run_coroutine_threadsafe(coroutine, loop)"
        )


class MissingPackage(UsageError):
    """Something was asked for that needs a package which is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        self.what = what
        self.package = package
        self.extra = extra
        super().__init__(f"{what} needs the package {package}: pip install 'zmesh[{extra}]'")


class BodyTooLarge(UsageError):
    """A body is above the limit for one message."""

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(f"a body of {size} bytes is over the limit of {limit}: send it in pieces")


class BodyNotEncodable(UsageError):
    """A body is neither bytes nor something msgpack can carry."""

    def __init__(self, type_name: str, why: str) -> None:
        self.type_name = type_name
        super().__init__(
            f"a body of type {type_name} cannot be encoded ({why}): "
            "send bytes, or lists, dicts, numbers, text and None"
        )


class InvalidOption(UsageError):
    """An argument has a value that cannot work."""

    def __init__(self, option: str, value: object, expected: str) -> None:
        self.option = option
        self.value = value
        super().__init__(f"{option}={value!r} cannot work: expected {expected}")


class MapFull(UsageError):
    """A shared map has no room for another key, or for a value of this size."""

    def __init__(self, name: str, keys: int, size: int) -> None:
        self.name = name
        self.keys = keys
        self.size = size
        super().__init__(
            f"the shared map {name!r} is full ({keys} keys, {size} bytes): delete some, or raise "
            "shared_keys_max and shared_bytes_max on all nodes that share it"
        )


class ExchangeUnknown(UsageError):
    """No exchange of this name is declared, as far as this node has heard."""

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        self.name = name
        self.known = tuple(known)
        seen = ", ".join(sorted(known)[:8]) or "none"
        super().__init__(
            f"no exchange {name!r} is declared (known: {seen}): declare it first, with "
            f"`await node.exchange({name!r}, kind=...)`"
        )


class ExchangeConflict(UsageError):
    """An exchange was declared in two ways; all nodes must agree on one."""

    def __init__(self, name: str, wanted: str, declared: str) -> None:
        self.name = name
        self.wanted = wanted
        self.declared = declared
        super().__init__(
            f"exchange {name!r} is declared with {declared}, not with {wanted}: declare it alike "
            "everywhere, or take another name"
        )


class TicketUnknown(UsageError):
    """No request has this ticket: it was forgotten, or was never made from this journal."""

    def __init__(self, ticket: str) -> None:
        self.ticket = ticket
        super().__init__(f"this node has no ticket {ticket!r} (any more): ask again, call_later")


class AlreadySettled(UsageError):
    """A message was accepted, rejected or released a second time."""

    def __init__(self) -> None:
        super().__init__(
            "this message already has its outcome: settle it once, and before the next is asked "
            "for, or read with settle='manual'"
        )


class AlreadyHandled(ZmeshError):
    """The effects of this message are in the database from before; now it is accepted.

    It came again because its sender did not hear of its outcome.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(
            f"message {number} of its sender was handled before, and what its handler wrote then "
            "is there: go on with the next one (`except zmesh.AlreadyHandled: continue`)"
        )


class NotDurable(UsageError):
    """A guarantee was asked for that needs the sender of the message to keep a journal."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f"{what} needs a message whose sender has storage, which this one's has not: "
            "without it nobody can tell a message that comes again from a new one. Give the "
            "sender storage=PATH, or handle the message without"
        )


class PeerUnknown(DeliveryError):
    """Nobody by this name or id is known."""

    def __init__(self, name: str, known: Sequence[str] = (), why: str = "") -> None:
        self.name = name
        self.known = tuple(known)
        self.why = why  # nobody at all is there, where that is so
        who = ", ".join(sorted(known)[:8]) or "nobody yet"
        super().__init__(
            f"no peer {name!r} is known (known: {who}): "
            "check the name, or `await node.peers.wait_for(name=...)` first"
            + (f"; {why}" if why else "")
        )


class AmbiguousPeer(UsageError):
    """Several live peers carry this name; use an id."""

    def __init__(self, name: str, ids: Sequence[str]) -> None:
        self.name = name
        self.ids = tuple(ids)
        super().__init__(
            f"{len(ids)} peers are named {name!r}: use one of the ids {', '.join(ids)}"
        )


class PeerLost(DeliveryError):
    """The peer is gone, and with it the outcome of the message."""

    def __init__(self, peer: str, reason: str) -> None:
        self.peer = peer
        self.reason = reason
        super().__init__(
            f"peer {peer} was lost ({reason}): what had been sent to it may or may not have been "
            "handled; send to another peer, or again when this one returns"
        )


class PeerRestarted(DeliveryError):
    """The peer came back without its memory of the message."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        super().__init__(
            f"peer {peer} restarted and forgot its session: the message may or may not have been "
            "handled; send it again if handling it twice is harmless"
        )


class PeersMissing(ZmeshError, TimeoutError):
    """The peers waited for did not appear in time."""

    def __init__(self, wanted: str, seen: Sequence[str], timeout: float, why: str = "") -> None:
        self.wanted = wanted
        self.seen = tuple(seen)
        self.timeout = timeout
        self.why = why  # nobody at all is there, where that is so
        who = ", ".join(sorted(seen)[:8]) or "nobody"
        super().__init__(
            f"no {wanted} within {timeout:g} s (in sight: {who}): check that it runs in the same "
            "mesh on this machine, or name it with peers=[...]" + (f"; {why}" if why else "")
        )


class NoProvider(DeliveryError):
    """No live peer provides the service."""

    def __init__(self, service: str, known: Sequence[str] = ()) -> None:
        self.service = service
        self.known = tuple(known)
        seen = ", ".join(sorted(known)[:8]) or "none"
        super().__init__(
            f"nobody provides {service!r} (services in sight: {seen}): start a provider, or "
            f"`await node.peers.wait_for(service={service!r})` first"
        )


class NoMembers(DeliveryError):
    """Nobody who is there is in the group."""

    def __init__(self, group: str, known: Sequence[str] = ()) -> None:
        self.group = group
        self.known = tuple(known)
        seen = ", ".join(sorted(known)[:8]) or "none"
        super().__init__(
            f"nobody is in the group {group!r} (groups in sight: {seen}): let somebody join it, "
            f"or `await node.peers.wait_for(group={group!r})` first"
        )


class Unroutable(DeliveryError):
    """Nothing that could take the message is bound to the exchange; it was not sent."""

    def __init__(self, exchange: str, routing_key: str) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        super().__init__(
            f"exchange {exchange!r} has nobody for a message with the routing key "
            f"{routing_key!r}: bind a queue, or a subject that somebody subscribes to, give the "
            "exchange an alternate, or `await exchange.wait_for(...)` first"
        )


class DeliveryTimeout(DeliveryError, TimeoutError):
    """The outcome did not come in time; the message may still be handled."""

    def __init__(self, what: str, timeout: float) -> None:
        self.what = what
        self.timeout = timeout
        super().__init__(
            f"{what} had no outcome within {timeout:g} s: it may still be handled; "
            "allow more time, or look at the peer's state"
        )


class Expired(DeliveryError):
    """The message's time to live ended before anybody began to handle it."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        super().__init__(f"a message for {peer} outlived its ttl unhandled: allow more, or resend")


class Rejected(DeliveryError):
    """The receiver refused the message for good."""

    def __init__(self, peer: str, reason: str) -> None:
        self.peer = peer
        self.reason = reason
        super().__init__(f"{peer} rejected the message: {reason}")


class DeadLettered(DeliveryError):
    """Handling failed as often as allowed; the message is kept among the dead letters."""

    def __init__(self, peer: str, attempts: int, reason: str) -> None:
        self.peer = peer
        self.attempts = attempts
        self.reason = reason
        super().__init__(
            f"{peer} failed to handle the message {attempts} times (last: {reason}): "
            "mend the handler, then send it again"
        )


class RemoteError(DeliveryError):
    """The handler of a call raised; its exception's type and message came back.

    `traceback` is its text where the provider's `tracebacks_to_callers` allows, else None.
    """

    def __init__(
        self, service: str, type_name: str, message: str, traceback: str | None = None
    ) -> None:
        self.service = service
        self.type = type_name
        self.message = message
        self.traceback = traceback
        super().__init__(f"the handler of {service!r} raised {type_name}: {message}")


class StreamBroken(DeliveryError):
    """A stream ended in its middle: what was read came in order, and more will not come."""

    def __init__(self, peer: str, reason: str) -> None:
        self.peer = peer
        self.reason = reason
        super().__init__(
            f"the stream with {peer} broke ({reason}): begin another, from where this one came to"
        )


class SlowSubscriber(ZmeshError):
    """A subscription with `when_full="disconnect"` was read too slowly, and has ended."""

    def __init__(self, pattern: str, limit: int) -> None:
        self.pattern = pattern
        self.limit = limit
        super().__init__(
            f"the subscription to {pattern!r} has ended, because more than {limit} publications "
            "waited for it: read faster, allow more with limit=, or choose another when_full="
        )


class FileRefused(DeliveryError):
    """A peer does not take a file: its application refuses it, or receives none."""

    def __init__(self, peer: str, name: str, reason: str) -> None:
        self.peer = peer
        self.name = name
        self.reason = reason
        super().__init__(f"{peer} does not take the file {name!r}: {reason}")


class FileNotSaved(DeliveryError):
    """A peer could not write a file; what came of it stays there, for another try.

    `code` is the system's word for it, as "ENOSPC"; `reason` is in plain words.
    """

    def __init__(self, peer: str, name: str, code: str, reason: str) -> None:
        self.peer = peer
        self.name = name
        self.code = code
        self.reason = reason
        super().__init__(
            f"{peer} could not save the file {name!r} ({code}: {reason}): mend that there, then "
            "send it again"
        )


class FileCorrupted(DeliveryError):
    """What came of a file is not what was sent; the peer removed it."""

    def __init__(self, peer: str, name: str) -> None:
        self.peer = peer
        self.name = name
        super().__init__(
            f"what came at {peer} of the file {name!r} is not what was sent, and was removed: "
            "send it again"
        )


class FileChanged(DeliveryError):
    """A file was written to while it was sent."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} changed while it was sent: send it again, or a copy that rests")


class DuplicateIdentity(ZmeshError):
    """Two live nodes carry one identity, as cloned devices do; the operator must part them."""

    def __init__(self, node: str, endpoint: str) -> None:
        self.node = node
        self.endpoint = endpoint
        super().__init__(
            f"node id {node} is alive twice, the other at {endpoint}: "
            "give one of them a new identity (remove the copied one)"
        )


class InvalidBody(ZmeshError):
    """A body is not of the type its receiver wants: the sender must mend it.

    `wanted` names the type; `detail` is as "Expected `int`, got `str` - at `$.age`".
    """

    def __init__(self, wanted: str, detail: str) -> None:
        self.wanted = wanted
        self.detail = detail
        super().__init__(f"the body is no valid {wanted}: {detail}")


class StorageError(ZmeshError):
    """What a node keeps on disk is in trouble; the operator must act."""


class JournalFull(StorageError):
    """There is no room in the journal, or on its disk; nothing that was accepted is lost.

    Args:
        path: the journal.
        used: its bytes in use.
        limit: what it may use; 0 where the disk is what is full.
    """

    def __init__(self, path: str, used: int, limit: int) -> None:
        self.path = path
        self.used = used
        self.limit = limit
        what = (
            f"the journal {path} is full ({used} of {limit} bytes): wait until messages have "
            "their outcome, remove dead letters, or raise journal_bytes_max"
            if limit
            else f"the disk of the journal {path} is full ({used} bytes are the journal's): free "
            "space there; messages are taken again by themselves when there is some"
        )
        super().__init__(what)


class DeadLettersFull(StorageError):
    """As many stored messages could not be handled as are kept; nothing more is accepted for now.

    What was accepted stays: none is dropped to make room for another.
    """

    def __init__(self, letters: int) -> None:
        self.letters = letters
        super().__init__(
            f"{letters} dead letters leave no room for more, so no durable message is accepted: "
            "look at them, requeue or purge some, or raise dead_letters_max"
        )


class JournalBroken(StorageError):
    """The disk failed while the journal was written; it is read-only for good in this process.

    Nothing is tried again: what a failed fsync left behind cannot be known (Rebello et al.,
    "Can Applications Recover from fsync Failures?", ATC 2020).
    """

    def __init__(self, path: str, operation: str, reason: str) -> None:
        self.path = path
        self.operation = operation
        self.reason = reason
        super().__init__(
            f"the journal {path} could not {operation} ({reason}) and writes nothing any more: "
            "look at the disk and the permissions, then start the node again"
        )


class JournalLocked(StorageError):
    """Another process has the journal open; one of two must use another."""

    def __init__(self, path: str, pid: int | None) -> None:
        self.path = path
        self.pid = pid
        who = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"the journal {path} is in use by {who}: stop that, or give this node another path"
        )


class JournalCorrupted(StorageError):
    """The file of a journal is damaged; what can be read is rescued when a node opens it."""

    def __init__(self, path: str, detail: str) -> None:
        self.path = path
        self.detail = detail
        super().__init__(
            f"the journal {path} is damaged ({detail}): look at the disk; a node that opens it "
            "sets the file aside, and goes on with what can be read"
        )


class JournalTooNew(StorageError):
    """The journal was written by a later version of zmesh."""

    def __init__(self, path: str, version: int, known: int) -> None:
        self.path = path
        self.version = version
        self.known = known
        super().__init__(
            f"the journal {path} has schema version {version}, this zmesh knows up to {known}: "
            "use the zmesh that wrote it, or a later one"
        )


class TransactionFailed(StorageError):
    """The application's database did not begin or commit a handler's transaction.

    The message has no outcome from it: let the exception leave the handler, and it comes again.
    """

    def __init__(self, operation: str, reason: str) -> None:
        self.operation = operation
        self.reason = reason
        super().__init__(
            f"the database could not {operation} the transaction of a message ({reason}): look "
            "at the database; the message comes again when it is given back, and what was "
            "committed all the same is found then"
        )


class NoDeadLetter(UsageError):
    """There is no dead letter of this id, or no more."""

    def __init__(self, letter: int) -> None:
        self.letter = letter
        super().__init__(
            f"there is no dead letter {letter}: it was requeued or purged, or dropped"
        )


class CannotRequeue(UsageError):
    """What a dead letter was for cannot take it back here."""

    def __init__(self, letter: int, why: str) -> None:
        self.letter = letter
        self.why = why
        super().__init__(f"dead letter {letter} cannot go back: {why}")


class NoJournal(UsageError):
    """There is no journal at this path."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"there is no journal at {path}: check the path")


class Reject(ZmeshError):
    """Raise it in a handler to refuse the message for good: `raise zmesh.Reject("why")`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
