"""The commands that fit and import predictors of the DARTS space as library calls."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from hadas_jax.outputs import new_console, new_file, say
from hadas_jax.report import StepProgress
from hadas_jax.report.predictor_plot import held_out_table, plot_held_out
from hadas_jax.spaces.priced_networks import PricedNetworks, read_priced_networks
from hadas_jax.supernet.pytorch import read_pytorch
from hadas_jax.workdir import versions
from hw_models.predictors import (
    FittedPredictor,
    PredictorNotes,
    ThroughputPredictor,
    fit_predictor,
    import_predictor,
    recipe_of,
    write_predictor,
)


def fit(
    data: Path | str | PricedNetworks,
    output: Path | str,
    *,
    paradigm: str | None = None,
    kind: str = "mlp",
    members: int = 1,
    hidden: Sequence[int] | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    dropout: float | None = None,
    held_out: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
) -> FittedPredictor:
    """Fits a predictor to a data set and writes it, with a picture of predicted against true throughput beside it.

    Args:
        data: File of `hadas dnas sample`, or its content.
        output: Predictor to write, .npz; the picture has the same name and .png.
        paradigm: Of the throughputs; None: the only one in the data.
        kind: `mlp`, `embedding` or `lookup`, see `hw_models.predictors`.
        members: Models of the ensemble.
        hidden: Hidden layers; None here and below: as `hw_models.predictors.recipe_of(kind)`.
        epochs: Times through the data.
        batch: Networks per step.
        learning_rate: At the start.
        weight_decay: Of all weights.
        dropout: Of embeddings.
        held_out: Networks left out to judge by; None: a tenth, at most 50,000.
        seed: Of everything random.
        overwrite: Replace `output` and its picture.
        console: None: standard output.

    Returns:
        The predictor and its errors.

    Raises:
        ValueError: The data, a setting or a file does not fit, or the fit diverged.
    """
    console = console or new_console()
    target = new_file(output, ".npz", overwrite=overwrite)
    picture = new_file(target.with_suffix(".png"), ".png", overwrite=overwrite)
    asked: dict[str, Any] = {
        "hidden": None if hidden is None else tuple(hidden),
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "dropout": dropout,
    }
    recipe = dataclasses.replace(recipe_of(kind), **{name: value for name, value in asked.items() if value is not None})
    origin = Path(data).name if isinstance(data, Path | str) else "a data set"
    priced = read_priced_networks(data) if isinstance(data, Path | str) else data
    paradigm = _paradigm(priced, paradigm)
    throughputs = priced.throughputs[paradigm]
    fits = throughputs > 0
    if not fits.all():
        say(console, f"Left out: {(~fits).sum():,} of {len(fits):,} networks, which do not fit {priced.fpga}")
    table = f"{priced.table} table, " if paradigm == "generic" else ""
    notes = PredictorNotes(
        paradigm=paradigm,
        fpga=priced.fpga,
        network=priced.network,
        source=f"{origin}, {table}seed {seed}, hadas-jax {versions()['hadas-jax']}, jax {versions()['jax']}",
    )
    with StepProgress(console) as progress:
        fitted = fit_predictor(
            jax.random.key(seed),
            priced.codes[fits],
            throughputs[fits],
            kind=kind,
            members=members,
            recipe=recipe,
            held_out=held_out,
            notes=notes,
            on_epoch=lambda done, total, loss: progress.update(done, total, f"loss {loss:.4f}"),
        )
    write_predictor(fitted.predictor, target)
    plot_held_out(fitted, picture)
    console.print(held_out_table(fitted))
    say(console, f"Written: {target}, {picture}")
    say(console, f"To ask it: hadas dnas price DARTS_V2 --predictor {shlex.quote(str(target))}")
    return fitted


def import_published(
    file: Path | str,
    output: Path | str,
    *,
    paradigm: str,
    mean: float | None = None,
    deviation: float | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> ThroughputPredictor:
    """Imports a predictor of EH-DNAS from its PyTorch file and writes it.

    Args:
        file: State dict, see `hadas_jax.supernet.pytorch.read_pytorch`; needs the extra `torch` unless it is an npz.
        output: Predictor to write, .npz.
        paradigm: `generic` or `pipeline`.
        mean: Of the throughputs that it was fitted to, images/s; None: as published.
        deviation: Likewise.
        overwrite: Replace `output`.
        console: None: standard output.

    Returns:
        What was written.

    Raises:
        ValueError: A file or a setting does not fit.
    """
    console = console or new_console()
    target = new_file(output, ".npz", overwrite=overwrite)
    predictor = import_predictor(read_pytorch(file), paradigm=paradigm, mean=mean, deviation=deviation)
    write_predictor(predictor, target)
    say(
        console, f"Written: {target}, {paradigm}, {float(predictor.mean):g} + {float(predictor.deviation):g} z images/s"
    )
    return predictor


def _paradigm(priced: PricedNetworks, paradigm: str | None) -> str:
    known = list(priced.throughputs)
    if paradigm is None and len(known) == 1:
        return known[0]
    if paradigm not in known:
        raise ValueError(f"--paradigm: expected {' or '.join(known)} as the data set has, got {paradigm or 'none'}")
    return paradigm
