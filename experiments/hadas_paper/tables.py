"""Tables and pictures of `hadas_paper`."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from hadas_jax.methods.hadas.results import POLICY_NAMES
from hadas_paper.metrics import SPLITS, spread

VARIANTS = ("exits", "exits + clocks")
DIFFERENCES = ("accuracy_difference", "accuracy_difference_low", "accuracy_difference_high")
COMPARISONS = (
    ("at_the_baselines_highest_accuracy", "saved at the baselines' best"),
    ("at_the_largest_baselines_highest_accuracy", "at the largest's best"),
    ("at_the_largest_baselines_static_accuracy", "at its static accuracy"),
)


def tables(results: dict[str, Any]) -> list[Table]:
    """Returns the tables of the stages that were run."""
    found = [_networks(stage, results[stage]) for stage in ("motivation", "inner") if stage in results]
    if "hadas" in results:
        found.append(_hadas(results["hadas"]))
    if "ablations" in results:
        found += _ablations(results["ablations"])
    return found


def _networks(stage: str, by_device: dict[str, Any]) -> Table:
    table = Table(title=f"{stage}: mJ per sample (test accuracy, %; its difference from static in points [95 %])")
    named = ["static", "static + DVFS", *(f"{p}: {v}" for p in POLICY_NAMES for v in VARIANTS)]
    columns = ["device", "network", *named]
    for heading in columns:
        table.add_column(heading, justify="left" if heading in columns[:2] else "right")
    for device, found in by_device.items():
        for row in found["networks"]:
            table.add_row(device, row["network"], *(_network_text(row.get(name)) for name in named))
        table.add_section()
    return table


def _network_text(found: dict[str, Any] | None) -> str:
    """One network's energy, accuracy and difference; results of earlier versions lack some."""
    if found is None:
        return "-"
    beside = ""
    if found.get("exits"):
        beside = "; {:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * found.get(name, np.nan) for name in DIFFERENCES))
    return f"{found['energy_mj']:.3f} ({100 * found['test_accuracy']:.2f}{beside})"


def summary(seeds: dict[str, Any], policy: str) -> dict[str, dict[str, float]]:
    """Returns mean and spread over seeds of the figures of one policy on one device."""
    rows = [found[policy] for found in seeds.values()]
    found = {
        f"{name}, {split}": spread([row[split][name] for row in rows])
        for split in SPLITS
        for name in ("hypervolume", "baseline_hypervolume", "dominates", "dominated")
    }
    for key, _ in COMPARISONS:
        savings = [row[key]["test"].get("saving") for row in rows]
        if None not in savings:
            found[key] = spread(savings)
            differences = [row[key]["test"].get(DIFFERENCES[0], np.nan) for row in rows]
            found[f"{key}, accuracy"] = spread(differences)
    return found


def _hadas(by_device: dict[str, Any]) -> Table:
    seeds = len(next(iter(by_device.values())))
    table = Table(title=f"hadas against the optimised baselines, {seeds} seeds; on the selection / test samples")
    columns = ["device", "policy", "hypervolume", "baselines'", "dominates", "dominated"]
    for heading in (*columns, *(heading for _, heading in COMPARISONS)):
        table.add_column(heading, justify="left" if heading in columns[:2] else "right")
    for device, found in by_device.items():
        for policy in POLICY_NAMES:
            figures = summary(found, policy)
            cells = [
                " / ".join(_text(figures[f"{name}, {split}"]) for split in SPLITS)
                for name in ("hypervolume", "baseline_hypervolume", "dominates", "dominated")
            ]
            saved = [_saved_text(figures, key) for key, _ in COMPARISONS]
            table.add_row(device, policy, *cells, *saved)
    return table


def _saved_text(figures: dict[str, dict[str, float]], key: str) -> str:
    """A saving beside the mean difference in test accuracy from the baseline that it is against."""
    if key not in figures:
        return "not reached"
    return f"{_text(figures[key], percent=True)} at {100 * figures[f'{key}, accuracy']['mean']:+.2f} points"


def _text(figure: dict[str, float], *, percent: bool = False) -> str:
    if percent:
        return f"{100 * figure['mean']:.1f} ± {100 * figure['sd']:.1f} %"
    return f"{figure['mean']:.4f} ± {figure['sd']:.4f}"


def _on_both(rows: list[dict[str, Any]], name: str) -> str:
    """A figure over seeds on the selection samples and on the test images."""
    return " / ".join(_text(spread([row[split][name] for row in rows])) for split in SPLITS)


def _ablations(found: dict[str, Any]) -> list[Table]:
    seeds = [value for key, value in found.items() if key.isdigit()]
    made = {
        "parts": _parts,
        "sequential": _sequential,
        "elites": _elites,
        "dissimilarity": _dissimilarity,
        "scores": _scores,
    }
    shown = [make([seed[name] for seed in seeds]) for name, make in made.items() if name in seeds[0]]
    return shown + [_heads(*item) for item in found.get("heads", {}).items()]


