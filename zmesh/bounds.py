"""What the values of options may be: told beside each field, and checked when one is made."""

from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Final, Literal, Protocol, TypeVar, get_args, get_origin

from zmesh.errors import InvalidOption

SECONDS_MAX: Final = 1e9
"""Thirty years: what is longer means "no limit", and is to be said so."""

COUNT_MAX: Final = 2**62
"""What SQLite and libzmq can hold, with room for what is added."""

C_INT_MAX: Final = 2**31 - 1
"""What libzmq and the system take for what is an `int` to them."""

_BOUNDS: Final = "bounds"
_BYTES: Final = frozenset({"size"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a number may be, where it is not what all of its type may be: see `bounded`."""

    low: float | None = None
    high: float | None = None
    most: str | None = None
    unit: str | None = None


def bounded(
    default: T,
    *,
    low: float | None = None,
    high: float | None = None,
    most: str | None = None,
    unit: str | None = None,
) -> T:
    """Return a field of a `Checked` dataclass with bounds of its own.

    Without, a whole number is at least 1, and any other above 0; both have an upper bound that
    nothing real is near.

    Args:
        default: its default.
        low: the least it may be, itself included.
        high: the most it may be.
        most: the option of the same class that it may not be above.
        unit: what it is in, as in "of seconds" or "a second", where neither its name nor its
            type tells.
    """
    made: T = field(default=default, metadata={_BOUNDS: Bounds(low, high, most, unit)})
    return made


class _Check(Protocol):
    def __call__(self, value: object) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one option may be."""

    name: str
    default: object
    is_allowed: _Check
    expected: str
    most: str | None


class Checked:
    """The base of frozen dataclasses of options: a value that cannot work is refused when made.

    Fields of `bool`, `int`, `float`, `Literal` and of other such classes are checked, each also
    with `| None`; what else there is has to be looked at where it is used.
    """

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __post_init__(self) -> None:
        """Check all that is not as by default; raises InvalidOption."""
        rules = _rules_of(type(self))
        for rule in rules:
            value = getattr(self, rule.name)
            if value is not rule.default and not rule.is_allowed(value):
                raise InvalidOption(rule.name, value, rule.expected)
        for rule in rules:
            if rule.most is None:
                continue
            value, most = getattr(self, rule.name), getattr(self, rule.most)
            if value > most:
                expected = f"at most {rule.most}={most!r}: give less, or raise that as well"
                raise InvalidOption(rule.name, value, expected)

    def __repr__(self) -> str:
        """Show the call that makes them, with what is not as by default alone."""
        told = (
            f"{each.name}={value!r}"
            for each in fields(self)
            if each.repr and (value := getattr(self, each.name)) != each.default
        )
        return f"{type(self).__name__}({', '.join(told)})"


def check_is(option: str, value: object, kind: type[Checked]) -> None:
    """Check that options are of their class, and no dict, say.

    Raises:
        InvalidOption: they are not.
    """
    if not isinstance(value, kind):
        raise InvalidOption(option, value, _expected_of(kind))


def _rules_of(kind: type[Checked]) -> tuple[_Rule, ...]:
    rules = _known.get(kind)
    if rules is None:
        rules = tuple(rule for each in fields(kind) if (rule := _rule_of(each)) is not None)
        _known[kind] = rules
    return rules


_known: dict[type[Checked], tuple[_Rule, ...]] = {}


def _rule_of(option: Field[Any]) -> _Rule | None:
    bounds = option.metadata.get(_BOUNDS, Bounds())
    # A class with parameters, as Literal, has an origin; a union has its members.
    kinds = (option.type,) if isinstance(option.type, type) else get_args(option.type)
    origin = get_origin(option.type)
    if origin is Literal:
        choices = kinds
        expected = " or ".join(f'"{each}"' for each in choices)
        return _Rule(option.name, option.default, lambda value: value in choices, expected, None)
    optional = type(None) in kinds
    kinds = tuple(each for each in kinds if each is not type(None))
    if len(kinds) != 1:
        return None
    [kind] = kinds
    if isinstance(kind, type) and issubclass(kind, Checked):
        allowed, expected = _instance_of(kind), _expected_of(kind)
    elif kind is bool:
        allowed, expected = _instance_of(bool), "True or False"
    elif kind is int or kind is float:
        allowed, expected = _number(option.name, kind, bounds)
    else:
        return None
    if optional:
        expected += ", or None for no bound"
        return _Rule(option.name, option.default, _or_none(allowed), expected, bounds.most)
    return _Rule(option.name, option.default, allowed, expected, bounds.most)


def _number(name: str, kind: type, bounds: Bounds) -> tuple[_Check, str]:
    """Return what tells whether a number is within its bounds, and how to say them."""
    whole = kind is int
    low = bounds.low if bounds.low is not None else 1 if whole else 0
    above = bounds.low is None and not whole
    high = bounds.high if bounds.high is not None else COUNT_MAX if whole else SECONDS_MAX
    types = (int,) if whole else (int, float)

    def allowed(value: object) -> bool:
        # A bool is an int to Python, and no number to who wrote it. NaN is within nothing.
        if not isinstance(value, types) or isinstance(value, bool):
            return False
        return low <= value <= high and not (above and value == low)

    what = "a whole number" if whole else "a number"
    unit = bounds.unit if bounds.unit is not None else _unit_of(name, whole=whole)
    least = f"above {low:g}" if above else f"{low:g} or more"
    most = "" if bounds.high is None and whole else f", at most {high:g}"
    return allowed, f"{what} {unit}".rstrip() + f", {least}{most}"


def _unit_of(name: str, *, whole: bool) -> str:
    if "_bytes" in name or name in _BYTES:
        return "of bytes"
    return "" if whole else "of seconds"


def _expected_of(kind: type) -> str:
    return f"a zmesh.{kind.__name__}, as in {kind.__name__}(...)"


def _instance_of(kind: type) -> _Check:
    return lambda value: isinstance(value, kind)


def _or_none(allowed: _Check) -> _Check:
    return lambda value: value is None or allowed(value)
