"""What fuzzing begins with: the vectors of the protocol, honest bodies, and what was found."""

import json
from pathlib import Path
from random import Random
from typing import Final

from tests.fuzz import (
    codec_target,
    compression_target,
    engine_target,
    joining_target,
    keys_target,
    records_target,
    signatures_target,
)
from tests.security.joining_pair import Host, joiner
from tests.wire import vector_cases
from zmesh.message import Algorithm, Kind, Record, head
from zmesh.security.join_frames import Refusal, refused
from zmesh.security.joining import JoinerAction, SendMessage
from zmesh.wire.compression import Compressor

CORPUS: Final = Path(__file__).parent / "corpus"
"""A directory a target: inputs that reach what others do not, and those that found a defect."""

_SCRIPTS: Final = 16
_JOB: Final[Record] = (head(Kind.JOB), "jobs", b"body")
_TXT: Final = (
    b"\x09txtvers=1\x03v=1\x23id=" + b"01" * 16 + b"\x15mesh=746573746d657368\x06name=b",
    b"\x09txtvers=2\x03v=1",
    b"\x00\x01=\x02=a\x01a\x02a=\xff",
    b"",
)

_CODES: Final = ("417-7KQM-3XTA", "4i7 7kqm 3xta", "017-7KQM-3XTA", "417-7KQM-3XTU", "")

_RULES: Final = (
    *("", 'default = "allow"', "default = " + "9" * 4400),
    '[groups]\ng = ["a", "b"]\n[[rule]]\nwho = "g"\ncall = ">"\ndeny = { publish = ["a.*"] }',
)


def stored(target: str) -> list[bytes]:
    """Return the inputs that are kept for a target."""
    directory = CORPUS / target
    if not directory.exists():
        return []
    return [path.read_bytes() for path in sorted(directory.iterdir())]


def made(target: str) -> list[bytes]:
    """Return the inputs that are made from what is known."""
    match target:
        case "codec":
            return [codec_target.of_parts(parts) for parts in _vectors()]
        case "compression":
            return [
                compression_target.of_body(algorithm, size, body)
                for algorithm in Algorithm
                for size, body in _compressed(algorithm)
            ]
        case "records":
            return [records_target.of_txt(txt) for txt in _TXT] + _scripts()
        case "keys":
            files = [keys_target.of_keys(text) for text in keys_target.TEXTS]
            many = keys_target.of_keys(*keys_target.SECRETS)
            return [*files, many, *map(keys_target.of_trust, _RULES), *_scripts()]
        case "joining":
            told = [joining_target.of_stranger(message) for message in _of_joining()]
            guests = [joining_target.of_guests(count) for count in (1, 2)]
            return [*guests, *told, *map(joining_target.of_text, _CODES), *_scripts()]
        case "signatures":
            signatures = (vector_cases.SIGNATURE, vector_cases.SIGNATURE_OF_THREE, bytes(139))
            return [signatures_target.of_signature(_JOB, 4, each) for each in signatures] + (
                _scripts()
            )
        case "engine":
            return [engine_target.of_parts(parts) for parts in _vectors()] + _scripts()
        case _:
            return _scripts()


def _of_joining() -> list[bytes]:
    """Return the messages of a joining that goes well, and the refusals."""
    host, guest = Host(), joiner()
    said = [refused(why) for why in Refusal]

    def tell(data: bytes) -> list[JoinerAction]:
        host.give(1, data)
        said.extend((data, host.take(1)))
        return guest.receive(said[-1]) if said[-1] else []

    host.connect(1)
    [proof] = tell(guest.hello)
    assert isinstance(proof, SendMessage)
    tell(proof.data)
    tell(guest.accept())
    tell(guest.saved())
    return said


def _vectors() -> list[list[bytes]]:
    vectors = json.loads(vector_cases.PATH.read_text(encoding="ascii"))
    packets = [vector["parts"] for vector in vectors["valid"] + vectors["invalid"]]
    packets = [parts for parts in packets if 0 < len(parts) < 128]
    return [[bytes.fromhex(part) for part in parts] for parts in packets]


def _compressed(algorithm: Algorithm) -> list[tuple[int, bytes]]:
    compressor = Compressor(algorithm, 1)
    bodies = [b"a" * 64, b"abcd" * 100, bytes(range(256)) * 4, b"\x81\xa1a\xc0" * 50]
    packed = [compressor.compress((head(Kind.DIRECT), "", body))[2] for body in bodies]
    return [(len(body), bytes(small)) for body, small in zip(bodies, packed, strict=True)]


def _scripts() -> list[bytes]:
    """Return scripts of any kind: whatever bytes they are, they read as something."""
    random = Random("scripts")
    return [random.randbytes(random.choice((30, 200, 1000))) for _ in range(_SCRIPTS)]
