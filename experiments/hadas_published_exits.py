"""What our inner engine finds for AttentiveNAS a0 to a6 with the accuracies that HADAS published per exit.

Command:   python experiments/hadas_published_exits.py -o experiments/hadas_published_exits.json
               --confidences hadas_confidence_bins.csv
           (without --confidences, deployable rows follow the model's difficulty alone)
Hardware:  2 CPU cores, 2 GB
Time:      some minutes, compilation included
Expected:  correlation 0.9218; on CIFAR-100 with the roofline alone, energy of a0 relative to its static one, ideal
           mapping, 0.518 with exits and 0.430 with exits and clocks (published 0.689 and 0.668); deployable by the
           model's confidences at the static accuracy 0.824 and 0.696; clocks alone, without exits, 0.847

Bouzidi et al. (DATE 2023, https://arxiv.org/abs/2212.03354) publish the accuracy of an exit after every block from
the sixth on (their repository, Apache-2.0: hadas_exit_top1.json here; of a6 with an older head alone, whose first exits
are 1 to 7 points less accurate, and on CIFAR-100 alone), but not which samples each exit gets right. A one-factor
Gaussian copula stands for that: exit i with accuracy a_i is right about a sample of difficulty z where
sqrt(r) z + sqrt(1 - r) e_i < Phi^-1(a_i), z and e_i standard normal. Accuracies are the published ones; the one free
number, the correlation r, is set so that under the ideal mapping all exits of a0 together reach the published 89.95 %
on CIFAR-100. The networks, their native resolution and the device (AGX Xavier GPU, with its learned correction and as
a roofline alone) are the package's own; nothing is tuned on the published energies, and the paper does not name the
device beside them.

Under the deployable policy an exit's confidence is, by the model alone, the chance that it is right given the sample's
difficulty: a head that knows the difficulty exactly, but not its own luck. With `--confidences` it follows what their
repository's history has of it: for each exit the number of samples in five bins of confidence and their accuracy, on
training images (columns data_set, backbone, exit, confidence_below, samples, accuracy). Of these the shares of bins
among samples that are right, and among those that are wrong, are taken; the accuracies stay those of the test. Within
both, the less difficult a sample, the higher its bin, as far as r says. a6 has no such figures and keeps the model's.
Shapes: E exits of the space, e those of a backbone, N samples, B bins.
"""

import csv
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
from hw_models import Device, load_device

TABLE = Path(__file__).with_name("hadas_exit_top1.json")
DEVICE = "agx-xavier-gpu"
IDEAL_A0 = 0.8995  # dynamic top-1 of a0
VARIANTS = ("static", "exits", "exits + clocks")
PUBLISHED = {"a0": (173.8, 119.8, 116.1), "a6": (335.5, 256.8, 218.3)}  # energies in mJ on CIFAR-100
CLASSES = {"cifar-100": 100, "tiny-imagenet": 200}
OLD_HEAD = "cifar-100, old head"
_COLUMNS = {"data_set", "backbone", "exit", "confidence_below", "samples", "accuracy"}


@dataclass(frozen=True)
class Experiment:
    """a0 to a6 with published exits: static, with exits, with exits and clocks."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None
    """Results file."""
    confidences: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """Published confidences of exits; None: the model's."""
    picture: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Energies as bars: on CIFAR-100, of the device as it comes."""
    samples: int = 10_000
    """Drawn samples, as many as CIFAR-100's test images, and as many more to set thresholds on."""
    seed: int = 0
    """Of the draws."""
    smoke: bool = False
    """a0 on CIFAR-100 alone, 500 samples."""


