"""Plain DARTS against EH-DNAS by lookup table and by predictor, on accelerators and devices, over seeds.

What `eh_dnas_digits.py`, `eh_dnas_fashion_mnist.py` and `eh_dnas_cifar10.py` share. All searches of a data set have the
same budget and differ in the hardware's part of the loss alone; plain DARTS has none of it. Every network that is found
is priced on every hardware and trained from scratch in the same way. A run that was interrupted goes on where it was.
"""

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from hadas_jax.commands.dnas import retrain, search
from hadas_jax.methods.eh_dnas import GENOTYPE
from hadas_jax.methods.eh_dnas.hardware import accelerator_hardware, device_hardware
from hadas_jax.report.console import print_line
from hadas_jax.runs.workdir import WorkDir, versions, write_text
from hadas_jax.settings import DnasSettings, RetrainSettings
from hadas_jax.spaces.darts import DARTS_CODES, parse_code, sample_codes
from hadas_jax.spaces.darts_costs import PARADIGMS, throughput_table
from hadas_jax.spaces.darts_network import DartsNetwork
from hw_models import default_point, load_device, with_clocks
from hw_models.accelerator import load_fpga
from hw_models.predictors import PredictorNotes, fit_predictor, write_predictor

FPGA = "ku115"
GUIDES = {"lookup": "lookup", "predictor": "mlp"}
DEVICES = ("agx-xavier-gpu", "raspberry-pi-4", "coral-edge-tpu")
PLAIN = "plain"
SECONDS = "search_seconds.txt"


@dataclass(frozen=True)
class Experiment:
    """Plain DARTS against EH-DNAS on one data set."""

    dataset: str
    """As --dataset of hadas dnas search."""
    out: Path
    """Folder of all runs; those that are there already are kept or continued."""
    search: DnasSettings
    """Of all searches; data set, seed, hardware, weight and predictor are replaced."""
    retrain: RetrainSettings
    """Of all retraining; data set, seed, its split and genotype are replaced."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One search of each kind for each."""
    hardware: tuple[str, ...] = (*PARADIGMS, *DEVICES)
    """generic, pipeline, and devices."""
    networks: int = 400_000
    """Random networks that predictors are fitted to."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file for all figures."""
    data_dir: str | None = None
    """As --data-dir of hadas dnas search."""
    smoke: bool = False
    """All stages at their smallest, to see that they work."""


@dataclass(frozen=True)
class Found:
    """A network that a search found.

    Attributes:
      guide: `plain`, `lookup`, `predictor`, or `roofline`.
      hardware: that the search looked at; empty for plain DARTS.
      seed: of the search.
      code: of the network, as text.
      images_per_s: on every hardware, one image at a time, at the highest clocks.
      test_accuracy: after retraining, a share.
      search_s: wall time of the search, compilation included; None where it was interrupted or not taken.
    """

    guide: str
    hardware: str
    seed: int
    code: str
    images_per_s: dict[str, float]
    test_accuracy: float
    search_s: float | None = None


def compare(experiment: Experiment, console: Console) -> list[Found]:
    """Searches, retrains and prices all networks.

    Raises:
      ValueError: settings, data or runs in the folder do not fit.
    """
    paradigms = [name for name in experiment.hardware if name in PARADIGMS]
    predictors = {(p, guide): _predictor(experiment, p, kind) for p in paradigms for guide, kind in GUIDES.items()}
    price = _prices(experiment)
    found = []
    for seed in experiment.seeds:
        jobs = [(PLAIN, "", experiment.search.replace(weight=0.0))]
        for name in experiment.hardware:
            on_hardware = experiment.search.replace(hardware=name)
            if name in paradigms:
                jobs += [(guide, name, on_hardware.replace(predictor=str(predictors[name, guide]))) for guide in GUIDES]
            else:
                jobs.append(("roofline", name, on_hardware))
        for guide, hardware, settings in jobs:
            folder = experiment.out / "-".join(filter(None, (guide, hardware, f"seed{seed}")))
            code = _searched(settings.replace(seed=seed, split_seed=seed), folder / "search", console)
            accuracy = _retrained(experiment, code, seed, console)
            seconds = folder / SECONDS
            taken = float(seconds.read_text(encoding="utf-8")) if seconds.is_file() else None
            found.append(Found(guide, hardware, seed, code, price(code), accuracy, taken))
    return found


def _predictor(experiment: Experiment, paradigm: str, kind: str) -> Path:
    """Fits a predictor, for all seeds the same, unless it is there."""
    path = experiment.out / f"{paradigm}-{kind}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        network, fpga = DartsNetwork(), load_fpga(FPGA)
        codes = jax.jit(lambda key: sample_codes(key, experiment.networks))(jax.random.key(0))
        throughputs = throughput_table(paradigm, network, fpga=fpga)(codes)
        notes = PredictorNotes(paradigm, fpga.name, network.sizes)
        fitted = fit_predictor(jax.random.key(1), codes, throughputs, layout=DARTS_CODES, kind=kind, notes=notes)
        write_predictor(fitted.predictor, path)
    return path


