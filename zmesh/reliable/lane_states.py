"""What HELLO and WELCOME say of every lane of a session."""

from collections.abc import Mapping

from zmesh.message import CONTROL_LANE, LANES
from zmesh.options import LinkOptions
from zmesh.reliable.receiver import ControlInbox, IncomingLane
from zmesh.reliable.send_window import ControlQueue
from zmesh.reliable.sender import OutgoingLane
from zmesh.wire.frames import LaneState


def lane_states(
    outgoing: Mapping[int, OutgoingLane],
    incoming: Mapping[int, IncomingLane],
    control_out: ControlQueue,
    control_in: ControlInbox,
    options: LinkOptions,
    ranges_max: int,
) -> tuple[LaneState, ...]:
    """Return the state of all lanes; those that were not used yet have their first window."""
    states = []
    for number in range(LANES):
        out, lane = outgoing.get(number), incoming.get(number)
        next_seq = out.next_seq if out is not None else 1
        if lane is None:
            window = (options.window_messages, options.window_bytes)
            states.append(LaneState(number, next_seq, 0, (), *window))
            continue
        received, credit = lane.received, lane.credit
        ranges = received.above.as_tuple(ranges_max)
        limits = (credit.seq_limit, credit.bytes_limit)
        states.append(LaneState(number, next_seq, received.cum, ranges, *limits))
    received = control_in.received
    ranges = received.above.as_tuple(ranges_max)
    states.append(LaneState(CONTROL_LANE, control_out.next_seq, received.cum, ranges, 0, 0))
    return tuple(states)
