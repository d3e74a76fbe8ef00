"""A selected network as tables: its blocks with the exits between them, and what happens at each exit."""

import numpy as np
from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table

from hadas_jax.deploy.architecture import Architecture, OnSplit
from hadas_jax.deploy.exit_usage import ExitUsage
from hadas_jax.deploy.outline import outline
from hadas_jax.methods import Settings
from hadas_jax.methods.results import Performance
from hadas_jax.report.table import saving_text


def print_architecture(architecture: Architecture, usage: ExitUsage, console: Console) -> None:
    """Prints a network.

    Args:
      architecture: the network.
      usage: of its exits, see `hadas_jax.deploy.exit_usage`.
      console: to print on.
    """
    device, clocks = architecture.device, architecture.clocks_mhz
    mode = f", power mode {device.power_mode}" if device.power_mode else ""
    for line in (
        f"{architecture.space.name}, {architecture.weights:,} weights, {architecture.space.classes} classes, found by "
        f"the {architecture.found_by} policy",
        f"On {device.file.name} in {device.number_format}{mode}, at core {clocks.core:g}, memory {clocks.memory:g}, "
        f"host {clocks.host:g} MHz",
    ):
        console.print(line, highlight=False, soft_wrap=not console.is_terminal)
    console.print(_blocks_table(architecture))
    console.print(exits_table(architecture, usage))
    console.print(_performance_table(architecture))
    test = architecture.test
    tolerance = architecture.origin.settings.get("accuracy_tolerance", Settings.accuracy_tolerance)
    text = saving_text(test.deployable, test.static, test.static_dvfs, difference=test.difference, tolerance=tolerance)
    console.print(text, highlight=False, soft_wrap=not console.is_terminal)


def _blocks_table(architecture: Architecture) -> Table:
    table = Table(title="Network", title_style="bold")
    table.add_column("part")
    for heading in ("block", "map\npixels", "channels", "kernel", "expand"):
        table.add_column(heading, justify="right")
    table.add_column("exit")
    exits = dict(zip(architecture.exits, architecture.thresholds, strict=True))
    for part in outline(architecture.space, architecture.decoded):
        threshold = exits.get(part.block) if part.block is not None else None
        table.add_row(
            part.name,
            "" if part.block is None else str(part.block),
            f"{part.size} x {part.size}",
            str(part.channels),
            "" if part.kernel is None else str(part.kernel),
            "" if part.expand is None else str(part.expand),
            "" if threshold is None else f"if {architecture.policy} ≥ {threshold:.4g}",
            end_section=part.ends_stage,
        )
    return table


def exits_table(architecture: Architecture, usage: ExitUsage) -> Table:
    """Returns a table of who stops where and what that costs, on the selection samples and as deployed."""
    table = Table(title="Exits, as deployed, on the selection samples", title_style="bold")
    table.add_column("stops at")
    for heading in ("threshold", "samples", "latency\nms", "energy\nmJ", "share of\nenergy", "test\nsamples"):
        table.add_column(heading, justify="right")
    names = [f"exit after block {block}" for block in architecture.exits] + ["classifier"]
    thresholds = [f"{threshold:.4g}" for threshold in architecture.thresholds] + [""]
    for k, (name, threshold) in enumerate(zip(names, thresholds, strict=True)):
        table.add_row(
            name,
            threshold,
            f"{usage.shares[k]:.1%}",
            f"{usage.latency_s[k] * 1e3:.3g}",
            f"{usage.energy_j[k] * 1e3:.3g}",
            f"{usage.energy_shares[k]:.1%}",
            f"{architecture.test.shares[k]:.1%}",
        )
    mean = np.asarray(usage.shares) @ np.stack([usage.latency_s, usage.energy_j], axis=1)
    table.add_section()
    table.add_row("mean", "", "", f"{mean[0] * 1e3:.3g}", f"{mean[1] * 1e3:.3g}", "", "")
    return table


def _performance_table(architecture: Architecture) -> Table:
    table = Table(title="Per sample", title_style="bold", box=HORIZONTALS, padding=(0, 1, 0, 0))
    table.add_column("samples")
    table.add_column("network", no_wrap=True)
    for heading in ("accuracy", "latency\nms", "energy\nmJ", "saved\nagainst\nstatic", "saved\nagainst\n+ DVFS"):
        table.add_column(heading, justify="right")
    for name in ("selection", "test"):
        split: OnSplit = getattr(architecture, name)
        for kind in ("deployable", "ideal", "static", "static_dvfs"):
            found: Performance | None = getattr(split, kind)
            if found is None:
                continue
            saved = "" if kind == "static" else f"{found.saving(split.static):.0%}"
            dynamic = kind in ("deployable", "ideal")
            by_clocks = f"{found.saving(split.static_dvfs):.0%}" if split.static_dvfs and dynamic else ""
            shown = (f"{found.accuracy:.2%}", f"{found.latency_s * 1e3:.3g}", f"{found.energy_j * 1e3:.3g}")
            row = (name if kind == "deployable" else "", kind.replace("_dvfs", " + DVFS"))
            table.add_row(*row, *shown, saved, by_clocks)
        table.add_section()
    return table
