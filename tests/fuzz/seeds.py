"""What fuzzing begins with: the vectors of the protocol, honest bodies, and what was found."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

from tests.fuzz import (
    codec_target,
    compression_target,
    engine_target,
    files_target,
    joining_target,
    journal_target,
    keys_target,
    records_target,
    signatures_target,
    tables_target,
)
from tests.security.joining_pair import Host, joiner
from tests.wire import vector_cases
from zmesh.message import Algorithm, Kind, Record, head
from zmesh.patterns.bindings import (
    Alternate,
    Binding,
    Declaration,
    Destination,
    DestinationKind,
)
from zmesh.security.join_frames import Refusal, refused
from zmesh.security.joining import JoinerAction, SendMessage
from zmesh.terms import Filter
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

_QUEUE: Final = Destination(DestinationKind.QUEUE, "dead")
_DECLARED: Final = (
    *(Declaration("orders", "topic", 1), Declaration("logs", "headers", 1)),
    *(Declaration("dead", "fanout", 1), Alternate("orders", "dead", 1)),
    Binding("orders", "topic", _QUEUE, "a.#"),
    Binding("logs", "headers", _QUEUE, headers=Filter(None, (("unit", "C"),), "any", None)),
    Binding("dead", "fanout", Destination(DestinationKind.EXCHANGE, "orders"), owner="02" * 16),
)


def stored(target: str) -> list[bytes]:
    """Return the inputs that are kept for a target."""
    directory = CORPUS / target
    if not directory.exists():
        return []
    return [path.read_bytes() for path in sorted(directory.iterdir())]


def made(target: str) -> list[bytes]:
    """Return the inputs that are made from what is known."""
    return _MAKERS[target]()


def _of_codec() -> list[bytes]:
    return [codec_target.of_parts(parts) for parts in _vectors()]


def _of_compression() -> list[bytes]:
    return [
        compression_target.of_body(algorithm, size, body)
        for algorithm in Algorithm
        for size, body in _compressed(algorithm)
    ]


def _of_records() -> list[bytes]:
    return [records_target.of_txt(txt) for txt in _TXT] + _scripts()


def _of_journal() -> list[bytes]:
    changed = [journal_target.of_changes((at, b"\xff" * 4)) for at in range(0, 5120, 640)]
    sealed = journal_target.of_changes((2048, b"\0"), is_sealed=True)
    return [*changed, sealed, journal_target.of_endless_row(), *_scripts()]


def _of_files() -> list[bytes]:
    return [*map(files_target.of_file, files_target.CONTENTS), *_scripts()]


def _of_tables() -> list[bytes]:
    return [tables_target.of_declared(*_DECLARED), *_scripts()]


def _of_keys() -> list[bytes]:
    files = [keys_target.of_keys(text) for text in keys_target.TEXTS]
    many = keys_target.of_keys(*keys_target.SECRETS)
    return [*files, many, *map(keys_target.of_trust, _RULES), *_scripts()]


def _of_joining() -> list[bytes]:
    told = [joining_target.of_stranger(message) for message in _joining()]
    guests = [joining_target.of_guests(count) for count in (1, 2)]
    return [*guests, *told, *map(joining_target.of_text, _CODES), *_scripts()]


def _of_signatures() -> list[bytes]:
    signatures = (vector_cases.SIGNATURE, vector_cases.SIGNATURE_OF_THREE, bytes(139))
    told = [signatures_target.of_signature(_JOB, 4, each) for each in signatures]
    return told + _scripts()


def _of_engine() -> list[bytes]:
    return [engine_target.of_parts(parts) for parts in _vectors()] + _scripts()


def _joining() -> list[bytes]:
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


_MAKERS: Final[dict[str, Callable[[], list[bytes]]]] = {
    "codec": _of_codec,
    "compression": _of_compression,
    "records": _of_records,
    "journal": _of_journal,
    "files": _of_files,
    "tables": _of_tables,
    "keys": _of_keys,
    "joining": _of_joining,
    "signatures": _of_signatures,
    "link": _scripts,
    "engine": _of_engine,
}
