"""The commands that follow a search: choose a network, show it, tabulate its operating points, take it to a device.

Every function imports what it needs itself: `hadas --help` imports this module, and must not import JAX.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

from rich.console import Console

from hadas_jax.commands.run import ALONE, Processes, RunArguments, data_line, run_command
from hadas_jax.report.console import new_console, new_file, print_line, waiting
from hadas_jax.settings import Constraints, FineTuneSettings

if TYPE_CHECKING:
    from hadas_jax.deploy.architecture import Architecture
    from hadas_jax.deploy.export import ExportCheck
    from hadas_jax.deploy.fine_tune import FineTuneResult, FineTuneRun
    from hadas_jax.deploy.materialise import SubNetwork
    from hadas_jax.deploy.operating_points import OperatingPoints
    from hadas_jax.deploy.static_network import StaticNetwork


def select_network(
    workdir: Path | str,
    *,
    max_latency_ms: float | None = None,
    max_p99_latency_ms: float | None = None,
    max_energy_mj: float | None = None,
    min_accuracy: float | None = None,
    max_params: int | None = None,
    max_memory_mb: float | None = None,
    max_flash_mb: float | None = None,
    prefer: Literal["knee", "accuracy", "latency", "energy"] = "knee",
    policy: Literal["deployable", "ideal"] = "deployable",
    output: Path | str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Architecture:
    """Chooses a network of a finished search under limits, and writes it as ARCH.json for the commands that follow.

    Networks are judged on the samples that the search chose by (validation and calibration); the metrics of the test
    split stand beside.

    Args:
        workdir: Work directory of the search.
        max_latency_ms: Limit of the mean latency of a sample.
        max_p99_latency_ms: Limit of the latency that 99 % of the samples keep.
        max_energy_mj: Limit of the mean energy of a sample.
        min_accuracy: Limit of the accuracy, a share between 0 and 1.
        max_params: Limit of the number of weights of the backbone, exit heads aside.
        max_memory_mb: Limit of the peak memory of the activations in MB (10^6 bytes), exits included.
        max_flash_mb: Limit of the size of the weights in MB (10^6 bytes), exits included.
        prefer: What counts among the networks within the limits; knee: nearest to the best of all three at once.
        policy: How samples stop: at exits that are sure enough, or as an upper bound at those that are right.
        output: File to write; by default architecture.json in `workdir`.
        overwrite: Replace the file.
        console: For the table; None: standard output.

    Returns:
        The network.

    Raises:
        ValueError: No network keeps the limits (the nearest is shown), or the work directory or `output` do not fit.
    """
    from hadas_jax.deploy.architecture import write_architecture
    from hadas_jax.deploy.select import SearchedSupernet, architecture_of, candidates, select
    from hadas_jax.methods.hadas.results import POLICY_NAMES, read_search
    from hadas_jax.report.network import print_selection
    from hadas_jax.report.search import constraint_texts
    from hadas_jax.runs.names import ARCHITECTURE
    from hadas_jax.runs.workdir import reading
    from hw_models.catalogue import chosen_device

    limits = Constraints(
        max_latency_ms=max_latency_ms,
        max_p99_latency_ms=max_p99_latency_ms,
        max_energy_mj=max_energy_mj,
        min_accuracy=min_accuracy,
        max_params=max_params,
        max_memory_mb=max_memory_mb,
        max_flash_mb=max_flash_mb,
    )
    if policy not in POLICY_NAMES:
        raise ValueError(f"policy: expected one of {', '.join(POLICY_NAMES)}, got {policy!r}")
    with reading(output or Path(workdir) / ARCHITECTURE):
        search = read_search(workdir)
        target = new_file(output or search.path / ARCHITECTURE, ".json", overwrite=overwrite)
        supernet = SearchedSupernet.of(search)
        designs, objectives, others = candidates(search.result, policy, limits)
        device = chosen_device(search.settings.device, search.settings.operating)
        parameters = supernet.parameter_counts(designs, device)
        selection = select(objectives, limits, others=others | {"max_params": parameters}, prefer=prefer)
        console = console or new_console()
        tolerance = search.result.accuracy_tolerance
        print_selection(designs, selection, limits=limits, policy=policy, console=console, tolerance=tolerance)
        if selection.violation > 0:
            asked = ", ".join(constraint_texts(limits).values())
            raise ValueError(
                f"{workdir}: expected a {policy} design with {asked}, got none; the nearest is "
                f"{selection.violation:.1%} beyond, relatively; hadas search with these limits looks for more of them"
            )
        architecture = architecture_of(
            search,
            designs[selection.chosen],
            supernet=supernet,
            parameters=int(parameters[selection.chosen]),
            folder=target.parent,
            limits=limits,
            prefer=prefer,
        )
        write_architecture(target, architecture, overwrite=overwrite)
    print_line(console, f"Written: {target} (for hadas show, hadas operating-points)")
    return architecture


def show_network(
    network: Path | str, *, plot: Path | str | None = None, overwrite: bool = False, console: Console | None = None
) -> Architecture:
    """Shows a selected network: blocks, exits, clocks, and the share of samples and energy of every exit.

    Args:
        network: File that hadas select wrote, or the work directory with it.
        plot: PNG file for a picture.
        overwrite: Replace the picture.
        console: For the tables; None: standard output.

    Returns:
        The network.

    Raises:
        ValueError: There is no such file, it does not fit, or the picture cannot be written.
    """
    from hadas_jax.deploy.architecture import read_architecture
    from hadas_jax.report.network import print_architecture

    architecture = read_architecture(network)
    picture = None if plot is None else new_file(plot, ".png", overwrite=overwrite)
    console = console or new_console()
    print_architecture(architecture, console, picture=picture)
    if picture is not None:
        print_line(console, f"Picture: {picture}")
    return architecture


def operating_points(
    network: Path | str,
    *,
    deadlines_ms: Sequence[float] = (),
    power_caps_w: Sequence[float] = (),
    deadline_of: Literal["mean", "p99", "longest"] = "mean",
    output: Path | str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> OperatingPoints:
    """Lists the clocks that are best for a selected network at every deadline and power cap, for a governor.

    For a deadline the least energy counts, for a cap on the mean power the least latency. All operating points of the
    device that the search had are judged; exits and thresholds stay.

    Args:
        network: File that hadas select wrote, or the work directory with it.
        deadlines_ms: Deadlines to answer; by default some of all steps are printed.
        power_caps_w: Caps on the mean power to answer.
        deadline_of: Latency that has to keep a deadline: the mean one, the one that 99 % of the samples keep, or that
            of a sample that reaches the classifier.
        output: JSON file to write, with all steps.
        overwrite: Replace the file.
        console: For the tables; None: standard output.

    Returns:
        The operating points.

    Raises:
        ValueError: The files or arguments do not fit.
    """
    from hadas_jax.deploy.architecture import architecture_file, read_architecture
    from hadas_jax.deploy.operating_points import operating_table
    from hadas_jax.report.network import print_operating_points

    for name, asked in (("deadlines_ms", deadlines_ms), ("power_caps_w", power_caps_w)):
        for most in asked:
            if not 0 < most < math.inf:
                raise ValueError(f"{name}: expected a number above 0, got {most!r}")
    architecture = read_architecture(network)
    target = None if output is None else new_file(output, ".json", overwrite=overwrite)
    table = operating_table(architecture, deadline_of=deadline_of)
    deadlines_s = [most * 1e-3 for most in deadlines_ms]
    console = console or new_console()
    print_line(console, f"{architecture_file(network)} on {architecture.device.file.name}")
    print_operating_points(table, deadlines_s=deadlines_s, power_caps_w=power_caps_w, console=console)
    if target is not None:
        table.write(target, architecture, deadlines_s=deadlines_s, power_caps_w=power_caps_w)
        print_line(console, f"Written: {target}")
    return table


def materialise_network(
    network: Path | str,
    *,
    output: Path | str | None = None,
    fold_batch_norm: bool = False,
    dataset: str | None = None,
    data_dir: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> StaticNetwork:
    """Cuts a selected network out of its supernet: weights of its own size, nothing masked, with its exits.

    Writes network.json, weights.npz and architecture.json, and compares the network with the supernet.

    Args:
        network: File that hadas select wrote, or the work directory with it.
        output: Directory to write; by default network/ beside the file.
        fold_batch_norm: Fold batch norm into the layers before it; hadas export does so anyway, hadas fine-tune needs
            it unfolded.
        dataset: Where the images of the search are now, if they were moved; as the dataset of hadas search.
        data_dir: Likewise, as the data_dir of hadas search.
        overwrite: Replace the network in the directory.
        console: For what was done; None: standard output.

    Returns:
        The network.

    Raises:
        ValueError: The file, its supernet, the data set or `output` do not fit.
    """
    from hadas_jax.deploy.architecture import architecture_file, read_architecture
    from hadas_jax.deploy.materialise import SubNetwork
    from hadas_jax.deploy.static_network import save_network
    from hadas_jax.runs.workdir import writing

    target = Path(output) if output is not None else architecture_file(network).parent / "network"
    console = console or new_console()
    read_architecture(network)
    with writing(target), waiting(console, "Cutting the network out of its supernet, and comparing the two"):
        searched = SubNetwork(network, dataset=dataset, data_dir=data_dir)
        found = searched.cut_out(target)
        found = found.folded() if fold_batch_norm else found
        save_network(target, found, overwrite=overwrite)
        difference = _against_supernet(searched, found)
    print_line(console, data_line(searched.splits))
    count = sum(leaf.size for own in found.weights.values() for leaf in own.values())
    print_line(console, f"{len(found.segments)} segments, {count:,} numbers, exits included")
    beside = "Largest difference to the supernet's masked logits on the test split"
    print_line(console, f"{beside}: {difference:.1e}, relative")
    print_line(console, f"Written: {target} (for hadas fine-tune, hadas export)")
    return found


def _against_supernet(searched: SubNetwork, network: StaticNetwork) -> float:
    """The largest difference of logits to those of the supernet with masks, in units of the largest logit."""
    data = searched.splits.test
    pairs = zip(searched.predict(data), network.predict(data), strict=True)
    return max(float(abs(ours - masked).max() / abs(masked).max()) for masked, ours in pairs if masked.size)


def fine_tune(
    settings: FineTuneSettings | None = None, *, processes: Processes = ALONE, **run: Unpack[RunArguments]
) -> FineTuneResult:
    """Trains a selected network further, exits and classifier together, and sets its thresholds anew.

    Writes network/ (for hadas export), result.json, config.json, metrics.jsonl and checkpoints/ into the work
    directory, and reports on the test split.

    Args:
        settings: Settings of the run; None: the defaults, or those of the run to resume.
        processes: Which of several processes this is, that train together.
        **run: See `RunArguments`.

    Returns:
        The network with its metrics before and after.

    Raises:
        ValueError: Settings, network, data, checkpoints or the work directory do not fit, or the loss does not stay
            finite.
    """
    from hadas_jax.deploy.fine_tune import FineTuneRun
    from hadas_jax.report.network import print_fine_tuning

    def start(settings: FineTuneSettings) -> FineTuneRun:
        workdir = None if run.get("resume") else run.get("workdir")
        if workdir is not None and Path(settings.network).resolve().is_relative_to(Path(workdir).resolve()):
            raise ValueError(
                f"{settings.network}: expected a network outside the work directory {workdir}, which a new run replaces"
            )
        return FineTuneRun(settings)

    def finish(started: FineTuneRun, result: FineTuneResult, path: Path, console: Console) -> None:
        print_fine_tuning(result, started.network.architecture, console)
        print_line(console, f"Written: {path}/network (for hadas show, hadas export), result.json")

    return run_command(
        FineTuneSettings,
        start,
        settings,
        name=lambda started: (str(started.network.architecture.origin.settings["dataset"]), "fine-tune"),
        finish=finish,
        processes=processes,
        **run,
    )


def export(
    network: Path | str,
    *,
    format: Literal["stablehlo", "onnx", "saved"] = "stablehlo",
    output: Path | str | None = None,
    batch: int | None = None,
    dataset: str | None = None,
    data_dir: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> ExportCheck:
    """Exports a network for a device: one segment for each exit, a manifest, and for ONNX a small runtime.

    The export is compared with JAX on the test split, and timed on this machine.

    Args:
        network: Directory of hadas materialise or fine-tune, an ARCH.json, or a work directory with one.
        format: stablehlo: as jax.export serialises it. onnx: needs the extra onnx. saved: layers and weights.
        output: Directory to write; by default export/ beside the network.
        batch: Images at once; by default any number.
        dataset: Where the images of the search are now, if they were moved; as the dataset of hadas search.
        data_dir: Likewise, as the data_dir of hadas search.
        overwrite: Replace the export in the directory.
        console: For the table; None: standard output.

    Returns:
        The comparison.

    Raises:
        ValueError: Files or arguments do not fit, an extra is missing, or the export does something else than JAX.
    """
    from hadas_jax.deploy.export import check_export, export_network
    from hadas_jax.deploy.materialise import data_of, network_at
    from hadas_jax.deploy.runtime import read_manifest
    from hadas_jax.deploy.static_network import holds_network
    from hadas_jax.profiling import this_machine
    from hadas_jax.report.network import print_export
    from hadas_jax.runs.workdir import writing

    found = network_at(network, dataset=dataset, data_dir=data_dir)
    place = Path(network)
    beside = place if place.is_dir() and not holds_network(place) else place.absolute().parent
    target = Path(output) if output is not None else beside / "export"
    console = console or new_console()
    splits = data_of(found.architecture)
    print_line(console, data_line(splits))
    with writing(target):
        export_network(target, found, format=format, batch=batch, trained_on=splits.train, overwrite=overwrite)
        check = check_export(target, found, splits.test)
    machine, device = this_machine().name, found.architecture.device.file
    print_export(check, read_manifest(target), device=device, machine=machine, console=console)
    if not check.is_equal:
        raise ValueError(
            f"{target}: expected the network as it is in JAX, got logits that differ by {check.difference:.1e}, "
            f"{check.other_exits} of {check.images} images at another exit, {check.other_labels} of another class"
        )
    print_line(console, f"Written: {target}")
    return check
