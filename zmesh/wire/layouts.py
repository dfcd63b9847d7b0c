"""Frames as positional arrays, both ways: `[type, field, ...]`. DATA is in `codec`."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar, cast

from zmesh.ids import (
    CONNECTION_KEY_BYTES,
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
from zmesh.message import CONTROL_LANE
from zmesh.options import WireLimits
from zmesh.security.proof import Role
from zmesh.wire.fields import (
    ALGORITHM_MAX,
    COUNT_MAX,
    NONCE_MAX,
    Fields,
    array,
    integer,
    lane_rows,
    malformed,
    ranges_above,
    row,
    text,
    texts,
    token,
)
from zmesh.wire.frames import (
    Ack,
    Bye,
    ByeCode,
    Error,
    ErrorCode,
    Evidence,
    Fenced,
    Frame,
    FrameType,
    Hello,
    Iam,
    LaneState,
    PeerHint,
    Ping,
    Pong,
    Ranges,
    Welcome,
    Who,
)

ALL_LANES: Final = CONTROL_LANE + 1

ALGORITHMS_MAX: Final = 8
"""Ways to decompress that a node tells of."""

KEY_BYTES: Final = 32
"""A node's public key (Ed25519, RFC 8032)."""

PROOF_BYTES: Final = 64
"""A signature by it."""

ROLE_MAX: Final = 127

EDGE: Final = 1
"""The role of a node that has links with hubs alone; that of a hub is left out."""

_SAID_IN: Final = (Role.HELLO, Role.WELCOME)
"""What evidence may come from."""

PlainFrame = Who | Iam | Hello | Welcome | Ack | Ping | Pong | Bye | Fenced | Error
"""Every frame without records."""


# To the wire


def _who_to_wire(frame: Who) -> Fields:
    return (FrameType.WHO, frame.mesh, frame.node)


def _iam_to_wire(frame: Iam) -> Fields:
    known = [(hint.node, hint.name, hint.endpoints) for hint in frame.known]
    return (
        FrameType.IAM, frame.mesh, frame.node, frame.name, frame.incarnation, frame.endpoints,
        known, *_proof_to_wire(frame), *_role_to_wire(frame),
    )  # fmt: skip


def _hello_to_wire(frame: Hello) -> Fields:
    return (
        FrameType.HELLO, frame.mesh, frame.node, frame.to, frame.name, frame.incarnation,
        frame.journal, frame.attempt, frame.resume, frame.fresh, frame.endpoints,
        _lanes_to_wire(frame.lanes), *_rest_to_wire(frame), *_role_to_wire(frame),
    )  # fmt: skip


def _welcome_to_wire(frame: Welcome) -> Fields:
    return (
        FrameType.WELCOME, frame.node, frame.name, frame.incarnation, frame.journal,
        frame.attempt, frame.calls, frame.session, frame.endpoints, _lanes_to_wire(frame.lanes),
        *_rest_to_wire(frame),
    )  # fmt: skip


def _rest_to_wire(frame: Hello | Welcome) -> Fields:
    """Return what may be left out from the end: nothing before what is there."""
    if frame.proof:
        return (frame.decompresses, *_proof_to_wire(frame))
    has_role = isinstance(frame, Hello) and frame.is_edge
    return (frame.decompresses,) if frame.decompresses or has_role else ()


def _proof_to_wire(frame: Iam | Hello | Welcome) -> Fields:
    return (frame.key, frame.proof) if frame.proof else ()


def _role_to_wire(frame: Iam | Hello) -> Fields:
    return (EDGE,) if frame.is_edge else ()


def _evidence_to_wire(evidence: Evidence | None) -> Fields:
    if evidence is None:
        return ()
    return (
        (
            evidence.role, evidence.incarnation, evidence.journal, evidence.to_incarnation,
            evidence.connection, evidence.link, evidence.attempt, evidence.proof,
        ),
    )  # fmt: skip


