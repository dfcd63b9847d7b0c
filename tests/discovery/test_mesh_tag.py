from hashlib import blake2b

from zmesh.discovery.mesh_tag import mesh_tag
from zmesh.ids import MESH_TAG_BYTES


def test_the_tag_of_a_name_never_changes() -> None:
    # On the wire and in mDNS records: another value would part versions of one mesh.
    assert mesh_tag("default").hex() == "0ec820da4a85e928"
    assert len(mesh_tag("")) == MESH_TAG_BYTES


def test_meshes_of_different_names_have_different_tags() -> None:
    names = ["", "default", "Default", "default ", "défaut", "a", "b"]
    assert len({mesh_tag(name) for name in names}) == len(names)


def test_the_tag_is_not_the_bare_hash_of_the_name() -> None:
    assert mesh_tag("default") != blake2b(b"default", digest_size=MESH_TAG_BYTES).digest()
