"""The commands that follow a search, as library calls: choose a design, show it, tabulate its operating points."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hadas_jax.deploy.architecture import Architecture, architecture_file, read_architecture, write_architecture
from hadas_jax.deploy.exit_usage import exit_usage
from hadas_jax.deploy.operating_points import OperatingPoints, operating_table, write_table
from hadas_jax.deploy.select import candidates, objectives, select
from hadas_jax.deploy.selected import architecture_of, weights_of
from hadas_jax.deploy.weights import supernet_of_search
from hadas_jax.methods.checks import check_number
from hadas_jax.methods.device_choice import chosen_device
from hadas_jax.methods.limits import NO_LIMITS, Limits
from hadas_jax.methods.result_file import read_search
from hadas_jax.methods.results import POLICY_NAMES
from hadas_jax.outputs import new_console, new_file, say
from hadas_jax.report.architecture_plot import plot_architecture
from hadas_jax.report.architecture_table import print_architecture
from hadas_jax.report.operating_points_table import print_operating_points
from hadas_jax.report.runs_table import runs_table
from hadas_jax.report.selection_table import limit_text, print_selection
from hadas_jax.runs import RunState, find_runs
from hadas_jax.workdir import ARCHITECTURE, reading

RUNS = Path("runs")


def select_network(
    workdir: Path | str,
    *,
    limits: Limits = NO_LIMITS,
    prefer: str = "knee",
    policy: str = "deployable",
    output: Path | str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Architecture:
    """Chooses a network of a finished search, tells what it was chosen over, and writes its ARCH.json.

    Args:
      workdir: of the search.
      limits: that the network keeps on the selection samples.
      prefer: what counts among those that do, see `hadas_jax.deploy.select.merit`.
      policy: that networks are judged under, ideal or deployable.
      output: ARCH.json to write; None: architecture.json in the work directory.
      overwrite: replace `output`.
      console: None: standard output.

    Returns:
      The network.

    Raises:
      ValueError: no network keeps the limits (the nearest is shown), or the work directory or `output` do not fit.
    """
    _check_limits(limits)
    if policy not in POLICY_NAMES:
        raise ValueError(f"--policy: expected one of {', '.join(POLICY_NAMES)}, got {policy!r}")
    with reading(output or Path(workdir) / ARCHITECTURE):
        search = read_search(workdir)
        target = new_file(output or search.path / ARCHITECTURE, ".json", overwrite=overwrite)
        supernet = supernet_of_search(search)
        designs = candidates(search.result, policy)
        weights = weights_of(designs, supernet.space, chosen_device(search.settings))
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


def _check_limits(limits: Limits) -> None:
    for name in ("max_latency_ms", "max_energy_mj"):
        if getattr(limits, name) is not None:
            check_number(name, getattr(limits, name), float, above=0)
    if limits.min_accuracy is not None:
        check_number("min_accuracy", limits.min_accuracy, float, lowest=0, highest=1)
    if limits.max_params is not None:
        check_number("max_params", limits.max_params, int, lowest=1)


def show_network(
    place: Path | str, *, plot: Path | str | None = None, overwrite: bool = False, console: Console | None = None
) -> Architecture:
    """Prints a selected network: its blocks, exits, clocks, and who stops where at what cost.

    Args:
      place: of the ARCH.json, or a work directory with one.
      plot: PNG file for a picture; None: no picture.
      overwrite: replace `plot`.
      console: None: standard output.

    Returns:
      The network.

    Raises:
      ValueError: there is no such file, it does not fit, or the picture cannot be written.
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
      place: of the ARCH.json, or a work directory with one.
      deadlines_ms: to print the best points for; none of both: some of all steps.
      power_caps_w: likewise.
      deadline_of: the mean latency, or the longest.
      output: JSON file with all; None: printed alone.
      overwrite: replace `output`.
      console: None: standard output.

    Returns:
      The table.

    Raises:
      ValueError: the files or arguments do not fit.
    """
    for name, asked in (("deadlines_ms", deadlines_ms), ("power_caps_w", power_caps_w)):
        for most in asked:
            check_number(name, most, float, above=0)
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
      folders: work directories, or folders of them; none: runs/.
      console: None: standard output.

    Returns:
      The runs.

    Raises:
      ValueError: a folder does not exist.
    """
    console = console or new_console()
    runs = find_runs(folders or ([RUNS] if RUNS.is_dir() else []))
    if runs:
        console.print(runs_table(runs))
    else:
        say(console, f"No work directory in {', '.join(map(str, folders or [RUNS]))}; hadas search starts one")
    return runs
