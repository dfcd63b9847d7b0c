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


class AlreadySettled(UsageError):
    """A message was accepted, rejected or released a second time."""

    def __init__(self) -> None:
        super().__init__(
            "this message already has its outcome: settle it once, and before the next is asked "
            "for, or read with settle='manual'"
        )


class PeerUnknown(DeliveryError):
    """Nobody by this name or id is known."""

    def __init__(self, name: str, known: Sequence[str] = (), why: str = "") -> None:
        self.name = name
        self.known = tuple(known)
        self.why = why  # nobody is there, or not seen from here, where that is so
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
        self.why = why  # nobody is there, or not seen from here, where that is so
        who = ", ".join(sorted(seen)[:8]) or "nobody"
        super().__init__(
            f"no {wanted} within {timeout:g} s (in sight: {who}): check that it runs in the same "
            "mesh on this machine, or name it with peers=[...]" + (f"; {why}" if why else "")
        )


class NoProvider(DeliveryError):
    """No live peer provides the service."""

    def __init__(self, service: str, known: Sequence[str] = (), why: str = "") -> None:
        self.service = service
        self.known = tuple(known)
        self.why = why  # nobody is there, or not seen from here, where that is so
        seen = ", ".join(sorted(known)[:8]) or "none"
        super().__init__(
            f"nobody provides {service!r} (services in sight: {seen}): start a provider, or "
            f"`await node.peers.wait_for(service={service!r})` first" + (f"; {why}" if why else "")
        )


class NoMembers(DeliveryError):
    """Nobody who is there is in the group."""

    def __init__(self, group: str, known: Sequence[str] = (), why: str = "") -> None:
        self.group = group
        self.known = tuple(known)
        self.why = why  # it may not be seen here, where that is so
        seen = ", ".join(sorted(known)[:8]) or "none"
        super().__init__(
            f"nobody is in the group {group!r} (groups in sight: {seen}): let somebody join it, "
            f"or `await node.peers.wait_for(group={group!r})` first" + (f"; {why}" if why else "")
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

    def __init__(
        self, what: str, timeout: float, why: str = "", *, has_arrived: bool = False
    ) -> None:
        self.what = what
        self.timeout = timeout
        self.why = why  # nobody is there, or not seen from here, where that is so
        self.has_arrived = has_arrived  # the peer acknowledged it, and nobody accepted it there
        how = (
            "it was received there, but nobody has read and accepted it; see that the peer reads "
            "its inbox, or allow more time"
            if has_arrived
            else "it may still be handled; allow more time, or look at the peer's state"
        )
        super().__init__(
            f"{what} had no outcome within {timeout:g} s: {how}" + (f"; {why}" if why else "")
        )


class Expired(DeliveryError):
    """The message's time to live ended before anybody began to handle it."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        super().__init__(f"a message for {peer} outlived its ttl unhandled: allow more, or resend")


class Dropped(DeliveryError):
    """A stored message made room for newer ones, as the node was told to do."""

    def __init__(self, peer: str, reason: str) -> None:
        self.peer = peer
        self.reason = reason
        super().__init__(
            f"a message for {peer} was dropped ({reason}): see that {peer} is there, or allow the "
            'journal more; with when_full="raise" or "wait" nothing is dropped'
        )


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


class Reject(ZmeshError):
    """Raise it in a handler to refuse the message for good: `raise zmesh.Reject("why")`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
