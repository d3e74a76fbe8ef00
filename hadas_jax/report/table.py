"""The end of a run in words: what exits and clocks save at a few accuracy levels, and whether limits are kept."""

from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table

from hadas_jax.evaluation import NO_DIFFERENCE, Difference, least_images
from hadas_jax.methods import Settings
from hadas_jax.methods.limits import Limits
from hadas_jax.methods.results import NOT_SHOWN, POLICY_NAMES, SHOWN, Level, LevelRow, Performance, Result

_NOT = "?"  # behind the difference of a network that is not shown to be as accurate

_NAMES = {
    ("exits", "ideal"): "exits, ideal",
    ("exits + clocks", "ideal"): "+ DVFS, ideal",
    ("exits", "deployable"): "exits",
    ("exits + clocks", "deployable"): "exits + DVFS",
}


def levels_table(result: Result) -> Table:
    """Returns a table of the levels, measured on the test split, that fits 80 columns; `legend` explains it.

    Where the search had limits, a network that exceeds them on the samples that it was chosen on says by how much.
    """
    title = "Per sample on the test split; networks chosen on other samples"
    table = Table(title=title, title_style="bold", box=HORIZONTALS, padding=(0, 1, 0, 0))
    table.add_column("chosen at\naccuracy")
    headings = ("right\non\ntest", "latency\nms", "energy\nmJ", "saved\nagainst\nstatic", "saved\nagainst\n+ DVFS")
    for name in headings:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("against static,\nin points\n[95% interval]", justify="right", min_width=19)
    for level in result.levels:
        table.add_row(f"≥ {level.accuracy:.1%}", style="bold")
        for row in level.rows():
            table.add_row(*_cells(result, level, row))
        if level.as_accurate is None:
            table.add_row(SHOWN, *[""] * len(headings), "none is shown" if result.can_tell else "too few to tell")
        table.add_section()
    return table


def legend(result: Result) -> list[str]:
    """Returns what the marks of `levels_table` mean, a sentence or two each."""
    points = f"{100 * result.accuracy_tolerance:g} points"
    within = " within the limits" if result.limits.any else ""
    lines = [
        f"{_NOT}: {NOT_SHOWN}: the interval reaches more than {points} below zero.",
        "ideal: samples stop at the first exit that is right, an upper bound that needs labels; otherwise thresholds "
        f"decide. + DVFS: at the best clocks{within} instead of the highest.",
        f"{SHOWN}: the cheapest network with exits and DVFS, of this level or a higher one, that is less accurate than "
        f"both static networks by at most {points} with 95% confidence.",
    ]
    if not result.can_tell:
        least = least_images(result.accuracy_tolerance)
        needed = "no number of images shows that" if least is None else f"it takes {least:,}"
        lines.append(
            f"{result.test_images:,} test images are too few to tell whether networks are as accurate: even for two "
            f"that never differ {needed}."
        )
    return lines


def _cells(result: Result, level: Level, row: LevelRow) -> tuple[str, ...]:
    found, difference = row.test, row.versus.static
    name = _NAMES.get((row.network, row.policy), row.network)
    over = f"\n{row.design.excess:.1%} over" if row.design.excess > 0 else ""
    shown = (f"{found.accuracy:.1%}", f"{found.latency_s * 1e3:.3f}", f"{found.energy_j * 1e3:.2f}")
    if row.network == "static":
        return (name + over, *shown)
    mark = "" if difference.is_shown(result.accuracy_tolerance) else f" {_NOT}"
    by_clocks = "" if row.network == "static + DVFS" else f"{found.saving(level.static_dvfs.test['ideal']):.0%}"
    saved = (f"{found.saving(level.static.static_test):.0%}", by_clocks)
    return (name + over, *shown, *saved, difference_text(difference) + mark)


def difference_text(found: Difference) -> str:
    """Returns a difference in test accuracy and its interval, in points; `the same` for a network against itself."""
    if found == NO_DIFFERENCE:
        return "the same"
    return f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def saving_text(
    found: Performance,
    static: Performance,
    static_dvfs: Performance | None,
    *,
    difference: Difference | None,
    tolerance: float = Settings.accuracy_tolerance,
) -> str:
    """Returns what a network saves on the test split against its backbone without exits, in one sentence.

    Args:
      found: of the network.
      static: of its backbone without exits at the highest clocks.
      static_dvfs: likewise at its best clocks; None: unknown.
      difference: in accuracy from its backbone without exits; None: unknown.
      tolerance: share of images by which it may be less accurate and still count as as accurate.
    """
    by_clocks = "" if static_dvfs is None else f", {found.saving(static_dvfs):.0%} at its best clocks"
    beside = ""
    if difference is not None:
        verdict = SHOWN if difference.is_shown(tolerance) else NOT_SHOWN
        beside = f"; accuracy against it, in points [95% interval]: {difference_text(difference)}, {verdict}"
    return (
        f"On the test split the network saves {found.saving(static):.0%} of the energy of its backbone without exits "
        f"at the highest clocks{by_clocks}{beside}."
    )


def limits_text(result: Result) -> list[str]:
    """Returns a sentence for each policy no design of which keeps the limits, with how far the nearest is beyond."""
    lines = []
    for policy in POLICY_NAMES:
        if not result.within_limits[policy]:
            nearest = min(result.front(policy), key=lambda design: design.excess)
            lines.append(
                f"No {policy} design keeps the limits ({', '.join(_limits(result.limits))}) on the samples "
                f"it is chosen on; the nearest: {_beyond(nearest.selection[policy], result.limits)}."
            )
    return lines


def _limits(limits: Limits) -> list[str]:
    """Each limit that is set."""
    texts = (
        (limits.max_latency_ms, "latency ≤ {:g} ms"),
        (limits.max_energy_mj, "energy ≤ {:g} mJ"),
        (limits.min_accuracy, "accuracy ≥ {:.4g}%"),
        (limits.max_params, "weights ≤ {:,}"),
    )
    scaled = ((100 * limit if "%" in text else limit, text) for limit, text in texts if limit is not None)
    return [text.format(limit) for limit, text in scaled]


def _beyond(found: Performance, limits: Limits) -> str:
    """What a design costs where it is beyond a limit, and by how much."""
    parts = []
    for name, value, limit, unit in (
        ("latency", found.latency_s * 1e3, limits.max_latency_ms, "ms"),
        ("energy", found.energy_j * 1e3, limits.max_energy_mj, "mJ"),
    ):
        if limit is not None and value > limit:
            parts.append(f"{name} {value:.3g} {unit}, {100 * (value / limit - 1):.2g}% above")
    if limits.min_accuracy is not None and found.accuracy < limits.min_accuracy:
        parts.append(f"accuracy {found.accuracy:.1%}, {100 * (limits.min_accuracy - found.accuracy):.2g} points below")
    return "; ".join(parts)


def print_result(result: Result, console: Console) -> None:
    """Prints the table with its legend, whether the limits are kept, and what was searched."""
    console.print(levels_table(result))
    for line in (*legend(result), *limits_text(result)):
        console.print(line, highlight=False, soft_wrap=not console.is_terminal)
    fronts = ", ".join(f"{len(result.front(policy))} {policy}" for policy in POLICY_NAMES)
    console.print(
        f"Searched {result.backbones} backbones and {result.candidates:,} dynamic versions. Designs on the "
        f"fronts: {fronts}. Without exits, the largest backbone is right on {result.largest_test_accuracy:.1%} of "
        f"the test split, the smallest on {result.smallest_test_accuracy:.1%}.",
        highlight=False,
        soft_wrap=not console.is_terminal,
    )
