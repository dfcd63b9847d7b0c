"""Every limit and time constant, with its reason. Nothing in zmesh is bounded elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from zmesh.bounds import C_INT_MAX, Checked, bounded

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class WireLimits(Checked):
    """What a stranger can make us allocate."""

    part_bytes_max: int = 1 * MIB  # set as ZMQ_MAXMSGSIZE: a larger part ends the connection
    head_bytes_max: int = 256 * KIB  # the msgpack part: worst case 64 bytes of objects per byte
    parts_max: int = 64  # a packet: its head and at most 63 uncopied bodies
    # In a packet; an honest one has under 16, and 6 where all that can be said is said.
    frames_max: int = bounded(64, low=6)
    records_max: int = 4096  # in a DATA frame; a batch larger than this gains nothing
    text_bytes_max: int = 1024  # names, targets, endpoints, reasons
    ranges_max: int = 32  # in an ACK lane or a SETTLE; what is left goes with the next
    interest_max: int = 1024  # entries in an INTEREST record
    endpoints_max: int = 16  # addresses of one node
    known_max: int = bounded(64, low=0)  # peers named by a seed in one IAM
    extras_max: int = 24  # twelve tags, each with its value
    array_items_max: int = 4096  # in any array; the other limits are at most this
    headers_bytes_max: int = 4 * KIB  # a record's headers, encoded
    headers_max: int = 64  # entries in them
    decompressed_bytes_max: int = 64 * MIB  # of a body: as large as one that is not compressed
    decompressed_ratio_max: int = 256  # what a byte received may become: LZ4 cannot do more


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LinkOptions(Checked):
    """One session with one peer. Times in seconds."""

    # credit (PROTOCOL: granted = consumed + free)
    window_messages: int = bounded(1024, most="window_messages_max")  # a lane's first window
    window_messages_max: int = 16 * KIB  # where a fast lane's window grows to
    # At least a fragment and its overhead.
    window_bytes: int = bounded(256 * KIB, most="window_bytes_max")
    window_bytes_max: int = 4 * MIB
    peer_bytes_max: int = 16 * MIB  # what a peer's windows may grow by in all
    transfer_bytes_max: int = 128 * MIB  # bodies being put together or un-settled, a peer
    violations_max: int = 3  # rules a peer may break before it is cut off
    # So close together: a slip a week is no attack.
    violations_within: float = bounded(600.0, low=0)
    refusal: float = bounded(15.0, low=0)  # how long a peer that was cut off is not listened to

    # sending
    queued_messages_max: int = 100_000  # un-settled a peer: what `post` waits for
    queued_bytes_max: int = 256 * MIB
    packet_bytes: int = 64 * KIB  # large enough to amortize a send, small enough to interleave
    packet_bytes_max: int = 512 * KIB  # of large bodies on a fast path: an eighth of a window
    fragment_bytes: int = bounded(64 * KIB, most="fragment_bytes_max")
    fragment_bytes_max: int = 1 * MIB  # of a piece on a fast path: a part cannot be larger
    # What a fast path is: it carries that much within this.
    burst_time: float = bounded(0.010, low=0)
    body_bytes_max: int = 64 * MIB  # larger things are streams
    inline_bytes_max: int = 16 * KIB  # larger bodies travel as their own uncopied part
    in_flight_bytes_min: int = 256 * KIB
    quantum_bytes: int = 64 * KIB  # deficit round robin
    aged_after: float = bounded(1.0, low=0)  # a lane that waited this long is served next

    # round trip and probes (RFC 9002 sections 5 and 6; the floor is for a LAN)
    granularity: float = 0.010
    ack_delay_max: float = bounded(0.025, low=0)
    probe_timeout_initial: float = 1.0
    probe_timeout_min: float = 0.2
    probe_timeout_max: float = 30.0
    probes_max: int = 3  # unanswered, and the peer suspect: the link is given up
    packet_threshold: int = 3
    time_threshold: float = bounded(9 / 8, unit="")

    # receiving
    ranges_max: int = 8 * KIB + 1  # half the largest window: an honest peer cannot have more
    control_window: int = 4 * KIB  # control records received out of order
    control_queued_max: int = 64 * KIB  # un-acked control records; a peer that lags is given up
    control_queued_bytes_max: int = 64 * MIB  # the same: a window of refusals with long reasons
    ack_every_messages: int = 256  # sooner than the delay: keeps a fast sender's window open

    # handshake
    hello_timeout: float = 0.5  # then again, with back-off
    hello_timeout_max: float = 5.0
    confirm_timeout: float = 2.0  # from WELCOME to the link's first packet

    # detector (DESIGN section 5)
    ping_after_min: float = 0.25
    ping_after_max: float = 2.0
    ping_idle_max: float = 10.0
    acceptable_pause: float = bounded(3.0, low=0)
    suspect_phi: float = bounded(8.0, most="lost_phi", unit="")
    lost_phi: float = bounded(12.0, unit="")
    probe_interval: float = 2.0  # between rounds of probes of a silent peer
    samples_min: int = bounded(200, most="samples_max", high=C_INT_MAX)
    samples_max: int = 1000

    # after a peer is lost
    session_linger: float = bounded(60.0, low=0)  # how long its messages are kept for its return
    # The same where its host says that the process is gone.
    gone_linger: float = bounded(1.0, low=0)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TransportOptions(Checked):
    """What bounds the sockets. Times in seconds."""

    # queues inside libzmq, in packets a connection: credit keeps honest peers far below both
    # A peer that reads nothing costs this much, and hears PathFull.
    send_queue_max: int = bounded(8 * KIB, high=C_INT_MAX)
    # A flood waits in TCP once this much is unread.
    receive_queue_max: int = bounded(1 * KIB, high=C_INT_MAX)
    # Two a dialed peer, its own and its monitor, and four of ours.
    sockets_max: int = bounded(4 * KIB, high=C_INT_MAX)
    # Connections the kernel holds while the I/O thread is busy.
    backlog: int = bounded(1024, high=C_INT_MAX)

    # one turn of one socket: what it takes from the loop before the others have theirs
    turn_max: float = 0.002  # one that takes longer is smaller next time, and larger while shorter
    connections_turn_max: float = 0.0005  # of what monitors tell: an answer waits several turns
    # Of our time: a thread that never sleeps is let in late.
    connections_share_max: float = bounded(0.25, high=1, unit="")
    turn_packets_max: int = 256
    turn_bytes_max: int = 256 * KIB  # stays in the cache: 4 MiB cost half as much again a byte

    # connections
    # Inbound: who connects and says nothing holds a descriptor.
    handshake_timeout: float = bounded(2.0, low=0.001, high=2e6)
    # TCP keepalive: a host that vanished ends the connection in.
    keepalive_idle: float = bounded(5.0, low=1, high=32767)
    # Idle + interval * count seconds, whatever we have to say.
    keepalive_interval: float = bounded(2.0, low=1, high=32767)
    keepalive_count: int = bounded(3, high=127)
    # The same where data waits for TCP's ack (TCP_USER_TIMEOUT).
    unacked_max: float = bounded(15.0, low=0.001, high=2e6)

    # strangers, before anybody has shown that it belongs here
    inbound_max: int = 4 * KIB  # connections: four times the peers, who may have several
    handshakes_max: int = 256  # under way: a descriptor each, and 1,024 are all many systems give
    watched_max: int = 256  # the latest: a descriptor each, to see who ends them and why
    address_handshakes_max: int = 64  # of one address on CURVE: nodes of a host that start at once
    # A hundredth of a core: one takes 0.1 to 0.2 ms.
    address_handshakes_per_second: float = bounded(50.0, unit="a second")
    address_handshakes_burst: int = 1024  # a whole mesh on one machine, or behind one router
    # What one that was shut out counts for: then one a second.
    shut_out_handshakes: int = bounded(50, low=0)
    outcasts_max: int = 4 * KIB  # connections shut out: in 15 s their addresses make fewer
    addresses_max: int = 4 * KIB  # remembered without a connection: a megabyte
    audit_gap: float = bounded(10.0, low=0)  # between two events of one kind about one address
    # Of all: a flood of addresses must not be one of events.
    audits_per_second: float = bounded(10.0, unit="a second")
    keys_remembered_max: int = 4 * KIB  # endpoints for which an older mesh key was the right one

    full_retry: float = 0.05  # a ROUTER cannot say when one peer has room: ask again after this
    watchdog_interval: float = 1.0  # looks for what no wake-up announced, and for descriptors
    descriptors_spare: int = bounded(16, low=0)  # fewer free than this is worth a warning
    # What must be free to dial: three a dial, and what others take.
    dial_descriptors: int = bounded(8, low=0)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DiscoveryOptions(Checked):
    """What bounds the sources of candidates. Times in seconds."""

    # mDNS: what a flood of records costs (cloned devices were seen to send 350 packets a second)
    records_max: int = 1024  # waiting to be looked at
    # Looked at in the long run: 2 % of a core; the rest waits.
    records_per_second: float = bounded(200.0, unit="a second")
    records_burst: int = 1000  # looked at at once: a whole mesh that starts together
    record_gap: float = bounded(1.0, low=0)  # between two looks at one node's records
    resolving_max: int = 16  # records being completed by queries at once
    resolving_timeout: float = 3.0
    ask_every: float = 15.0  # who is there, while nobody is heard of; zeroconf did until 14 s
    ask_every_max: float = 60.0  # the same once others are
    # Or this for every one of them: the nodes together ask no more often.
    ask_gap: float = bounded(2.0, low=0)
    records_loud: int = 6000  # heard in a minute: worth one warning in that minute
    other_meshes_max: int = 64  # of which the tags are remembered, to tell why nobody is seen

    interfaces_every: float = 5.0  # looked at; no portable call tells of changes
    names_every: float = 30.0  # host names of static peers are resolved again
    names_retry: float = 1.0  # the same after a failure, then doubling up to `names_every`


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class JoiningOptions(Checked):
    """What bounds an invitation and a joining. Times in seconds."""

    # the inviter
    expires: float = 600.0  # time to walk to the other device and type
    attempts_max: int = 3  # wrong ones: two slips of a person, and 3 guesses of 2^40
    pause: float = bounded(2.0, low=0)  # after a wrong one: nobody types faster
    connections_max: int = 16  # at once; the longest silent makes room for a new one
    lingering_max: int = 16  # connections refused, whose end is waited for a little
    silence_max: float = 5.0  # from connecting to the first message, which needs no thinking
    answer_max: float = 10.0  # for each message after it: a slow device on a bad network

    # the joiner
    find_max: float = 10.0  # for an invitation to be heard of by mDNS
    find_more: float = bounded(1.0, low=0)  # then, for others that carry the same digits
    found_max: int = 8  # of them that are looked at: two are too many already
    connect_max: float = 5.0  # all addresses together
    turn_max: float = (
        60.0  # for our turn: two before us that fall silent take 24 s, then there is no third
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class JournalOptions(Checked):
    """What bounds a journal. Times in seconds."""

    journal_bytes_max: int = 1024 * MIB  # pages in use: two million small messages
    group_batches_max: int = 128  # that share a commit: more gain little and delay the first
    group_bytes_max: int = 1 * MIB  # of them: some milliseconds of any disk
    wal_bytes_max: int = 4 * MIB  # then it is checkpointed: SQLite's own default
    reserve_bytes_min: int = 8 * MIB  # beside a full disk; at least twice `wal_bytes_max`
    cache_bytes: int = 8 * MIB  # pages in memory; the system has the others
    vacuum_pages: int = 256  # given back at a time, when idle: a millisecond or so
    vacuum_bytes_min: int = 4 * MIB  # free pages kept for what comes next
    retry_full: float = 0.5  # between two looks whether a full disk has space again


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Retention(Checked):
    """How long durable publications stay in their publisher's log; None is without that bound.

    What is beyond any of them goes, the oldest first, in batches: somewhat more may be there.
    """

    age: float | None = 7 * 86_400.0  # seconds
    count: int | None = 1_000_000
    size: int | None = 256 * MIB  # bytes: a quarter of what the journal may take


class StorageKeyLike(Protocol):
    """A `zmesh.security.storage_key.StorageKey`, or what has a key's text as it does."""

    @property
    def text(self) -> str:
        """The key as text."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Storage(Checked):
    """Where a node keeps what must outlive its process, and how.

    `synchronous="normal"` may lose the last commits in a power cut, never by the end of the
    process. Where the journal is full, a caller gets `JournalFull`, waits, or takes the
    place of the oldest for the same addressee, which end as `Dropped`: `when_full`.

    `database` is the application's own: the path of an SQLite file, or what returns a new DB-API
    connection. What is left in its outbox is picked up, and `message.transaction()` is one of
    it. Without it there is none to pick up from, and transactions are of a file beside `path`.

    `key` encrypts what is in the journal: the text of a storage key (`zms1.`...), or the path of
    a file with one. Without it that in `ZMESH_STORAGE_KEY`; without either nothing is encrypted.
    """

    path: Path | str
    database: Path | str | Callable[[], Any] | None = None
    synchronous: Literal["full", "normal"] = "full"
    when_full: Literal["raise", "wait", "drop_oldest"] = "raise"
    options: JournalOptions = JournalOptions()
    retention: Retention = Retention()
    key: StorageKeyLike | Path | str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrustOptions(Checked):
    """What bounds `trust=`. Times in seconds."""

    trusted_keys_max: int = 10_000  # listed, and revoked: ten times the peers a node may have
    file_bytes_max: int = 1 * MIB  # of a file in the directory: a revoked key is 60 bytes
    rules_max: int = 1000  # each is looked at once for a decision that is not remembered
    rule_patterns_max: int = 1000  # of one action in a rule, or names in a group
    decisions_max: int = 1024  # remembered of one peer: at most 1 KiB of name each
    look_every: float = 1.0  # at the directory: its listing and the times of its files


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NodeOptions(Checked):
    """What bounds a whole node. Times in seconds."""

    link: LinkOptions = LinkOptions()
    wire: WireLimits = WireLimits()
    transport: TransportOptions = TransportOptions()
    discovery: DiscoveryOptions = DiscoveryOptions()
    trust: TrustOptions = TrustOptions()
    peers_max: int = 1024
    candidates_max: int = 1024
    hubs_max: int = (
        1024  # that an edge dials or has dialed: all it hears of, where that is as many
    )
    node_bytes_max: int = 256 * MIB  # bodies put together and grown windows, all peers together
    subscriptions_max: int = bounded(1024, low=0)
    services_max: int = bounded(1024, low=0)
    groups_max: int = bounded(256, low=0)  # this node is in
    # That describe this node: every peer is told all of them.
    attributes_max: int = bounded(64, low=0)
    fan_outs_max: int = bounded(256, low=0)  # under way
    fan_outs_bytes_max: int = 256 * MIB  # of them: each is kept until its deadline
    surveys_max: int = bounded(1024, low=0)  # under way
    calls_max: int = bounded(100_000, low=0)
    # Requests whose answer may come later, and answers that are kept.
    tickets_max: int = bounded(10_000, low=0)
    tickets_bytes_max: int = 256 * MIB  # of them: they are in memory as well as on disk
    # With their answer: a week, for who is on holiday.
    tickets_kept_for: float = bounded(604_800.0, low=0)
    # Opened here and open; what peers open is bounded by concurrency.
    streams_max: int = bounded(4096, low=0)
    stream_parts: int = 1024  # a reader's window: what it may have to hold, and one part
    stream_bytes: int = 2 * MIB
    files_waiting_max: int = 256  # coming, or waiting for their turn; more wait unheard
    files_unread_max: int = 1024  # that came, and the application was not told of yet
    queues_max: int = bounded(1024, low=0)  # with jobs of this node
    queued_jobs_max: int = 100_000  # without outcome, a queue: what `push` waits for
    queued_jobs_bytes_max: int = 256 * MIB
    pulls_max: int = bounded(256, low=0)
    # For grants to be used or given back: large jobs take time.
    recall_patience: float = bounded(5.0, low=0)
    answers_max: int = 256  # that peers make us send of queues and streams, and have not taken
    latencies_max: int = 4096  # services of providers whose answers are measured
    latency_decay: float = 10.0  # to a third: Finagle's default, some answers of a slow service
    # Shorter answers are alike: a turn of a busy loop takes as long.
    latency_noise: float = bounded(0.001, low=0)
    # Retries and hedges that calls bring: Finagle's share.
    retries_per_call: float = bounded(0.2, low=0, unit="")
    # And time: few calls are too few to overload anybody.
    retries_per_second: float = bounded(10.0, low=0, unit="a second")
    retries_saved_max: float = bounded(100.0, low=0, unit="")  # ten seconds' worth
    tracebacks_to_callers: bool = False  # they tell of files and code
    # Smaller bodies are not compressed: little to gain.
    compressed_bytes_min: int = bounded(512, low=0)
    attempts_max: int = 20
    dead_letters_max: int = 10_000
    dead_letters_bytes_max: int = 256 * MIB  # beyond either the oldest are dropped
    key_files_every: float = 1.0  # looked at; no portable call tells of changes
    seen_messages_max: int = 100_000  # some 20 MB; a million stalls the loop when it grows
    seen_horizon: float = bounded(86_400.0, low=0)  # how long a handled message id is remembered
    # signed messages
    signature_valid_for: float = 604_800.0  # without a ttl: a week, as what is durable is kept
    # Between two nodes' clocks: NTP keeps to less, a person may not.
    clock_tolerance: float = bounded(60.0, low=0)
    replay_blocks_max: int = 100_000  # some 20 MB; each of 256 numbers of one signer, or of less
    replay_windows_max: int = 16_384  # of one handler and one signer
    signed_batches_max: int = 256  # some 100 KB; of as many senders, each in the midst of one
    reconnect_min: float = 0.1
    reconnect_max: float = 15.0
    dial_timeout: float = 2.0
    # Both see each other at once; the lower id calls first.
    higher_id_dials_after: float = bounded(0.3, low=0)
    dials_max: int = 64  # addresses being tried at once: what a flood of records can cost
    # Of strangers: some 2 ms each, where nobody is there.
    dials_per_second: float = bounded(100.0, unit="a second")
    dials_burst: int = 8  # the same at once
    # Between a candidate's addresses: the first mostly answers sooner.
    dial_stagger: float = bounded(0.05, low=0)
    greeting_timeout: float = 10.0  # from IAM to an open link: two lost HELLOs and their back-off
    # However often a record is announced, no more rounds than this.
    redial_gap: float = bounded(1.0, low=0)
    forget_after: float = bounded(
        300.0, low=0
    )  # how long one is sought whom no source vouches for
    ask_after: float = 2.0  # seeds are asked again whom they know, first after this, then
    ask_after_max: float = 30.0  # ever less often: heals what a partition made them forget
    # what patterns keep
    # Before the second attempt: two nodes must not play ping-pong.
    redeliver_min: float = bounded(0.05, low=0)
    redeliver_max: float = bounded(30.0, low=0)  # what back-off grows to
    topics_cached_max: int = 4096  # topics whose receivers are remembered
    interest_max: int = 4096  # services, patterns and such of one peer: what a node may have
    interest_bytes_max: int = 1 * MIB  # of their names, of one peer: 256 of each, all together
    # Subscriptions with a filter or a limit, of one peer and of this node.
    filters_max: int = bounded(256, low=0)
    filter_steps_max: int = 10_000  # of one evaluation: some 10 ms
    filter_steps_per_second: int = 100_000  # of one peer's filters: a tenth of a core
    # Of a body that filters look into: decoding takes 1 ms.
    content_bytes_max: int = bounded(64 * KIB, low=0)
    history_max: int = 1000  # publications kept of a topic
    retained_max: int = 10_000  # publications kept of all topics: a tenth of what a queue holds
    retained_bytes_max: int = 64 * MIB
    backlog_max: int = 10_000  # publications waiting for one peer that would rather miss some
    backlog_bytes_max: int = 16 * MIB
    backlog_in_flight_max: int = 256  # of these with its link: some milliseconds' worth
    backlog_in_flight_bytes_max: int = 4 * MIB
    # Of one peer: its subscriptions that follow this node's log.
    log_readers_max: int = bounded(256, low=0)
    log_reader_messages: int = 256  # of one on their way: some milliseconds' worth
    log_reader_bytes: int = 1 * MIB
    stale_deliveries_max: int = 4096  # of a peer's ended sessions, still with the application
    replies_kept_max: int = 1024  # that could not be delivered, should the caller ask again
    replies_kept_bytes_max: int = 16 * MIB
    peer_paths_max: int = 4  # inbound, of one peer: nobody tells when one ends (at least 3)
    strangers_max: int = 4096  # paths without a link whose last answer is remembered
    # Of strangers, looked at: 55 us each, 3 % of a core.
    proofs_per_second: float = bounded(500.0, unit="a second")
    proofs_burst: int = 2048  # of them at once: a whole mesh that starts together, twice
    # Made for or looked at from a path: twice what is honest.
    path_proofs_per_second: float = bounded(4.0, unit="a second")
    path_proofs_burst: int = 8  # IAM, HELLO and their repetitions while a connection is new
    doubts_per_second: int = 1000  # paths asked whether it was theirs, when connections end
    defects_traced_max: int = 4096  # culprits and kinds of defect told of once
    # shared maps
    shared_maps_max: int = bounded(64, low=0)
    shared_keys_max: int = 10_000  # of a map, deleted ones that are remembered included
    shared_key_bytes_max: int = 256
    shared_value_bytes_max: int = 64 * KIB  # larger things belong elsewhere, their name in the map
    shared_bytes_max: int = 64 * MIB  # keys and values of a map
    shared_origins_max: int = 1024  # writers a map remembers: what a deletion saw stays deleted
    # A deletion beats older writes it had not seen.
    shared_deleted_for: float = bounded(3600.0, low=0)
    # A stamp further ahead is refused: a time zone is believed.
    shared_drift_max: float = bounded(3600.0, low=0)
    shared_piece_bytes: int = 32 * KIB  # of a snapshot or of changes: a record in one piece
    shared_grace: float = bounded(0.25, low=0)  # for who has just joined to tell what it shares
    shared_sync_every: float = 30.0  # replicas compare, should anything have gone astray
    shared_sync_gap: float = bounded(1.0, low=0)  # between two pulls from one replica
    shared_sync_timeout: float = 5.0  # then another replica is asked
