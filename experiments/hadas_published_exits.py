"""What our inner engine finds for AttentiveNAS a0 to a5 with the CIFAR-100 accuracies that HADAS published per exit.

Command:   python experiments/hadas_published_exits.py -o experiments/hadas_published_exits.json
Hardware:  2 CPU cores, 2 GB
Time:      a minute or two on two cores, compilation included
Expected:  correlation 0.9218; energy of a0 relative to its static one, ideal mapping, 0.518 with exits and 0.430 with
           exits and clocks (published 0.689 and 0.668); deployable at the static accuracy 0.824 and 0.696; clocks
           alone, without exits, 0.847

Bouzidi et al. (DATE 2023, https://arxiv.org/abs/2212.03354) publish the accuracy of an exit after every block from
the sixth on (their repository, Apache-2.0: hadas_exit_top1.json here), but not which samples each exit gets right. A
one-factor Gaussian copula stands for that: exit i with accuracy a_i is right about a sample of difficulty z where
sqrt(r) z + sqrt(1 - r) e_i < Phi^-1(a_i), z and e_i standard normal. Accuracies are the published ones; the one free
number, the correlation r, is set so that under the ideal mapping all exits of a0 together reach the published 89.95 %.
The network, its native resolution and the device (AGX Xavier GPU, its roofline alone) are the package's own; nothing is
tuned on the published energies, which are compared relative to a0's static one: the paper does not name the device
beside them.

Under the deployable policy an exit's confidence is the chance that it is right given the sample's difficulty, which is
all that the model has to offer: a head that knows the difficulty exactly, but not its own luck.
Shapes: E exits of the space, e those of a backbone, N samples.
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from hadas_jax.evaluation import ConfigStats, Outcomes, segment_costs
from hadas_jax.methods.hadas.exit_configs import DynamicBackbone, PolicyStops, risk_thresholds
from hadas_jax.methods.hadas.fronts import Candidates, subset_front
from hadas_jax.methods.hadas.results import POLICY_NAMES, Performance
from hadas_jax.report.console import print_line
from hadas_jax.runs.workdir import versions, write_text
from hadas_jax.settings import NO_CONSTRAINTS, Constraints
from hadas_jax.spaces import MBConvSpace, available_exits, load_space, published_in
from hw_models import load_device

TABLE = Path(__file__).with_name("hadas_exit_top1.json")
DEVICE = "agx-xavier-gpu"
IDEAL_A0 = 0.8995  # dynamic top-1 of a0
PUBLISHED = {  # of a0: energy in mJ
    "static": 173.8,
    "exits": 119.8,
    "exits + clocks": 116.1,
}


@dataclass(frozen=True)
class Experiment:
    """a0 to a5 with published exits: static, with exits, with exits and clocks."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None
    """Results file."""
    picture: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Energies as bars."""
    samples: int = 10_000
    """Drawn samples, as many as CIFAR-100's test images, and as many more to set thresholds on."""
    seed: int = 0
    """Of the draws."""
    smoke: bool = False
    """a0 alone on 500 samples."""


