"""The table at the end of a run: what exits and clocks save at a few accuracy levels."""

from rich.console import Console
from rich.table import Table

from hadas_jax.methods.results import POLICY_NAMES, Level, Performance, Result


def levels_table(result: Result) -> Table:
    """Returns a table of the levels, measured on the test split.

    The ideal mapping stops every sample at the first exit that is right: an upper bound that needs labels. The
    deployable policy compares a score with thresholds.
    """
    table = Table(title="Per sample on the test split; networks chosen on other samples", title_style="bold")
    table.add_column("chosen at\naccuracy ≥", justify="right")
    table.add_column("network")
    table.add_column("policy")
    for name in ("test\naccuracy", "latency\nms", "energy\nmJ", "energy\nsaved"):
        table.add_column(name, justify="right")
    for level in result.levels:
        for index, row in enumerate(_rows(level)):
            table.add_row(f"{level.accuracy:.1%}" if index == 0 else "", *row)
        table.add_section()
    return table


def _rows(level: Level) -> list[tuple[str, ...]]:
    static = level.static.static_test
    rows: list[tuple[str, ...]] = [("static", "", *_cells(static), "")]
    for name, designs in (("+ exits", level.exits), ("+ exits + DVFS", level.exits_and_clocks)):
        for policy in POLICY_NAMES:
            found = designs[policy].test[policy]
            rows.append((name, policy, *_cells(found), f"{found.saving(static):.0%}"))
    return rows


def _cells(found: Performance) -> tuple[str, str, str]:
    return f"{found.accuracy:.1%}", f"{found.latency_s * 1e3:.3f}", f"{found.energy_j * 1e3:.2f}"


def print_result(result: Result, console: Console) -> None:
    """Prints the table and what was searched."""
    console.print(levels_table(result))
    fronts = ", ".join(f"{len(result.front(policy))} {policy}" for policy in POLICY_NAMES)
    console.print(
        f"Searched {result.backbones} backbones and {result.candidates:,} dynamic versions. Designs on the "
        f"fronts: {fronts}. Without exits, the largest backbone is right on {result.largest_test_accuracy:.1%} of "
        f"the test split, the smallest on {result.smallest_test_accuracy:.1%}.",
        highlight=False,
        soft_wrap=not console.is_terminal,
    )
