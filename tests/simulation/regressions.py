"""Seeds that show a bug there once was, and what it was: they are run with every test."""

from zmesh.testing.scenario import Level

REGRESSIONS: list[tuple[Level, int, str]] = [
    ("link", 206, "a HELLO that crossed ours on a slower connection ended a healthy session"),
    ("link", 532, "a restarted peer took the lanes of the old session for those of the new one"),
    ("link", 75, "the verdict on a body that lost a piece to a GAP waited for another verdict"),
    ("node", 10, "settling a range that began with a large body settled only that body"),
    ("node", 1165, "a retry went to a handler that had answered its message id before"),
    ("node", 15, "calls stayed with a provider that was gone until its session ended"),
]
