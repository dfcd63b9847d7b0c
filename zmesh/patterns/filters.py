"""Filters of subscriptions: by type, by headers, by content.

They run where a message is published, so that what nobody wants does not travel, and again where
it arrives, because a publisher may send what it cannot or will not evaluate. A filter from a peer
is not trusted: what it costs is bounded, and one that fails wants nothing.
"""

from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, cast

from zmesh.errors import InvalidOption, MissingPackage, ProtocolError
from zmesh.message import Encoding, Record, Tag, encoding_of, extra
from zmesh.options import NodeOptions, WireLimits
from zmesh.terms import Filter, Match, Scalar
from zmesh.wire.bodies import HeaderValue, body_of, check_text, decode_headers
from zmesh.wire.compression import plain_size

HAS_CONTENT: Final = find_spec("jmespath") is not None
"""Without JMESPath, what its expressions would hold back is sent."""

if TYPE_CHECKING or HAS_CONTENT:
    from zmesh.patterns.content import ContentError, Expression

_PARSING_STEPS: Final = 2
"""That parsing costs, for each character of an expression."""

_NOTHING: Final = object()

_UNPARSED: Final = object()


# What an application asks for


def filter_of(
    kind: str | None,
    where: Mapping[str, Scalar] | None,
    match: Match,
    content: str | None,
    limits: WireLimits,
) -> Filter | None:
    """Return the filter of a subscription's options, None where they ask for everything.

    Raises:
        InvalidOption: naming the option that cannot work.
        MissingPackage: `content` needs JMESPath.
    """
    if match not in ("all", "any"):
        raise InvalidOption("match", match, '"all" or "any"')
    if kind is not None:
        check_type(kind, limits)
    pairs = () if where is None else _check_where(where, limits)
    if content is not None:
        if not isinstance(content, str):
            raise InvalidOption("content", content, "a JMESPath expression, as a text")
        check_text("content", content, limits)
        _check_content(content)
    if kind is None and not pairs and content is None:
        return None
    return Filter(kind, pairs, match if pairs else "all", content)


def check_type(kind: object, limits: WireLimits) -> None:
    """Check the type of a message; raises InvalidOption."""
    if not isinstance(kind, str) or not kind:
        raise InvalidOption("type", kind, "a text that is not empty")
    check_text("type", kind, limits)


def _check_where(where: object, limits: WireLimits) -> tuple[tuple[str, Scalar], ...]:
    if not isinstance(where, Mapping) or not 0 < len(where) <= limits.headers_max:
        expected = f"headers and their values, 1 to {limits.headers_max} of them"
        raise InvalidOption("where", where, expected)
    for name, value in where.items():
        if not isinstance(name, str):
            raise InvalidOption("header in where", name, "a text")
        check_text("header in where", name, limits)
        if not is_scalar(value):
            raise InvalidOption(f"where[{name!r}]", value, "str, int, float, bool or None")
        if isinstance(value, str):
            check_text(f"where[{name!r}]", value, limits)
    return tuple(sorted(cast("Mapping[str, Scalar]", where).items(), key=lambda pair: pair[0]))


def is_scalar(value: object) -> bool:
    """Return whether a header can be compared with a value; no number is infinite there."""
    if isinstance(value, float):
        return value - value == 0.0  # neither infinite nor NaN, which JSON cannot carry
    return value is None or isinstance(value, str | int)


def _check_content(text: str) -> None:
    if not HAS_CONTENT:
        raise MissingPackage("content=", "jmespath", "content")
    try:
        Expression(text)
    except ContentError as error:
        raise InvalidOption("content", text, f"a JMESPath expression ({error})") from error


# What becomes of it


class Allowance:
    """Steps that a peer's filters may take here: so many a second, and as many saved up."""

    __slots__ = ("_at", "_left", "_per_second")

    def __init__(self, per_second: int, now: float) -> None:
        self._per_second = per_second
        self._left = float(per_second)
        self._at = now

    def is_left(self, now: float) -> bool:
        """Return whether there are any."""
        gained = (now - self._at) * self._per_second
        self._left = min(self._per_second, self._left + gained)
        self._at = now
        return self._left > 0

    def spend(self, steps: int) -> None:
        """Take some; the last may be more than there were."""
        self._left -= steps


