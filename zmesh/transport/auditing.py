"""What of the handshakes goes to the audit log: enough to act on, however many there are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from zmesh.actions import Audited, AuditKind
from zmesh.options import TransportOptions

OnAudit = Callable[[Audited], None]

_MORE: Final = ", and {} more like it since the last time"


@dataclass(slots=True)
class _Told:
    at: float
    untold: int = 0


class Auditing:
    """Tells of each address and kind once in a while, and of all no faster than it may."""

    def __init__(self, on_audit: OnAudit, options: TransportOptions) -> None:
        self._on_audit = on_audit
        self._options = options
        self._told: dict[tuple[AuditKind, str], _Told] = {}
        self._tokens = options.audits_per_second
        self._counted_at: float | None = None

    def tell(self, kind: AuditKind, address: str, detail: str, now: float, rule: str = "") -> None:
        """Tell that an address did something, if it is time to.

        Args:
            kind: what happened.
            address: of the other end, without its port: it is another one every time.
            detail: what happened exactly, and the likely cause.
            now: seconds.
            rule: the option that was met.
        """
        key = kind, address
        told = self._told.pop(key, None)
        if told is None:
            if len(self._told) >= self._options.addresses_max:
                del self._told[next(iter(self._told))]
            told = _Told(now - self._options.audit_gap)
        self._told[key] = told
        if now - told.at < self._options.audit_gap or not self._may_tell(now):
            told.untold += 1
            return
        if told.untold:
            detail += _MORE.format(told.untold)
        told.at, told.untold = now, 0
        self._on_audit(Audited(kind, endpoint=address, detail=detail, rule=rule))

    def _may_tell(self, now: float) -> bool:
        rate = self._options.audits_per_second
        gained = 0.0 if self._counted_at is None else (now - self._counted_at) * rate
        self._tokens = min(rate, self._tokens + gained)
        self._counted_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
