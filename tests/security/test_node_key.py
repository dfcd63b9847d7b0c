from zmesh.security.node_key import NodeKey, is_signed, node_id_of

KEY = NodeKey.of(bytes(range(32)))


def test_the_key_of_rfc_8032_section_7_1_test_1_is_made_from_its_seed() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = NodeKey.of(seed)
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e0")


def test_a_signature_holds_for_its_key_and_its_bytes_alone() -> None:
    signature = KEY.sign(b"open the door")
    other = NodeKey.of(bytes(32))
    assert is_signed(KEY.public, b"open the door", signature)
    assert not is_signed(KEY.public, b"open the gate", signature)
    assert not is_signed(other.public, b"open the door", signature)


def test_keys_and_signatures_of_other_lengths_are_no_errors() -> None:
    signature = KEY.sign(b"x")
    assert not is_signed(KEY.public[:31], b"x", signature)
    assert not is_signed(KEY.public, b"x", signature[:63])
    assert not is_signed(KEY.public, b"x", signature + b"\x00")


def test_the_id_is_a_hash_of_the_public_key() -> None:
    assert KEY.id == node_id_of(KEY.public)
    assert len(KEY.id) == 16
    assert KEY.id != NodeKey.of(bytes(32)).id


def test_no_secret_is_shown() -> None:
    assert KEY.seed.hex() not in repr(KEY)
    assert repr(KEY.seed) not in repr(KEY)
