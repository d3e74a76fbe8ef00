"""The predictor that a search prices relaxed networks by: the user's, or one fitted when the search starts."""

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.methods.eh_dnas.settings import DnasSettings
from hadas_jax.methods.stages import Progress
from hadas_jax.parallel import is_first
from hadas_jax.spaces.darts import sample_codes
from hadas_jax.spaces.throughput_tables import throughput_table
from hadas_jax.workdir import WorkDir
from hw_models.accelerator import DartsNetwork, Fpga
from hw_models.predictors import (
    PredictorNotes,
    ThroughputPredictor,
    fit_predictor,
    read_predictor,
    write_predictor,
)

PREDICTOR = "predictor.npz"


def predictor_of_run(
    settings: DnasSettings,
    network: DartsNetwork,
    fpga: Fpga,
    *,
    key: jax.Array,
    workdir: WorkDir,
    progress: Progress,
) -> ThroughputPredictor:
    """Returns the predictor of a run on an accelerator.

    Args:
      settings: of the run.
      network: size of the networks that are priced.
      fpga: of the accelerator.
      key: PRNG key of the networks drawn and of the fit.
      workdir: of the run; a predictor that is fitted is kept there.
      progress: told of every epoch of the fit.

    Raises:
      ValueError: a predictor that cannot be read, or one of other hardware or networks; no random network fits.
    """
    if settings.predictor is not None:
        predictor = read_predictor(settings.predictor)
        _check_is_of(predictor.notes, settings, network, fpga)
        return predictor
    kept = workdir.path / PREDICTOR
    if kept.is_file():
        return read_predictor(kept)
    draw_key, fit_key = jax.random.split(key)
    codes = jax.jit(lambda key: sample_codes(key, settings.predictor_samples))(draw_key)
    throughputs = np.asarray(throughput_table(settings.hardware, network, fpga=fpga)(codes))
    fits = throughputs > 0
    if np.sum(fits) < 2:
        raise ValueError(
            f"--fpga {settings.fpga}: expected one that holds networks of {network.channels} channels and "
            f"{network.cells} cells, got one that holds none of {len(fits)} drawn at random"
        )
    started = False

    def on_epoch(done: int, total: int, loss: float) -> None:
        nonlocal started
        if not started:
            progress.stage("predictor", total)
            started = True
        workdir.add_metrics("predictor", done, {"loss": loss})
        progress.update(done, {"loss": loss})

    workdir.drop_metrics("predictor", 0)
    fitted = fit_predictor(
        fit_key,
        jnp.asarray(codes)[fits],
        throughputs[fits],
        kind=settings.predictor_kind,
        notes=PredictorNotes(settings.hardware, fpga.name, network),
        on_epoch=on_epoch,
    )
    if is_first():
        write_predictor(fitted.predictor, kept)
    return fitted.predictor


def _check_is_of(notes: PredictorNotes, settings: DnasSettings, network: DartsNetwork, fpga: Fpga) -> None:
    """Raises where a predictor is known to be of something else."""
    for what, wanted, got in (
        ("paradigm", settings.hardware, notes.paradigm or settings.hardware),
        ("FPGA", fpga.name, notes.fpga or fpga.name),
        ("network", network, notes.network or network),
    ):
        if wanted != got:
            raise ValueError(f"--predictor {settings.predictor}: expected one of {what} {wanted}, got one of {got}")
