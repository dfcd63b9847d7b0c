"""Results as Markdown: one table, a row for each scenario, a column for each system."""

from collections.abc import Sequence

from benchmarks.results import Figure, Results, by_place
from benchmarks.scenario import SCENARIOS, Better, Scenario

EXPLAINED = (
    "Medians; in brackets the ratio to bare pyzmq (to the encrypted one, where it is encrypted) "
    "measured beside it in the same round. Bodies of 100 bytes, but for what says otherwise. "
    "Where it says *lower*, less is better. Producers and consumers are processes of their own, "
    "on loopback. Systems are not the same where guarantees differ: the notes tell how each was "
    "set."
)


def markdown(results: Results, scenarios: Sequence[Scenario] = SCENARIOS) -> str:
    """Return the whole page."""
    return "\n".join([*_head(results), *_table(results, scenarios), *_notes(results)]) + "\n"


def table(results: Results, scenarios: Sequence[Scenario] = SCENARIOS) -> str:
    """Return the table alone."""
    return "\n".join(_table(results, scenarios))


def _head(results: Results) -> list[str]:
    runs = max((len(figure.ratios) for figure in results.figures()), default=0)
    where = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    versions = ", ".join(f"{name} {value}" for name, value in sorted(results.versions.items()))
    return [
        "# Results",
        "",
        f"Measured on {where}; {runs} runs, the last on {results.date}.",
        "",
        f"Versions: {versions}.",
        "",
        EXPLAINED,
        "",
    ]


def _table(results: Results, scenarios: Sequence[Scenario]) -> list[str]:
    figures = by_place(results.figures())
    systems = list(results.yardsticks)
    measured = {scenario for scenario, _ in figures}
    lines = [
        "| scenario | " + " | ".join(systems) + " | measured |",
        "| --- |" + " --- |" * (len(systems) + 1),
    ]
    for scenario in scenarios:
        if scenario.key not in measured:
            continue
        row = [figures.get((scenario.key, system)) for system in systems]
        cells = [cell(scenario, figure) for figure in row]
        when = _when([figure for figure in row if figure is not None])
        lines.append(f"| {_title(scenario)} | " + " | ".join(cells) + f" | {when} |")
    return lines


def _when(row: Sequence[Figure]) -> str:
    """Return in which state of the machine figures were taken, and when; whose were not, too."""
    states = [f"{figure.wake_up}, {figure.date}" for figure in row]
    usual = max(dict.fromkeys(states), key=states.count)
    others = [
        f"{figure.system}: {state}"
        for figure, state in zip(row, states, strict=True)
        if state != usual
    ]
    return "; ".join([usual, *others])


def _title(scenario: Scenario) -> str:
    lower = ", lower" if scenario.better is Better.LOWER else ""
    unit = "" if scenario.unit == "/s" else f", {scenario.unit}"
    return f"{scenario.title}{unit}{lower}"


def cell(scenario: Scenario, figure: Figure | None) -> str:
    """Return what stands in the table for a figure."""
    if figure is None:
        return "-"
    text = number(figure.value) + ("/s" if scenario.unit == "/s" else "")
    if figure.ratio is not None and figure.ratio != 1.0:
        text += f" ({ratio(figure.ratio)}x)"
    if figure.lost > 0:
        text += f", {100 * figure.lost:.1f} % lost"
    return text


def number(value: float) -> str:
    """Return a number with three digits that count."""
    if value >= 100:
        digits = max(len(str(round(value))) - 3, 0)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def ratio(value: float) -> str:
    """Return a ratio with two digits that count."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _notes(results: Results) -> list[str]:
    lines = ["", "## How each was set", ""]
    lines += [f"- **{name}**: {about}." for name, about in results.about.items()]
    left_out = [f"- **{name}**: {_listed(why)}." for name, why in results.left_out.items()]
    if left_out:
        lines += ["", "## Left out", "", *left_out]
    failed = [f"- **{name}**: {_listed(why)}." for name, why in results.failed.items()]
    if failed:
        lines += ["", "## Failed", "", *failed]
    if restless := results.restless():
        lines += ["", "## Not measured", ""]
        lines.append(f"The machine changed in the midst of every round: {', '.join(restless)}.")
    if results.skipped:
        lines += ["", "## Not to be had", ""]
        lines += [f"- **{name}**: {why}." for name, why in results.skipped.items()]
    return lines


def _listed(reasons: dict[str, str]) -> str:
    """Return scenarios and why, those of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for key, why in reasons.items():
        by_reason.setdefault(why, []).append(key)
    return "; ".join(f"{', '.join(keys)} ({why})" for why, keys in by_reason.items())
