"""What a run found wrong."""

from collections import Counter
from dataclasses import dataclass
from enum import Enum


class Rule(Enum):
    """The promise that was broken."""

    LOST = "lost"  # accepted, and never came to an end
    DUPLICATED = "duplicated"  # handled twice, or ended twice
    MISORDERED = "misordered"
    DAMAGED = "damaged"  # another body than was sent, or for somebody else
    UNTRUE = "untrue"  # the outcome the sender saw is not what happened
    LATE = "late"  # handled after its time to live
    CREDIT = "credit"
    MEMORY = "memory"
    RESENT = "resent"  # a retransmission although nothing went wrong
    FLOOD = "flood"
    IDENTITY = "identity"
    LIVENESS = "liveness"  # a wrong verdict, or no end once nothing goes wrong any more
    CRASHED = "crashed"  # an exception left the core


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    at: float  # virtual seconds
    rule: Rule
    host: str
    text: str

    def __str__(self) -> str:
        return f"{self.at:.6f} {self.host} {self.rule.value}: {self.text}"


class Findings:
    """Collects violations: the first few in words, all in number."""

    __slots__ = ("counts", "first")

    KEPT_MAX = 20

    def __init__(self) -> None:
        self.counts: Counter[Rule] = Counter()
        self.first: list[Violation] = []

    def add(self, at: float, rule: Rule, host: str, text: str) -> None:
        """Note a violation."""
        self.counts[rule] += 1
        if len(self.first) < self.KEPT_MAX:
            self.first.append(Violation(at, rule, host, text))

    def __len__(self) -> int:
        return self.counts.total()

    def __bool__(self) -> bool:
        return bool(self.first)
