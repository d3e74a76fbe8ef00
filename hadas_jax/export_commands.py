"""The commands that take a selected network to a device, as library calls: materialise it, export it."""

import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hadas_jax.deploy.architecture import architecture_file, read_architecture
from hadas_jax.deploy.export import Format, export_network
from hadas_jax.deploy.export_check import ExportCheck, check_export
from hadas_jax.deploy.runtime import read_manifest
from hadas_jax.deploy.source import Sources, data_of
from hadas_jax.deploy.static_network import StaticNetwork, holds_network, load_network, save_network
from hadas_jax.deploy.static_outcomes import predict
from hadas_jax.outputs import say

NETWORK, EXPORT = "network", "export"  # folders beside ARCH.json


def materialise_network(
    place: Path | str,
    *,
    output: Path | str | None = None,
    fold_batch_norm: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> StaticNetwork:
    """Cuts a selected network out of its supernet, and compares the two on the test split.

    Args:
      place: of the ARCH.json, or a work directory with one.
      output: directory to write; None: network/ beside the ARCH.json.
      fold_batch_norm: leave no batch norm in it; then it cannot be fine-tuned.
      overwrite: replace the network in `output`.
      console: None: standard output.

    Returns:
      The network.

    Raises:
      ValueError: the ARCH.json, its supernet, the data set or `output` do not fit.
    """
    architecture, file = read_architecture(place), architecture_file(place)
    target = Path(output) if output is not None else file.parent / NETWORK
    console = console or Console(file=sys.stdout)
    sources = Sources(architecture, file)
    network = sources.network(target)
    network = network.folded() if fold_batch_norm else network
    save_network(target, network, overwrite=overwrite)
    difference = against_supernet(sources, network)
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


def network_at(place: Path | str) -> StaticNetwork:
    """Reads a materialised network, or cuts out the one of an ARCH.json or of a work directory with one.

    Raises:
      ValueError: there is neither, or it does not fit.
    """
    if holds_network(place):
        return load_network(place)
    return Sources(read_architecture(place), architecture_file(place)).network(Path(place))


def export(
    place: Path | str,
    *,
    format: Format = "stablehlo",
    output: Path | str | None = None,
    batch: int | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> ExportCheck:
    """Exports a network as one segment for each exit with a manifest, and compares it with JAX on the test split.

    Args:
      place: directory of a materialised network, an ARCH.json, or a work directory with one.
      format: stablehlo, onnx or saved, see `hadas_jax.deploy.export`.
      output: directory to write; None: export/ beside the network or the ARCH.json.
      batch: images at once; None: any number.
      overwrite: replace the export in `output`.
      console: None: standard output.

    Returns:
      The comparison.

    Raises:
      ValueError: files or arguments do not fit, an extra is missing, or the export does something else than JAX.
    """
    network = network_at(place)
    beside = Path(place) if Path(place).is_dir() and not holds_network(place) else Path(place).absolute().parent
    target = Path(output) if output is not None else beside / EXPORT
    console = console or Console(file=sys.stdout)
    export_network(target, network, format=format, batch=batch, overwrite=overwrite)
    check = check_export(target, network, data_of(network.architecture).test)
    _print_check(check, target, console)
    if not check.is_equal:
        raise ValueError(
            f"{target}: expected the network as it is in JAX, got logits that differ by {check.difference:.1e} and "
            f"{check.other_exits} of {check.images} images at another exit"
        )
    say(console, f"Written: {target}")
    return check


def _print_check(check: ExportCheck, target: Path, console: Console) -> None:
    say(
        console,
        f"{check.images} test images: largest difference to JAX {check.difference:.1e}, relative; "
        f"{check.other_exits} stop elsewhere, {check.other_labels} get another class; accuracy {check.accuracy:.2%}",
    )
    manifest = read_manifest(target)
    device = manifest["clocks"]["device"]
    table = Table(title="Latency of one image that stops there")
    for heading in ("", "share", f"device model: {device}", "measured here"):
        table.add_column(heading, justify="left" if not heading else "right")
    for segment, share, measured in zip(manifest["segments"], check.shares, check.latency_s, strict=True):
        modelled = segment["latency_s"]
        table.add_row(segment["name"], f"{share:.1%}", f"{modelled * 1e3:.3f} ms", f"{measured * 1e3:.3f} ms")
    console.print(table)
    say(console, f"The two latencies compare only where {device} was fitted on this machine (hadas devices fit).")
