"""What an engine tells of itself."""

from dataclasses import dataclass

from zmesh.core.defects import Defects
from zmesh.core.introductions import Introductions
from zmesh.core.link_news import LinkNews
from zmesh.core.peers import Peers
from zmesh.core.residents import Residents
from zmesh.discovery.membership import Membership
from zmesh.discovery.membership_statistics import MembershipStatistics
from zmesh.ids import NodeId
from zmesh.reliable.link_statistics import LinkStatistics


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """What the node holds now, and what happened since it began."""

    peers: int
    present: int
    peers_refused: int  # for whom the table of peers had no room
    peers_displaced: int  # who were not there, and made room for others
    queued_messages: int  # submitted and without outcome, all peers
    queued_bytes: int
    unsettled_in: int  # delivered and not yet settled, all peers
    held: int  # direct messages that wait for the inbox to be read
    stored_out: int  # direct messages on disk without outcome; gaps in their numbers count too
    stored_again: int  # sent again after a session ended
    outcomes_kept: int  # of stored messages that came, as ranges: their senders may not know yet
    stored_duplicates: int  # came again, and were handled before
    logged: int  # publications kept on disk
    logged_bytes: int  # of them, about
    logged_trimmed: int  # beyond the retention, in this life
    log_readers: int  # subscriptions of all peers, this node included, that follow the log
    log_readers_refused: int
    log_missed: int  # by readers that came too late
    log_duplicates: int  # publications that came again, and were known
    retries: int  # messages that wait for their next attempt
    redelivered: int
    dead_lettered: int
    calls: int
    failovers: int
    late_replies: int
    calls_hedged: int  # with a second provider, because the first one took long
    calls_retried: int  # because a handler raised
    retries_withheld: int  # hedges and retries that would have been too many
    latencies: int  # services of providers whose answers are measured
    tickets: int  # requests whose answer may come later, and answers that are kept
    tickets_waiting: int  # of them: without answer
    requests: int  # with handlers
    duplicate_requests: int
    replies_kept: int
    requests_refused: int  # given back, because their caller takes too few of its replies
    replies_refused: int  # not sent, for the same reason
    fan_outs: int  # under way
    fanned_out_again: int  # messages sent again to a member of a group
    group_messages: int  # of groups, with the application
    duplicate_group_messages: int
    surveys: int  # under way
    jobs_waiting: int  # pushed here, and with nobody
    jobs_out: int  # pushed here, and with consumers
    jobs_redelivered: int
    jobs_uncertain: int  # delivered again, though a consumer that was lost may have handled them
    pulls: int
    jobs_held: int  # of others, with the application here
    duplicate_jobs: int
    streams: int  # opened here or by peers
    late_parts: int  # records of streams that were over
    subscriptions: int
    shared_maps: int
    shared_bytes: int
    shared_pulls: int  # comparisons of a map with another replica's that were begun
    shared_ahead: int  # entries refused because their stamp is too far ahead of this clock
    shared_full: int  # entries of others refused for want of room
    shared_rewritten: int  # entries stamped anew, because this clock had been too far ahead
    unwanted: int  # publications that arrived though no subscription wanted them (any more)
    retained: int  # publications kept for late joiners
    retained_bytes: int
    topics_forgotten: int  # that were kept, for want of room
    replayed: int  # publications sent to late joiners
    backlog: int  # publications that wait for subscriptions that may miss some
    missed: int  # publications such subscriptions were not sent
    filters_failed: int  # evaluations of peers' and own filters by content
    filters_passed_over: int  # not evaluated: no JMESPath here, or the peer's steps were used up
    stored_in_memory: int  # the most of one addressee that are in memory
    decompressed: int  # bodies that were compressed here, for peers that cannot decompress
    packets_received: int
    packets_unknown: int  # of no link known here
    strangers: int  # paths without a link of which something is remembered
    paths_cut_off: int  # ended, because what came on them broke rules again and again
    packets_ignored: int  # of such paths: not looked at
    proofs_checked: int
    proofs_unseen: int  # not looked at: too many came
    defects: dict[str, int]
    membership: MembershipStatistics
    links: dict[NodeId, LinkStatistics]