def published_accuracies(data_set: str) -> dict[str, np.ndarray]:
    """Returns the accuracy of every exit and, last, the classifier, as shares, by backbone; a6 with its old head."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    known = table[data_set] | (table[OLD_HEAD] if data_set == "cifar-100" else {})
    return {name: np.asarray(shares) / 100 for name, shares in known.items()}


@dataclass(frozen=True)
class Confidences:
    """How sure the exits of a backbone are of samples that they get right and wrong.

    Attributes:
        upper: float[B], upper ends of the bins.
        right: float[e + 1, B], shares of the bins among samples that an exit gets right, the classifier last.
        wrong: float[e + 1, B], among those that it gets wrong.
    """

    upper: np.ndarray
    right: np.ndarray
    wrong: np.ndarray

    def drawn(self, easy: np.ndarray, correct: np.ndarray) -> np.ndarray:
        """Draws confidences: within right and wrong samples, the easier a sample the higher its bin.

        Args:
          easy: float[e + 1, N], how easy a sample seems to an exit.
          correct: bool[e + 1, N].
        """
        lower = np.append(0.0, self.upper[:-1])
        found = np.zeros(easy.shape)
        for exit, shares in enumerate(zip(self.right, self.wrong, strict=True)):
            for own, is_right in zip(shares, (True, False), strict=True):
                rows = np.flatnonzero(correct[exit] == is_right)
                rank = (np.argsort(np.argsort(easy[exit, rows])) + 0.5) / max(len(rows), 1)
                ends = np.cumsum(own)
                bins = np.minimum(np.searchsorted(ends, rank), len(own) - 1)
                inside = (rank - (ends - own)[bins]) / np.maximum(own[bins], 1e-9)
                found[exit, rows] = lower[bins] + np.clip(inside, 0, 1) * (self.upper - lower)[bins]
        return found


def published_confidences(path: Path, data_set: str) -> dict[str, Confidences]:
    """Reads the confidences of a data set by backbone.

    Raises:
      ValueError: The file has other columns, or an exit lacks bins of another.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = sorted(_COLUMNS - set(reader.fieldnames or ()))
        if missing:
            raise ValueError(f"{path}: expected a column {missing[0]}, got {', '.join(reader.fieldnames or ['none'])}")
        rows = [row for row in reader if row["data_set"] == data_set and row["exit"] != "final"]
    found = {}
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        own = [row for row in rows if row["backbone"] == backbone]
        upper = sorted({float(row["confidence_below"]) for row in own})
        exits = 1 + max(int(row["exit"]) for row in own)  # the last one is the classifier
        if len(own) != exits * len(upper):
            raise ValueError(f"{path}: {backbone}: expected {exits} exits of {len(upper)} bins, got {len(own)} rows")
        samples, accuracy = np.zeros((2, exits, len(upper)))
        for row in own:
            place = int(row["exit"]), upper.index(float(row["confidence_below"]))
            samples[place], accuracy[place] = float(row["samples"]), float(row["accuracy"])
        right, wrong = samples * accuracy, samples * (1 - accuracy)
        shares = (part / part.sum(axis=1, keepdims=True) for part in (right, wrong))
        found[backbone] = Confidences(np.array(upper), *shares)
    return found


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
    accuracies: np.ndarray,
    available: np.ndarray,
    *,
    correlation: float,
    samples: int,
    seed: int,
    confidences: Confidences | None = None,
) -> Outcomes:
    """Draws samples; every exit gets as many of them right as its accuracy says, to the nearest sample.

    Args:
      accuracies: float[e + 1].
      available: bool[E], where a space has these exits.
      correlation: r.
      samples: N.
      seed: of the draw; backbones of one seed see the same samples.
      confidences: of the backbone; None: the chance to be right, given the difficulty.
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
    if confidences is None:
        confidence[rows] = chance_right(accuracies, difficulty, correlation)
    else:
        own = np.stack([np.random.default_rng((seed, e, 1)).standard_normal(samples) for e in range(len(accuracies))])
        easy = np.sqrt(1 - correlation) * own - np.sqrt(correlation) * difficulty
        confidence[rows] = confidences.drawn(easy, right)
    nothing = jnp.zeros(shape, jnp.float32)
    return Outcomes(jnp.asarray(correct), jnp.asarray(confidence), entropy=nothing, learned=nothing)


def examine(
    space: MBConvSpace,
    name: str,
    accuracies: np.ndarray,
    *,
    device: Device,
    correlation: float,
    confidences: Confidences | None,
    experiment: Experiment,
) -> dict[str, Any]:
    """Returns the figures of a backbone: static, with exits, with exits and clocks."""
    genome = jnp.asarray(space.encode(published_in(space, name)))
    available = np.asarray(available_exits(space, space.decode(genome)))
    costs = jax.jit(lambda g: segment_costs(space, space.decode(g), device))(genome)
    backbone = DynamicBackbone.of(jnp.asarray(available), costs)

    def drawn(seed: int) -> Outcomes:
        how: dict[str, Any] = {"correlation": correlation, "samples": experiment.samples, "confidences": confidences}
        return drawn_outcomes(accuracies, available, seed=seed, **how)

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
        "confidences": "of the model" if confidences is None else "published",
        "ideal_accuracy_of_the_model": ideal_accuracy(accuracies, correlation),
        "static": dataclasses.asdict(static),
        "static + clocks": dataclasses.asdict(static_dvfs),
    }
    best = float(fronts["ideal"].objectives[:, 0].min())
    for target, policy, error in (
        ("ideal, highest accuracy", "ideal", best),
        ("ideal, static accuracy", "ideal", static.error),
        ("deployable, static accuracy", "deployable", static.error),
        ("deployable, half a point below", "deployable", static.error + 0.005),
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


def energy_table(rows: list[dict[str, Any]], title: str) -> Table:
    """Returns energies in mJ and relative to the same network's static one, beside the published ones."""
    shown = Table(title=f"Energy, mJ (static = 1), and dynamic accuracy: {title}")
    for heading in ("network", "rule", "static", "+ clocks", "+ exits", "+ exits + clocks", "no slower", "accuracy"):
        shown.add_column(heading, justify="left" if heading in ("network", "rule") else "right")
    for row in rows:
        unit = row["static"]["energy_j"]
        published = PUBLISHED.get(row["backbone"]) if "cifar-100" in title else None
        if published is not None:
            static, *others = (f"{energy:.1f} ({energy / published[0]:.3f})" for energy in published)
            shown.add_row(row["backbone"], "published", static, "", *others, "", "")
        for rule in [name for name, value in row.items() if isinstance(value, dict) and not name.startswith("static")]:
            variants = row[rule]
            energies = [each["energy_j"] for each in (row["static"], row["static + clocks"], *variants.values())]
            cells = (f"{1e3 * energy:.1f} ({energy / unit:.3f})" for energy in energies)
            shown.add_row(row["backbone"], rule, *cells, f"{1 - variants['exits + clocks']['error']:.2%}")
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
    static_mj, *others = PUBLISHED["a0"]
    for name, energy, style in zip(VARIANTS[1:], others, ("--", ":"), strict=True):
        line = [energy / static_mj] * 2
        axes.plot([-3 * width, 3 * width], line, "k" + style, label=f"published a0: {name}")
    axes.set_xticks(range(len(rows)), [row["backbone"] for row in rows])
    axes.set(ylabel="energy per sample / a0 static")
    axes.legend(fontsize="small", ncols=2, loc="upper left")
    axes.grid(axis="y", alpha=0.3)
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
    figure.savefig(path, dpi=110)


