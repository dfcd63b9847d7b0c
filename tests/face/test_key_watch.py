"""Key files that change under a running node."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from zmesh.actions import Audited, AuditKind
from zmesh.face.key_sources import KeySources
from zmesh.face.key_watch import KeyWatch
from zmesh.face.system import SystemEntropy
from zmesh.security.key_files import create_key_file, replace_key_file, text_of
from zmesh.security.mesh_key import MeshKey

OLD, NEW = (MeshKey.new(SystemEntropy()) for _ in range(2))
EVERY = 0.005


class Bench:
    """A watch of one file, and what it did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        create_key_file(path, text_of([OLD], "test"))
        self.used: list[tuple[MeshKey, ...]] = []
        self.told: list[Audited] = []
        self.fails = False

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        sources = KeySources((self.path,), "key=")
        watch = KeyWatch(sources, sources.read(), EVERY, "ada", self._use, self.told.append)
        watch.start()
        try:
            yield
        finally:
            await watch.stop()

    async def _use(self, keys: tuple[MeshKey, ...]) -> None:
        self.used.append(keys)
        if self.fails:
            raise RuntimeError("no")

    def write(self, *keys: MeshKey) -> None:
        replace_key_file(self.path, text_of(keys, "test"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "a.key")


async def until(met: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not met():  # noqa: ASYNC110
            await asyncio.sleep(EVERY)


async def test_changed_keys_are_used_in_the_order_of_the_file(bench: Bench) -> None:
    async with bench.watching():
        bench.write(OLD, NEW)
        await until(lambda: len(bench.used) == 1)
        bench.write(NEW, OLD)
        await until(lambda: len(bench.told) == 2)
    assert bench.used == [(OLD, NEW), (NEW, OLD)]
    assert bench.told[1] == Audited(
        AuditKind.KEYS_CHANGED,
        detail=f"were {OLD.fingerprint}, {NEW.fingerprint}",
        rule=f"{NEW.fingerprint}, {OLD.fingerprint}",
    )


async def test_change_between_reading_and_watching_is_seen(bench: Bench) -> None:
    sources = KeySources((bench.path,), "key=")
    read = sources.read()
    bench.write(NEW)
    watch = KeyWatch(sources, read, 60.0, "ada", bench._use, bench.told.append)
    watch.start()
    await until(lambda: bench.used == [(NEW,)])
    await watch.stop()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.unlink(), "is not there"),
        (lambda path: path.chmod(0o644), "open to others"),
        (lambda path: path.write_text("zmk1.garbage\n"), "line 1 is no valid key"),
        (lambda path: path.write_text(""), "holds no key"),
    ],
    ids=["removed", "exposed", "garbage", "emptied"],
)
async def test_bad_file_is_told_once_and_the_keys_of_before_stay(
    spoil: Callable[[Path], Awaitable[None]],
    why: str,
    bench: Bench,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with bench.watching():
        spoil(bench.path)
        await until(lambda: bench.told)
        await asyncio.sleep(20 * EVERY)
        assert [event.kind for event in bench.told] == [AuditKind.KEYS_UNUSABLE]
        assert why in bench.told[0].detail
        assert bench.told[0].rule == OLD.fingerprint
        [line] = [each.getMessage() for each in caplog.records if each.name == "zmesh"]
        assert why in line
        assert f"goes on with the mesh keys of before ({OLD.fingerprint})" in line
        assert bench.used == []
        bench.path.unlink(missing_ok=True)
        create_key_file(bench.path, text_of([NEW], "mended"))
        await until(lambda: bench.used == [(NEW,)])


async def test_file_with_the_same_keys_in_other_words_changes_nothing(bench: Bench) -> None:
    async with bench.watching():
        replace_key_file(bench.path, text_of([OLD], "other words"))
        await asyncio.sleep(20 * EVERY)
    assert (bench.used, bench.told) == ([], [])


async def test_failure_to_use_keys_is_logged_and_watching_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.fails = True
    async with bench.watching():
        bench.write(NEW)
        await until(lambda: "could not be changed" in caplog.text)
        bench.fails = False
        bench.write(NEW, OLD)
        await until(lambda: bench.used[-1] == (NEW, OLD))
    assert set(bench.used) == {(NEW,), (NEW, OLD)}


async def test_going_back_to_the_keys_of_before_undoes_a_change_that_failed(bench: Bench) -> None:
    async with bench.watching():
        bench.fails = True
        bench.write(NEW)
        await until(lambda: bench.used)
        bench.write(OLD)
        bench.fails = False
        await until(lambda: bench.used[-1] == (OLD,))


async def test_keys_that_could_not_be_used_are_tried_again_and_told_of_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.watching():
        bench.fails = True
        bench.write(NEW)
        await until(lambda: len(bench.used) > 2)
        bench.fails = False
        await until(lambda: bench.told)
        count = len(bench.used)
        await asyncio.sleep(10 * EVERY)
    assert bench.used == [(NEW,)] * count
    assert caplog.text.count("could not be changed") == 1
    [told] = bench.told
    assert (told.kind, told.detail) == (AuditKind.KEYS_CHANGED, f"were {OLD.fingerprint}")


async def test_failure_to_look_is_logged_once_and_watching_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0

    def fail(_: KeySources) -> None:
        nonlocal looked
        looked += 1
        raise RuntimeError("can't start new thread")

    async with bench.watching():
        with monkeypatch.context() as patch:
            patch.setattr(KeySources, "stamps", fail)
            await until(lambda: looked > 3)
        assert caplog.text.count("key files cannot be looked at") == 1
        bench.write(NEW)
        await until(lambda: bench.used == [(NEW,)])


async def test_no_task_runs_where_there_is_no_file() -> None:
    before = asyncio.all_tasks()
    sources = KeySources((OLD,), "key=")
    watch = KeyWatch(sources, sources.read(), EVERY, "ada", Bench._use, lambda _: None)  # type: ignore[arg-type]
    watch.start()
    assert asyncio.all_tasks() == before
    await watch.stop()