def published_accuracies() -> dict[str, np.ndarray]:
    """Returns the CIFAR-100 accuracy of every exit and, last, the classifier, as shares, by backbone."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))["cifar-100"]
    return {name: np.asarray(shares) / 100 for name, shares in table.items()}


def ideal_accuracy(accuracies: np.ndarray, correlation: float) -> float:
    """Returns the share of samples that at least one of some exits gets right under the model.

    Args:
      accuracies: float[e], within 0 to 1.
      correlation: r, within 0 to 1, exclusively.
    """
    difficulty = np.linspace(-9, 9, 20_001)
    weight = np.exp(-(difficulty**2) / 2)
    wrong = 1 - chance_right(accuracies, difficulty, correlation)
    return float(1 - np.average(wrong.prod(axis=0), weights=weight))


def chance_right(accuracies: np.ndarray, difficulty: np.ndarray, correlation: float) -> np.ndarray:
    """Returns float[e, N]: the chance that each exit is right about samples of given difficulty float[N]."""
    margin = ndtri(accuracies)[:, None] - np.sqrt(correlation) * difficulty[None]
    return ndtr(margin / np.sqrt(1 - correlation))


def fitted_correlation(accuracies: np.ndarray, ideal: float) -> float:
    """Returns the correlation at which the ideal mapping over all exits reaches an accuracy.

    Raises:
      ValueError: no correlation does.
    """
    lowest, highest = (ideal_accuracy(accuracies, r) for r in (1 - 1e-6, 1e-6))
    if not lowest < ideal < highest:
        raise ValueError(f"ideal: expected an accuracy between {lowest:.4f} and {highest:.4f}, got {ideal}")
    return float(brentq(lambda r: ideal_accuracy(accuracies, r) - ideal, 1e-6, 1 - 1e-6, xtol=1e-9))


def drawn_outcomes(
    accuracies: np.ndarray, available: np.ndarray, *, correlation: float, samples: int, seed: int
) -> Outcomes:
    """Draws samples; every exit gets as many of them right as its accuracy says, to the nearest sample.

    Args:
      accuracies: float[e + 1].
      available: bool[E], where a space has these exits.
      correlation: r.
      samples: N.
      seed: of the draw; backbones of one seed see the same samples.
    """
    rng = np.random.default_rng(seed)
    difficulty = rng.standard_normal(samples)
    luck = np.stack([np.random.default_rng((seed, e)).standard_normal(samples) for e in range(len(accuracies))])
    rank = np.argsort(np.argsort(np.sqrt(correlation) * difficulty + np.sqrt(1 - correlation) * luck, axis=1), axis=1)
    right = rank < np.round(accuracies * samples)[:, None]
    rows = np.append(np.flatnonzero(available), len(available))
    shape = (len(available) + 1, samples)
    correct, confidence = np.zeros(shape, bool), np.zeros(shape, np.float32)
    correct[rows] = right
    confidence[rows] = chance_right(accuracies, difficulty, correlation)
    nothing = jnp.zeros(shape, jnp.float32)
    return Outcomes(jnp.asarray(correct), jnp.asarray(confidence), entropy=nothing, learned=nothing)


def examine(
    space: MBConvSpace, name: str, accuracies: np.ndarray, *, correlation: float, experiment: Experiment
) -> dict[str, Any]:
    """Returns the figures of a backbone: static, with exits, with exits and clocks."""
    device = dataclasses.replace(load_device(DEVICE), correction=None)
    genome = jnp.asarray(space.encode(published_in(space, name)))
    available = np.asarray(available_exits(space, space.decode(genome)))
    costs = jax.jit(lambda g: segment_costs(space, space.decode(g), device))(genome)
    backbone = DynamicBackbone.of(jnp.asarray(available), costs)

    def drawn(seed: int) -> Outcomes:
        return drawn_outcomes(accuracies, available, correlation=correlation, samples=experiment.samples, seed=seed)

    thresholds = risk_thresholds(drawn(experiment.seed + 1), policy="confidence")
    found_stops = PolicyStops.of(drawn(experiment.seed), thresholds=thresholds, policy="confidence")
    default = costs.latency_s.shape[1] - 1
    nobody = found_stops.ideal.evaluate(jnp.zeros((1, space.num_exits), jnp.int32))
    static, static_dvfs = (
        Performance(*nobody.expected(backbone.costs, 0, point))
        for point in (default, _cheapest_point(nobody, backbone))
    )
    at_default, fronts = {}, {}
    for policy in POLICY_NAMES:
        stops = getattr(found_stops, policy)
        at_default[policy], fronts[policy] = (subset_front(stops, backbone, point=p) for p in (default, None))
    found: dict[str, Any] = {
        "backbone": name,
        "exits": int(available.sum()),
        "ideal_accuracy_of_the_model": ideal_accuracy(accuracies, correlation),
        "static": dataclasses.asdict(static),
        "static + clocks": dataclasses.asdict(static_dvfs),
    }
    best = float(fronts["ideal"].objectives[:, 0].min())
    for target, policy, error in (
        ("ideal, highest accuracy", "ideal", best),
        ("ideal, static accuracy", "ideal", static.error),
        ("deployable, static accuracy", "deployable", static.error),
    ):
        as_fast = Constraints(max_latency_ms=static.latency_s * 1e3 * (1 + 1e-6))
        found[target] = {
            "exits": _cheapest(at_default[policy], error, backbone, limits=NO_CONSTRAINTS),
            "exits + clocks": _cheapest(fronts[policy], error, backbone, limits=NO_CONSTRAINTS),
            "exits + clocks, as fast as static": _cheapest(fronts[policy], error, backbone, limits=as_fast),
        }
    return found


def _cheapest_point(stats: ConfigStats, backbone: DynamicBackbone) -> int:
    """The operating point of the least energy of one configuration."""
    return int(
        np.argmin(np.asarray(stats.frequencies[0], np.float64) @ np.asarray(backbone.costs.energy_j, np.float64))
    )


def _cheapest(front: Candidates, error: float, backbone: DynamicBackbone, *, limits: Constraints) -> dict[str, Any]:
    row = front.cheapest(error, limits=limits)
    if row is None:
        raise ValueError(f"expected a candidate of error {error:.4f} on a front, got none")
    performance = Performance(*(float(value) for value in front.objectives[row]))
    exits = np.flatnonzero(front.exits[row][np.asarray(backbone.available)] > 0)
    return dataclasses.asdict(performance) | {"exits": exits.tolist(), "point": int(front.point[row])}


def energy_table(rows: list[dict[str, Any]]) -> Table:
    """Returns energies relative to a0's static one, beside the published ones of a0."""
    unit = rows[0]["static"]["energy_j"]
    shown = Table(title="Energy relative to a0 static, and dynamic accuracy")
    for heading in ("network", "rule", "static", "+ clocks", "+ exits", "+ exits + clocks", "no slower", "accuracy"):
        shown.add_column(heading, justify="left" if heading in ("network", "rule") else "right")
    static, *others = (f"{energy / PUBLISHED['static']:.3f}" for energy in PUBLISHED.values())
    shown.add_row("a0", "published", static, "", *others, "", f"{IDEAL_A0:.2%}")
    for row in rows:
        for rule in [name for name, value in row.items() if isinstance(value, dict) and not name.startswith("static")]:
            variants = row[rule]
            shown.add_row(
                row["backbone"],
                rule,
                *(
                    f"{each['energy_j'] / unit:.3f}"
                    for each in (row["static"], row["static + clocks"], *variants.values())
                ),
                f"{1 - variants['exits + clocks']['error']:.2%}",
            )
    return shown


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the energies of every backbone as bars, and the published ones of a0 as lines across its bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    unit, width = rows[0]["static"]["energy_j"], 0.14
    bars: list[tuple[str, str | None, str, str]] = [
        ("static", None, "static", "0.6"),
        ("static + clocks", None, "static + clocks", "0.8"),
    ]
    for name, colours in (("ideal, highest accuracy", "C0 C9"), ("deployable, static accuracy", "C1 C8")):
        bars += [
            (f"{name.split(',')[0]}: {variant}", name, variant, colour)
            for variant, colour in zip(("exits", "exits + clocks"), colours.split(), strict=True)
        ]
    for slot, (label, rule, variant, colour) in enumerate(bars):
        energies = [(row[variant] if rule is None else row[rule][variant])["energy_j"] / unit for row in rows]
        axes.bar(np.arange(len(rows)) + (slot - 2.5) * width, energies, width, label=label, color=colour)
    for (name, energy), style in zip(list(PUBLISHED.items())[1:], ("--", ":"), strict=True):
        line = [energy / PUBLISHED["static"]] * 2
        axes.plot([-3 * width, 3 * width], line, "k" + style, label=f"published a0: {name}")
    axes.set_xticks(range(len(rows)), [row["backbone"] for row in rows])
    axes.set(ylabel="energy per sample / a0 static")
    axes.legend(fontsize="small", ncols=2, loc="upper left")
    axes.grid(axis="y", alpha=0.3)
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
    figure.savefig(path, dpi=110)


