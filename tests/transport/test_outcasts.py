"""Which paths are shut out, and for how long."""

from zmesh.transport.outcasts import Outcasts

KEY = b"k" * 32
PATH = b"\0path" + KEY


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_path_and_its_key_are_shut_out_for_their_time() -> None:
    clock = Clock()
    outcasts = Outcasts(4, clock, is_guarded=True)
    outcasts.add(PATH, 15.0)
    assert outcasts.holds(PATH)
    assert outcasts.holds_key(KEY)
    assert not outcasts.holds(b"\0else" + KEY)
    clock.now = 15.0
    assert not outcasts.holds(PATH)
    assert not outcasts.holds_key(KEY)
    assert not outcasts


def test_without_keys_only_the_path_is() -> None:
    outcasts = Outcasts(4, Clock(), is_guarded=False)
    outcasts.add(PATH, 15.0)
    assert outcasts.holds(PATH)
    assert not outcasts.holds_key(KEY)


def test_a_connection_is_ended_once() -> None:
    outcasts = Outcasts(4, Clock(), is_guarded=True)
    outcasts.add(PATH, 15.0)
    assert [outcasts.is_to_end(PATH) for _ in range(3)] == [True, False, False]
    outcasts.add(PATH, 15.0)
    assert outcasts.is_to_end(PATH)


def test_the_oldest_make_room() -> None:
    outcasts = Outcasts(4, Clock(), is_guarded=True)
    paths = [b"\0pat%d" % number + bytes([number]) * 32 for number in range(9)]
    for path in paths:
        outcasts.add(path, 15.0)
    assert len(outcasts) == 4
    assert [outcasts.holds(path) for path in paths] == [False] * 5 + [True] * 4
    assert [outcasts.holds_key(path[-32:]) for path in paths] == [False] * 5 + [True] * 4