def _lanes_to_wire(lanes: Sequence[LaneState]) -> list[Fields]:
    return [
        (
            state.lane, state.next_seq, state.received_cum, state.received_ranges,
            state.seq_limit, state.bytes_limit,
        )
        for state in lanes
    ]  # fmt: skip


def _ack_to_wire(frame: Ack) -> Fields:
    return (FrameType.ACK, frame.largest, frame.delay_us, frame.lanes, frame.credit)


def _ping_to_wire(frame: Ping) -> Fields:
    return (FrameType.PING, frame.nonce)


def _pong_to_wire(frame: Pong) -> Fields:
    return (FrameType.PONG, frame.nonce)


def _bye_to_wire(frame: Bye) -> Fields:
    return (FrameType.BYE, frame.code, frame.text)


def _fenced_to_wire(frame: Fenced) -> Fields:
    return (FrameType.FENCED, frame.incarnation, *_evidence_to_wire(frame.evidence))


def _error_to_wire(frame: Error) -> Fields:
    return (FrameType.ERROR, frame.code, frame.text, *_evidence_to_wire(frame.evidence))


TO_WIRE: Final[dict[type[Frame], Callable[..., Fields]]] = {
    Who: _who_to_wire,
    Iam: _iam_to_wire,
    Hello: _hello_to_wire,
    Welcome: _welcome_to_wire,
    Ack: _ack_to_wire,
    Ping: _ping_to_wire,
    Pong: _pong_to_wire,
    Bye: _bye_to_wire,
    Fenced: _fenced_to_wire,
    Error: _error_to_wire,
}
"""The array of each frame without records."""


# From the wire


def _mesh(value: object) -> MeshTag:
    return MeshTag(token(value, "the mesh tag", MESH_TAG_BYTES))


def _node(value: object) -> NodeId:
    return NodeId(token(value, "a node id", NODE_ID_BYTES))


def _journal(value: object) -> JournalId:
    return JournalId(token(value, "the journal id", TOKEN_BYTES))


def _session(value: object) -> SessionId:
    return SessionId(token(value, "a session id", TOKEN_BYTES))


def _endpoints(value: object, limits: WireLimits) -> tuple[str, ...]:
    return texts(value, "endpoints", limits.endpoints_max)


def _lanes(value: object, limits: WireLimits) -> tuple[LaneState, ...]:
    states = []
    for fields in lane_rows(value, "lane states", 6, ALL_LANES):
        lane, next_seq, cum, ranges, seq_limit, bytes_limit = fields
        cum = integer(cum, "the cumulative number of a lane")
        states.append(
            LaneState(
                cast("int", lane),  # checked by `lane_rows`
                integer(next_seq, "the next number of a lane", 1),
                cum,
                ranges_above(ranges, cum, "the ranges of a lane", limits.ranges_max),
                integer(seq_limit, "the message credit of a lane"),
                integer(bytes_limit, "the byte credit of a lane"),
            )
        )
    return tuple(states)


def _who(fields: Fields, _: WireLimits) -> Who:
    mesh, node = row(fields, "WHO", 2)
    return Who(_mesh(mesh), _node(node))


def _iam(fields: Fields, limits: WireLimits) -> Iam:
    fields, is_edge = _split_role(fields, (7, 9))
    fields, key, proof = _split_proof(fields, 6)
    mesh, node, name, incarnation, endpoints, known = row(fields, "IAM", 6)
    return Iam(
        _mesh(mesh),
        _node(node),
        text(name, "the name of a node"),
        integer(incarnation, "the incarnation"),
        _endpoints(endpoints, limits),
        tuple([_hint(hint, limits) for hint in array(known, "known peers", limits.known_max)]),
        key,
        proof,
        is_edge,
    )


def _hint(value: object, limits: WireLimits) -> PeerHint:
    node, name, endpoints = row(value, "a known peer", 3)
    return PeerHint(
        _node(node), text(name, "the name of a known peer"), _endpoints(endpoints, limits)
    )


