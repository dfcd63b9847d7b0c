"""Hypothesis strategies for frames and packets, for every test that wants arbitrary ones.

What they make is valid: `decode` returns it, and `encode` takes it back to the same bytes. Sizes
are small, numbers are not.
"""

from dataclasses import replace
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy, composite

from zmesh.ids import (
    LINK_ID_BYTES,
    MESH_TAG_BYTES,
    NODE_ID_BYTES,
    TOKEN_BYTES,
    JournalId,
    LinkId,
    MeshTag,
    NodeId,
    SessionId,
)
from zmesh.message import CONTROL_LANE, LANES, Extras, ExtraValue, Outcome, Record, Tag
from zmesh.wire.frames import (
    Ack,
    Bye,
    ByeCode,
    Control,
    ControlData,
    Data,
    Drain,
    Error,
    ErrorCode,
    Evidence,
    Fenced,
    Frame,
    Gap,
    Hello,
    Iam,
    Interest,
    LaneState,
    Packet,
    PeerHint,
    Ping,
    Pong,
    Ranges,
    Refused,
    Settle,
    Welcome,
    Who,
)

COUNT_MAX = 2**63 - 1

Said = TypeVar("Said", Iam, Hello, Welcome)

texts = st.text(max_size=20)
counts = st.integers(0, 300) | st.integers(0, COUNT_MAX)
numbers = st.integers(1, 300) | st.integers(1, COUNT_MAX)
data_lanes = st.integers(0, LANES - 1)
link_ids = st.binary(min_size=LINK_ID_BYTES, max_size=LINK_ID_BYTES).map(LinkId)
mesh_tags = st.binary(min_size=MESH_TAG_BYTES, max_size=MESH_TAG_BYTES).map(MeshTag)
node_ids = st.binary(min_size=NODE_ID_BYTES, max_size=NODE_ID_BYTES).map(NodeId)
journal_ids = st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES).map(JournalId)
session_ids = st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES).map(SessionId)
endpoints = st.lists(texts, max_size=3).map(tuple)


@composite
def spans(draw: st.DrawFn) -> tuple[int, int]:
    """`(first, last)`, both included."""
    first = draw(numbers)
    return first, min(COUNT_MAX, first + draw(st.integers(0, 1000)))


@composite
def watermarks(draw: st.DrawFn) -> tuple[int, Ranges]:
    """A cumulative number, and the ranges received above it."""
    cum = draw(counts)
    above, previous = [], cum
    for gap, length in draw(
        st.lists(st.tuples(st.integers(2, 50), st.integers(0, 50)), max_size=4)
    ):
        first, last = previous + gap, previous + gap + length
        if last <= COUNT_MAX:
            above.append((first, last))
            previous = last
    return cum, tuple(above)


# Records

extra_values: dict[int, SearchStrategy[ExtraValue]] = {
    Tag.HEADERS: st.binary(max_size=20),
    Tag.KEY: texts,
    Tag.PREDECESSORS: st.dictionaries(data_lanes, numbers, max_size=9).map(
        lambda lanes: tuple(sorted(lanes.items()))
    ),
    Tag.TTL_MS: counts,
    Tag.MESSAGE_ID: counts,
    Tag.ATTEMPT: counts,
    Tag.CORRELATION: counts,
    Tag.FRAGMENTS: st.tuples(numbers, numbers, st.binary(min_size=16, max_size=16)),
    Tag.TYPE: texts,
    Tag.SIGNATURE: st.binary(max_size=200),
    Tag.ROUTING_KEY: texts,
    Tag.KEPT: counts,
    Tag.RETAINED: counts,
    Tag.COMPRESSED: st.tuples(st.integers(1, 127), numbers),
    Tag.STREAM: st.lists(counts, min_size=2, max_size=5).map(tuple),
    Tag.MISSED: st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4).map(
        lambda pairs: tuple(item for pair in pairs for item in pair)
    ),
}


@composite
def extras(draw: st.DrawFn) -> Extras:
    tags = draw(st.sets(st.sampled_from(sorted(extra_values)), min_size=1, max_size=8))
    return tuple(item for tag in sorted(tags) for item in (int(tag), draw(extra_values[tag])))


heads = st.integers(0, 255)
bodies = st.binary(max_size=80)
bare_records: SearchStrategy[Record] = st.tuples(heads, texts, bodies)
records: SearchStrategy[Record] = bare_records | st.tuples(heads, texts, bodies, extras())


# Control records

