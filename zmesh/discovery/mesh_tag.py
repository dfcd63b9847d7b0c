"""The mesh tag: what keeps meshes of different names apart, on the wire and in mDNS."""

from hashlib import blake2b

from zmesh.ids import MESH_TAG_BYTES, MeshTag

_DOMAIN = b"zmesh mesh tag v1"
"""Hashed before the name, so that the tag equals no other hash zmesh makes of the same text."""


def mesh_tag(mesh_name: str) -> MeshTag:
    """Return the tag of the mesh with this name: 8 bytes of BLAKE2b (RFC 7693).

    It hides nothing: who can guess the name can compute the tag.
    """
    text = _DOMAIN + b"\x00" + mesh_name.encode()
    return MeshTag(blake2b(text, digest_size=MESH_TAG_BYTES).digest())
