"""Whether thresholds keep their risk level on new images: of networks given beforehand, and of the best of many.

Command:   python experiments/threshold_coverage.py WORKDIR --out experiments/threshold_coverage.json
           WORKDIR: of a finished `hadas search` with default settings (digits).
Hardware:  2 CPU cores, 4 GB
Time:      2 minutes
Expected:  of networks given beforehand the mean risk of every exit is at most its level within three standard errors,
           and cuts break it no more often than shuffling allows. Of the best of many, exits are over their level in
           31 % of the cuts, the same exits in 29 % where nothing is chosen (33 % are allowed), 34 % with thresholds set
           anew; but it loses 0.5 points of accuracy on test images and none on those that it was chosen on.

The images that no weight has seen (validation, calibration and test) are cut anew at random into calibration,
validation, fresh and test images. An image is harmed by an exit that is sure enough but wrong where the classifier is
right. The choice is that of `hadas search`: of all exits and risk levels of all backbones of a pool the network of the
least energy, at the default clocks, among those that are as accurate on the validation and calibration images as the
best static network.
Shapes: P backbones, R risk levels, E exits, N images.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.stats import hypergeom

from hadas_jax.deploy.select import SearchedSupernet
from hadas_jax.evaluation import Outcomes, scores, segment_costs
from hadas_jax.methods import TrainingRun
from hadas_jax.methods.hadas.exit_configs import RISK_LEVELS, DynamicBackbone, PolicyStops, risk_thresholds
from hadas_jax.methods.hadas.results import read_search
from hadas_jax.settings import SearchSettings
from hadas_jax.spaces import available_exits
from hw_models.catalogue import chosen_device

POLICY = "confidence"
LEVELS = np.array(RISK_LEVELS)


@dataclass(frozen=True)
class Experiment:
    """Thresholds over cuts of one set of images."""

    workdir: tyro.conf.Positional[Path]
    """Of a finished search."""
    cuts: int = 200
    """Drawn cuts."""
    backbones: int = 12
    """Of the pool: the largest, the smallest and random ones."""
    seed: int = 0
    """Of cuts and backbones."""
    out: Path | None = None
    """A JSON file to write."""


class Lab:
    """The outcomes of a pool of backbones on all images that no weight has seen.

    Args:
      experiment: settings.
    """

    def __init__(self, experiment: Experiment) -> None:
        found = read_search(experiment.workdir)
        if not isinstance(found.settings, SearchSettings):
            raise ValueError(f"{experiment.workdir}: expected a search over a supernet")
        supernet = SearchedSupernet.of(found)
        settings = found.settings.replace(checkpoint=str(supernet.path), space=None, split_seed=None)
        training = TrainingRun(settings, fine_tune=False)
        self.space, splits, device = training.space, training.splits, chosen_device(settings.device, settings.operating)
        rng = np.random.default_rng(experiment.seed)
        drawn = rng.integers(
            0, self.space.codec.cardinalities, (4 * experiment.backbones, len(self.space.codec.choices))
        )
        every = np.concatenate([[self.space.largest_genome, self.space.smallest_genome], drawn]).astype(np.int32)
        _, first = np.unique(every, axis=0, return_index=True)
        genomes = every[np.sort(first)][: experiment.backbones]
        evaluate = training.evaluator(training.initial_parameters())
        parts = [evaluate(genomes, split) for split in (splits.validation, splits.calibration, splits.test)]
        self.outcomes: Outcomes = jax.tree.map(lambda *each: np.concatenate(each, axis=-1), *parts)
        self.images = self.outcomes.correct.shape[-1]
        self.calibration = splits.calibration.count
        price = jax.jit(lambda genome: segment_costs(self.space, self.space.decode(genome), device))
        costs = [price(jnp.asarray(genome)) for genome in genomes]
        exits = jax.jit(jax.vmap(lambda genome: available_exits(self.space, self.space.decode(genome))))
        available = exits(jnp.asarray(genomes))
        self.backbones = [DynamicBackbone.of(own, cost) for own, cost in zip(available, costs, strict=True)]
        self.energy = [np.asarray(each.active_costs.energy_j[:, -1], np.float64) for each in self.backbones]

    def of(self, backbone: int, images: np.ndarray) -> Outcomes:
        """The outcomes of one backbone on some images."""
        return jax.tree.map(lambda leaf: leaf[backbone][..., images], self.outcomes)


def risks(outcomes: Outcomes, thresholds: np.ndarray) -> np.ndarray:
    """Returns the share of images that each exit harms by itself under thresholds [..., E]."""
    score, correct = np.asarray(scores(outcomes, POLICY)), np.asarray(outcomes.correct)
    harm = ~correct[:-1] & correct[-1:]
    return ((score >= thresholds[..., None]) & harm).mean(axis=-1)


def loss(outcomes: Outcomes, thresholds: np.ndarray) -> float:
    """Returns by how much less accurate a network of exits with thresholds [E] is than without exits."""
    stops = np.asarray(scores(outcomes, POLICY)) >= thresholds[:, None]
    correct = np.asarray(outcomes.correct)
    first = np.concatenate([stops, np.ones_like(stops[:1])]).argmax(axis=0)
    return float(correct[-1].mean() - correct[first, np.arange(len(first))].mean())


def allowed(level: float, *, calibration: int, test: int) -> float:
    """Returns how often at most a cut breaks a level, where images are shuffled.

    With the harm-prone images ranked by score, the test images are over the level only where few enough of the first
    ones are calibration images for the threshold to let all of them stop.
    """
    harmed = np.floor(level * (calibration + 1) + 1e-6) - 1
    ranked = min(harmed + 1 + np.floor(level * test + 1e-6), calibration + test)
    return float(hypergeom.cdf(harmed, calibration + test, calibration, ranked))


def chosen(lab: Lab, thresholds: list[np.ndarray], selection: np.ndarray) -> tuple[int, np.ndarray]:
    """Returns backbone and exits int32[E] of the least energy that is as accurate as the best static network."""
    errors, energies = [], []
    for backbone, own in enumerate(lab.backbones):
        outcomes = lab.of(backbone, selection)
        stops = PolicyStops.of(outcomes, thresholds=jnp.asarray(thresholds[backbone]), policy=POLICY)
        stats = own.evaluate_subsets(stops.deployable)
        errors.append(np.asarray(stats.error))
        energies.append(np.asarray(stats.frequencies, np.float64) @ lab.energy[backbone])
    goal = min(error[0] for error in errors)  # the first configuration has no exits
    least = [np.where(error <= goal + 1e-6, joules, np.inf) for error, joules in zip(errors, energies, strict=True)]
    backbone = int(np.argmin([each.min() for each in least]))
    config = int(least[backbone].argmin())
    return backbone, lab.backbones[backbone].exits_of(np.array([config]))[0]


def thresholds_for(levels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Returns the thresholds [E] of exits int32[E] from those of all levels [R, E]; inf without an exit."""
    own = table[np.maximum(levels - 1, 0), np.arange(len(levels))]
    return np.where(levels > 0, own, np.inf).astype(np.float32)