def gather(
    peers: Peers,
    news: LinkNews,
    introductions: Introductions,
    defects: Defects,
    membership: Membership,
    residents: Residents,
) -> EngineStatistics:
    """Collect the counters of an engine's parts."""
    everyone = [peers.local, *peers]
    return EngineStatistics(
        peers=len(peers), present=sum(peer.present for peer in peers),
        peers_refused=residents.refused, peers_displaced=residents.displaced,
        queued_messages=sum(peer.carrier.queued_messages for peer in everyone),
        queued_bytes=sum(peer.carrier.queued_bytes for peer in everyone),
        unsettled_in=sum(peer.open_in + peer.stale_in for peer in everyone),
        held=news.direct.held,
        stored_out=news.outbox.open, stored_in_memory=news.outbox.most_in_memory,
        stored_again=news.outbox.reread, outcomes_kept=len(news.handled),
        stored_duplicates=news.handled.duplicates,
        **_of_log(news),
        retries=len(news.redelivery),
        redelivered=news.redelivery.redelivered,
        dead_lettered=news.dead_letters.dead_lettered,
        calls=len(news.calls),
        failovers=news.calls.failovers,
        late_replies=news.calls.late_replies,
        calls_hedged=news.calls.hedged,
        calls_retried=news.calls.retried,
        retries_withheld=news.calls.withheld,
        latencies=len(news.calls.choosing),
        tickets=len(news.later), tickets_waiting=news.later.waiting, requests=len(news.serving),
        duplicate_requests=news.serving.duplicates,
        replies_kept=news.serving.replies_kept,
        requests_refused=news.serving.refused_requests,
        replies_refused=news.serving.refused_replies,
        fan_outs=len(news.gatherings.fan_out),
        fanned_out_again=news.gatherings.fan_out.repeats,
        group_messages=len(news.gatherings.groups),
        duplicate_group_messages=news.gatherings.groups.duplicates,
        surveys=len(news.gatherings.survey),
        jobs_waiting=news.queues.pushed.waiting,
        jobs_out=news.queues.pushed.bound,
        jobs_redelivered=news.queues.pushed.redelivered,
        jobs_uncertain=news.queues.pushed.uncertain,
        pulls=news.queues.taken.pulls,
        jobs_held=len(news.queues.taken),
        duplicate_jobs=news.queues.taken.duplicates,
        streams=len(news.streams.calls) + len(news.streams.serving),
        late_parts=news.streams.calls.late,
        subscriptions=news.interest.subscriptions,
        shared_maps=len(news.shared_state), shared_bytes=news.shared_state.size,
        shared_pulls=news.shared_state.pulls.begun,
        shared_ahead=news.shared_state.pulls.refused_ahead,
        shared_full=news.shared_state.pulls.refused_full,
        shared_rewritten=news.shared_state.pulls.rewritten,
        unwanted=news.publish_subscribe.unwanted,
        retained=len(news.publish_subscribe.retained),
        retained_bytes=news.publish_subscribe.retained.size,
        topics_forgotten=news.publish_subscribe.retained.forgotten,
        replayed=news.publish_subscribe.replayed,
        backlog=news.publish_subscribe.waiting, missed=news.publish_subscribe.missed,
        filters_failed=news.publish_subscribe.filters.failed,
        filters_passed_over=news.publish_subscribe.filters.passed_over,
        decompressed=news.decompressed,
        **_of_introductions(introductions),
        defects=dict(defects.counts),
        membership=membership.statistics(),
        links={peer.id: peer.link.statistics() for peer in peers},
    )  # fmt: skip


def _of_log(news: LinkNews) -> dict[str, int]:
    """Return the counters of publications that are kept."""
    log, readers = news.topics.log, news.topics.readers
    return {
        "logged": log.count,
        "logged_bytes": log.size,
        "logged_trimmed": log.trimmed,
        "log_readers": len(readers),
        "log_readers_refused": readers.refused,
        "log_missed": readers.missed,
        "log_duplicates": news.positions.duplicates,
    }


def _of_introductions(introductions: Introductions) -> dict[str, int]:
    """Return the counters of what comes before a link, and beside one."""
    return {
        "packets_received": introductions.packets_received,
        "packets_unknown": introductions.packets_unknown,
        "strangers": introductions.strangers,
        "paths_cut_off": introductions.outcasts.cut_off,
        "packets_ignored": introductions.outcasts.ignored,
        "proofs_checked": introductions.proofs.checked,
        "proofs_unseen": introductions.proofs.unseen,
    }
