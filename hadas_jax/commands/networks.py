"""The commands that follow a search, as library calls: choose a design, show it, tabulate its operating points.

The commands that take a selected network to a device, as library calls: materialise, fine-tune, export.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hadas_jax.commands.hadas import data_line, default_workdir, run_with_progress, running, settings_of_run
from hadas_jax.commands.reports import runs_table
from hadas_jax.deploy.architecture import (
    Architecture,
    architecture_file,
    architecture_of,
    read_architecture,
    supernet_of_search,
    weights_of,
    write_architecture,
)
from hadas_jax.deploy.export import ExportCheck, Format, check_export, export_network, image_values
from hadas_jax.deploy.fine_tune import FineTuneResult, FineTuneRun
from hadas_jax.deploy.materialise import Sources, data_of, network_at
from hadas_jax.deploy.operating_points import OperatingPoints, exit_usage, operating_table, write_table
from hadas_jax.deploy.runtime import read_manifest
from hadas_jax.deploy.select import candidates, objectives, select
from hadas_jax.deploy.static_network import StaticNetwork, holds_network, predict, save_network
from hadas_jax.methods.hadas.results import POLICY_NAMES, read_search
from hadas_jax.profiling import this_machine
from hadas_jax.report.console import new_console, new_file, say, waiting
from hadas_jax.report.network import (
    limit_text,
    plot_architecture,
    print_architecture,
    print_export,
    print_operating_points,
    print_selection,
)
from hadas_jax.report.search import saving_text
from hadas_jax.runs.listing import RunState, find_runs
from hadas_jax.runs.workdir import ARCHITECTURE, WorkDir, reading, writing
from hadas_jax.settings import NO_CONSTRAINTS, Constraints, DeploymentSettings, FineTuneSettings
from hw_models.catalogue import chosen_device

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
        place: Of the ARCH.json, or a work directory with one.
        output: Directory to write; None: network/ beside the ARCH.json.
        fold_batch_norm: Leave no batch norm in it; then it cannot be fine-tuned.
        dataset: Where the images of the search are now; None: where they were.
        data_dir: Likewise.
        overwrite: Replace the network in `output`.
        console: None: standard output.

    Returns:
        The network.

    Raises:
        ValueError: The ARCH.json, its supernet, the data set or `output` do not fit.
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
        settings: Of the run; None: when resuming those that the run was started with.
        workdir: Of the run; None: a new one, runs/<time>-<dataset>-fine-tune.
        resume: Continue the run in `workdir`; a finished one is only judged again.
        overwrite: Replace the run in `workdir`.
        tensorboard: Write metrics into tensorboard/ too; needs the extra `tensorboard`.
        console: For progress and the table; None: standard output.

    Returns:
        The network with its figures before and after. The work directory then holds network/ (for `export`),
        result.json, config.json, metrics.jsonl and checkpoints/.

    Raises:
        ValueError: Settings, network, data, checkpoints or the work directory do not fit, or the loss does not stay
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
        result = run_with_progress(run.execute, place, console, splits=run.splits)
    console.print(_before_and_after(result))
    after = result.after
    given = run.network.architecture.origin.settings
    tolerance = given.get("accuracy_tolerance", DeploymentSettings.accuracy_tolerance)
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
        place: Directory of a materialised network, an ARCH.json, or a work directory with one.
        format: Stablehlo, onnx or saved, see `hadas_jax.deploy.export`.
        output: Directory to write; None: export/ beside the network or the ARCH.json.
        batch: Images at once; None: any number.
        dataset: Where the images of the search are now; None: where they were.
        data_dir: Likewise.
        overwrite: Replace the export in `output`.
        console: None: standard output.

    Returns:
        The comparison.

    Raises:
        ValueError: Files or arguments do not fit, an extra is missing, or the export does something else than JAX.
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


RUNS = Path("runs")


def select_network(
    workdir: Path | str,
    *,
    limits: Constraints = NO_CONSTRAINTS,
    prefer: str = "knee",
    policy: str = "deployable",
    output: Path | str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Architecture:
    """Chooses a network of a finished search, tells what it was chosen over, and writes its ARCH.json.

    Args:
        workdir: Of the search.
        limits: That the network keeps on the selection samples.
        prefer: What counts among those that do, see `hadas_jax.deploy.select.merit`.
        policy: That networks are judged under, ideal or deployable.
        output: ARCH.json to write; None: architecture.json in the work directory.
        overwrite: Replace `output`.
        console: None: standard output.

    Returns:
        The network.

    Raises:
        ValueError: No network keeps the limits (the nearest is shown), or the work directory or `output` do not fit.
    """
    if policy not in POLICY_NAMES:
        raise ValueError(f"--policy: expected one of {', '.join(POLICY_NAMES)}, got {policy!r}")
    with reading(output or Path(workdir) / ARCHITECTURE):
        search = read_search(workdir)
        target = new_file(output or search.path / ARCHITECTURE, ".json", overwrite=overwrite)
        supernet = supernet_of_search(search)
        designs = candidates(search.result, policy)
        weights = weights_of(designs, supernet.space, chosen_device(search.settings.device, search.settings.operating))
        selection = select(objectives(designs, policy), limits, weights=weights, prefer=prefer)
        console = console or new_console()
        tolerance = search.result.accuracy_tolerance
        print_selection(designs, selection, limits=limits, policy=policy, console=console, tolerance=tolerance)
        if selection.excess > 0:
            asked = ", ".join(limit_text(name, limits) for name in selection.without)
            raise ValueError(
                f"{workdir}: expected a {policy} design with {asked}, got none; the nearest is {selection.excess:.1%} "
                "beyond, relatively; hadas search with these limits looks for more of them"
            )
        architecture = architecture_of(
            search,
            designs[selection.chosen],
            supernet=supernet,
            weights=int(weights[selection.chosen]),
            folder=target.parent,
            limits=limits,
            prefer=prefer,
        )
        write_architecture(target, architecture, overwrite=overwrite)
    say(console, f"Written: {target} (for hadas show, hadas operating-points)")
    return architecture


def show_network(
    place: Path | str, *, plot: Path | str | None = None, overwrite: bool = False, console: Console | None = None
) -> Architecture:
    """Prints a selected network: its blocks, exits, clocks, and who stops where at what cost.

    Args:
        place: Of the ARCH.json, or a work directory with one.
        plot: PNG file for a picture; None: no picture.
        overwrite: Replace `plot`.
        console: None: standard output.

    Returns:
        The network.

    Raises:
        ValueError: There is no such file, it does not fit, or the picture cannot be written.
    """
    architecture = read_architecture(place)
    picture = None if plot is None else new_file(plot, ".png", overwrite=overwrite)
    usage = exit_usage(architecture)
    console = console or new_console()
    print_architecture(architecture, usage, console)
    if picture is not None:
        plot_architecture(architecture, usage, picture)
        say(console, f"Picture: {picture}")
    return architecture


def operating_points(
    place: Path | str,
    *,
    deadlines_ms: Sequence[float] = (),
    power_caps_w: Sequence[float] = (),
    deadline_of: str = "mean",
    output: Path | str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> OperatingPoints:
    """Finds the clocks of a selected network for every deadline and power cap.

    Args:
        place: Of the ARCH.json, or a work directory with one.
        deadlines_ms: To print the best points for; none of both: some of all steps.
        power_caps_w: Likewise.
        deadline_of: The mean latency, or the longest.
        output: JSON file with all; None: printed alone.
        overwrite: Replace `output`.
        console: None: standard output.

    Returns:
        The table.

    Raises:
        ValueError: The files or arguments do not fit.
    """
    for name, asked in (("deadlines_ms", deadlines_ms), ("power_caps_w", power_caps_w)):
        for most in asked:
            if not 0 < most < math.inf:
                raise ValueError(f"{name}: expected a number above 0, got {most!r}")
    architecture = read_architecture(place)
    target = None if output is None else new_file(output, ".json", overwrite=overwrite)
    table = operating_table(architecture, of=deadline_of)
    deadlines_s = [most * 1e-3 for most in deadlines_ms]
    console = console or new_console()
    say(console, f"{architecture_file(place)} on {architecture.device.file.name}")
    print_operating_points(table, deadlines_s=deadlines_s, power_caps_w=power_caps_w, console=console)
    if target is not None:
        write_table(target, table, architecture=architecture, deadlines_s=deadlines_s, power_caps_w=power_caps_w)
        say(console, f"Written: {target}")
    return table


def list_runs(folders: Sequence[Path | str] = (), *, console: Console | None = None) -> list[RunState]:
    """Prints the work directories in some folders, the newest first.

    Args:
        folders: Work directories, or folders of them; none: runs/.
        console: None: standard output.

    Returns:
        The runs.

    Raises:
        ValueError: A folder does not exist.
    """
    console = console or new_console()
    runs = find_runs(folders or ([RUNS] if RUNS.is_dir() else []))
    if runs:
        console.print(runs_table(runs))
    else:
        say(console, f"No work directory in {', '.join(map(str, folders or [RUNS]))}; hadas search starts one")
    return runs
