"""What an application does with work queues."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import UTC, datetime

from zmesh.errors import InvalidOption
from zmesh.face.assembly import Assembly
from zmesh.face.checks import check_delay, check_message_options, check_queue, is_seconds
from zmesh.face.inbox import Settle, check_settle
from zmesh.face.jobs import Jobs
from zmesh.face.outgoing import Headers
from zmesh.face.pushing import JobTerms
from zmesh.face.receipts import Receipt
from zmesh.face.signing import signed
from zmesh.face.verifying import Verify
from zmesh.message import PRIORITY_DEFAULT, Kind
from zmesh.options import NodeOptions
from zmesh.security.rules import Action
from zmesh.terms import Compression


class Queueing(ABC):
    """The part of a node that pushes and pulls jobs."""

    _options: NodeOptions

    @abstractmethod
    def _at_work(self) -> Assembly:
        """Return the node at work, or raise why there is none."""

    async def push(
        self,
        queue: str,
        body: object,
        *,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
        delay: float = 0.0,
        at: datetime | None = None,
        max_attempts: int | None = None,
        compression: Compression | None = None,
        durable: bool | None = None,
        sign: bool | None = None,
    ) -> Receipt:
        """Push a job for one of those who pull the queue, and return once there is room for it.

        This node holds the job until a consumer with room takes it, and until it has its outcome;
        a durable one is on disk when this returns. `await receipt` for the outcome, or leave it.

        Args:
            queue: its name; whoever pushes makes it.
            body: bytes, which pass untouched, or anything msgpack can carry.
            headers: small values beside the body.
            priority: 0 (lowest) to 9 (highest): higher ones leave first.
            key: jobs of one key are done one after the other, in the order pushed here, and by
                one consumer as long as the consumers stay the same.
            ttl: seconds after which it is no longer worth beginning, counted from now.
            delay: seconds before it may begin.
            at: the same as a time, with its zone.
            max_attempts: how often it is tried before it is a dead letter; by default
                `attempts_max` of the node's options.
            compression, sign: as for `send`.
            durable: whether it is stored first, and handed out until it has its outcome, in
                whatever life of this node; by default where the node has `storage`.

        Raises:
            JournalFull, JournalBroken: it could not be stored, and is not pushed.
            BodyNotEncodable, BodyTooLarge, InvalidOption, UsageError: it cannot be pushed.
        """
        assembly = self._at_work()
        is_durable = assembly.durable.is_wanted(durable)
        terms = self._terms(queue, priority, key, ttl, delay, at, max_attempts, durable=is_durable)
        compressing = assembly.outgoing.compressing
        compressor = compressing.compressor(compression)
        record = assembly.outgoing.record(Kind.JOB, queue, body, headers)
        record = signed(record, terms.sign(assembly.outgoing.signing, sign))
        if compressor is not None:
            record = await compressing.soon(record, compressor)
        return await assembly.pushing.push(record, terms)

    def push_nowait(
        self,
        queue: str,
        body: object,
        *,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
        delay: float = 0.0,
        at: datetime | None = None,
        max_attempts: int | None = None,
        compression: Compression | None = None,
        sign: bool | None = None,
    ) -> Receipt:
        """Push a job now, as `push` does where there is room. It is not stored first.

        Raises:
            Backpressure: there is no room.
        """
        assembly = self._at_work()
        terms = self._terms(queue, priority, key, ttl, delay, at, max_attempts)
        compressing = assembly.outgoing.compressing
        compressor = compressing.compressor(compression)
        record = assembly.outgoing.record(Kind.JOB, queue, body, headers)
        record = signed(record, terms.sign(assembly.outgoing.signing, sign))
        record = compressing.now(record, compressor)
        return assembly.pushing.push_nowait(record, terms)

    async def push_many(
        self,
        queue: str,
        bodies: Iterable[object],
        *,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
        delay: float = 0.0,
        at: datetime | None = None,
        max_attempts: int | None = None,
        compression: Compression | None = None,
        durable: bool | None = None,
        sign: bool | None = None,
    ) -> Receipt:
        """Push many jobs, as fast as there is room, under one receipt.

        They go in pieces. One that cannot be sent raises with its piece not pushed; those of the
        pieces before it are. Arguments are those of `push`.

        Raises:
            InvalidOption: `bodies` is one body, or nothing that can be iterated; and as `push`.
        """
        assembly = self._at_work()
        is_durable = assembly.durable.is_wanted(durable)
        terms = self._terms(queue, priority, key, ttl, delay, at, max_attempts, durable=is_durable)
        compressor = assembly.outgoing.compressing.compressor(compression)
        by = terms.sign(assembly.outgoing.signing, sign)
        batch = assembly.outgoing.batch(bodies, headers, Kind.JOB, queue, compressor, by)
        return await assembly.pushing.push_many(queue, batch, terms)

    def pull(
        self,
        queue: str,
        *,
        prefetch: int = 32,
        settle: Settle = "auto",
        verify: Verify | None = None,
    ) -> Jobs:
        """Take jobs of a queue, of all nodes that push to it, while an `async with` block runs.

        ```python
        async with node.pull("thumbnails") as jobs:
            async for job in jobs:
                make_thumbnail(job.body)
        ```

        Asking for the next job accepts the one before; an exception that ends the loop gives it
        back, to be tried again later with `attempt` one higher, and at last to be a dead letter
        with its producer. `accept`, `reject`, `release` and `fail` say it outright; with
        `settle="manual"` only they do.

        Args:
            queue: its name.
            prefetch: jobs that may be here without outcome: more hides the way to the producers,
                fewer leaves more to other consumers.
            settle: "auto" or "manual".
            verify: "required" for signed jobs alone, "if-signed" where a signature that is there
                must hold; what the node says by default.

        Raises:
            InvalidOption: one of these cannot work.
        """
        assembly = self._at_work()
        check_settle(settle)
        self._check_queue(queue)
        assembly.engine.guard.check_own(Action.PULL, queue)
        if type(prefetch) is not int or prefetch < 1:
            raise InvalidOption("prefetch", prefetch, "a whole number, 1 or more")
        return assembly.pull(queue, prefetch, settle, verify)

    def _terms(
        self,
        queue: str,
        priority: int,
        key: str | None,
        ttl: float | None,
        delay: float,
        at: datetime | None,
        max_attempts: int | None,
        *,
        durable: bool = False,
    ) -> JobTerms:
        """Check what is asked for a job."""
        self._check_queue(queue)
        self._at_work().engine.guard.check_own(Action.PUSH, queue)
        check_message_options(self._options.wire, priority, key, ttl)
        if at is not None:
            if delay:
                raise InvalidOption("at", at, "no delay= beside it: one of them says when")
            delay = _seconds_until(at)
        check_delay(delay, ttl)
        if max_attempts is not None and (type(max_attempts) is not int or max_attempts < 1):
            raise InvalidOption("max_attempts", max_attempts, "a whole number, 1 or more, or None")
        return JobTerms(priority, key, ttl, delay, max_attempts, durable)

    def _check_queue(self, queue: object) -> None:
        check_queue(queue, self._options.wire)


def _seconds_until(at: object) -> float:
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise InvalidOption("at", at, "a datetime with its zone, as datetime.now(UTC) has it")
    seconds = max(0.0, (at - datetime.now(UTC)).total_seconds())
    if not is_seconds(seconds):
        raise InvalidOption("at", at, "a time in this generation")
    return seconds