def _prices(experiment: Experiment) -> Any:
    """Returns code as text -> images/s by hardware, of the network that E2E-Perf's published figures are of."""
    network, priced = DartsNetwork(), {}
    for name in experiment.hardware:
        if name in PARADIGMS:
            priced[name] = accelerator_hardware(name, network, fpga=load_fpga(FPGA), predictor=None)
        else:
            device = load_device(name)
            point = default_point(device)
            clocks = {field: [float(clock)] for field, clock in vars(point).items()}
            priced[name] = device_hardware(with_clocks(device, **clocks), network)

    def price(code: str) -> dict[str, float]:
        digits = jnp.asarray(parse_code(code))
        return {name: 1 / float(hardware.exact(digits).image_s[0]) for name, hardware in priced.items()}

    return price


def _searched(settings: DnasSettings, workdir: Path, console: Console) -> str:
    """Returns the code of a search, which is run unless it is there."""
    if not (workdir / GENOTYPE).is_file():
        resumed, start = WorkDir(workdir).holds_run, time.monotonic()
        search(settings, workdir=workdir, resume=resumed, console=console)
        if not resumed:
            write_text(workdir.parent / SECONDS, f"{time.monotonic() - start:.1f}\n")
    return json.loads((workdir / GENOTYPE).read_text(encoding="utf-8"))["code"]


def _retrained(experiment: Experiment, code: str, seed: int, console: Console) -> float:
    """Returns the test accuracy of a network, which is trained unless it is there; equal networks are trained once."""
    workdir = experiment.out / "retrained" / f"{''.join(code.split())}-seed{seed}"
    if not (workdir / "result.json").is_file():
        settings = experiment.retrain.replace(genotype=code, seed=seed, split_seed=seed)
        retrain(settings, workdir=workdir, resume=WorkDir(workdir).holds_run, console=console)
    return json.loads((workdir / "result.json").read_text(encoding="utf-8"))["test_accuracy"]


def summary(experiment: Experiment, found: list[Found]) -> list[dict[str, Any]]:
    """Returns for every hardware and guide how its networks compare with plain DARTS's, means over seeds."""
    plain = {each.seed: each for each in found if each.guide == PLAIN}
    rows = []
    for name in experiment.hardware:
        for guide in (PLAIN, *GUIDES, "roofline"):
            of_guide = [each for each in found if each.guide == guide and each.hardware in ("", name)]
            if not of_guide:
                continue
            ratios = [each.images_per_s[name] / plain[each.seed].images_per_s[name] for each in of_guide]
            points = [100 * (each.test_accuracy - plain[each.seed].test_accuracy) for each in of_guide]
            rows.append(
                {
                    "hardware": name,
                    "guide": guide,
                    "images_per_s": _mean(each.images_per_s[name] for each in of_guide),
                    "speed_over_plain": _mean(ratios),
                    "least_speed_over_plain": min(ratios),
                    "test_accuracy": _mean(each.test_accuracy for each in of_guide),
                    "points_over_plain": _mean(points),
                    "least_points_over_plain": min(points),
                }
            )
    return rows


def table(rows: list[dict[str, Any]], *, seeds: int) -> Table:
    """Returns the summary as a table."""
    shown = Table(title=f"Against plain DARTS, means of {seeds} seeds (worst seed)")
    for heading in ("hardware", "guided by", "images/s", "speed", "test accuracy", "points"):
        shown.add_column(heading, justify="left" if heading in ("hardware", "guided by") else "right")
    for row in rows:
        shown.add_row(
            row["hardware"],
            row["guide"],
            f"{row['images_per_s']:,.0f}",
            f"{row['speed_over_plain']:.2f} ({row['least_speed_over_plain']:.2f})",
            f"{row['test_accuracy']:.2%}",
            f"{row['points_over_plain']:+.2f} ({row['least_points_over_plain']:+.2f})",
        )
    return shown


def main(default: Experiment, arguments: Sequence[str] | None = None) -> None:
    """Reads flags over the defaults of a data set, compares, prints the table and writes all figures as JSON.

    Args:
      default: of a data set.
      arguments: None: those of the command line.
    """
    experiment = tyro.cli(Experiment, args=arguments, default=default, config=(tyro.conf.FlagCreatePairsOff,))
    data = {"dataset": experiment.dataset, "data_dir": experiment.data_dir}
    experiment = dataclasses.replace(
        experiment,
        search=experiment.search.replace(**data),
        retrain=experiment.retrain.replace(**data),
    )
    if experiment.smoke:
        experiment = smallest(experiment)
    console = Console(width=120)
    start = time.monotonic()
    try:
        found = compare(experiment, console)
    except ValueError as error:
        console.print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    rows = summary(experiment, found)
    console.print(table(rows, seeds=len(experiment.seeds)))
    if experiment.output is not None:
        content = {
            "summary": rows,
            "networks": [dataclasses.asdict(each) for each in found],
            "search": experiment.search.flat(),
            "retrain": experiment.retrain.flat(),
            "seconds_of_this_call": round(time.monotonic() - start),
            "versions": versions(),
        }
        write_text(experiment.output, json.dumps(content, indent=1) + "\n")
        print_line(console, f"Written: {experiment.output}")


def smallest(experiment: Experiment) -> Experiment:
    """Returns the experiment with all stages at their smallest."""
    return dataclasses.replace(
        experiment,
        seeds=experiment.seeds[:1],
        networks=3000,
        search=experiment.search.replace(channels=2, cells=3, epochs=1),
        retrain=experiment.retrain.replace(channels=2, cells=2, epochs=1),
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.round(statistics.fmean(values), 5))
