"""A selection in tables: the choice, its neighbours on the front, and what each limit costs."""

from collections.abc import Sequence

from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table

from hadas_jax.deploy.select import Selection
from hadas_jax.methods import Settings
from hadas_jax.methods.limits import Limits
from hadas_jax.methods.results import Design, Performance
from hadas_jax.report.table import saving_text

_LIMITS = {
    "max_latency_ms": "latency ≤ {:g} ms",
    "max_energy_mj": "energy ≤ {:g} mJ",
    "min_accuracy": "accuracy ≥ {:.4g} %",
    "max_params": "weights ≤ {:,}",
}


def print_selection(
    designs: Sequence[Design],
    selection: Selection,
    *,
    limits: Limits,
    policy: str,
    console: Console,
    tolerance: float = Settings.accuracy_tolerance,
) -> None:
    """Prints a choice.

    Args:
      designs: that it was made among.
      selection: the choice.
      limits: that it keeps, or is the nearest to.
      policy: that designs were judged under.
      console: to print on.
      tolerance: see `hadas_jax.report.table.saving_text`.
    """
    console.print(_designs_table(designs, selection, policy))
    chosen = designs[selection.chosen]
    text = saving_text(
        chosen.test[policy],
        chosen.static_test,
        chosen.static_dvfs_test,
        difference=chosen.differences[policy],
        tolerance=tolerance,
    )
    console.print(text, highlight=False, soft_wrap=not console.is_terminal)
    if selection.without:
        console.print(_limits_table(designs, selection, limits, policy))


def limit_text(name: str, limits: Limits) -> str:
    """Returns one limit in words."""
    value = getattr(limits, name)
    return _LIMITS[name].format(100 * value if name == "min_accuracy" else value)


def _designs_table(designs: Sequence[Design], selection: Selection, policy: str) -> Table:
    title = f"Per sample, {policy} policy; chosen on the selection samples"
    table = Table(title=title, title_style="bold", box=HORIZONTALS, padding=(0, 1, 0, 0))
    table.add_column("design", min_width=len("backbone"))
    for name in ("accuracy", "latency\nms", "energy\nmJ", "test\naccuracy", "test\nenergy\nmJ", "exits\nafter"):
        table.add_column(name, justify="right", no_wrap=name != "exits\nafter")
    table.add_column("core memory\nhost MHz", justify="right", min_width=len("highest"))
    rows = {"chosen" if selection.excess == 0 else "nearest": selection.chosen}
    rows |= {f"next {name}": row for name, row in selection.neighbours.items()}
    for name, row in rows.items():
        design = designs[row]
        test = design.test[policy]
        clocks = " ".join(f"{clock:.5g}" for clock in design.clocks_mhz.values())
        exits = " ".join(map(str, design.exits)) or "none"
        shown = (*_cells(design.selection[policy]), f"{test.accuracy:.2%}", f"{test.energy_j * 1e3:.3g}", exits, clocks)
        table.add_row(name, *shown, style="bold" if row == selection.chosen else None)
    chosen = designs[selection.chosen]
    table.add_section()
    by_clocks = " ".join(f"{clock:.5g}" for clock in chosen.static_dvfs_clocks_mhz.values())
    for name, selection_of, test, clocks in (
        ("its static backbone", chosen.static_selection, chosen.static_test, "highest"),
        ("static + DVFS", chosen.static_dvfs_selection, chosen.static_dvfs_test, by_clocks),
    ):
        cells = (*_cells(selection_of), f"{test.accuracy:.2%}", f"{test.energy_j * 1e3:.3g}")
        table.add_row(name, *cells, "none", clocks)
    return table


def _limits_table(designs: Sequence[Design], selection: Selection, limits: Limits, policy: str) -> Table:
    table = Table(title="Without a limit, the choice would have", title_style="bold")
    table.add_column("without")
    for name in ("accuracy", "latency", "energy"):
        table.add_column(name, justify="right")
    here = designs[selection.chosen].selection[policy]
    for name, row in selection.without.items():
        there = designs[row].selection[policy]
        same = row == selection.chosen
        table.add_row(limit_text(name, limits), *(("no difference", "", "") if same else _differences(here, there)))
    return table


def _cells(found: Performance) -> tuple[str, str, str]:
    return f"{found.accuracy:.2%}", f"{found.latency_s * 1e3:.3g}", f"{found.energy_j * 1e3:.3g}"


def _differences(here: Performance, there: Performance) -> tuple[str, str, str]:
    latency, energy = there.latency_s / here.latency_s - 1, there.energy_j / here.energy_j - 1
    return f"{100 * (there.accuracy - here.accuracy):+.2f} points", f"{latency:+.1%}", f"{energy:+.1%}"
