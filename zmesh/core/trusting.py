"""What a change of `trust=` does to those who are here: some are cut off, all judged anew."""

from zmesh.core.guard import Guard
from zmesh.core.link_news import LinkNews
from zmesh.core.residents import Residents
from zmesh.core.turn import Turn
from zmesh.discovery.membership import Membership, Unlinked
from zmesh.events import TrustChanged


class Trusting:
    """Brings a change to links and patterns."""

    def __init__(
        self,
        turn: Turn,
        guard: Guard,
        news: LinkNews,
        residents: Residents,
        membership: Membership,
    ) -> None:
        self._turn = turn
        self._guard = guard
        self._news = news
        self._residents = residents
        self._membership = membership

    def on_changed(self, changed: TrustChanged) -> None:
        """Trust others from now on."""
        self._guard.replace(changed.trust)
        for peer in list(self._turn.peers):
            if self._guard.admits(peer.id):
                self._news.on_rules(peer)
                continue
            if peer.session is not None or peer.present:
                self._guard.revoke(peer)
            self._residents.expel(peer)
            self._membership.on_unlinked(peer.id, self._turn.now, Unlinked.LEFT)
        self._membership.on_trust(self._turn.now)
