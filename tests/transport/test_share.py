"""How much is read in a turn."""

from tests.transport.peer import options
from zmesh.options import KIB
from zmesh.transport.share import Share

MOST = (256, 256 * KIB)
FIRST = (16, 16 * KIB)


def sizes(share: Share) -> tuple[int, int]:
    return share.packets_max, share.bytes_max


def after(share: Share, seconds: float, times: int, *, is_empty: bool = False) -> tuple[int, int]:
    for _ in range(times):
        share.on_turn(seconds, is_empty=is_empty)
    return sizes(share)


def test_it_begins_with_little_and_grows_while_there_is_more_that_is_quickly_done() -> None:
    share = Share(options(turn_max=0.002))
    assert sizes(share) == FIRST
    assert after(share, 0.0009, 1) == (32, 32 * KIB)
    assert after(share, 0.0009, 10) == MOST


def test_what_takes_long_shrinks_it_down_to_a_packet() -> None:
    share = Share(options(turn_max=0.002))
    assert after(share, 0.003, 1) == (8, 8 * KIB)
    assert after(share, 0.003, 10) == (1, KIB)
    assert after(share, 0.0015, 10) == (1, KIB), "neither quick nor too long"


def test_where_nothing_waits_it_comes_back_to_what_it_began_with() -> None:
    large, small = Share(options()), Share(options())
    assert after(large, 0.0, 10) == MOST
    assert after(small, 1.0, 10) == (1, KIB)
    for share in (large, small):
        assert after(share, 1.0, 10, is_empty=True) == FIRST


def test_of_small_largest_turns_it_is_a_packet_and_a_byte_at_least() -> None:
    share = Share(options(turn_packets_max=3, turn_bytes_max=5))
    assert sizes(share) == (1, 1)
