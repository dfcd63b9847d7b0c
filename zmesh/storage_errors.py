"""What can go wrong with what a node keeps on disk, and with what is asked of it."""

from zmesh.errors import UsageError, ZmeshError


class TicketUnknown(UsageError):
    """No request has this ticket: it was forgotten, or was never made from this journal."""

    def __init__(self, ticket: str) -> None:
        self.ticket = ticket
        super().__init__(f"this node has no ticket {ticket!r} (any more): ask again, call_later")


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

    def __init__(
        self, path: str, operation: str, reason: str, *, has_stopped: bool = True
    ) -> None:
        self.path = path
        self.operation = operation
        self.reason = reason
        if operation == "be opened" or not has_stopped:
            advice = ": look at the path, the disk and the permissions"
        else:
            advice = (
                " and writes nothing any more: look at the disk and the permissions, then start "
                "the node again"
            )
        super().__init__(f"the journal {path} could not {operation} ({reason}){advice}")


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
            f"there is no dead letter {letter}, or no more: see which there are, as "
            "node.dead_letters() or `zmesh dead-letters list` tells"
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


class StorageKeyMissing(StorageError):
    """What was asked for is encrypted, and nobody gave the key."""

    def __init__(self, path: str, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint  # of the key it takes; empty where that is lost
        which = f" (the one with the fingerprint {fingerprint})" if fingerprint else ""
        super().__init__(
            f"the journal {path} is encrypted: give its storage key{which}, as "
            "zmesh.Storage(path, key=...), in ZMESH_STORAGE_KEY, or to a command with --key-file"
        )


class StorageKeyWrong(StorageError):
    """A journal is encrypted under another key than was given; nothing was touched."""

    def __init__(self, path: str, fingerprint: str, given: str) -> None:
        self.path = path
        self.fingerprint = fingerprint  # of the key it takes
        self.given = given  # the fingerprint of the other
        super().__init__(
            f"the journal {path} is encrypted under the key {fingerprint}, not {given}: give "
            "that one; to change it: `zmesh journal rekey`"
        )


class StorageNotEncrypted(StorageError):
    """A key was given for a journal that is not encrypted."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"a storage key was given, but the journal {path} is not encrypted: encrypt it "
            "once, with `zmesh journal encrypt`, or leave the key out"
        )