class Sight:
    """A publication as filters see it: taken apart once, each distinct filter answered once."""

    __slots__ = ("_body", "_headers", "answers", "record")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.answers: dict[str, bool] = {}  # by the filter's text
        self._headers: dict[str, HeaderValue] | None = None
        self._body: object = _UNPARSED

    @property
    def headers(self) -> dict[str, HeaderValue]:
        """Its headers; none where they are not valid."""
        if self._headers is None:
            data = extra(self.record, Tag.HEADERS)
            try:
                self._headers = decode_headers(data) if isinstance(data, bytes) else {}
            except ProtocolError:
                self._headers = {}  # no filter finds anything in them; who reads them hears why
        return self._headers

    def body(self, bytes_max: int) -> object:
        """Return its body as the application would get it; `_NOTHING` where it has no inside."""
        if self._body is _UNPARSED:
            record, self._body = self.record, _NOTHING
            if encoding_of(record) == Encoding.MSGPACK and plain_size(record) <= bytes_max:
                with suppress(ProtocolError):  # as above
                    self._body = body_of(record)
        return self._body


class Sieve:
    """A filter at work. `text` tells it from others; the expression is parsed when needed."""

    __slots__ = ("expression", "filter", "text")

    def __init__(self, wanted: Filter, text: str) -> None:
        self.filter = wanted
        self.text = text
        self.expression: Any = None  # an Expression, where there can be one


class Filters:
    """Runs filters, and counts what went wrong with them."""

    def __init__(self, options: NodeOptions) -> None:
        self._options = options
        self.failed = 0  # evaluations: the expression did not parse, failed, or took too long
        self.passed_over = 0  # not evaluated: no JMESPath here, or the peer's steps were used up

    def passes(
        self, sieve: Sieve, sight: Sight, now: float, allowance: Allowance | None = None
    ) -> bool | None:
        """Return whether a publication is wanted; None where that is not to be found out here.

        `allowance` is that of the peer whose filter it is, None for one of this node.
        """
        answer = sight.answers.get(sieve.text)
        if answer is None:
            wanted = sieve.filter
            answer = _meets_type(wanted, sight) and (
                not wanted.where or meets_headers(wanted, sight.headers)
            )
            if answer and wanted.content is not None:
                if not HAS_CONTENT or (allowance is not None and not allowance.is_left(now)):
                    self.passed_over += 1
                    return None
                answer, steps = self._holds(sieve, wanted.content, sight)
                if allowance is not None:
                    allowance.spend(steps)
            sight.answers[sieve.text] = answer
        return answer

    def _holds(self, sieve: Sieve, content: str, sight: Sight) -> tuple[bool, int]:
        """Evaluate the expression; return the answer and the steps it took."""
        body = sight.body(self._options.content_bytes_max)
        if body is _NOTHING:
            return False, 1
        steps_max = self._options.filter_steps_max
        parsing = 0
        try:
            if sieve.expression is None:
                parsing = _PARSING_STEPS * len(content)
                sieve.expression = Expression(content)
            holds, steps = sieve.expression.holds(body, steps_max)
        except ContentError:
            self.failed += 1
            return False, parsing + steps_max
        return holds, parsing + steps


def _meets_type(wanted: Filter, sight: Sight) -> bool:
    return wanted.type is None or extra(sight.record, Tag.TYPE) == wanted.type


def meets_headers(wanted: Filter, headers: Mapping[str, HeaderValue]) -> bool:
    """Return whether headers are what a filter that looks at headers wants."""
    found = (is_same(headers.get(name, _NOTHING), value) for name, value in wanted.where)
    return any(found) if wanted.match == "any" else all(found)


def is_same(header: object, value: Scalar) -> bool:
    """Return whether a header, or attribute, has a value: to Python 1 is True, to nobody else."""
    return header == value and isinstance(header, bool) is isinstance(value, bool)
