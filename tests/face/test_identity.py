"""Who a node is, with and without a journal."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.face.test_settings import KEY, settings
from zmesh.face.identity import who_am_i
from zmesh.face.storing import NOTHING_KEPT, Kept
from zmesh.face.system import SystemEntropy
from zmesh.ids import JournalId, NodeId
from zmesh.options import Storage
from zmesh.security.node_key import NodeKey, node_id_of
from zmesh.security_errors import InvalidKey, NodeKeyMissing
from zmesh.storage import Identity, Opened

ENTROPY = SystemEntropy()
NODE = NodeKey.new(ENTROPY)
IDENTITY = Identity(NODE.id, NODE.seed, JournalId(b"j" * 16), 7)


def kept(identity: Identity) -> Kept:
    return Kept(None, Opened(identity, (), True, None))


def test_without_a_journal_a_node_is_somebody_new_whose_id_is_that_of_its_key() -> None:
    first, second = (who_am_i(settings(), NOTHING_KEPT, ENTROPY) for _ in range(2))
    assert first.key is not None
    assert first.local.node == first.key.id == node_id_of(first.key.public)
    assert (first.local.incarnation, first.local.name) == (1, "a")
    assert first.local.node != second.local.node
    assert first.connection != second.connection


def test_with_a_journal_a_node_is_whom_it_says() -> None:
    found = who_am_i(settings(key=KEY), kept(IDENTITY), ENTROPY)
    assert found.key == NODE
    assert (found.local.node, found.local.incarnation) == (NODE.id, 7)
    assert found.local.journal == IDENTITY.journal


def test_journal_from_before_node_keys_serves_where_there_is_no_mesh_key() -> None:
    old = Identity(NodeId(b"n" * 16), b"", JournalId(b"j" * 16), 3)
    found = who_am_i(settings(), kept(old), ENTROPY)
    assert (found.local.node, found.key) == (old.node, None)
    told = replace(settings(key=KEY), storage=Storage(Path("old.journal")))
    with pytest.raises(NodeKeyMissing, match=r"old\.journal has no node key.*give the node a new"):
        who_am_i(told, kept(old), ENTROPY)


@pytest.mark.parametrize("seed", [b"s" * 32, b"short"])
def test_key_of_another_node_in_a_journal_is_refused(seed: bytes) -> None:
    with pytest.raises(InvalidKey, match="not that of the node of this journal"):
        who_am_i(settings(), kept(replace(IDENTITY, seed=seed)), ENTROPY)