outcomes = st.builds(lambda outcome, span: (outcome, *span), st.sampled_from(Outcome), spans())
details = st.tuples(numbers, texts, counts)
settles = st.builds(
    Settle,
    lane=data_lanes,
    outcomes=st.lists(outcomes, max_size=4).map(tuple),
    details=st.lists(details, max_size=4).map(tuple),
)
gaps = st.builds(
    Gap,
    lane=data_lanes,
    ranges=st.lists(st.builds(lambda span, size: (*span, size), spans(), counts), max_size=4).map(
        tuple
    ),
)
entries = st.lists(st.tuples(st.sampled_from(["service", "topic"]), texts), max_size=4).map(tuple)
interests = st.builds(Interest, added=entries, removed=entries)
refusals = st.builds(Refused, st.lists(st.tuples(texts, texts, texts), max_size=4).map(tuple))
controls: SearchStrategy[Control] = settles | gaps | interests | refusals | st.builds(Drain)


# Frames

algorithms = st.sets(st.integers(1, 127), max_size=8).map(lambda found: tuple(sorted(found)))


@composite
def lane_states(draw: st.DrawFn) -> tuple[LaneState, ...]:
    lanes = sorted(draw(st.sets(st.integers(0, CONTROL_LANE), max_size=4)))
    return tuple(
        LaneState(lane, draw(numbers), *draw(watermarks()), draw(counts), draw(counts))
        for lane in lanes
    )


def with_proof(said: SearchStrategy[Said]) -> SearchStrategy[Said]:
    """Frames as they are, or with a key and a proof of the right sizes."""
    keys, proofs = st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64)
    return said | st.builds(
        lambda frame, key, proof: replace(frame, key=key, proof=proof), said, keys, proofs
    )


evidence = st.builds(
    Evidence,
    role=st.sampled_from([2, 3]),
    incarnation=counts,
    journal=journal_ids,
    to_incarnation=counts,
    connection=st.binary(min_size=32, max_size=32),
    link=link_ids,
    attempt=counts,
    proof=st.binary(min_size=64, max_size=64),
)

whos = st.builds(Who, mesh=mesh_tags, node=node_ids)
hints = st.builds(PeerHint, node=node_ids, name=texts, endpoints=endpoints)
iams = with_proof(
    st.builds(
        Iam,
        mesh=mesh_tags,
        node=node_ids,
        name=texts,
        incarnation=counts,
        endpoints=endpoints,
        known=st.lists(hints, max_size=3).map(tuple),
    )
)
hellos = with_proof(
    st.builds(
        Hello,
        mesh=mesh_tags,
        node=node_ids,
        to=node_ids,
        name=texts,
        incarnation=counts,
        journal=journal_ids,
        attempt=counts,
        resume=st.none() | session_ids,
        fresh=session_ids,
        endpoints=endpoints,
        lanes=lane_states(),
        decompresses=algorithms,
    )
)
welcomes = with_proof(
    st.builds(
        Welcome,
        node=node_ids,
        name=texts,
        incarnation=counts,
        journal=journal_ids,
        attempt=counts,
        calls=counts,
        session=session_ids,
        endpoints=endpoints,
        lanes=lane_states(),
        decompresses=algorithms,
    )
)


@composite
def datas(draw: st.DrawFn) -> Data:
    count_max = draw(st.sampled_from([1, 3, 30]))
    batch = draw(
        st.lists(records, min_size=1, max_size=count_max)
        | st.lists(bare_records, min_size=1, max_size=count_max)
    )
    first = min(draw(numbers), COUNT_MAX - len(batch) + 1)
    return Data(draw(data_lanes), first, tuple(batch))


@composite
def control_datas(draw: st.DrawFn) -> ControlData:
    batch = draw(st.lists(controls, min_size=1, max_size=4))
    return ControlData(min(draw(numbers), COUNT_MAX - len(batch) + 1), tuple(batch))


@composite
def acks(draw: st.DrawFn) -> Ack:
    lanes = sorted(draw(st.sets(st.integers(0, CONTROL_LANE), max_size=4)))
    credit = sorted(draw(st.sets(st.integers(0, CONTROL_LANE), max_size=4)))
    return Ack(
        draw(counts),
        draw(counts),
        tuple((lane, *draw(watermarks())) for lane in lanes),
        tuple((lane, draw(counts), draw(counts)) for lane in credit),
    )


nonces = st.integers(0, 2**64 - 1)
frames: SearchStrategy[Frame] = st.one_of(
    whos,
    iams,
    hellos,
    welcomes,
    datas(),
    control_datas(),
    acks(),
    st.builds(Ping, nonce=nonces),
    st.builds(Pong, nonce=nonces),
    st.builds(Bye, code=st.sampled_from(ByeCode), text=texts),
    st.builds(Fenced, incarnation=counts, evidence=st.none() | evidence),
    st.builds(Error, code=st.sampled_from(ErrorCode), text=texts, evidence=st.none() | evidence),
)
packets = st.builds(
    Packet,
    link=link_ids,
    number=counts,
    frames=st.lists(frames, min_size=1, max_size=4).map(tuple),
)