def _entries(row: dict[str, Any]) -> list[str]:
    return [name for name in row if name != "seconds"]


def _dissimilarity(seeds: list[dict[str, Any]]) -> Table:
    return _volumes(seeds, "merit of backbones")


def _elites(seeds: list[dict[str, Any]]) -> Table:
    return _volumes(seeds, "backbones of a generation that are examined")


def _volumes(seeds: list[dict[str, Any]], varied: str) -> Table:
    title = (
        f"Hypervolume, and ratio of dominance over the baselines, by {varied}, {len(seeds)} seeds (selection / test)"
    )
    table = Table(title=title)
    for heading in ("", *(f"{policy}{what}" for policy in POLICY_NAMES for what in ("", ": dominates", ": dominated"))):
        table.add_column(heading, justify="right" if heading else "left")
    for name in _entries(seeds[0]):
        cells = []
        for policy in POLICY_NAMES:
            ratios = [seed[name]["against_the_baselines"][policy] for seed in seeds]
            cells.append(" / ".join(_text(spread([seed[name][policy][split] for seed in seeds])) for split in SPLITS))
            cells += [_on_both(ratios, what) for what in ("dominates", "dominated")]
        table.add_row(name, *cells)
    return table


def _scores(seeds: list[dict[str, Any]]) -> Table:
    title = f"Versions of the highest score on the validation samples, {len(seeds)} seeds"
    table = Table(title=title)
    for heading in ("", "exits", "ideal accuracy", "mJ", "dissimilarity", "with other exits than at gamma 0"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in _entries(seeds[0]):
        for size in [size for size in seeds[0][name] if size != "exits_of_the_best"]:
            rows = [seed[name][size] for seed in seeds if size in seed[name]]
            means = (_text(spread([row[what] for row in rows])) for what in ("accuracy", "energy_mj", "dissimilarity"))
            other, count = (sum(row[what] for row in rows) for what in ("other_exits", "backbones"))
            table.add_row(name, size.removesuffix(" exits"), *means, f"{other} of {count} backbones")
    return table


def _parts(seeds: list[dict[str, Any]]) -> Table:
    table = Table(title=f"Hypervolume by what is searched, and energy at the best static accuracy, {len(seeds)} seeds")
    for heading in ("part", "selection", "test", "mJ", "test accuracy"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for name in _entries(seeds[0]):
        level = [row[name]["at_the_best_static_accuracy"] for row in seeds]
        energy, accuracy = (spread([one[f"ours_{what}"] for one in level]) for what in ("energy_mj", "accuracy"))
        cells = (_text(spread([row[name][split] for row in seeds])) for split in SPLITS)
        table.add_row(name, *cells, _text(energy), _text(accuracy))
    return table


def _sequential(seeds: list[dict[str, Any]]) -> Table:
    table = Table(title=f"Joint search against one after the other, {len(seeds)} seeds (selection / test)")
    figures = ("hypervolume", "baseline_hypervolume", "dominates", "dominated")
    for heading in ("policy", *figures):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for policy in POLICY_NAMES:
        rows = [seed[policy] for seed in seeds]
        table.add_row(policy, *(_on_both(rows, name) for name in figures))
    return table


def _heads(backbone: str, found: dict[str, Any]) -> Table:
    table = Table(title=f"Shared exits and exits of one backbone ({backbone}): test accuracy (%)")
    count = len(found["shared"]["exit_test_accuracy"])
    for heading in ("exits", *map(str, range(1, count)), "classifier", "ideal mJ", "deployable mJ"):
        table.add_column(heading, justify="left" if heading == "exits" else "right")
    for name in ("shared", "own"):
        shares = (f"{100 * share:.2f}" for share in found[name]["exit_test_accuracy"])
        network = found[name]["network"]
        table.add_row(name, *shares, *(f"{network[f'{p}: exits + clocks']['energy_mj']:.3f}" for p in POLICY_NAMES))
    return table


def picture(results: dict[str, Any], path: Path) -> None:
    """Draws energy over accuracy on the test split on the first device, with the first seed, for both policies."""
    from matplotlib.figure import Figure

    device = next(iter(results["hadas"]))
    found = next(iter(results["hadas"][device].values()))
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, policy in zip(figure.subplots(1, 2, sharey=True), POLICY_NAMES, strict=True):
        curves = [
            (found["static_curve"], "found, static", "0.5", "o"),
            (found[policy]["curve"]["test"], "HADAS", "C0", "."),
        ]
        if "inner" in results:
            curves.append((results["inner"][device][f"{policy}, test"]["curve"], "optimised baselines", "C1", "."))
        for curve, label, colour, marker in curves:
            accuracy, energy = zip(*curve, strict=True)
            axes.plot([100 * a for a in accuracy], energy, marker, linestyle="-", color=colour, label=label, ms=4)
        axes.set(title=f"{policy}, {device}", xlabel="test accuracy (%)")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[0].set_ylabel("energy per sample (mJ)")
    figure.savefig(path, dpi=110)
