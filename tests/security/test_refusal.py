from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import Rejected
from zmesh.security.refusal import error_of, from_reason, of_application, to_reason
from zmesh.security_errors import SIGNATURE_REFUSED, NotAllowed, SignatureRefused

anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=2000)


@given(anything, anything)
def test_a_refusal_is_read_as_it_was_written_and_never_too_long(name: str, rule: str) -> None:
    reason = to_reason("call", name, rule)
    assert len(reason.encode()) <= 1024
    told = from_reason(reason)
    assert told is not None
    assert told[0] == "call"
    if len(name) <= 30:
        assert told[1] == name


@given(anything)
def test_no_reason_of_an_application_is_taken_for_a_refusal(reason: str) -> None:
    for text in (reason, to_reason("call", reason, reason)):
        assert from_reason(of_application(text)) is None


def test_the_error_tells_whose_rules_and_which() -> None:
    error = error_of("gate", to_reason("call", "open", "rules.toml: rule 2"))
    assert isinstance(error, NotAllowed)
    assert (error.action, error.name, error.by) == ("call", "open", "gate")
    assert str(error) == "gate does not allow this node to call 'open': rules.toml: rule 2"


def test_the_error_of_a_handler_is_rejected_and_nothing_more() -> None:
    error = error_of("gate", "no, thanks")
    assert type(error) is Rejected
    assert (error.peer, error.reason) == ("gate", "no, thanks")


def test_the_error_for_a_signature_tells_what_is_wrong_with_it() -> None:
    error = error_of("gate", SIGNATURE_REFUSED + "it came before")
    assert isinstance(error, SignatureRefused)
    assert (error.peer, error.why) == ("gate", "it came before")


def test_what_only_looks_like_a_refusal_is_none() -> None:
    for text in ("", "[1]", '["a", "b", 3]', "{", r'["call", "\ud800", "a rule"]'):
        assert from_reason(f"NOT-ALLOWED {text}") is None