def run(experiment: Experiment, console: Console) -> dict[str, Any]:
    """Examines the backbones on every data set and device, prints tables and returns all figures."""
    start = time.monotonic()
    data_sets = list(CLASSES)[:1] if experiment.smoke else list(CLASSES)
    if experiment.smoke:
        experiment = dataclasses.replace(experiment, samples=500)
    correlation = fitted_correlation(published_accuracies("cifar-100")["a0"], IDEAL_A0)
    device = load_device(DEVICE)
    devices = {"corrected": device, "roofline alone": dataclasses.replace(device, correction=None)}
    found: list[dict[str, Any]] = []
    for data_set in data_sets:
        accuracies = published_accuracies(data_set)
        sure = {} if experiment.confidences is None else published_confidences(experiment.confidences, data_set)
        space = load_space("attentivenas").adapt(in_channels=3, classes=CLASSES[data_set], image_size=32)
        for kind, priced in devices.items():
            rows = [
                examine(
                    space,
                    name,
                    shares,
                    device=priced,
                    correlation=correlation,
                    confidences=sure.get(name),
                    experiment=experiment,
                )
                for name, shares in (list(accuracies.items())[:1] if experiment.smoke else accuracies.items())
            ]
            console.print(energy_table(rows, f"{data_set}, {DEVICE}, {kind}"))
            found.append({"data_set": data_set, "device": kind, "backbones": rows})
    console.print(f"Correlation {correlation:.4f}")
    if experiment.picture is not None:
        draw(found[0]["backbones"], experiment.picture)
    return {
        "device": DEVICE,
        "correlation": correlation,
        "samples": experiment.samples,
        "seed": experiment.seed,
        "published_mj": {name: dict(zip(VARIANTS, values, strict=True)) for name, values in PUBLISHED.items()},
        "published_dynamic_accuracy_of_a0": IDEAL_A0,
        "results": found,
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
