"""The verdict on a peer: alive, busy, suspect, lost or left.

Silence alone never makes a peer lost. A peer that is silent while its host still accepts
connections is *busy*: a handler blocks its loop. A host that refuses them has lost the process,
which is known within milliseconds of a kill. A host that does not answer at all is lost once the
detector is sure as well.
"""

from math import inf
from typing import Final

from zmesh.events import PathCause
from zmesh.options import LinkOptions
from zmesh.reliable.detector import FailureDetector
from zmesh.reliable.link_events import Liveness, LivenessChanged, ProbeWanted
from zmesh.reliable.round_trip import RoundTrip

_ALIVE: Final = Liveness.ALIVE  # looked at with every packet


class LivenessVerdict:
    """Joins the failure detector, the fate of the path, and probes of the peer's endpoints."""

    def __init__(
        self, options: LinkOptions, round_trip: RoundTrip, *, goes_first: bool = False
    ) -> None:
        self._options = options
        self.detector = FailureDetector(options, round_trip, goes_first=goes_first)
        self.state = Liveness.JOINING
        self.process_gone = False  # every endpoint refused: not merely out of reach
        self._probing: set[str] = set()
        self._causes: list[PathCause | None] = []
        self._unreachable = False
        self._probe_at = inf
        self._link_open = False
        self.events: list[LivenessChanged | ProbeWanted] = []  # what `take_events` returns next

    def take_events(self) -> list[LivenessChanged | ProbeWanted]:
        """Return what happened since the last call, in order."""
        events, self.events = self.events, []
        return events

    def on_heard(self, now: float) -> None:
        """Take a frame of the current link as the sign of life it is."""
        self.detector.heard(now)
        if self.state is not _ALIVE and self._link_open:
            self._forget_probes()
            self._become(Liveness.ALIVE, "it answers")

    def on_open(self, now: float) -> None:
        """A link was established."""
        self._link_open = True
        self.process_gone = False
        self._forget_probes()
        self.detector.restart(now)
        self._become(Liveness.ALIVE, "linked")

    def on_link_down(self, why: str, now: float) -> None:
        """The link was given up; whether the peer lives is to be found out at once."""
        self._link_open = False
        self.detector.on_ping_sent(now)  # a new link is owed: that is silence, too
        if self.state in (Liveness.ALIVE, Liveness.BUSY):
            self._become(Liveness.SUSPECT, why)
        if self.state is Liveness.SUSPECT and not self._probing:
            self._probe_at = now

    def on_left(self) -> None:
        """The peer said BYE, or we closed."""
        self._link_open = False
        self._forget_probes()
        self._become(Liveness.LEFT, "it said goodbye")

    def on_linger_over(self) -> None:
        """The peer stayed away for as long as its session is kept."""
        self._forget_probes()
        if self.state is not Liveness.LEFT:
            self._become(Liveness.LOST, "it stayed away for too long")

    def _forget_probes(self) -> None:
        """What was asked in one silence says nothing of the next."""
        self._probing.clear()
        self._causes.clear()
        self._unreachable = False
        self._probe_at = inf

    def on_probe(self, endpoint: str, cause: PathCause | None, now: float) -> None:
        """Take the result of one probed endpoint; the last one of a round decides."""
        if endpoint not in self._probing:
            return
        self._probing.discard(endpoint)
        self._causes.append(cause)
        if self._probing:
            return
        self._conclude(now)

    def _conclude(self, now: float) -> None:
        """Judge a round of probes: one success shows the process, only refusals its end."""
        causes, self._causes = self._causes, []
        if self.state not in (Liveness.SUSPECT, Liveness.BUSY):
            return
        self._probe_at = now + self._options.probe_interval
        self._unreachable = False
        if None in causes:
            self._become(Liveness.BUSY, "its host accepts connections, the process is silent")
            return
        self._become(Liveness.SUSPECT, "its host accepts connections no more")
        if not causes or any(cause is not PathCause.REFUSED for cause in causes):
            self._unreachable = True
            self._check_silence(now)
        elif not self._link_open:
            self.process_gone = True
            why = "its host refuses connections: the process is gone"
            self._become(Liveness.LOST, why, is_gone=True)

    def on_timer(self, endpoints: tuple[str, ...], now: float) -> None:
        """Look at the silence, and begin a round of probes where one is due."""
        self._check_silence(now)
        if self._probe_at > now:
            return
        if self._probing:  # a probe that was never answered counts as one that failed
            self._probing.clear()
            self._causes.append(PathCause.UNREACHABLE)
            self._conclude(now)
        elif self.state not in (Liveness.SUSPECT, Liveness.BUSY):
            self._probe_at = inf
        elif endpoints:
            self._probing = set(endpoints)
            self._probe_at = now + self._options.probe_interval
            self.events.append(ProbeWanted(endpoints))
        else:
            self._conclude(now)

    def _check_silence(self, now: float) -> None:
        phi = self.detector.phi(now)
        if self.state is Liveness.ALIVE and phi >= self._options.suspect_phi:
            self._become(Liveness.SUSPECT, "silent for too long")
            self._probe_at = now
        if self.state is Liveness.SUSPECT and self._unreachable and phi >= self._options.lost_phi:
            self._become(Liveness.LOST, "silent, and its host cannot be reached")

    @property
    def due(self) -> float:
        """When `on_timer` wants to be called; infinity: not before something happens."""
        if self.state is _ALIVE:
            return self.detector.deadline(self._options.suspect_phi)
        if self.state not in (Liveness.SUSPECT, Liveness.BUSY):
            return inf
        if self.state is Liveness.SUSPECT and self._unreachable:
            return min(self._probe_at, self.detector.deadline(self._options.lost_phi))
        return self._probe_at

    def _become(self, state: Liveness, why: str, *, is_gone: bool = False) -> None:
        if state is not self.state:
            self.events.append(LivenessChanged(self.state, state, why, is_gone))
            self.state = state