def measure(experiment: Experiment) -> dict[str, Any]:
    """Returns what holds for networks given beforehand and for the best of many."""
    lab, rng = Lab(experiment), np.random.default_rng(experiment.seed)
    rest = lab.images - 2 * lab.calibration
    sizes = (lab.calibration, rest // 2, lab.calibration, rest - rest // 2)
    available = np.stack([np.asarray(own.available) for own in lab.backbones])
    given, picked = [], []
    for _ in range(experiment.cuts):
        calibration, validation, fresh, test = np.split(rng.permutation(lab.images), np.cumsum(sizes)[:-1])
        tables = [np.asarray(risk_thresholds(lab.of(b, calibration), policy=POLICY)) for b in range(len(lab.backbones))]
        given.append([risks(lab.of(b, test), table) for b, table in enumerate(tables)])
        backbone, plan = chosen(lab, tables, np.concatenate([validation, calibration]))
        anew = np.asarray(risk_thresholds(lab.of(backbone, fresh), policy=POLICY))
        on_test, on_selection = (lab.of(backbone, rows) for rows in (test, np.concatenate([validation, calibration])))
        level = np.append(0, LEVELS)[plan]
        row: dict[str, Any] = {"promised": float(level.sum()), "exits": int((plan > 0).sum())}
        for name, table in (("as chosen", tables[backbone]), ("set anew", anew)):
            own = thresholds_for(plan, table)
            row[name] = {
                "broken": int((risks(on_test, own)[plan > 0] > level[plan > 0] + 1e-6).sum()),
                "risk_over_level": float((risks(on_test, own)[plan > 0] / level[plan > 0]).mean()) if plan.any() else 0,
                "loss_on_test": loss(on_test, own),
                "loss_on_selection": loss(on_selection, own),
            }
        row["backbone"], row["plan"] = backbone, plan
        picked.append(row)
    return {
        "images": dict(zip(("calibration", "validation", "fresh", "test"), sizes, strict=True)),
        "cuts": experiment.cuts,
        "backbones": len(lab.backbones),
        "given_beforehand": _given(np.array(given), available, sizes),
        "best_of_many": _picked(picked, np.array(given), sizes),
    }


def _given(risk: np.ndarray, available: np.ndarray, sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """A row for each risk level, from risks [cuts, P, R, E]: of the worst exit and of all exits of all backbones."""
    rows = []
    for row, level in enumerate(LEVELS.tolist()):
        found = risk[:, :, row][:, available]  # [cuts, exits of all backbones]
        spread = found.std(axis=0) / len(found) ** 0.5
        broken = (found > level + 1e-6).mean(axis=0)
        rows.append(
            {
                "level": level,
                "exits": found.shape[1],
                "mean_risk": float(found.mean()),
                "highest_mean_risk": float(found.mean(axis=0).max()),
                "over_by_standard_errors": float(((found.mean(axis=0) - level) / np.maximum(spread, 1e-9)).max()),
                "broken": float(broken.mean()),
                "most_broken": float(broken.max()),
                "allowed": allowed(level, calibration=sizes[0], test=sizes[3]),
            }
        )
    return rows


def _picked(rows: list[dict[str, Any]], risk: np.ndarray, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Means over the cuts; `given` is how the same exits do at the same levels where nothing is chosen."""
    over = risk / LEVELS[:, None]  # [cuts, P, R, E]
    same = [(row["backbone"], int(k) - 1, exit) for row in rows for exit, k in enumerate(row["plan"]) if k > 0]
    exits = sum(row["exits"] for row in rows)
    found: dict[str, Any] = {
        "exits": exits / len(rows),
        "promised_loss": float(np.mean([row["promised"] for row in rows])),
        "given": {
            "broken": float(np.mean([(over[:, b, level, exit] > 1 + 1e-4).mean() for b, level, exit in same])),
            "risk_over_level": float(np.mean([over[:, b, level, exit].mean() for b, level, exit in same])),
        },
    }
    for name, calibration in (("as chosen", sizes[0]), ("set anew", sizes[2])):
        bounds = [allowed(LEVELS[level], calibration=calibration, test=sizes[3]) for _, level, _ in same]
        found[name] = {
            "broken": sum(row[name]["broken"] for row in rows) / exits,
            "allowed": float(np.mean(bounds)),
            **{
                key: float(np.mean([row[name][key] for row in rows]))
                for key in ("risk_over_level", "loss_on_selection", "loss_on_test")
            },
        }
    return found


def tables(results: dict[str, Any]) -> list[Table]:
    """Returns a table of networks given beforehand and one of the best of many."""
    first = Table(
        title="Networks given beforehand, by risk level (%): test images harmed by an exit, cuts that break it"
    )
    for heading in ("level", "mean risk", "highest of an exit", "cuts that break it", "most of an exit", "allowed"):
        first.add_column(heading, justify="right")
    for row in results["given_beforehand"]:
        names = ("level", "mean_risk", "highest_mean_risk", "broken", "most_broken", "allowed")
        first.add_row(*(f"{100 * row[name]:.2f}" for name in names))
    many = results["best_of_many"]
    second = Table(title=f"The best of many; its levels allow a loss of {100 * many['promised_loss']:.2f} points")
    headings = ("risk, of the level", "exits over it", "allowed", "loss where chosen, points", "loss on test")
    for heading in ("thresholds (%)", *headings):
        second.add_column(heading, justify="left" if "thresholds" in heading else "right")
    for name in ("given", "as chosen", "set anew"):
        keys = ("risk_over_level", "broken", "allowed", "loss_on_selection", "loss_on_test")
        shown = (f"{100 * many[name][key]:.2f}" if key in many[name] else "" for key in keys)
        second.add_row("same exits, not chosen" if name == "given" else name, *shown)
    return [first, second]


def main(experiment: Experiment) -> None:
    """Measures, prints and writes."""
    results = measure(experiment)
    console = Console(width=120)
    for table in tables(results):
        console.print(table)
    if experiment.out is not None:
        plain = json.loads(json.dumps(results), parse_float=lambda text: round(float(text), 6))
        experiment.out.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Experiment))
