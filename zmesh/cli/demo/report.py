"""What the demonstration shows: live progress, and the table at its end."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one run, as `--json` prints them. Times in milliseconds or seconds."""

    files: int
    bytes: int
    workers: int
    killed: int
    joined_late: int
    discovery_ms: float  # from a worker's start until it is linked here: the median
    failover_ms: float  # from the kill until another has answered a call of the victim
    redelivered: int
    lost: int
    wrong: int
    files_per_s: float
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost or wrong."""
        return self.lost == 0 and self.wrong == 0

    def as_dict(self) -> dict[str, int | float]:
        """Return the figures by name."""
        return asdict(self)


class View(Protocol):
    """Where news of the run goes."""

    def say(self, text: str) -> None:
        """Tell what happened."""
        ...

    def done(self, worker: str) -> None:
        """Count a finished file."""
        ...


class Silent:
    """A view that shows nothing: `--json` prints one line and no more."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def done(self, worker: str) -> None:
        """Count nothing."""


class Screen:
    """Live progress on a terminal."""

    def __init__(self, console: Console, files: int) -> None:
        self._console = console
        self._per_worker: Counter[str] = Counter()
        self._progress = Progress(
            TextColumn("files"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console,
        )  # fmt: skip
        self._task = self._progress.add_task("files", total=files)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the progress."""
        self._console.print(text, highlight=False)

    def done(self, worker: str) -> None:
        """Advance the bar and the worker's count."""
        self._per_worker[worker] += 1
        self._progress.advance(self._task)

    def _render(self) -> Group:
        table = Table("worker", "files", box=None)
        for worker, count in sorted(self._per_worker.items()):
            table.add_row(worker, str(count))
        return Group(self._progress, table)


def print_summary(console: Console, summary: Summary) -> None:
    """Print the table at the end."""
    table = Table(title="zmesh demo", show_header=False)
    for name, value in summary.as_dict().items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:,.1f}")
    console.print()
    console.print(table)
    if summary.is_good:
        console.print("Every result equals the serial computation: nothing lost, nothing wrong.")
    else:
        console.print(f"[bold red]{summary.lost} lost, {summary.wrong} wrong[/]")
