"""Known bugs of proofs of identity: what the simulator's adversary must be able to use.

Each takes one of the checks away; `planted` says more.
"""

from dataclasses import replace
from typing import Any

import pytest

from tests.simulation.planted import bug
from zmesh.core.proofs import Proofs, Verdict
from zmesh.reliable.handshake import Handshake
from zmesh.security.proof import Claim
from zmesh.testing.findings import Rule
from zmesh.testing.generator import SECURED_EVERY

ATTACKED_EVERY = 2 * SECURED_EVERY


@bug("node", Rule.IDENTITY, every=ATTACKED_EVERY)
def the_proof_of_a_hello_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Proofs, "of_hello", lambda *_: Verdict.HOLDS)


@bug("node", Rule.IDENTITY, every=ATTACKED_EVERY)
def the_proof_of_an_iam_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Proofs, "of_iam", lambda *_: Verdict.HOLDS)


@bug("node", Rule.IDENTITY, every=ATTACKED_EVERY)
def the_proof_of_a_welcome_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    real = Handshake._heard_welcome

    def heard_welcome(self: Handshake, *args: Any) -> Claim:
        local = self._local
        self._local = replace(local, connection=b"")  # as where no proofs are wanted
        try:
            return real(self, *args)
        finally:
            self._local = local

    patch.setattr(Handshake, "_heard_welcome", heard_welcome)


@bug("node", Rule.IDENTITY, every=ATTACKED_EVERY)
def a_proof_does_not_name_its_connection(patch: pytest.MonkeyPatch) -> None:
    real = Claim.transcript

    def transcript(self: Claim, public: bytes) -> bytes:
        return real(replace(self, connection=b""), public)

    patch.setattr(Claim, "transcript", transcript)


@bug("node", Rule.IDENTITY, every=ATTACKED_EVERY)
def a_proof_does_not_name_the_life_that_is_called(patch: pytest.MonkeyPatch) -> None:
    real = Claim.transcript

    def transcript(self: Claim, public: bytes) -> bytes:
        return real(replace(self, to_incarnation=0), public)

    patch.setattr(Claim, "transcript", transcript)


@bug("node", Rule.IDENTITY, every=ATTACKED_EVERY)
def word_of_a_clone_needs_no_evidence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Handshake, "_said_by_us", lambda *_: None)
