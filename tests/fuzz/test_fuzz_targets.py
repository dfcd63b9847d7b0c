"""Fuzzing in short: what is kept of it, and some thousand changed inputs that are always the same.

`make fuzz` looks for new ones, guided by coverage.
"""

from collections.abc import Callable

import pytest

from tests.fuzz import codec_target, compression_target, files_target, seeds
from tests.fuzz.mutations import mutations
from tests.fuzz.targets import TARGETS
from zmesh.core.introductions import Introductions
from zmesh.discovery.candidates import CandidateTable
from zmesh.face.partial_file import PartialFile
from zmesh.journal import coding
from zmesh.options import WireLimits
from zmesh.patterns.content import Expression
from zmesh.patterns.exchanges import RoutingTable
from zmesh.reliable.link import Link
from zmesh.security.invitation import Inviter
from zmesh.security.join_exchange import Exchange
from zmesh.security.key_text import KeyText
from zmesh.security.replays import ReplayTable
from zmesh.security.signing import Signature
from zmesh.security.trust_files import TrustDirectory
from zmesh.security_errors import InvalidKey
from zmesh.wire.codec import encode
from zmesh.wire.compression import decompressed
from zmesh.wire.frames import Packet

MUTATIONS = {
    "codec": 4000,
    "compression": 4000,
    "records": 400,
    "journal": 60,
    "files": 600,
    "tables": 1500,
    "keys": 200,
    "joining": 600,
    "signatures": 800,
    "link": 300,
    "engine": 250,
}
"""About a second each."""

CORPUS_BYTES_MAX = 1024 * 1024

of_each_target = pytest.mark.parametrize("name", TARGETS)


def inputs(name: str) -> list[bytes]:
    return seeds.made(name) + seeds.stored(name)


@of_each_target
def test_what_is_kept_of_fuzzing_finds_nothing_any_more(name: str) -> None:
    for data in (b"", *inputs(name)):
        TARGETS[name](data)


@of_each_target
def test_changed_inputs_find_nothing(name: str) -> None:
    for number, data in enumerate(mutations(inputs(name), MUTATIONS[name], name)):
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"mutation {number}: {data.hex()}") from error


def test_mutations_repeat_by_their_seed() -> None:
    first, second = (list(mutations([b"abc", b"defg" * 20], 50, "seed")) for _ in range(2))
    assert first == second
    assert len(set(first)) > 40


def test_the_corpus_stays_small() -> None:
    assert sum(len(data) for name in TARGETS for data in seeds.stored(name)) < CORPUS_BYTES_MAX


# Each target notices a defect of its kind


def forget_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(
        packet: Packet, limits: WireLimits, inline_bytes_max: int
    ) -> list[bytes | memoryview]:
        shorter = Packet(packet.link, packet.number, packet.frames[:-1] or packet.frames)
        return encode(shorter, limits, inline_bytes_max)

    monkeypatch.setattr(codec_target, "encode", forgetful)


def make_bodies_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        compression_target, "decompressed", lambda *given: decompressed(*given) + b"!"
    )


def take_everybody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CandidateTable, "_crowd", lambda *_: None)


def believe_any_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding, "is_message_sound", lambda _: True)


def save_to_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_target, "check_name", lambda _: "")


def verify_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = PartialFile.finish

    def trusting(self: PartialFile, _digest: bytes) -> None:
        finish(self, self._digest.value())

    monkeypatch.setattr(PartialFile, "finish", trusting)


def forget_no_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RoutingTable, "remove", lambda *_: None)


def count_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Expression, "holds", lambda *_: (True, 0))


def revoke_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrustDirectory, "_look_at_revoked", lambda *_: None)


def tell_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def indiscreet(self: KeyText, text: str, where: str) -> bytes:
        raise InvalidKey(where, f"{text!r} is no key of {self.called}")

    monkeypatch.setattr(KeyText, "read", indiscreet)


def believe_any_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Exchange, "check", lambda *_: True)


def invite_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inviter, "_end", lambda *_: [])


def take_any_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Signature, "holds", lambda *_: True)


def take_a_message_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReplayTable, "finish", lambda *_: None)


def raise_at_violations(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_link: Link, error: Exception, _now: float) -> None:
        raise error

    monkeypatch.setattr(Link, "on_violation", fail)


def raise_at_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_introductions: Introductions, _path: object, error: Exception) -> None:
        raise error

    monkeypatch.setattr(Introductions, "_on_broken", fail)


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("codec", forget_a_frame),
        ("compression", make_bodies_longer),
        ("records", take_everybody_in),
        ("journal", believe_any_checksum),
        ("files", save_to_any_name),
        ("files", verify_no_file),
        ("tables", forget_no_declaration),
        ("tables", count_no_steps),
        ("keys", revoke_nobody),
        ("keys", tell_a_secret),
        ("joining", believe_any_proof),
        ("joining", invite_for_ever),
        ("signatures", take_any_signature),
        ("signatures", take_a_message_twice),
        ("link", raise_at_violations),
        ("engine", raise_at_what_is_broken),
    ],
)
def test_a_planted_defect_is_found(
    name: str, plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)

    def is_found(data: bytes) -> bool:
        try:
            TARGETS[name](data)
        except Exception:  # noqa: BLE001  any is a finding
            return True
        return False

    assert any(map(is_found, mutations(seeds.made(name), MUTATIONS[name], "planted")))
