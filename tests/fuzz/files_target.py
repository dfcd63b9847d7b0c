"""A file from a peer that says whatever a script makes it say: saved as announced, or not."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Final, ParamSpec, TypeVar, cast

from tests.fuzz.places import place
from tests.fuzz.script import Script
from zmesh.errors import ProtocolError
from zmesh.face.disk import Disk
from zmesh.face.file_terms import WRITTEN, FileOffer, check_name, offer_of
from zmesh.face.incoming import Incoming, Words
from zmesh.face.partial_file import (
    DIGEST_BYTES,
    PARTIAL_PREFIX,
    PARTIAL_SUFFIX,
    Corrupted,
)
from zmesh.face.source_file import SourceFile

P = ParamSpec("P")
T = TypeVar("T")

CONTENTS: Final = (b"", b"abc", b"the content of a file" * 40, bytes(5000))
NAMES: Final = (
    *("a.txt", "b", "é", "x" * 240, "..", ".", "", ".hidden", "a/b", "/etc/x", "a\\b", "a\0b"),
    *("c.zmesh-part", "new\nline", "\u202egpj.exe", "\ud800"),
)


def run(data: bytes) -> None:
    """Receive a file that is offered, and look at what is there then; and send one."""
    script = Script(data)
    offer = _offer(script)
    with place() as directory:
        if offer is not None:
            asyncio.run(_receive(script, Path(directory), *offer))
        _begin(script, Path(directory))


def of_file(content: bytes) -> bytes:
    """Return the bytes that are read as a file that is sent as it should be."""
    return bytes([0, 0, CONTENTS.index(content), 0, 0, 0, 0, 1, 0, 0])


def _offer(script: Script) -> tuple[str, bytes, int] | None:
    """Return a name, what is to be sent, and a size, where they pass as an offer."""
    if script.rarely():
        body = script.value(NAMES)
        try:
            name, size = offer_of(body)
        except ProtocolError:
            return None
        content = CONTENTS[0]
    else:
        name, content = script.choice(NAMES), script.choice(CONTENTS)
        size = script.number() if script.rarely() else len(content)
    if check_name(name):
        return None
    assert Path(name).name == name, "a name that leads elsewhere"
    assert not name.startswith(".")
    return name, content, min(size, 2**63 - 1)


async def _receive(script: Script, directory: Path, name: str, content: bytes, size: int) -> None:
    target = directory / name
    partial = directory / f"{PARTIAL_PREFIX}{name}{PARTIAL_SUFFIX}"
    before = script.choice((None, None, content, b"old"))
    if before is not None:
        target.write_bytes(before)
    there = script.choice((b"", b"", content[:100], content + b"more", b"other"))
    if there:
        partial.write_bytes(there)
    said = list(_said(script, content, len(there)))
    words = Words()
    receiving = Incoming(
        cast("Disk", _Disk()), target, FileOffer(name, size, "b", "", {}), None, lambda: None
    )
    try:
        digest = await receiving.receive(_parts(said), words)
    except (Corrupted, ProtocolError, OSError):
        after = target.read_bytes() if target.exists() else None
        assert after == before, "what was there has changed"
    else:
        saved = target.read_bytes()
        assert len(saved) == size, "another size than was announced"
        assert blake2b(saved, digest_size=DIGEST_BYTES).digest() == digest, "another file"
        assert not partial.exists()
    assert set(os.listdir(directory)) <= {target.name, partial.name}  # noqa: PTH208
    words.end()
    while (word := await words.next()) is not None:
        assert word[0] != WRITTEN or 0 <= cast("int", word[1]) <= size


def _said(script: Script, content: bytes, there: int) -> Sequence[object]:
    """Return the parts of a body that says a file, as it should be or nearly so."""
    offset = script.choice((0, 0, there, len(content), -1))
    said: list[object] = [script.value() if script.rarely() else offset]
    left = content[max(offset, 0) :]
    while left and len(said) < 40:
        size = script.choice((len(left), 1, 100))
        said.append(script.data() if script.rarely() else left[:size])
        left = left[size:]
        if script.rarely():
            said.append(script.choice((None, b"", "word", [])))
    digest: object = [blake2b(content, digest_size=DIGEST_BYTES).digest()]
    said.append(script.value() if script.rarely() else digest)
    return said


async def _parts(said: Sequence[object]) -> AsyncIterator[object]:
    for each in said:
        yield each


def _begin(script: Script, directory: Path) -> None:
    """Begin to send a file to one who says how much of it is there."""
    path, content = directory / "source", script.choice(CONTENTS)
    path.write_bytes(content)
    source = SourceFile(path)
    with closing(source):
        source.open()
        offset = script.choice((script.number(), -script.number(), len(content)))
        honest = blake2b(content[: max(offset, 0)], digest_size=DIGEST_BYTES).digest()
        begun = source.begin(offset, script.choice((honest, script.take(DIGEST_BYTES))))
        assert begun in {0, offset}
        rest = b"".join(iter(lambda: b"".join(source.read(1000, 3000)), b""))
        assert rest == content[begun:]
        assert source.finish() == blake2b(content, digest_size=DIGEST_BYTES).digest()


class _Disk:
    """Does the work at once."""

    def start(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            done.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # it belongs to whoever waits
            done.set_exception(error)
        return done

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)
