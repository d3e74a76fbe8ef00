"""The commands that take a selected network to a device, as library calls: materialise, fine-tune, export."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hadas_jax.commands import data_line, default_workdir, followed, running, settings_of_run
from hadas_jax.deploy.architecture import architecture_file, read_architecture
from hadas_jax.deploy.export import Format, export_network
from hadas_jax.deploy.export_check import ExportCheck, check_export
from hadas_jax.deploy.fine_tune import FineTuneRun
from hadas_jax.deploy.fine_tune_result import FineTuneResult
from hadas_jax.deploy.fine_tune_settings import FineTuneSettings
from hadas_jax.deploy.manifest import image_values
from hadas_jax.deploy.runtime import read_manifest
from hadas_jax.deploy.source import Sources, data_of, network_at
from hadas_jax.deploy.static_network import StaticNetwork, holds_network, save_network
from hadas_jax.deploy.static_outcomes import predict
from hadas_jax.methods import Settings
from hadas_jax.outputs import new_console, say
from hadas_jax.profiling import this_machine
from hadas_jax.report.export_table import print_export
from hadas_jax.report.table import saving_text
from hadas_jax.report.waiting import waiting
from hadas_jax.workdir import WorkDir, writing

NETWORK, EXPORT = "network", "export"  # folders beside ARCH.json


def materialise_network(
    place: Path | str,
    *,
    output: Path | str | None = None,
    fold_batch_norm: bool = False,
    dataset: str | None = None,
    data_dir: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> StaticNetwork:
    """Cuts a selected network out of its supernet, and compares the two on the test split.

    Args:
      place: of the ARCH.json, or a work directory with one.
      output: directory to write; None: network/ beside the ARCH.json.
      fold_batch_norm: leave no batch norm in it; then it cannot be fine-tuned.
      dataset: where the images of the search are now; None: where they were.
      data_dir: likewise.
      overwrite: replace the network in `output`.
      console: None: standard output.

    Returns:
      The network.

    Raises:
      ValueError: the ARCH.json, its supernet, the data set or `output` do not fit.
    """
    architecture, file = read_architecture(place), architecture_file(place)
    target = Path(output) if output is not None else file.parent / NETWORK
    console = console or new_console()
    with writing(target), waiting(console, "Cutting the network out of its supernet, and comparing the two"):
        sources = Sources(architecture, file, dataset=dataset, data_dir=data_dir)
        network = sources.network(target)
        network = network.folded() if fold_batch_norm else network
        save_network(target, network, overwrite=overwrite)
        difference = against_supernet(sources, network)
    say(console, data_line(sources.run.splits))
    count = sum(leaf.size for own in network.weights.values() for leaf in own.values())
    say(console, f"{len(network.segments)} segments, {count:,} numbers, exits included")
    say(console, f"Largest difference to the supernet's masked logits on the test split: {difference:.1e}, relative")
    say(console, f"Written: {target} (for hadas fine-tune, hadas export)")
    return network


def against_supernet(sources: Sources, network: StaticNetwork) -> float:
    """Returns the largest difference of logits to those of the supernet with masks, in units of the largest logit."""
    data = sources.run.splits.test
    pairs = zip(sources.masked_logits(data), predict(network.segments, network.weights, data), strict=True)
    return max(float(np.abs(ours - masked).max() / np.abs(masked).max()) for masked, ours in pairs if masked.size)


def fine_tune(
    settings: FineTuneSettings | None = None,
    *,
    workdir: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    console: Console | None = None,
) -> FineTuneResult:
    """Trains a selected network further, sets its thresholds anew, and reports on the test split.

    Args:
      settings: of the run; None: when resuming those that the run was started with.
      workdir: of the run; None: a new one, runs/<time>-<dataset>-fine-tune.
      resume: continue the run in `workdir`; a finished one is only judged again.
      overwrite: replace the run in `workdir`.
      tensorboard: write metrics into tensorboard/ too; needs the extra `tensorboard`.
      console: for progress and the table; None: standard output.

    Returns:
      The network with its figures before and after. The work directory then holds network/ (for `export`),
      result.json, config.json, metrics.jsonl and checkpoints/.

    Raises:
      ValueError: settings, network, data, checkpoints or the work directory do not fit, or the loss does not stay
        finite.
    """
    settings = settings_of_run(settings, FineTuneSettings, workdir=workdir, resume=resume, overwrite=overwrite)
    run = FineTuneRun(settings)
    dataset = str(run.network.architecture.origin.settings["dataset"])
    path = Path(workdir) if workdir is not None else default_workdir(dataset, "fine-tune")
    place = WorkDir(path, kind="fine-tune", tensorboard=tensorboard)
    if Path(settings.network).resolve().is_relative_to(path.resolve()) and not resume:
        raise ValueError(
            f"{settings.network}: expected a network outside the work directory {path}, which a new run replaces"
        )
    console = console or new_console()
    with running(place, settings, run.splits, resume=resume, overwrite=overwrite):
        result = followed(run.execute, place, console, splits=run.splits)
    console.print(_before_and_after(result))
    after = result.after
    tolerance = result.network.architecture.origin.settings.get("accuracy_tolerance", Settings.accuracy_tolerance)
    text = saving_text(
        after.deployable, after.static, after.static_dvfs, difference=after.difference, tolerance=tolerance
    )
    say(console, text)
    say(console, f"Written: {place.path}/network (for hadas show, hadas export), result.json")
    return result


def _before_and_after(result: FineTuneResult) -> Table:
    table = Table(title="Test split, as deployed")
    for heading in ("", "accuracy", "latency ms", "energy mJ", "stop at each exit", "classifier alone"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, found in (("before", result.before), ("after", result.after)):
        deployed = found.deployable
        shares = " ".join(f"{share:.1%}" for share in found.shares)
        costs = (f"{deployed.latency_s * 1e3:.3f}", f"{deployed.energy_j * 1e3:.3g}")
        table.add_row(name, f"{deployed.accuracy:.2%}", *costs, shares, f"{found.static.accuracy:.2%}")
    return table


def export(
    place: Path | str,
    *,
    format: Format = "stablehlo",
    output: Path | str | None = None,
    batch: int | None = None,
    dataset: str | None = None,
    data_dir: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> ExportCheck:
    """Exports a network as one segment for each exit with a manifest, and compares it with JAX on the test split.

    Args:
      place: directory of a materialised network, an ARCH.json, or a work directory with one.
      format: stablehlo, onnx or saved, see `hadas_jax.deploy.export`.
      output: directory to write; None: export/ beside the network or the ARCH.json.
      batch: images at once; None: any number.
      dataset: where the images of the search are now; None: where they were.
      data_dir: likewise.
      overwrite: replace the export in `output`.
      console: None: standard output.

    Returns:
      The comparison.

    Raises:
      ValueError: files or arguments do not fit, an extra is missing, or the export does something else than JAX.
    """
    network = network_at(place, dataset=dataset, data_dir=data_dir)
    beside = Path(place) if Path(place).is_dir() and not holds_network(place) else Path(place).absolute().parent
    target = Path(output) if output is not None else beside / EXPORT
    console = console or new_console()
    splits = data_of(network.architecture, dataset=dataset, data_dir=data_dir)
    say(console, data_line(splits))
    values = image_values(splits.train)
    with writing(target):
        export_network(target, network, format=format, batch=batch, values=values, overwrite=overwrite)
        check = check_export(target, network, splits.test)
    print_export(
        check,
        read_manifest(target),
        device=network.architecture.device.file,
        machine=this_machine().name,
        console=console,
    )
    if not check.is_equal:
        raise ValueError(
            f"{target}: expected the network as it is in JAX, got logits that differ by {check.difference:.1e} and "
            f"{check.other_exits} of {check.images} images at another exit"
        )
    say(console, f"Written: {target}")
    return check
