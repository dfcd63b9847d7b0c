"""Seeds that show a bug there once was, and what it was: they are run with every test."""

from zmesh.testing.scenario import Level

REGRESSIONS: list[tuple[Level, int, str]] = [
    ("link", 206, "a HELLO that crossed ours on a slower connection ended a healthy session"),
    ("link", 532, "a restarted peer took the lanes of the old session for those of the new one"),
    ("link", 75, "the verdict on a body that lost a piece to a GAP waited for another verdict"),
    ("link", 467, "a large body before a block was passed over, and an empty DATA frame sent"),
    ("node", 10, "settling a range that began with a large body settled only that body"),
    ("node", 1165, "a retry went to a handler that had answered its message id before"),
    ("node", 15, "calls stayed with a provider that was gone until its session ended"),
    ("durable", 1, "a caller was told of a dead letter that was not on disk yet"),
    ("durable", 288, "numbers whose reservation a full disk had refused were given again"),
    ("durable", 515, "what had an outcome and came after what had none expired as well"),
    ("durable", 88, "outcomes stayed with who was told of the floor while older messages waited"),
    ("durable", 513, "an outcome was kept that came after its sender had forgotten the message"),
    ("durable", 49, "a box for a name that two bore was not looked at when one of them left"),
    ("durable", 182, "two copies of a message in one packet were rejected with all around them"),
    ("durable", 1598, "the next bearer of a name got what came after what the last one had"),
    ("durable", 1786, "the same, of one key"),
    ("durable", 3067, "the same, with another sender and key"),
    ("durable", 3268, "the same, of one key and of one priority"),
    ("durable", 3342, "a floor was waited for that lay above numbers whose reservation failed"),
    (
        "durable",
        6791,
        "a publisher that came back sent what was published before the subscription",
    ),
    (
        "durable",
        1061,
        "the books wanted attempts at a publication counted over its publisher's lives",
    ),
    ("durable", 7759, "the books wanted what is not stored to wait for what is being stored"),
    ("link", 385, "a large body between holes and a block was never sent"),
]
