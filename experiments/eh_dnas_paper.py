"""The experiments of the EH-DNAS paper: searches against plain DARTS, and how many networks a predictor needs.

Command:   python experiments/eh_dnas_paper.py --stages predictors -o experiments/eh_dnas_paper_predictors.json
           python experiments/eh_dnas_paper.py --stages comparison --data digits -o eh_dnas_paper_digits.json
Hardware:  2 CPU cores, 8 GB

Jiang et al., "EH-DNAS", 2021, https://arxiv.org/abs/2111.12299. Stages:
  comparison  plain DARTS, lookup table and predictor for the generic and the pipeline paradigm, and the roofline model
              of three devices: throughput, test accuracy after retraining, seconds of the search; as eh_dnas_digits.py,
              eh_dnas_fashion_mnist.py and eh_dnas_cifar10.py do it, whose runs are used where they are there;
  predictors  mean relative error on networks left out, by kind of predictor and number of networks fitted to.
The paper fits an embedding to 1,000,000 networks. All kinds are fitted here with the optimiser of the package's `mlp`
and at least 3,000 steps, so that few networks are not at a disadvantage by few steps; 20,000 networks are left out.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import eh_dnas_cifar10
import eh_dnas_digits
import eh_dnas_fashion_mnist
import jax
import numpy as np
import tyro
from eh_dnas_comparison import FPGA, compare, smallest, summary, table
from rich.console import Console
from rich.table import Table

from hadas_jax.report.console import print_line
from hadas_jax.runs.workdir import versions, write_text
from hadas_jax.spaces.darts import DARTS_CODES, sample_codes
from hadas_jax.spaces.darts_costs import PARADIGMS, throughput_table
from hadas_jax.spaces.darts_network import DartsNetwork
from hw_models.accelerator import load_fpga
from hw_models.predictors import KINDS, Recipe, fit_predictor, recipe_of

STAGES = ("comparison", "predictors")
DATA = {"digits": eh_dnas_digits, "fashion_mnist": eh_dnas_fashion_mnist, "cifar10": eh_dnas_cifar10}
LEAST_STEPS = 3000


@dataclass(frozen=True)
class Experiment:
    """The experiments of the EH-DNAS paper."""

    stages: tuple[str, ...] = STAGES
    """Some of comparison, predictors."""
    data: Literal["digits", "fashion_mnist", "cifar10"] = "digits"
    """Data set of the comparison, with the settings of its own script."""
    dataset: str | None = None
    """As --dataset of hadas dnas search, where the data set lies elsewhere, such as npz:fashion_mnist.npz."""
    data_dir: str | None = None
    """Where the prepared copy of a tensorflow-datasets set is."""
    seeds: tuple[int, ...] | None = None
    """Of the comparison; by default those of its script."""
    hardware: tuple[str, ...] | None = None
    """Of the comparison; by default both paradigms and three devices."""
    runs: Path | None = None
    """Folder of the comparison's runs; by default that of its script."""
    out: Path = Path("runs/eh_dnas_paper")
    """Folder of the fitted predictors' errors; what is there is kept."""
    networks: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000)
    """Networks that predictors are fitted to."""
    kinds: tuple[str, ...] = KINDS
    """Of predictors."""
    left_out: int = 20_000
    """Further networks to judge predictors by."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None
    """JSON file for all figures."""
    picture: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Errors of predictors over the number of networks."""
    smoke: bool = False
    """All stages at their smallest, to see that they work."""

    def __post_init__(self) -> None:
        for name, known in (("stages", STAGES), ("kinds", KINDS)):
            unknown = [each for each in getattr(self, name) if each not in known]
            if unknown:
                raise ValueError(f"--{name}: expected some of {', '.join(known)}, got {unknown[0]!r}")


def comparison(experiment: Experiment, console: Console) -> dict[str, Any]:
    """Searches, retrains and prices, or reads what was done before.

    Raises:
      ValueError: settings, data or runs in the folder do not fit.
    """
    default = DATA[experiment.data].DEFAULT
    data = {"dataset": experiment.dataset or default.dataset, "data_dir": experiment.data_dir}
    chosen = dataclasses.replace(
        default,
        **data,
        out=experiment.runs or default.out,
        seeds=experiment.seeds or default.seeds,
        hardware=experiment.hardware or default.hardware,
        search=default.search.replace(**data),
        retrain=default.retrain.replace(**data),
    )
    if experiment.smoke:
        chosen = smallest(chosen)
    found = compare(chosen, console)
    rows = summary(chosen, found)
    console.print(table(rows, seeds=len(chosen.seeds)))
    return {
        "data": experiment.data,
        "seeds": chosen.seeds,
        "summary": rows,
        "networks": [dataclasses.asdict(each) for each in found],
    }


