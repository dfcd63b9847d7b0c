"""Work queues, both sides of them: what the engine tells one, or the other, or both."""

from collections.abc import Sequence

from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import earliest
from zmesh.events import Pull, Push, Source, Unpull
from zmesh.message import Outcome, Record
from zmesh.options import NodeOptions
from zmesh.patterns.confirming import Confirming
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.job_control import Grant, Offer, decode
from zmesh.patterns.jobs_taken import JobsTaken
from zmesh.patterns.redelivery import Redelivery
from zmesh.patterns.work_queue import WorkQueue


class Queues:
    """The jobs this node pushed, and those it takes."""

    def __init__(
        self,
        turn: Turn,
        interest: InterestTable,
        options: NodeOptions,
        redelivery: Redelivery,
        confirming: Confirming,
    ) -> None:
        self._turn = turn
        self.pushed = WorkQueue(turn, options, redelivery, confirming)
        self.taken = JobsTaken(turn, interest, options)
        self.gathered = (*self.pushed.gathered, *self.taken.gathered)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return earliest(self.pushed.deadline, self.taken.deadline)

    def on_timer(self) -> None:
        """Do what is due."""
        self.pushed.on_timer()
        self.taken.on_timer()

    def on_command(self, command: Push | Pull | Unpull) -> None:
        """Take a command of the application."""
        if isinstance(command, Push):
            self.pushed.on_push(command)
            return
        if isinstance(command, Pull):
            self.taken.on_pull(command)
        else:
            self.taken.on_unpull(command)
        self.pushed.on_peer_changed(self._turn.peers.local)

    def on_control(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        """Take offers and grants; what is neither is refused."""
        controls = [decode(record) for record in records]
        if None in controls:
            self._turn.settle(source, first, last, Outcome.REJECTED, "no offer, and no grant")
        else:
            self._turn.settle(source, first, last, Outcome.ACCEPTED, lazy=True)
        for control in controls:
            match control:
                case Offer():
                    self.taken.on_offer(peer, control)
                case Grant():
                    self.pushed.on_grant(peer, control)
                case None:
                    self._turn.trace("job_control_refused", 30, peer=peer.label)

    def on_peer_changed(self, peer: Peer) -> None:
        """Look anew at what a peer pulls, whether it is there, and whether it is silent."""
        self.pushed.on_peer_changed(peer)
        self.taken.on_peer_changed(peer)

    def on_lost(self, peer: Peer, *, is_gone: bool) -> None:
        """Move the jobs of a peer that is lost; `is_gone` where its process is no more."""
        self.pushed.on_lost(peer, is_gone=is_gone)
        self.pushed.on_peer_changed(peer)
        if is_gone:
            self.taken.on_peer_changed(peer)
        else:
            self.taken.on_lost(peer)

    def on_session_ended(self, peer: Peer) -> None:
        """Forget what was agreed with a peer."""
        self.pushed.on_session_ended(peer)
        self.taken.on_session_ended(peer)

    def flush(self) -> None:
        """Send what can be sent, to those who have room, and grant what room there is."""
        self.pushed.flush()
        self.taken.flush()