def run(experiment: Experiment, console: Console) -> dict[str, Any]:
    """Examines the backbones, prints the table and returns all figures."""
    start = time.monotonic()
    accuracies = published_accuracies()
    if experiment.smoke:
        accuracies = {"a0": accuracies["a0"]}
        experiment = dataclasses.replace(experiment, samples=500)
    correlation = fitted_correlation(accuracies["a0"], IDEAL_A0)
    space = load_space("attentivenas").adapt(in_channels=3, classes=100, image_size=32)
    rows = [
        examine(space, name, shares, correlation=correlation, experiment=experiment)
        for name, shares in accuracies.items()
    ]
    console.print(energy_table(rows))
    console.print(f"Correlation {correlation:.4f}")
    if experiment.picture is not None:
        draw(rows, experiment.picture)
    return {
        "device": DEVICE,
        "correlation": correlation,
        "samples": experiment.samples,
        "seed": experiment.seed,
        "published_of_a0": PUBLISHED | {"dynamic_accuracy": IDEAL_A0},
        "backbones": rows,
        "seconds": round(time.monotonic() - start, 1),
        "versions": versions(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    experiment = tyro.cli(Experiment, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    console = Console(width=140)
    results = run(experiment, console)
    if experiment.output is not None:
        write_text(experiment.output, json.dumps(results, indent=1) + "\n")
        print_line(console, f"Written: {experiment.output}")


if __name__ == "__main__":
    main()