def _split_role(fields: Fields, widths: tuple[int, ...]) -> tuple[Fields, bool]:
    """Return a frame without its last field where that is a role, and whether it is an edge's."""
    if len(fields) not in widths:
        return fields, False
    return fields[:-1], integer(fields[-1], "a role", 1, ROLE_MAX) == EDGE


def _split_proof(fields: Fields, width: int) -> tuple[Fields, bytes, bytes]:
    """Return the first fields of a frame, and what may follow: a public key and a proof."""
    if len(fields) != width + 2:
        return fields, b"", b""
    key = token(fields[width], "a public key", KEY_BYTES)
    return fields[:width], key, token(fields[width + 1], "a proof", PROOF_BYTES)


def _split_abilities(fields: Fields, width: int) -> tuple[Fields, tuple[int, ...]]:
    """Return the first fields of HELLO or WELCOME, and what may follow: what is decompressed."""
    if len(fields) != width + 1:
        return fields, ()
    algorithms = array(fields[width], "algorithms", ALGORITHMS_MAX)
    previous = 0
    for algorithm in algorithms:
        previous = integer(algorithm, "an algorithm", previous + 1, ALGORITHM_MAX)
    return fields[:width], cast("tuple[int, ...]", algorithms)


def _hello(fields: Fields, limits: WireLimits) -> Hello:
    fields, is_edge = _split_role(fields, (13, 15))
    fields, key, proof = _split_proof(fields, 12)
    fields, decompresses = _split_abilities(fields, 11)
    (
        mesh, node, to, name, incarnation, journal, attempt, resume, fresh, endpoints, lanes,
    ) = row(fields, "HELLO", 11)  # fmt: skip
    return Hello(
        _mesh(mesh),
        _node(node),
        _node(to),
        text(name, "the name of a node"),
        integer(incarnation, "the incarnation"),
        _journal(journal),
        integer(attempt, "the attempt"),
        None if resume is None else _session(resume),
        _session(fresh),
        _endpoints(endpoints, limits),
        _lanes(lanes, limits),
        decompresses,
        key,
        proof,
        is_edge,
    )


def _welcome(fields: Fields, limits: WireLimits) -> Welcome:
    fields, key, proof = _split_proof(fields, 10)
    fields, decompresses = _split_abilities(fields, 9)
    node, name, incarnation, journal, attempt, calls, session, endpoints, lanes = row(
        fields, "WELCOME", 9
    )
    return Welcome(
        _node(node),
        text(name, "the name of a node"),
        integer(incarnation, "the incarnation"),
        _journal(journal),
        integer(attempt, "the attempt"),
        integer(calls, "the last attempt of the other side"),
        _session(session),
        _endpoints(endpoints, limits),
        _lanes(lanes, limits),
        decompresses,
        key,
        proof,
    )


def _ack(fields: Fields, limits: WireLimits) -> Ack:
    # Written out, since nearly every packet carries one.
    if len(fields) != 4:
        raise malformed("ACK is not an array of 4")
    largest, delay_us, lanes, credit = fields
    if type(largest) is not int or type(delay_us) is not int:
        raise malformed("the largest packet number or the delay of ACK is not an integer")
    if not 0 <= largest <= COUNT_MAX >= delay_us >= 0:
        raise malformed("the largest packet number or the delay of ACK is out of range")
    return Ack(largest, delay_us, _received(lanes, limits), _granted(credit))


