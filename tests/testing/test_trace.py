from zmesh.testing.trace import Trace


def test_the_digest_depends_on_every_fact_and_its_order() -> None:
    digests = set()
    for facts in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)], [("a", 1)]):
        trace = Trace()
        for what, number in facts:
            trace.note(0.5, "x", what, number)
        digests.add(trace.digest())
    assert len(digests) == 3


def test_lines_are_kept_only_where_asked_for_and_change_no_digest() -> None:
    silent, readable = Trace(), Trace(lines_max=2)
    for trace in (silent, readable):
        trace.note(1.25, "a1", "sends", 2, b"\x01\x02", 0.5, None)
        trace.explain(1.25, "a1", "", "in words")
        trace.note(1.5, "a1", "rests")
        trace.absorb(b"bytes")
    assert not silent.lines
    assert [line.split() for line in readable.lines] == [
        ["1.250000", "a1", "in", "words"],
        ["1.500000", "a1", "rests"],
    ]
    assert silent.digest() == readable.digest()
