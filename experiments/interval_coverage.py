"""How often the 95 % interval of a difference in accuracy holds the true difference, over sizes and rates.

Command:   python experiments/interval_coverage.py --out experiments/interval_coverage.json
Hardware:  1 CPU core, 1 GB
Time:      3 minutes
Expected:  the interval of `accuracy_difference` covers at least 95 % and misses at either end at most 2.5 %,
           everywhere. The bootstrap alone covers as little as 9.5 % where differences are rare, for it is a point then.

Nothing is drawn: for each size and pair of rates the chances of all outcomes are summed, but for those that together
have less than 0.01 %, which count as missed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table
from scipy.stats import binom

from hadas_jax.evaluation import accuracy_difference
from hadas_jax.evaluation.paired import bootstrap_interval

Interval = Callable[[int, int, int], tuple[float, float]]
LEFT_OUT = 1e-5  # of each end of the two counts

# Means of the images that only one and that only the other network gets right.
MEANS = (
    *((0.1, 0.0), (1.0, 0.0), (1.0, 1.0), (3.0, 0.3), (3.0, 3.0), (10.0, 0.0), (10.0, 3.0), (20.0, 0.3), (20.0, 20.0)),
    *((40.0, 0.0), (45.0, 45.0), (55.0, 45.0), (60.0, 60.0), (130.0, 0.3), (130.0, 55.0)),
)


@dataclass(frozen=True)
class Experiment:
    """Coverage of the interval of a difference in accuracy."""

    images: tuple[int, ...] = (50, 270, 2000, 10_000)
    """Sizes of the test split."""
    out: Path | None = None
    """A JSON file to write."""


@cache
def shipped(gained: int, lost: int, images: int) -> tuple[float, float]:
    """The interval that results are reported with."""
    found = accuracy_difference(gained, lost, images=images)
    return found.low, found.high


@cache
def bootstrap(gained: int, lost: int, images: int) -> tuple[float, float]:
    """The bootstrap's alone."""
    return bootstrap_interval(gained, lost, images=images)


def misses(interval: Interval, images: int, means: tuple[float, float]) -> tuple[float, float, float]:
    """Returns how often an interval lies above the true difference, how often below it, and the chance left out."""
    gain, loss = (mean / images for mean in means)
    above = below = seen = 0.0
    for gained in _likely(images, gain):
        chance, others = float(binom.pmf(gained, images, gain)), images - gained
        rate = min(1.0, loss / (1 - gain)) if gain < 1 else 0.0
        for lost in _likely(others, rate):
            here = chance * float(binom.pmf(lost, others, rate))
            low, high = interval(gained, lost, images)
            above += here * (low > gain - loss + 1e-12)
            below += here * (high < gain - loss - 1e-12)
            seen += here
    return above, below, 1 - seen


def _likely(images: int, rate: float) -> range:
    low, high = binom.ppf(LEFT_OUT, images, rate), binom.isf(LEFT_OUT, images, rate)
    return range(max(0, int(low)), int(high) + 1)


def measure(experiment: Experiment) -> list[dict[str, Any]]:
    """Returns a row for each size and pair of rates that fits it."""
    rows = []
    for images in experiment.images:
        for means in MEANS:
            if sum(means) > images:
                continue
            row: dict[str, Any] = {"images": images, "gained": means[0], "lost": means[1]}
            for name, interval in (("shipped", shipped), ("bootstrap", bootstrap)):
                above, below, left = misses(interval, images, means)
                row[name] = {"coverage": 1 - above - below - left, "above": above, "below": below}
            rows.append(row)
    return rows


def main(experiment: Experiment) -> None:
    """Measures, prints and writes."""
    rows = measure(experiment)
    table = Table(title="Coverage of the 95 % interval, and how often it lies above / below the true difference (%)")
    for heading in ("images", "only one right", "only the other", "coverage", "above", "below", "bootstrap alone"):
        table.add_column(heading, justify="right")
    for row in rows:
        found = (f"{100 * row['shipped'][name]:.2f}" for name in ("coverage", "above", "below"))
        alone = f"{100 * row['bootstrap']['coverage']:.2f}"
        table.add_row(f"{row['images']:,}", f"{row['gained']:g}", f"{row['lost']:g}", *found, alone)
    Console(width=120).print(table)
    if experiment.out is not None:
        plain = json.loads(json.dumps(rows), parse_float=lambda text: round(float(text), 6))
        experiment.out.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Experiment))