def recipe(kind: str, networks: int) -> Recipe:
    """Returns how a predictor is fitted to so many networks: as `mlp`, in at least `LEAST_STEPS` steps."""
    usual = recipe_of("mlp")
    batch = int(np.clip(networks // 16, 16, usual.batch))
    epochs = max(usual.epochs, -(-LEAST_STEPS * batch // networks))
    changes: dict[str, Any] = {"batch": batch, "epochs": epochs}
    if kind == "mlp":
        return dataclasses.replace(usual, **changes)
    own = recipe_of(kind)
    rate = own.learning_rate if kind == "lookup" else usual.learning_rate
    return dataclasses.replace(usual, hidden=own.hidden, learning_rate=rate, **changes)


def predictors(experiment: Experiment, console: Console) -> dict[str, Any]:
    """Returns the errors of all predictors, those fitted before from the folder."""
    sizes = (200, 400) if experiment.smoke else experiment.networks
    left_out = 100 if experiment.smoke else experiment.left_out
    rows = []
    for paradigm in PARADIGMS:
        for networks in sizes:
            for kind in experiment.kinds:
                path = experiment.out / f"{paradigm}-{kind}-{networks}-{left_out}.json"
                if not path.is_file():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_text(path, json.dumps(_fitted(paradigm, kind, networks, left_out)) + "\n")
                    console.print(path.read_text(encoding="utf-8").strip(), highlight=False, soft_wrap=True)
                rows.append(json.loads(path.read_text(encoding="utf-8")))
    console.print(error_table(rows))
    return {"left_out": left_out, "rows": rows}


def _fitted(paradigm: str, kind: str, networks: int, left_out: int) -> dict[str, Any]:
    """Fits one predictor; networks that do not fit the FPGA are replaced by others."""
    spare = networks + left_out + (networks + left_out) // 10 + 100
    codes = jax.jit(lambda key: sample_codes(key, spare))(jax.random.key(0))
    throughputs = np.asarray(throughput_table(paradigm, DartsNetwork(), fpga=load_fpga(FPGA))(codes))
    fits = np.flatnonzero(throughputs > 0)[: networks + left_out]
    start = time.perf_counter()
    fitted = fit_predictor(
        jax.random.key(1),
        np.asarray(codes)[fits],
        throughputs[fits],
        layout=DARTS_CODES,
        kind=kind,
        recipe=recipe(kind, networks),
        held_out=left_out,
    )
    errors = fitted.held_out
    return {
        "paradigm": paradigm,
        "kind": kind,
        "networks": networks,
        "mean_error": errors.mean,
        "median_error": errors.median,
        "percentile_95": errors.percentile_95,
        "kendall_tau": errors.kendall_tau,
        "seconds": round(time.perf_counter() - start, 1),
    }


def error_table(rows: list[dict[str, Any]]) -> Table:
    """Returns mean relative errors, and rank correlations in brackets, by number of networks."""
    sizes = sorted({row["networks"] for row in rows})
    shown = Table(title="Mean relative error on networks left out (Kendall tau)")
    shown.add_column("paradigm")
    shown.add_column("kind")
    for size in sizes:
        shown.add_column(f"{size:,}", justify="right")
    for paradigm, kind in dict.fromkeys((row["paradigm"], row["kind"]) for row in rows):
        own = {row["networks"]: row for row in rows if (row["paradigm"], row["kind"]) == (paradigm, kind)}
        cells = (f"{own[size]['mean_error']:.3%} ({own[size]['kendall_tau']:.3f})" for size in sizes)
        shown.add_row(paradigm, kind, *cells)
    return shown


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws mean errors over the number of networks, one panel for each paradigm."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, paradigm in zip(figure.subplots(1, len(PARADIGMS)), PARADIGMS, strict=True):
        errors = [100 * row["mean_error"] for row in rows if row["paradigm"] == paradigm]
        for kind in dict.fromkeys(row["kind"] for row in rows):
            own = [row for row in rows if (row["paradigm"], row["kind"]) == (paradigm, kind)]
            axes.loglog([r["networks"] for r in own], [100 * r["mean_error"] for r in own], "o-", label=kind)
        axes.set(title=paradigm, xlabel="networks fitted to", ylabel="mean relative error (%)")
        number = StrMethodFormatter("{x:g}")
        axes.yaxis.set_major_formatter(number)
        axes.yaxis.set_minor_formatter(number if max(errors) < 30 * min(errors) else NullFormatter())
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns 2 after a user's mistake, with one line on standard error."""
    console = Console(width=140)
    experiment = tyro.cli(Experiment, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    try:
        run = {"comparison": comparison, "predictors": predictors}
        results = {stage: run[stage](experiment, console) for stage in experiment.stages}
    except ValueError as error:
        print(f"eh_dnas_paper: error: {error}", file=sys.stderr)
        return 2
    if experiment.picture is not None and "predictors" in results:
        draw(results["predictors"]["rows"], experiment.picture)
    if experiment.output is not None:
        write_text(experiment.output, json.dumps(results | {"versions": versions()}, indent=1) + "\n")
        print_line(console, f"Written: {experiment.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
