"""What membership tells of itself."""

from dataclasses import dataclass

from zmesh.discovery.candidates import CandidateStatistics


@dataclass(frozen=True, slots=True)
class MembershipStatistics:
    """Counters since the start, and how many are what now."""

    table: CandidateStatistics
    linked: int
    dialing: int  # paths being tried now
    dials: int
    failed: int  # dials nobody answered in time
    itself: int
    wrong_node: int
    wrong_mesh: int
    unproved: int  # answers by somebody who did not prove to be whom it said
    not_trusted: int  # answers by nodes whose keys are not trusted here
    not_trusted_there: int  # answers by nodes that do not trust this node's key
    revoked_there: int  # of these, by nodes that say it was revoked
    redundant: int
    edges: int  # answers by edges, where this node is one
    forgotten: int
