"""Hold proofs to `tests/vectors/proofs.json`, and to the order that the document tells."""

import json
from hashlib import blake2b
from typing import Any

import pytest

from tests.wire import proof_cases as cases
from tests.wire.test_protocol_document import rows, section
from zmesh.security.node_key import NodeKey, is_signed, node_id_of

VECTORS = json.loads(cases.PATH.read_text(encoding="ascii"))
DOMAIN = b"zmesh handshake v1\0"
of_each = pytest.mark.parametrize("vector", VECTORS["cases"], ids=lambda each: each["name"])


def number(vector: dict[str, Any], name: str, size: int = 8) -> bytes:
    return int(vector[name]).to_bytes(size, "big")


def field_of(vector: dict[str, Any], name: str) -> bytes:
    """What stands for a field of the transcript, by the name the document has for it."""
    if name == "domain":
        return DOMAIN
    if name == "role":
        return number(vector, name, 1)
    if name in {"incarnation", "to_incarnation", "attempt"}:
        return number(vector, name)
    return bytes.fromhex(vector[name])


@of_each
def test_transcript_is_what_the_document_says(vector: dict[str, Any]) -> None:
    names = [
        (cells[0], int(cells[1]))
        for cells in rows(section("8.1 Proofs"))
        if len(cells) == 3 and cells[1].isdigit()
    ]
    made = [field_of(vector, name) for name, _ in names]
    assert [len(each) for each in made] == [size for _, size in names]
    assert b"".join(made).hex() == vector["transcript"]


@of_each
def test_proof_is_the_signature_of_the_transcript(vector: dict[str, Any]) -> None:
    key = NodeKey.of(bytes.fromhex(vector["seed"]))
    transcript = bytes.fromhex(vector["transcript"])
    assert key.public.hex() == vector["key"]
    assert key.sign(transcript).hex() == vector["proof"]
    assert is_signed(key.public, transcript, bytes.fromhex(vector["proof"]))


@of_each
def test_node_id_is_the_hash_the_document_tells(vector: dict[str, Any]) -> None:
    public = bytes.fromhex(vector["key"])
    made = blake2b(b"zmesh node id v1\0" + public, digest_size=16).hexdigest()
    assert made == vector["node"] == node_id_of(public).hex()


def test_file_is_what_the_code_makes() -> None:
    assert json.loads(json.dumps(cases.as_file())) == VECTORS