def _received(lanes: object, limits: WireLimits) -> tuple[tuple[int, int, Ranges], ...]:
    previous = -1
    for item in array(lanes, "acknowledgements", ALL_LANES):
        if type(item) is not tuple or len(item) != 3:
            raise malformed("an acknowledgement is not an array of 3")
        lane, cum, ranges = item
        if type(lane) is not int or type(cum) is not int:
            raise malformed("the lane or number of an acknowledgement is not an integer")
        if not previous < lane < ALL_LANES or not 0 <= cum <= COUNT_MAX:
            raise malformed("acknowledgements are not of ascending lanes, or out of range")
        previous = lane
        if ranges != ():
            ranges_above(ranges, cum, "the ranges of an acknowledgement", limits.ranges_max)
    return cast("tuple[tuple[int, int, Ranges], ...]", lanes)


def _granted(credit: object) -> tuple[tuple[int, int, int], ...]:
    previous = -1
    for item in array(credit, "credit", ALL_LANES):
        if type(item) is not tuple or len(item) != 3:
            raise malformed("credit is not an array of 3")
        lane, seq_limit, bytes_limit = item
        if type(lane) is not int or type(seq_limit) is not int or type(bytes_limit) is not int:
            raise malformed("credit is not an array of integers")
        if not previous < lane < ALL_LANES or not 0 <= seq_limit <= COUNT_MAX >= bytes_limit >= 0:
            raise malformed("credit is not of ascending lanes, or out of range")
        previous = lane
    return cast("tuple[tuple[int, int, int], ...]", credit)


def _ping(fields: Fields, _: WireLimits) -> Ping:
    return Ping(integer(row(fields, "PING", 1)[0], "a nonce", 0, NONCE_MAX))


def _pong(fields: Fields, _: WireLimits) -> Pong:
    return Pong(integer(row(fields, "PONG", 1)[0], "a nonce", 0, NONCE_MAX))


def _bye(fields: Fields, _: WireLimits) -> Bye:
    code, reason = row(fields, "BYE", 2)
    return Bye(_code(ByeCode, code), text(reason, "the text of BYE"))


def _fenced(fields: Fields, _: WireLimits) -> Fenced:
    fields, evidence = _split_evidence(fields, 1)
    return Fenced(integer(row(fields, "FENCED", 1)[0], "the incarnation"), evidence)


def _error(fields: Fields, _: WireLimits) -> Error:
    fields, evidence = _split_evidence(fields, 2)
    code, reason = row(fields, "ERROR", 2)
    return Error(_code(ErrorCode, code), text(reason, "the text of ERROR"), evidence)


def _split_evidence(fields: Fields, width: int) -> tuple[Fields, Evidence | None]:
    """Return the first fields of a frame, and what may follow: evidence of a clone."""
    if len(fields) != width + 1:
        return fields, None
    role, incarnation, journal, to_incarnation, connection, link, attempt, proof = row(
        fields[width], "evidence", 8
    )
    return fields[:width], Evidence(
        integer(role, "what evidence comes from", *_SAID_IN),
        integer(incarnation, "the incarnation"),
        _journal(journal),
        integer(to_incarnation, "the incarnation of who was told"),
        token(connection, "the key of a connection", CONNECTION_KEY_BYTES),
        LinkId(token(link, "a link id", LINK_ID_BYTES)),
        integer(attempt, "the attempt"),
        token(proof, "a proof", PROOF_BYTES),
    )


Code = TypeVar("Code", ByeCode, ErrorCode)


def _code(codes: type[Code], value: object) -> Code:
    try:
        return codes(integer(value, "a code"))
    except ValueError:
        raise malformed(f"{value} is not a {codes.__name__}") from None


FROM_WIRE: Final[dict[int, Callable[[Fields, WireLimits], PlainFrame]]] = {
    FrameType.WHO: _who,
    FrameType.IAM: _iam,
    FrameType.HELLO: _hello,
    FrameType.WELCOME: _welcome,
    FrameType.ACK: _ack,
    FrameType.PING: _ping,
    FrameType.PONG: _pong,
    FrameType.BYE: _bye,
    FrameType.FENCED: _fenced,
    FrameType.ERROR: _error,
}
"""The frame without records of each type, from its fields after the type."""
