"""Proofs of identity: made for who asks, looked at as often as is good for us, told of if false.

Only what one connection carries is judged here. Who dials again and again, or under many names,
costs no more than the node's own budget allows, and who failed is not looked at for a while.
"""

from dataclasses import replace
from enum import Enum

from zmesh.core.defects import Defects
from zmesh.core.turn import Turn
from zmesh.ids import LinkId, NodeId, Path, connection_of
from zmesh.options import NodeOptions
from zmesh.reliable.handshake import LocalIdentity
from zmesh.reliable.proofs import heard_hello, iam_claim
from zmesh.security.proof import Claim
from zmesh.wire.frames import Hello, Iam


class Verdict(Enum):
    """What became of a proof."""

    HOLDS = "holds"
    FAILS = "fails"
    UNSEEN = "unseen"  # too many came: it was not looked at


class Rate:
    """So many a second, with bursts: the leaky bucket of ITU-T I.371 (GCRA)."""

    __slots__ = ("_step", "_tolerance")

    def __init__(self, per_second: float, burst: int) -> None:
        self._step = 1.0 / per_second
        self._tolerance = (burst - 1) * self._step

    def after(self, busy_until: float, now: float) -> float | None:
        """Return until when all that was taken lasts, with one more; None: not one more now."""
        if now < busy_until - self._tolerance:
            return None
        return max(busy_until, now) + self._step

    def muted(self, until: float) -> float:
        """Return the same where nothing is taken before `until`."""
        return until + self._tolerance


class Proofs:
    """Makes the proofs of IAM, and judges those of IAM and HELLO; WELCOME is the link's."""

    def __init__(
        self, local: LocalIdentity, options: NodeOptions, turn: Turn, defects: Defects
    ) -> None:
        self._local = local
        self._turn = turn
        self._defects = defects
        self._strangers_max = options.strangers_max
        self._refusal = options.link.refusal
        self._rate = Rate(options.proofs_per_second, options.proofs_burst)
        self._path_rate = Rate(options.path_proofs_per_second, options.path_proofs_burst)
        self._busy_until = turn.now
        self._paths: dict[Path, float] = {}  # the same of each, oldest first
        self._made: dict[Path, tuple[NodeId, bytes]] = {}  # the last for whom, oldest first
        self._held: dict[tuple[Path, type], tuple[Claim, NodeId, bytes, bytes]] = {}  # the last
        self.checked = 0
        self.unseen = 0

    @property
    def wanted(self) -> bool:
        """Whether peers have to prove who they are."""
        return self._local.wants_proofs

    def __len__(self) -> int:
        return max(len(self._paths), len(self._made), (len(self._held) + 1) // 2)

    # Ours

    def signed(self, path: Path, iam: Iam, asker: NodeId) -> Iam | None:
        """Return an IAM with its proof; None where a path asks in too many names."""
        local = self._local
        if not local.wants_proofs or local.key is None:
            return iam
        made = self._made.get(path)
        if made is None or made[0] != asker:
            if not self._take(path):
                return None
            claim = iam_claim(iam, asker, connection_of(path, local.connection))
            made = (asker, claim.prove(local.key))
            self._made[path] = made
            if len(self._made) > self._strangers_max:
                del self._made[next(iter(self._made))]
        return replace(iam, key=local.key.public, proof=made[1])

    # Theirs

    def of_iam(self, path: Path, iam: Iam) -> Verdict:
        """Judge the proof of an IAM that came on a path, in answer to this node."""
        local = self._local
        claim = iam_claim(iam, local.node, connection_of(path, local.connection))
        return self._judge(path, claim, iam)

    def of_hello(self, path: Path, link: LinkId, hello: Hello) -> Verdict:
        """Judge the proof of a HELLO that came on a path."""
        local = self._local
        claim = heard_hello(hello, link, path, local.connection, local.incarnation)
        return self._judge(path, claim, hello)

    def ignore(self, path: Path) -> None:
        """Look at nothing new from a path for a while."""
        self._paths.pop(path, None)  # to the end
        self._paths[path] = self._path_rate.muted(self._turn.now + self._refusal)
        if len(self._paths) > self._strangers_max:
            del self._paths[next(iter(self._paths))]

    def forget(self, path: Path) -> None:
        """A path ended."""
        self._paths.pop(path, None)
        self._made.pop(path, None)
        self._held.pop((path, Iam), None)
        self._held.pop((path, Hello), None)

    def _judge(self, path: Path, claim: Claim, said: Iam | Hello) -> Verdict:
        if not self.wanted:
            return Verdict.HOLDS
        whole, place = (claim, said.node, said.key, said.proof), (path, type(said))
        if self._held.get(place) == whole:
            return Verdict.HOLDS  # said again
        if not self._may_check(path):
            self.unseen += 1
            return Verdict.UNSEEN
        self.checked += 1
        if not claim.holds(said.node, said.key, said.proof):
            self.ignore(path)
            return Verdict.FAILS
        self._held.pop(place, None)
        self._held[place] = whole
        if len(self._held) > 2 * self._strangers_max:
            del self._held[next(iter(self._held))]
        return Verdict.HOLDS

    def _may_check(self, path: Path) -> bool:
        """Whether a proof is to be looked at: of strangers that dial us, all together."""
        if isinstance(path, int) or self._turn.peers.on_path(path) is not None:
            return self._take(path)
        busy = self._rate.after(self._busy_until, self._turn.now)
        if busy is None or not self._take(path):
            return False
        self._busy_until = busy
        return True

    def _take(self, path: Path) -> bool:
        """Count one proof made or looked at for a path; False where that are too many."""
        now, paths = self._turn.now, self._paths
        busy = self._path_rate.after(paths.get(path, now), now)
        if busy is None:
            return False
        paths.pop(path, None)  # to the end: who was quiet longest is forgotten first
        paths[path] = busy
        if len(paths) > self._strangers_max:
            del paths[next(iter(paths))]
        return True
